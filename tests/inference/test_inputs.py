"""Which inputs a command line names, and images as frames."""

import math
from pathlib import Path

import cv2
import numpy as np
import pytest

from abaw.errors import AbawError, UsageError
from abaw.inference.inputs import ImageFile, ImageFolder, find_inputs, open_reader, read_image
from abaw.inference.video import VideoFile
from tests.support.videos import write_video


def image(path: Path, shade: int = 100, size: tuple[int, int] = (32, 32)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.full((size[1], size[0], 3), shade, np.uint8))
    return path


def crops(folder: Path, numbers: tuple[int, ...], size: int = 32) -> Path:
    for number in numbers:
        image(folder / f"{number:05d}.jpg", number, (size, size))
    return folder


def test_files_folders_and_patterns(tmp_path: Path) -> None:
    a, b = image(tmp_path / "photos/a.png"), image(tmp_path / "photos/b.jpg")
    (tmp_path / "clips").mkdir()
    clip = write_video(tmp_path / "clips/c.mp4", [np.zeros((32, 32, 3), np.uint8)] * 3)
    assert find_inputs([a, b]) == [a, b]
    assert find_inputs([str(tmp_path / "photos/*.*")]) == [a, b]
    assert find_inputs([tmp_path / "photos"]) == [tmp_path / "photos"]  # the frames of one video
    assert find_inputs([tmp_path / "clips"]) == [clip]
    assert find_inputs([clip, tmp_path / "clips"]) == [clip]  # named twice
    assert find_inputs([tmp_path / "missing.mp4"]) == [tmp_path / "missing.mp4"]  # refused when it is opened


def test_a_folder_of_image_folders_stands_for_them(tmp_path: Path) -> None:
    root = tmp_path / "cropped_aligned"
    one, two = crops(root / "1-30-1280x720", (1, 2)), crops(root / "video2", (1,))
    (root / ".DS_Store").write_bytes(b"x")
    assert find_inputs([root]) == [one, two]


def test_two_inputs_of_one_name_are_refused(tmp_path: Path) -> None:
    paths = [image(tmp_path / "x/a.png"), image(tmp_path / "y/a.jpg")]
    with pytest.raises(UsageError, match=r"x/a\.png and .*y/a\.jpg have the same name"):
        find_inputs(paths)


def test_the_reader_follows_the_kind_of_the_input(tmp_path: Path) -> None:
    clip = write_video(tmp_path / "c.mp4", [np.zeros((32, 32, 3), np.uint8)] * 3)
    assert isinstance(open_reader(clip), VideoFile)
    assert isinstance(open_reader(image(tmp_path / "a.png")), ImageFile)
    assert isinstance(open_reader(crops(tmp_path / "v", (1,))), ImageFolder)
    with pytest.raises(AbawError, match=r"none\.mp4: there is no such file"):
        open_reader(tmp_path / "none.mp4")


def test_aligned_crops_keep_their_numbers_and_gaps(tmp_path: Path) -> None:
    reader = ImageFolder(crops(tmp_path / "v", (2, 3, 6)))
    assert (reader.aligned, reader.n_frames, reader.name) == (True, 6, "v")
    frames = list(reader.read())
    assert [frame.number for frame in frames] == list(range(6))
    assert [frame.pixels is not None for frame in frames] == [False, True, True, False, False, True]
    assert round(float(frames[5].pixels.mean())) == 6
    assert all(math.isnan(frame.timestamp) for frame in frames)
    assert [f.number for f in reader.read(2)] == [0, 2, 4]
    assert [f.number for f in reader.read(2, after=frames[2])] == [4]
    assert [f.timestamp for f in ImageFolder(tmp_path / "v", fps=10.0).read()][:2] == [0.0, 0.1]


@pytest.mark.parametrize(
    ("name", "size", "option", "aligned"),
    [
        ("00001.jpg", (32, 32), "auto", True),
        ("00001.jpg", (32, 32), "no", False),
        ("00001.jpg", (64, 36), "auto", False),
        ("frame1.png", (32, 32), "auto", False),
    ],
)
def test_which_folders_hold_aligned_crops(
    name: str, size: tuple[int, int], option: str, aligned: bool, tmp_path: Path
) -> None:
    image(tmp_path / "v" / name, size=size)
    assert ImageFolder(tmp_path / "v", option).aligned == aligned


def test_crops_that_are_none_are_refused_if_asked_for(tmp_path: Path) -> None:
    image(tmp_path / "a/00001.jpg", size=(64, 36))
    with pytest.raises(AbawError, match=r"00001\.jpg: 64 x 36 pixels are not an aligned crop"):
        ImageFolder(tmp_path / "a", "yes")
    image(tmp_path / "b/frame1.jpg")
    with pytest.raises(AbawError, match=r"frame1\.jpg: aligned crops are named by the frame"):
        ImageFolder(tmp_path / "b", "yes")


def test_pictures_are_frames_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for number in (1, 2, 10):
        image(tmp_path / f"v/frame{number}.png", number, (20 + number, 30))  # sizes may differ
    frames = list(ImageFolder(tmp_path / "v").read())
    assert [round(float(frame.pixels.mean())) for frame in frames] == [1, 2, 10]
    assert [frame.number for frame in frames] == [0, 1, 2]


def test_a_damaged_image_is_a_frame_without_image_and_is_named(tmp_path: Path) -> None:
    folder = crops(tmp_path / "v", (1, 2, 3))
    (folder / "00002.jpg").write_bytes((folder / "00002.jpg").read_bytes()[:60])
    reader = ImageFolder(folder)
    assert [frame.pixels is not None for frame in reader.read()] == [True, False, True]
    assert "has 1 bad images, such as" in reader.problem
    assert "00002.jpg: the file is cut short after 60 bytes" in reader.problem


def test_what_is_no_image_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(AbawError, match="empty: holds no images"):
        ImageFolder(tmp_path / "empty")
    for name, content, what in (("a.png", b"", "the file is empty"), ("b.png", b"text", "cannot be decoded")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(AbawError, match=rf"{name}: {what}"):
            list(ImageFile(tmp_path / name).read())


def test_a_photo_is_turned_as_its_exif_data_say(tmp_path: Path) -> None:
    from PIL import Image

    picture = np.zeros((40, 80, 3), np.uint8)
    picture[:20] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    Image.fromarray(picture).save(tmp_path / "a.jpg", exif=exif)
    upright = read_image(tmp_path / "a.jpg")
    assert upright.shape == (80, 40, 3)
    assert upright[:, 20:].mean() > 250 > 5 > upright[:, :20].mean()
