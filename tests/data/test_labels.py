"""Which videos belong to one recording, and slices of label rows."""

import pytest

from abaw.data.labels import count_recordings, recording, recording_places
from abaw.tasks import VA
from tests.support.random_labels import assert_equal, random_labels
from tests.support.recordings import ALONE, NAMES, WHOLE


@pytest.mark.parametrize(
    ("video", "expected"),
    [
        *((name, whole) for whole, names in WHOLE.items() for name in names),
        *((name, name) for name in ALONE),
        ("6-30-1920x1080_left", "6-30-1920x1080"),
        ("6-30-1920x1080-2_right", "6-30-1920x1080"),
        ("left_turn", "left_turn"),
        ("a_left_right", "a_left"),
        ("video45_left_1", "video45_left_1"),
        ("my_video45_1", "my_video45_1"),
        ("video_1", "video_1"),
        ("video45_1_2", "video45_1_2"),
        ("video٤٥_1", "video٤٥_1"),
        ("video45_1\n", "video45_1\n"),
        ("", ""),
    ],
)
def test_a_recording_is_named_without_side_and_part(video: str, expected: str) -> None:
    assert recording(video) == expected


def test_recordings_are_numbered_as_they_first_appear() -> None:
    names = ["b_left", "a", "video1_2", "b_right", "video1_1", "c"]
    assert recording_places(names).tolist() == [0, 1, 2, 0, 2, 3]
    assert count_recordings(names) == 4
    assert count_recordings([]) == 0
    assert count_recordings(NAMES) == len(WHOLE) + len(ALONE)


def test_rows_beyond_the_last_are_unlabelled() -> None:
    labels = random_labels(10)
    part = labels.rows(8, 13)
    assert len(part) == 5
    assert_equal(part.rows(0, 2), labels.rows(8, 10))
    assert not part.rows(2, 5)[VA].valid.any()
    assert len(labels.rows(20, 23)) == 3
    assert len(labels.rows(3, 3)) == 0
