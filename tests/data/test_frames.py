import pickle
import time
from pathlib import Path

import cv2
import numpy as np
import PIL.Image
import pytest

from abaw.data.formats.flat_shards import PACK
from abaw.data.frames import (
    BadFrameError,
    BadFrameLog,
    PackedFrames,
    RawFolder,
    decode_image,
    open_frames,
)
from abaw.data.index import build_index
from abaw.data.labels import image_name
from abaw.data.layout import DataSource
from abaw.data.packing import pack
from abaw.errors import AbawError
from tests.support.packs import picture, read_as_in, same, write_image


@pytest.fixture
def folder(tmp_path: Path) -> RawFolder:
    """One video of 20 frames, 3 and 7 missing in both roots, 11 to 20 in the second root."""
    for number in set(range(1, 21)) - {3, 7}:
        root = "cropped_aligned" if number <= 10 else "cropped_aligned_new_50_vids"
        write_image(tmp_path / "data" / root / "a" / image_name(number), number)
    return RawFolder(build_index(DataSource(tmp_path / "data", cache_dir=tmp_path / "cache")))


def image_path(folder: RawFolder, number: int) -> Path:
    return folder.index.folder(0, int(number > 10)) / image_name(number)


def test_frames_are_those_of_another_decoder_bit_for_bit(folder: RawFolder) -> None:
    wanted = [19, 0, 5, 10, 5]
    frames = folder.read(0, wanted)
    assert frames.visible.all()
    for pixels, frame in zip(frames.pixels, wanted, strict=True):
        with PIL.Image.open(image_path(folder, frame + 1)) as image:
            np.testing.assert_array_equal(pixels, np.asarray(image))


def test_a_frame_without_a_crop_is_black_and_not_visible(folder: RawFolder) -> None:
    frames = folder.read(0, range(20))
    assert np.flatnonzero(~frames.visible).tolist() == [2, 6]
    assert not frames.pixels[[2, 6]].any()
    assert frames.pixels[frames.visible].any((1, 2, 3)).all()
    assert len(folder.read(0, []).pixels) == 0


def test_an_orientation_flag_turns_nothing(folder: RawFolder) -> None:
    path = image_path(folder, 1)
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    before, data = folder.read(0, [0]).pixels, path.read_bytes()
    path.write_bytes(data[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + data[2:])
    with PIL.Image.open(path) as image:
        assert image.getexif()[274] == 6
    assert (cv2.imread(str(path), cv2.IMREAD_COLOR_RGB) != before[0]).any()  # OpenCV left to itself turns it
    np.testing.assert_array_equal(folder.read(0, [0]).pixels, before)


def test_grey_and_trailing_bytes_are_fine(folder: RawFolder) -> None:
    grey = cv2.cvtColor(picture(1), cv2.COLOR_BGR2GRAY)
    assert cv2.imwrite(str(image_path(folder, 1)), grey)
    image_path(folder, 2).write_bytes(image_path(folder, 2).read_bytes() + b"\0\0")
    assert folder.read(0, [0, 1]).visible.all()


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda data: b"", "empty"),
        (lambda data: data[: len(data) // 2], "cut short after"),
        (lambda data: data[:-1], "cut short after"),
        (lambda data: data[:-200] + bytes(200), "cut short after"),
        (lambda data: b"<html>404</html>", "not a JPEG, it begins with b'<html>40'"),
        (lambda data: cv2.imencode(".png", picture(1))[1].tobytes(), "not a JPEG"),
        (lambda data: b"\xff\xd8\xff\xd9", "cannot be decoded"),
        (lambda data: b"\xff\xd8" + b"\x07" * 300 + b"\xff\xd9", "cannot be decoded"),
        (
            lambda data: cv2.imencode(".jpg", picture(1, 112, 96))[1].tobytes(),
            "96×112 pixels instead of 112×112",
        ),
        (
            lambda data: cv2.imencode(".jpg", picture(1, 224, 224))[1].tobytes(),
            "--data.loading.frame_size 224",
        ),
    ],
)
def test_a_bad_file_is_named_and_the_rest_of_the_clip_is_read(
    damage: object, said: str, folder: RawFolder
) -> None:
    path = image_path(folder, 5)
    assert callable(damage)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(BadFrameError) as caught:
        folder.read(0, range(20))
    assert str(caught.value).startswith(f"{path}: ")
    assert said in str(caught.value)
    assert caught.value.bad == (str(path),)
    assert caught.value.frames is not None
    assert np.flatnonzero(~caught.value.frames.visible).tolist() == [2, 4, 6]
    assert not caught.value.frames.pixels[4].any()
    assert isinstance(pickle.loads(pickle.dumps(caught.value)), AbawError)


def test_several_bad_files_are_counted(folder: RawFolder) -> None:
    image_path(folder, 5).unlink()  # after the index was made
    image_path(folder, 15).write_bytes(b"")
    with pytest.raises(BadFrameError, match=r"00005\.jpg: cannot be read .*1 more in the same clip"):
        folder.read(0, range(20))


def test_another_size_on_request(tmp_path: Path) -> None:
    write_image(tmp_path / "data/a/00001.jpg", 1, 64, 64)
    index = build_index(DataSource(tmp_path / "data", cache_dir=tmp_path / "cache"))
    assert RawFolder(index, size=64).read(0, [0]).pixels.shape == (1, 64, 64, 3)


def test_reading_checked_is_about_as_fast_as_reading_blindly(folder: RawFolder) -> None:
    numbers = [n for n in range(1, 21) if n not in (3, 7)] * 10
    paths = [str(image_path(folder, number)) for number in numbers]
    pixels = np.empty((len(paths), 112, 112, 3), np.uint8)

    def blindly() -> None:
        for k, path in enumerate(paths):
            pixels[k] = cv2.imread(path, cv2.IMREAD_COLOR_RGB)

    def checked() -> None:
        folder.read(0, [number - 1 for number in numbers])

    def seconds(work: object) -> float:
        assert callable(work)
        start = time.process_time()
        work()
        return time.process_time() - start

    assert min(seconds(checked) for _ in range(5)) < 1.5 * min(seconds(blindly) for _ in range(5))


def test_the_decoder_takes_a_slice_of_a_larger_buffer(folder: RawFolder) -> None:
    data = image_path(folder, 1).read_bytes()
    pixels = decode_image(memoryview(b"x" + data + b"y")[1:-1], 112, "here")
    np.testing.assert_array_equal(pixels, folder.read(0, [0]).pixels[0])


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


def test_log_keeps_what_other_processes_wrote(tmp_path):
    one, other = BadFrameLog(tmp_path / "log"), BadFrameLog(tmp_path / "log")
    one.add(["a", "b"])
    other.add(["b", "c", "c"])
    one.add(["c", "d", "a"])
    assert (tmp_path / "log").read_text().split() == ["a", "b", "c", "d"]
    BadFrameLog(tmp_path / "log").add(["d", "e"])  # a resumed run
    assert (tmp_path / "log").read_text().split() == ["a", "b", "c", "d", "e"]
