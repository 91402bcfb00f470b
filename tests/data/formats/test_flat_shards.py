import json
import os
import pickle
import shutil
import time
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from safetensors import safe_open

from abaw.data.formats.flat_shards import PACK
from abaw.data.frames import BadFrameError, Frames, FrameSource, PackedFrames, RawFolder, open_frames
from abaw.data.index import Index, build_index
from abaw.data.labels import image_name
from abaw.data.layout import DataSource
from abaw.data.packing import pack
from abaw.errors import AbawError, UsageError
from tests.data.test_frames import write_image


@pytest.fixture(scope="module")
def flat(synth_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("flat") / "pack"
    done = pack(DataSource(synth_root), out, jobs=2)
    assert done.skipped == 0
    assert done.images == sum(1 for _ in synth_root.glob("cropped_aligned*/*/*.jpg"))
    return out


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """Two videos of 12 frames, frames 3 and 7 of each without a crop."""
    for video in "ab":
        for number in set(range(1, 13)) - {3, 7}:
            write_image(tmp_path / "data/cropped_aligned" / video / image_name(number), number + ord(video))
    return tmp_path / "data"


def same(one: Frames, other: Frames) -> None:
    np.testing.assert_array_equal(one.visible, other.visible)
    np.testing.assert_array_equal(one.pixels, other.pixels)


def read_as_in(raw: Index, packed: Index, source: FrameSource) -> None:
    """Every frame of every video, forwards and in an order of its own, equals the image file's."""
    files = RawFolder(raw)
    for video, name in enumerate(raw.videos):
        places = np.arange(raw.n_frames[video])
        twin = packed.videos.index(name)
        same(files.read(video, places), source.read(twin, places))
        places = np.random.default_rng(video).permutation(places)[::2]
        same(files.read(video, places), source.read(twin, places))


def test_a_pack_is_an_image_root_with_the_same_frames(synth_root: Path, flat: Path) -> None:
    raw, packed = build_index(DataSource(synth_root)), build_index(DataSource(synth_root, image_roots=[flat]))
    assert packed.roots == (flat,)
    assert packed.videos == raw.videos
    for video in range(len(raw)):
        assert packed.splits(video) == raw.splits(video)
        np.testing.assert_array_equal(packed.visible(video), raw.visible(video))
        np.testing.assert_array_equal(packed.labels(video).au, raw.labels(video).au)
    read_as_in(raw, packed, open_frames(packed))


def test_a_pack_is_found_below_the_root(synth_root: Path, flat: Path) -> None:
    assert build_index(DataSource(flat.parent)).roots == (flat,)
    assert build_index(DataSource(flat)).roots == (flat,)


def test_the_file_explains_itself_to_another_library(flat: Path, synth_root: Path) -> None:
    path = next(flat.glob(f"*/{PACK}"))
    with safe_open(path, "numpy") as file:
        start, size, jpeg = (file.get_tensor(name) for name in ("start", "size", "jpeg"))
    frame = int(np.flatnonzero(start >= 0)[3])
    image = jpeg[start[frame] : start[frame] + size[frame]].tobytes()
    (original,) = synth_root.glob(f"cropped_aligned*/{path.parent.name}/{image_name(frame + 1)}")
    assert image == original.read_bytes()


def test_a_pickled_source_takes_no_pixels_along_and_reads_the_same(flat: Path) -> None:
    source = open_frames(build_index(DataSource(flat)))
    before = source.read(0, range(10))
    content = pickle.dumps(source)
    assert len(content) < 5000
    same(pickle.loads(content).read(0, range(10)), before)


def open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="open files are counted in /proc")
def test_few_files_are_kept_open(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("abaw.data.frames._MOST_OPEN", 1)
    out = tmp_path / "pack"
    pack(DataSource(small), out)
    source = open_frames(build_index(DataSource(out)))
    source.read(0, [0])
    n_open = open_files()
    for video in (1, 0, 1, 0):
        source.read(video, range(12))
        assert open_files() == n_open


def test_packed_and_plain_videos_mix(small: Path, tmp_path: Path) -> None:
    raw = build_index(DataSource(small))
    out = tmp_path / "pack"
    pack(DataSource(small), out)
    (out / "b" / PACK).unlink()
    mixed = build_index(DataSource(small, image_roots=[out, small / "cropped_aligned"]))
    assert mixed.source(0).max() == 0
    assert mixed.source(1).max() == 1
    read_as_in(raw, mixed, open_frames(mixed))


def test_only_what_changed_is_packed_again(small: Path, tmp_path: Path) -> None:
    out = tmp_path / "pack"
    assert pack(DataSource(small), out).images == 20
    kept = (out / "b" / PACK).stat().st_mtime_ns
    again = pack(DataSource(small), out)
    assert json.loads(again.to_json()) == {
        **{"out": str(out), "videos": 2, "skipped": 2, "images": 0, "removed": 0}
    }
    write_image(small / "cropped_aligned/a" / image_name(1), 99)  # in place: the folder's time stays
    write_image(small / "cropped_aligned/a" / image_name(3), 98)
    done = pack(DataSource(small), out)
    assert done.line() == f"{out}: 11 images of 1 videos packed; 1 were packed already"
    assert (out / "b" / PACK).stat().st_mtime_ns == kept
    read_as_in(
        build_index(DataSource(small)),
        build_index(DataSource(out)),
        open_frames(build_index(DataSource(out))),
    )


@pytest.mark.parametrize("format", ["flat", "litdata"])
@pytest.mark.parametrize("lost", ["its folder", "its images"])
def test_a_video_that_the_source_no_longer_has_leaves_the_pack(
    lost: str, format: Literal["flat", "litdata"], small: Path, tmp_path: Path
) -> None:
    out = tmp_path / "pack"
    pack(DataSource(small), out, format=format)
    if lost == "its folder":
        shutil.rmtree(small / "cropped_aligned/b")
    else:
        for path in (small / "cropped_aligned/b").iterdir():
            path.unlink()
    write_image(small / "cropped_aligned/c" / image_name(1), 5)
    done = pack(DataSource(small), out, format=format)
    assert (done.videos, done.removed) == (2, 1)
    assert done.line().endswith("1 that the data set no longer has were removed")
    assert build_index(DataSource(out)).videos == build_index(DataSource(small)).videos == ("a", "c")
    assert not (out / "b").exists()
    read_as_in(
        build_index(DataSource(small)),
        build_index(DataSource(out)),
        open_frames(build_index(DataSource(out))),
    )
    again = pack(DataSource(small), out, format=format)
    assert (again.images, again.skipped, again.removed) == (0, 2, 0)


@pytest.mark.parametrize("format", ["flat", "litdata"])
def test_a_pack_loses_nothing_before_all_else_is_packed(
    format: Literal["flat", "litdata"], small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "pack"
    pack(DataSource(small), out, format=format)
    shutil.rmtree(small / "cropped_aligned/a")
    write_image(small / "cropped_aligned/b" / image_name(3), 9)

    def unreadable(*args: object) -> None:
        raise AbawError("unreadable")

    with monkeypatch.context() as patch:
        patch.setattr("abaw.data.packing.read_images", unreadable)
        patch.setattr("abaw.data.frames.read_images", unreadable)
        with pytest.raises(AbawError, match="unreadable"):
            pack(DataSource(small), out, format=format)
    index = build_index(DataSource(out))
    assert index.videos == ("a", "b")
    assert [int(index.visible(video).sum()) for video in range(2)] == [10, 10]
    assert pack(DataSource(small), out, format=format).removed == 1
    assert build_index(DataSource(out)).videos == ("b",)


@pytest.mark.parametrize("format", ["flat", "litdata"])
def test_the_pack_of_another_data_set_is_not_removed(
    format: Literal["flat", "litdata"], small: Path, tmp_path: Path
) -> None:
    pack(DataSource(small), tmp_path / "pack", format=format)
    write_image(tmp_path / "other/cropped_aligned/c" / image_name(1), 5)
    with pytest.raises(UsageError, match="holds a pack of 2 other videos, such as a; choose another"):
        pack(DataSource(tmp_path / "other"), tmp_path / "pack", format=format)
    assert build_index(DataSource(tmp_path / "pack")).videos == ("a", "b")


def test_what_a_user_keeps_beside_a_removed_pack_stays(small: Path, tmp_path: Path) -> None:
    pack(DataSource(small), tmp_path / "pack")
    (tmp_path / "pack/b/notes.txt").write_text("mine")
    shutil.rmtree(small / "cropped_aligned/b")
    assert pack(DataSource(small), tmp_path / "pack").removed == 1
    assert [path.name for path in (tmp_path / "pack/b").iterdir()] == ["notes.txt"]


def test_a_pack_can_be_packed(small: Path, tmp_path: Path) -> None:
    pack(DataSource(small), tmp_path / "one")
    assert pack(DataSource(tmp_path / "one"), tmp_path / "two").images == 20
    assert pack(DataSource(tmp_path / "one"), tmp_path / "two").images == 0
    read_as_in(
        build_index(DataSource(small)),
        build_index(DataSource(tmp_path / "two")),
        open_frames(build_index(DataSource(tmp_path / "two"))),
    )


@pytest.mark.parametrize("content", [b"", b"<html>404</html>", b"\xff\xd8 cut short"])
def test_a_bad_image_stays_the_same_bad_image(content: bytes, small: Path, tmp_path: Path) -> None:
    (small / "cropped_aligned/a" / image_name(5)).write_bytes(content)
    pack(DataSource(small), tmp_path / "pack")
    with pytest.raises(BadFrameError) as from_file:
        RawFolder(build_index(DataSource(small))).read(0, range(12))
    with pytest.raises(BadFrameError) as from_pack:
        open_frames(build_index(DataSource(tmp_path / "pack"))).read(0, range(12))
    assert from_pack.value.kind == from_file.value.kind
    assert "a/00005.jpg" in str(from_pack.value)
    assert from_file.value.frames is not None
    assert from_pack.value.frames is not None
    same(from_pack.value.frames, from_file.value.frames)


def test_a_pack_cut_short_is_said_and_mended(small: Path, tmp_path: Path) -> None:
    out = tmp_path / "pack"
    pack(DataSource(small), out)
    path = out / "a" / PACK
    os.truncate(path, path.stat().st_size - 1)
    with pytest.raises(AbawError, match=r"a/images\.safetensors: no complete pack .* pack this video again"):
        build_index(DataSource(out))
    assert pack(DataSource(small), out).images == 10
    assert build_index(DataSource(out)).videos == ("a", "b")


def test_what_the_disk_did_not_keep_is_not_left_behind(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from abaw.data.formats import flat_shards as packs

    def badly(path: Path, *args: object) -> None:
        write_arrays(path, *args)  # type: ignore[arg-type]
        data = bytearray(path.read_bytes())
        data[-9] ^= 1
        path.write_bytes(data)

    write_arrays = packs.write_arrays
    monkeypatch.setattr(packs, "write_arrays", badly)
    with pytest.raises(AbawError, match="did not keep what was written"):
        pack(DataSource(small), tmp_path / "pack", jobs=1)
    assert not list((tmp_path / "pack").rglob(PACK))


@pytest.mark.parametrize(
    ("options", "said"),
    [({"jobs": 0}, "--jobs must be at least 1"), ({"segment": 0}, "--segment and --jobs must be")],
)
def test_impossible_options_are_refused(options: dict, said: str, small: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=said):
        pack(DataSource(small), tmp_path / "pack", **options)


def test_images_are_not_packed_onto_themselves(small: Path) -> None:
    with pytest.raises(UsageError, match="choose another folder"):
        pack(DataSource(small), small / "cropped_aligned")


def test_nothing_to_pack_is_said(tmp_path: Path) -> None:
    labels = tmp_path / "VA_Estimation_Challenge/Train_Set/a.txt"
    labels.parent.mkdir(parents=True)
    labels.write_text("valence,arousal\n0.1,0.2\n")
    with pytest.raises(AbawError, match="no images to pack"):
        pack(DataSource(tmp_path), tmp_path / "pack")


def test_reading_a_pack_is_at_least_about_as_fast_as_reading_files(synth_root: Path, flat: Path) -> None:
    raw, packed = build_index(DataSource(synth_root)), build_index(DataSource(flat))
    sources = (RawFolder(raw), PackedFrames(packed))

    def seconds(source: RawFolder) -> float:
        start = time.process_time()
        for video in range(len(source.index)):
            source.read(video, range(20))
        return time.process_time() - start

    times = [[seconds(source) for source in sources] for _ in range(7)]
    files, from_pack = np.min(times, axis=0)
    assert from_pack < 1.25 * files
