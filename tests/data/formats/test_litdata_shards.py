import csv
import itertools
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest

from abaw.data.formats.flat_shards import PACK
from abaw.data.formats.litdata_shards import (
    CONTENTS,
    LitdataStore,
    mirror,
    segment_frames,
    write_litdata_shards,
)
from abaw.data.frames import RawFolder, open_frames
from abaw.data.index import build_index
from abaw.data.labels import image_name
from abaw.data.layout import DataSource
from abaw.data.packing import pack
from abaw.errors import AbawError, UsageError
from abaw.loading.dataset import ClipDataset
from abaw.loading.loaders import TrainLoader
from abaw.loading.masking import RandomFrameMasking
from abaw.loading.sampling import TrainSampler, training_windows
from abaw.tasks import parse_tasks
from tests.support.clips import images_of
from tests.support.object_storage import URL, URL_TEXT, Storage
from tests.support.packs import read_as_in, same, write_image
from tests.support.tiny_run import tiny_config

pytest.importorskip("litdata")


def test_segments_are_an_image_root_with_the_same_frames(synth_root: Path, packed: Path) -> None:
    raw, index = (
        build_index(DataSource(synth_root)),
        build_index(DataSource(synth_root, image_roots=[packed])),
    )
    assert index.videos == raw.videos
    np.testing.assert_array_equal(index.n_frames, raw.n_frames)
    read_as_in(raw, index, open_frames(index))


def test_the_window_decides_whether_the_segments_serve(packed: Path) -> None:
    index = build_index(DataSource(packed))
    open_frames(index, span=16)
    with pytest.raises(UsageError, match=r"spans 17 frames, but .* segments of 16: .* --segment 17 or more"):
        open_frames(index, span=17)


@pytest.fixture
def faces(tmp_path: Path) -> Path:
    """Two videos of 12 frames; in segments of three, one is empty."""
    for video, number in itertools.product("ab", (1, 2, 4, 5, 6, 12)):
        write_image(tmp_path / "data/cropped_aligned" / video / image_name(number), number + ord(video))
    return tmp_path / "data"


def test_nothing_is_packed_twice_and_a_change_packs_everything(faces: Path, tmp_path: Path) -> None:
    out = tmp_path / "pack"
    options = {"format": "litdata", "segment": 3}
    assert pack(DataSource(faces), out, **options).images == 12
    again = pack(DataSource(faces), out, **options)
    assert (again.images, again.skipped) == (0, 2)
    write_image(faces / "cropped_aligned/a" / image_name(3), 9)
    shutil.rmtree(faces / "cropped_aligned/b")
    done = pack(DataSource(faces), out, **options)
    assert (done.images, done.videos) == (7, 1)
    read_as_in(
        build_index(DataSource(faces)),
        build_index(DataSource(out)),
        open_frames(build_index(DataSource(out))),
    )


def test_a_folder_holds_one_kind_of_pack(faces: Path, tmp_path: Path) -> None:
    pack(DataSource(faces), tmp_path / "segments", format="litdata")
    with pytest.raises(UsageError, match="holds segments; choose another folder"):
        pack(DataSource(faces), tmp_path / "segments")
    (tmp_path / "segments" / CONTENTS).unlink()
    pack(DataSource(faces), tmp_path / "flat")
    for other, name in (("segments", "chunk-0-0.bin"), ("flat", PACK)):
        with pytest.raises(AbawError, match=rf"holds another pack or data set \({name}\); choose"):
            pack(DataSource(faces), tmp_path / other, format="litdata")
        assert list((tmp_path / other).rglob(name))
    (tmp_path / "file").touch()
    with pytest.raises(AbawError, match=r"file: could not be written \(File exists\)"):
        pack(DataSource(faces), tmp_path / "file", format="litdata")


