import pickle
import time
from pathlib import Path

import cv2
import numpy as np
import PIL.Image
import pytest

from abaw.data.frames import BadFrameError, RawFolder, decode_image
from abaw.data.index import build_index
from abaw.data.labels import image_name
from abaw.data.layout import DataSource
from abaw.errors import AbawError


def picture(seed: int, height: int = 112, width: int = 112) -> np.ndarray:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def write_image(path: Path, seed: int, height: int = 112, width: int = 112) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), picture(seed, height, width))


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
        (lambda data: cv2.imencode(".jpg", picture(1, 224, 224))[1].tobytes(), "--data.frame_size 224"),
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
