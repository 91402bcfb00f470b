from pathlib import Path

from abaw.evaluation.submission.formats import read_sample


def test_a_sample_gives_the_numbers_of_every_video(tmp_path: Path) -> None:
    path = tmp_path / "sample.txt"
    path.write_text("b/00003.jpg,\na/00001.jpg,\nb/00007.jpg,\na/00002.jpg,\n")
    numbers = read_sample(path).numbers()
    assert {video: of_video.tolist() for video, of_video in numbers.items()} == {"b": [3, 7], "a": [1, 2]}