def test_a_pack_is_the_old_one_until_the_new_one_is_complete(
    faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "pack"
    pack(DataSource(faces), out, format="litdata", segment=3)
    (out / ".packing-killed").mkdir()
    with monkeypatch.context() as patch:
        patch.setattr("abaw.data.formats.litdata_shards._CHUNK_BYTES", 1)
        patch.setattr("abaw.data.formats.litdata_shards.write_arrays", lambda *args: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            pack(DataSource(faces), out, format="litdata", segment=4)
    assert segment_frames(out) == 3
    assert not list(out.glob(".packing-*"))
    read_as_in(
        build_index(DataSource(faces)),
        build_index(DataSource(out)),
        open_frames(build_index(DataSource(out))),
    )
    with monkeypatch.context() as patch:
        replace = Path.replace
        patch.setattr(Path, "replace", lambda a, b: replace(a, b) if b.parent != out else 1 / 0)
        with pytest.raises(ZeroDivisionError):
            pack(DataSource(faces), out, format="litdata", segment=4)
    with pytest.raises(AbawError):
        build_index(DataSource(out))  # neither of them
    pack(DataSource(faces), out, format="litdata", segment=4)
    assert segment_frames(out) == 4
    read_as_in(
        build_index(DataSource(faces)),
        build_index(DataSource(out)),
        open_frames(build_index(DataSource(out))),
    )


@pytest.mark.parametrize("name", ["../escaped", "/tmp/escaped", ""])
def test_no_video_of_a_pack_leads_out_of_it(tmp_path: Path, name: str) -> None:
    sizes = np.array([4])
    (tmp_path / "root").mkdir()
    with pytest.raises(AbawError, match="is not a valid video name"):
        write_litdata_shards(tmp_path / "root", [(name, sizes, [b"jpeg"])], segment_frames=2, fingerprint="")
    assert [path.name for path in tmp_path.rglob("*")] == ["root"]


def test_damaged_segments_are_named(packed: Path, tmp_path: Path) -> None:
    copy = tmp_path / "pack"
    shutil.copytree(packed, copy)
    index = build_index(DataSource(copy))
    os.truncate(copy / CONTENTS, 1000)
    with pytest.raises(AbawError, match=r"contents\.safetensors: not litdata shards .* pack again"):
        open_frames(index)
    (copy / "index.json").unlink()
    with pytest.raises(AbawError, match=r"pack cannot be read \(ValueError.*index\.json"):
        LitdataStore().fetch(copy, 0)


def first_frames(source: RawFolder, pipe: object) -> None:
    pipe.send(source.read(0, range(5)))  # type: ignore[attr-defined]


@pytest.mark.parametrize("way", ["fork", "spawn"])
def test_processes_open_their_own(way: str, packed: Path) -> None:
    source = open_frames(build_index(DataSource(packed)))
    before = source.read(0, range(5))
    assert len(pickle.dumps(source)) < 5000
    here, there = get_context(way).Pipe()
    process = get_context(way).Process(target=first_frames, args=(source, there))
    process.start()
    same(here.recv(), before)
    process.join()


def test_images_are_streamed_from_object_storage(synth_root: Path, storage: Storage) -> None:
    raw, index = build_index(DataSource(synth_root)), build_index(DataSource(synth_root, image_roots=[URL]))
    (root,) = index.roots
    assert not list(root.glob("chunk-*"))
    read_as_in(raw, index, open_frames(index))
    assert not list(root.glob("chunk-*"))
    with pytest.raises(UsageError, match="segments of 16"):
        open_frames(index, span=17)


def test_a_process_of_many_sees_and_packs_everything(
    faces: Path, storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = mirror(URL_TEXT, tmp_path / "one")
    monkeypatch.setenv("WORLD_SIZE", "2")  # litdata shares out what it iterates over
    monkeypatch.setenv("GLOBAL_RANK", "1")
    assert mirror(URL_TEXT, tmp_path / "two").name == before.name
    assert pack(DataSource(faces), tmp_path / "pack", format="litdata", segment=5).images == 12
    index = build_index(DataSource(tmp_path / "pack"))
    read_as_in(build_index(DataSource(faces)), index, open_frames(index))


def test_a_mirror_is_used_again_until_the_pack_changes(storage: Storage, tmp_path: Path) -> None:
    first = mirror(URL_TEXT, tmp_path)
    (video, *_) = sorted(first.glob(f"*/{PACK}"))
    made = video.stat().st_mtime_ns
    assert mirror(URL_TEXT, tmp_path) == first
    assert video.stat().st_mtime_ns == made
    assert list(tmp_path.iterdir()) == [first]
    assert (
        build_index(DataSource(first, image_roots=[URL], cache_dir=tmp_path)).roots[0].parent
        == tmp_path / "packs"
    )
    with pytest.raises(AbawError, match=r"cannot hold what describes s3://data/faces .*ABAW_CACHE"):
        mirror(URL_TEXT, first / "index.json")


def take(images: Path | None, root: Path, rank: int, world_size: int, state: dict | None, n: int) -> tuple:
    """The next `n` batches of one rank: window, mask and sum of pixels of each clip; state; epoch length."""
    tasks = parse_tasks(["va", "expr", "au"])
    index = build_index(DataSource(root, image_roots=None if images is None else [images]))
    windows = training_windows(index, tasks, length=8, stride=6)
    frames = open_frames(index, span=8)
    data = ClipDataset(
        index=index,
        source=frames,
        windows=windows,
        tasks=tasks,
        split="train",
        jitter=5,
        masking=RandomFrameMasking(0.5),
    )
    sampler = TrainSampler(
        n_windows=len(windows), batch_size=4 // world_size, rank=rank, world_size=world_size, seed=1
    )
    loader = TrainLoader(data, sampler=sampler, workers=2 if images else 0)
    if state is not None:
        loader.load_state_dict(state)
    taken: list[list[tuple]] = []
    epoch = 0 if state is None else state["epoch"]
    while len(taken) < n:
        loader.sampler.set_epoch(epoch)
        for batch in loader:
            pixels = images_of(batch).flatten(1).sum(1).tolist()
            taken.append(list(zip(batch.where, batch.visible.tolist(), pixels, strict=True)))
            if len(taken) == n:
                break
        epoch += 1
    return taken, loader.state_dict(), len(loader)


@pytest.mark.slow
def test_two_ranks_stream_shuffled_and_go_on_in_the_middle_of_an_epoch(
    synth_root: Path, storage: Storage
) -> None:
    storage.every, before = 7, storage.n_broken
    _, _, epoch = take(None, synth_root, 0, 1, None, 1)
    whole, _, _ = take(None, synth_root, 0, 1, None, 2 * epoch)  # image files, one process, no workers
    assert [clip[0] for batch in whole[:epoch] for clip in batch] != [
        clip[0] for batch in whole[epoch:] for clip in batch
    ]
    stop = epoch // 2
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        ranks = [pool.submit(take, URL, synth_root, rank, 2, None, stop) for rank in range(2)]
        first = [rank.result() for rank in ranks]
        state = first[0][1]
        ranks = [pool.submit(take, URL, synth_root, rank, 2, state, 2 * epoch - stop) for rank in range(2)]
        second = [rank.result()[0] for rank in ranks]
    for number, batch in enumerate(whole):
        parts = [first[rank][0][number] if number < stop else second[rank][number - stop] for rank in (0, 1)]
        assert [clip for pair in zip(*parts, strict=True) for clip in pair] == batch
    assert storage.n_broken - before > 10


@pytest.mark.slow
def test_a_stopped_training_on_a_stream_ends_as_an_unbroken_one_on_files(
    synth_root: Path, storage: Storage, tmp_path: Path
) -> None:
    configs = tiny_config(
        tmp_path,
        over=None,
        data={"workers": 2},
        model={"optimizer": {"schedule": "constant", "warmup": 0}},
        trainer={"devices": 2, "strategy": "ddp", "max_epochs": 2, "precision": ...},
        checkpoint={"every_n_steps": 1},
    )

    def start(name: str, *more: str) -> subprocess.Popen[str]:
        words = ["fit", *configs, f"--run={tmp_path / name}", *more]
        command = [sys.executable, "-m", "abaw", *words, f"--data.root={synth_root}"]
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)

    def logged(name: str, key: str) -> dict[str, str]:
        with (tmp_path / name / "metrics.csv").open(newline="") as file:
            return {row["step"]: row[key] for row in csv.DictReader(file) if row.get(key)}

    def end(process: subprocess.Popen[str], code: int) -> None:
        _, errors = process.communicate(timeout=600)
        assert process.returncode == code, errors

    end(start("files"), 0)
    n_steps = len(logged("files", "train/loss"))
    storage.every, before = 9, storage.n_broken
    stream = f"--data.source.image_roots=[{URL_TEXT}]"
    with start("stream", stream) as process:
        middle = tmp_path / f"stream/checkpoints/step-{n_steps // 2 + 3:09d}.ckpt"  # of the second epoch
        while process.poll() is None and not middle.exists():
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        end(process, 75)
    assert n_steps // 2 + 3 <= len(logged("stream", "train/loss")) < n_steps
    end(start("stream", stream, "--ckpt_path=last"), 0)
    losses = logged("stream", "train/loss")
    assert losses.items() <= logged("files", "train/loss").items()
    assert len(losses) >= n_steps - 1  # Lightning does not log the first step after it went on
    assert logged("stream", "val/score") == logged("files", "val/score")
    assert storage.n_broken - before > 10
