from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from abaw.windows import PADDING, Window, WindowTable, cut, cut_videos, overlap, taper, window_at

shapes = st.tuples(st.integers(1, 200), st.integers(1, 40), st.integers(1, 40), st.integers(1, 5)).map(
    lambda s: (s[0], s[1], min(s[2], s[1]), s[3])
)


@given(shapes)
def test_cut_covers_every_frame_with_full_windows(shape):
    n_frames, length, stride, step = shape
    windows = [window_at(0, start, n_frames, length, step) for start in cut(n_frames, length, stride, step)]
    covered = np.zeros(n_frames, dtype=int)
    for window in windows:
        covered[list(window.frames)] += 1
        phase_length = len(range(window.start % step, n_frames, step))
        assert len(window) == min(length, phase_length)  # full, unless the video is shorter
    assert covered.min() >= 1
    assert len(set(windows)) == len(windows)


def test_no_overlap_when_stride_is_length_and_fits():
    assert cut(12, 4, 4) == [0, 4, 8]


def test_last_window_is_shifted_left():
    assert cut(10, 4, 4) == [0, 4, 6]


def test_empty_video_gives_no_window():
    assert cut(0, 4, 4) == []


@pytest.mark.parametrize(("length", "stride", "step"), [(0, 1, 1), (4, 5, 1), (4, 0, 1), (4, 4, 0)])
def test_cut_refuses_what_leaves_holes(length, stride, step):
    with pytest.raises(ValueError, match="stride <= length"):
        cut(10, length, stride, step)


@pytest.mark.parametrize(("start", "stop", "step"), [(-1, 2, 1), (3, 2, 1), (0, 2, 0)])
def test_window_refuses_nonsense(start, stop, step):
    with pytest.raises(ValueError, match="a window needs"):
        Window(0, start, stop, step)


def test_window_frames_follow_the_step():
    window = window_at(3, 1, 10, 4, 2)
    assert list(window.frames) == [1, 3, 5, 7]
    assert len(window) == 4
    assert len(PADDING) == 0


def test_table_holds_the_windows_of_the_asked_videos():
    n_frames = np.array([5, 99, 3], dtype=np.int64)
    table = cut_videos(n_frames, [2, 0], length=4, stride=2)
    assert isinstance(table, WindowTable)
    assert list(table) == [Window(2, 0, 3), Window(0, 0, 4), Window(0, 1, 5)]
    assert list(table.select(table.video == 0)) == [Window(0, 0, 4), Window(0, 1, 5)]
    assert len(cut_videos(n_frames, [], length=4, stride=2)) == 0


@given(st.integers(1, 40), st.integers(1, 9), st.integers(1, 9), st.integers(1, 4))
def test_frames_beyond_the_overlap_are_all_frames_once(n_frames, length, stride, step):
    starts = cut(n_frames, length, min(stride, length), step)
    windows = [PADDING, *(window_at(0, start, n_frames, length, step) for start in starts)]
    seen = []
    for before, window in pairwise(windows):
        n = overlap(before, window)
        assert list(window.frames[:n]) == list(before.frames)[len(before) - n :]
        seen += window.frames[n:]
    assert sorted(seen) == list(range(n_frames))


def test_windows_of_two_videos_do_not_overlap():
    assert overlap(Window(0, 0, 8), Window(1, 4, 12)) == 0


def test_taper_is_positive_symmetric_and_highest_in_the_middle():
    for length in (1, 2, 5, 8):
        weights = taper(length)
        assert weights.shape == (length,)
        assert weights.min() > 0
        assert weights.max() == 1
        assert np.array_equal(weights, weights[::-1])
        assert int(weights.argmax()) == (length - 1) // 2
