"""A full disk leaves the old file or none, never half of one, and one message with file and cure."""

import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from abaw.__main__ import main
from abaw.data.formats.arrays import write_arrays
from abaw.data.formats.features import write_features
from abaw.data.formats.flat_shards import write_packed
from abaw.data.layout import DataSource
from abaw.data.packing import pack
from abaw.errors import AbawError
from abaw.evaluation.submission.write import write_submission
from abaw.evaluation.tracks import Track, find_tracks, read_track, write_track
from abaw.model.checkpoints import FORMAT, load_checkpoint, newest_checkpoint
from abaw.tasks import VA
from abaw.training.checkpointing import AtomicCheckpointIO
from tests.support.tiny_run import tiny_config

SIZE = "12m"  # of the disk
N = 60_000  # numbers in a file; random ones, which nothing makes smaller


def numbers(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).random(N, np.float32)


def track(seed: int) -> Track:
    return Track(video="v", seen=np.ones(N // 2, bool), values={VA: numbers(seed).reshape(-1, 2)})


def write_checkpoint(folder: Path, seed: int) -> None:
    content = {"abaw": {"format": FORMAT}, "state_dict": {"w": torch.from_numpy(numbers(seed))}}
    AtomicCheckpointIO().save_checkpoint(content, folder / "file")


SOURCES: dict[int, Path] = {}  # folders with what a submission is made from


@pytest.fixture(scope="module", autouse=True)
def _sources(tmp_path_factory: pytest.TempPathFactory) -> None:
    rows = [f"v/{number:05d}.jpg," for number in range(1, N // 2 + 1)]
    for seed in (1, 2):
        SOURCES[seed] = folder = tmp_path_factory.mktemp("source")
        write_track(track(seed), folder)
        (folder / "sample.txt").write_text("image_location,valence,arousal\n" + "\n".join(rows) + "\n")


def submit(folder: Path, seed: int) -> None:
    write_submission(SOURCES[seed], SOURCES[seed] / "sample.txt", "va", folder / "file")


# each writes one file of 200 KB to 1 MB, another for another seed
WRITERS: dict[str, Callable[[Path, int], object]] = {
    "checkpoint": write_checkpoint,
    "track": lambda folder, seed: write_track(track(seed), folder),
    "index": lambda folder, seed: write_arrays(folder / "file", {"a": [numbers(seed)]}, "note"),
    "features": lambda folder, seed: write_features(folder / "file", features=numbers(seed).reshape(-1, 4)),
    "flat pack": lambda folder, seed: write_packed(folder, np.array([4 * N]), [numbers(seed).tobytes()]),
    "submission": submit,
}


@contextmanager
def short_files(folder: Path) -> Iterator[None]:
    """Files end after some bytes; what else a full disk refuses, it still does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@contextmanager
def full(folder: Path, left: int = 4000) -> Iterator[None]:
    """Fills the disk that a folder is on but for some bytes."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file:
        free = shutil.disk_usage(folder).free - left
        assert 0 < free < 10**8  # it is the small one
        file.write(bytes(free))
    try:
        yield
    finally:
        filler.unlink()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(disk)]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a small disk takes root")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)  # a map of a file may live on


def content(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != "filler")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


Place = tuple[Path, Callable[[Path], Any]]


@pytest.fixture(params=["files end early", "disk is full"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """A folder, and what leaves no room there."""
    disk = tmp_path if request.param == "files end early" else request.getfixturevalue("small_disk")
    (disk / "folder").mkdir()
    return disk / "folder", short_files if disk is tmp_path else full


@pytest.mark.parametrize("name", WRITERS)
def test_what_is_written_is_the_old_file_or_the_new_one(name: str, place: Place) -> None:
    write, (folder, no_room) = WRITERS[name], place
    for seed in (None, 1):  # a new file, and one in place of another
        if seed is not None:
            write(folder, seed)
        old = content(folder)
        assert bool(old) is (seed is not None)
        with no_room(folder), pytest.raises(AbawError) as refused:
            write(folder, 2)
        assert content(folder) == old
        message = str(refused.value)
        assert message.startswith(str(folder))
        assert "could not be written (" in message
        assert "free the disk or choose another place" in message
        assert len(message.splitlines()) == 1
    write(folder, 2)
    assert content(folder) != old


def test_a_pack_of_segments_stays_what_it_was(synth_root: Path, place: Place) -> None:
    pytest.importorskip("litdata")
    folder, no_room = place
    roots = [sorted(synth_root.glob("cropped_aligned*"))[-1]]  # the smaller one
    source = DataSource(synth_root, image_roots=roots)
    options: dict[str, Any] = {"format": "litdata", "jobs": 1}
    pack(source, folder, segment=8, **options)
    old = content(folder)
    with no_room(folder), pytest.raises(AbawError, match=r"could not be written .* free the disk"):
        pack(source, folder, segment=16, **options)
    assert content(folder) == old
    pack(source, folder, segment=16, **options)
    assert content(folder) != old


def fails_clearly(words: list[str], capfd: pytest.CaptureFixture[str], *names: str) -> None:
    """The command ends with 1 and one message."""
    capfd.readouterr()
    assert main(words) == 1
    error = capfd.readouterr().err
    message = error[error.index("abaw: ") :]
    assert "Traceback" not in error
    assert len(message.splitlines()) == 1, message
    assert "free the disk" in message
    assert all(name in message for name in names), message


@pytest.mark.slow
def test_commands_end_in_order_on_a_full_disk(
    synth_root: Path, small_disk: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = small_disk / "run"
    configs = tiny_config(
        tmp_path,
        model={"backbone": {"overrides": {"embed_dim": 48}}},
        trainer={"max_epochs": 2, "limit_train_batches": 8},
        checkpoint={"every_n_steps": 2},
    )
    words = [*configs, f"--data.root={synth_root}", f"--run={run}"]
    assert main(["fit", *words, "--trainer.max_epochs=1"]) == 0
    steps = load_checkpoint(run / "checkpoints/last.ckpt")["global_step"]
    names = {path.name for path in (run / "checkpoints").iterdir()}
    for left in (20_000, 300_000):  # nothing can be written; the configuration and the curves can
        with full(small_disk, left):
            fails_clearly(["fit", *words, "--ckpt_path=last"], capfd, str(run))
        assert {path.name for path in (run / "checkpoints").iterdir()} <= names  # nothing half
        newest = newest_checkpoint(run / "checkpoints")
        assert load_checkpoint(newest)["global_step"] >= steps
    with full(small_disk, 3000):
        fails_clearly(["predict", *words], capfd, "parquet")
        assert not any((run / "tracks").iterdir())
    assert main(["predict", *words]) == 0
    tracks = {path: read_track(path) for path in find_tracks(run / "tracks").values()}
    with full(small_disk, 3000):
        fails_clearly(["predict", *words], capfd, "parquet")
    assert all(len(read_track(path)) == len(track) for path, track in tracks.items())
    with full(small_disk, 3000):
        fails_clearly(["pack", str(synth_root), str(small_disk / "pack")], capfd, "images.safetensors")
        fails_clearly(["synth", str(small_disk / "more"), "--videos=2", "--frames=20", "--jobs=1"], capfd)
