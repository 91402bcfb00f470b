from pathlib import Path

import pytest

from abaw.errors import AbawError
from abaw.evaluation.submission.formats import read_sample
from tests.support.submissions import VIDEOS, write_sample


def test_a_sample_gives_the_numbers_of_every_video(tmp_path: Path) -> None:
    path = tmp_path / "sample.txt"
    path.write_text("b/00003.jpg,\na/00001.jpg,\nb/00007.jpg,\na/00002.jpg,\n")
    numbers = read_sample(path).numbers()
    assert {video: of_video.tolist() for video, of_video in numbers.items()} == {"b": [3, 7], "a": [1, 2]}


def test_sample_gives_rows_in_order(tmp_path):
    sample = read_sample(write_sample(tmp_path / "s.txt", "va", skip={"v-2_left/00002.jpg"}))
    assert sample.videos == tuple(VIDEOS)
    assert sample.frame[:3].tolist() == [0, 2, 3]
    assert sample.video.tolist() == [0] * 8 + [1] * 5 + [2]
    assert sample.images[1] == "v-2_left/00003.jpg"


@pytest.mark.parametrize(
    "text",
    [
        "a/00001.jpg,\r\nb/00001.jpg,\r\n",
        "a/00001.jpg\nb/00001.jpg",
        '"image",x\na/00001.jpg,1,2\nb/00001.jpg,\n\n',
        "\ufeffimage_location,valence,arousal\na/00001.jpg,\nb/00001.jpg,\n",
        "name of the image\na/00001.jpg,\nb/00001.jpg,\n",
    ],
)
def test_sample_with_any_line_ends_header_and_values(tmp_path, text):
    (tmp_path / "s.txt").write_bytes(text.encode())
    assert read_sample(tmp_path / "s.txt").images == ["a/00001.jpg", "b/00001.jpg"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "names neither"),
        ("a/00001.jpg,\0\n", "is not text"),
        ("image_location,valence,arousal\n", "names neither"),
        ("a/00001.jpg,\na/0002.jpg,\n", "line 2: the image is"),
        ("a/00001.jpg,\na/00000.jpg,\n", "line 2: the image is"),
        ("a/00001.jpg,\na/0000\uff12.jpg,\n", "line 2: the image is"),
        ("a/00001.jpg,\na/0000\u0662.jpg,\n", "line 2: the image is"),
        ("a/00001.jpg,\na/00_02.jpg,\n", "line 2: the image is"),
        ("image,x\na/00001.jpg,\nb/00001.jpg,\na/00001.jpg,\n", r"line 4: a/00001.jpg repeats line 2"),
    ],
)
def test_bad_samples_are_refused(tmp_path, text, message):
    (tmp_path / "s.txt").write_text(text)
    with pytest.raises(AbawError, match=message):
        read_sample(tmp_path / "s.txt")


def test_a_missing_sample_is_an_error(tmp_path):
    with pytest.raises(AbawError, match="cannot be read"):
        read_sample(tmp_path / "none.txt")
