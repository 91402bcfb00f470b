import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from abaw.evaluation.stitching import Stitcher, fill_overlaps
from abaw.windows import PADDING, Window, cut, window_at

# frames of the video, length, stride, step
shapes = st.tuples(st.integers(1, 200), st.integers(1, 40), st.integers(1, 40), st.integers(1, 5)).map(
    lambda s: (s[0], s[1], min(s[2], s[1]), s[3])
)


def clips(track: torch.Tensor, windows: list[Window], length: int) -> torch.Tensor:
    """(B, T, K): the windows of a track (N, K), garbage behind short ones."""
    out = torch.full((len(windows), length, track.shape[1]), torch.nan)
    for clip, window in zip(out, windows, strict=True):
        clip[: len(window)] = track[list(window.frames)]
    return out


@given(shapes, st.integers(1, 7), st.randoms(use_true_random=False))
def test_stitch_is_the_inverse_of_cut(shape, batch_size, random):
    n_frames, length, stride, step = shape
    track = torch.randn(n_frames, 3, generator=torch.Generator().manual_seed(n_frames))
    visible = torch.rand(n_frames, 1) < 0.5
    windows = [window_at(7, start, n_frames, length, step) for start in cut(n_frames, length, stride, step)]
    random.shuffle(windows)
    windows += [PADDING] * random.randint(0, 2)
    stitcher = Stitcher(lambda video: n_frames)
    for k in range(0, len(windows), batch_size):
        batch = windows[k : k + batch_size]
        values = clips(track, batch, length)
        stitcher.add(
            batch, {"va": values[..., :2], "x": values[..., 2:]}, clips(visible, batch, length)[..., 0] == 1
        )
    (stitched,) = stitcher.flush()
    assert stitched.video == 7
    torch.testing.assert_close(stitched.predictions["va"], track[:, :2], atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(stitched.predictions["x"], track[:, 2:], atol=1e-6, rtol=1e-6)
    assert torch.equal(stitched.seen, visible[:, 0])
    assert stitched.covered.all()


def test_overlap_is_the_tapered_mean():
    stitcher = Stitcher(lambda video: 6)
    values = torch.stack([torch.zeros(4, 1), torch.ones(4, 1)])
    stitcher.add([Window(0, 0, 4), Window(0, 2, 6)], {"x": values}, torch.ones(2, 4, dtype=torch.bool))
    (stitched,) = stitcher.flush()
    # triangle of 4: .5 1 1 .5
    want = torch.tensor([0, 0, 0.5 / 1.5, 1 / 1.5, 1, 1])[:, None]
    torch.testing.assert_close(stitched.predictions["x"], want)


def test_order_of_windows_does_not_matter():
    n_frames, windows = 300, [window_at(0, start, 300, 64) for start in cut(300, 64, 16)]
    values = torch.randn(len(windows), 64, 8).softmax(-1)
    visible = torch.ones(len(windows), 64, dtype=torch.bool)

    def stitch(order):
        stitcher = Stitcher(lambda video: n_frames)
        stitcher.add([windows[k] for k in order], {"expr": values[order]}, visible)
        return stitcher.flush()[0].predictions["expr"]

    first = stitch(list(range(len(windows))))
    assert torch.equal(first, stitch(list(range(len(windows)))))
    torch.testing.assert_close(first, stitch(torch.randperm(len(windows)).tolist()), atol=1e-6, rtol=0)


def test_videos_are_handed_out_when_they_end_and_only_those_in_progress_are_held():
    stitcher = Stitcher(lambda video: 4)
    visible = torch.ones(2, 2, dtype=torch.bool)

    def add(*videos_and_starts):
        where = [Window(v, s, s + 2) if v >= 0 else PADDING for v, s in videos_and_starts]
        values = torch.tensor([[[float(v)]] * 2 for v, _ in videos_and_starts])
        stitcher.add(where, {"x": values}, visible)
        return [stitched.video for stitched in stitcher.finished()]

    assert add((5, 0), (5, 2)) == []
    assert add((6, 0), (5, 2)) == []  # 5 may go on: it has a window in this batch
    assert add((-1, 0), (-1, 0)) == []
    assert add((6, 2), (8, 0)) == [5]
    assert add((8, 2), (8, 2)) == [6]
    (last,) = stitcher.flush()
    assert last.video == 8
    assert torch.equal(last.predictions["x"], torch.full((4, 1), 8.0))
    assert stitcher.flush() == []
    with pytest.raises(ValueError, match=r"videos \[5\] were returned"):
        add((5, 0), (9, 0))


def test_frames_without_a_window_are_flagged():
    stitcher = Stitcher(lambda video: 5)
    stitcher.add([Window(0, 1, 3)], {"x": torch.ones(1, 2, 1)}, torch.tensor([[True, False]]))
    (stitched,) = stitcher.flush()
    assert stitched.covered.tolist() == [False, True, True, False, False]
    assert stitched.seen.tolist() == [False, True, False, False, False]
    assert stitched.predictions["x"][:, 0].tolist() == [0, 1, 1, 0, 0]


def test_half_precision_is_averaged_in_float32():
    stitcher = Stitcher(lambda video: 2)
    for _ in range(1000):
        stitcher.add(
            [Window(0, 0, 2)],
            {"x": torch.full((1, 2, 1), 0.1, dtype=torch.bfloat16)},
            torch.ones(1, 2, dtype=torch.bool),
        )
    (stitched,) = stitcher.flush()
    assert stitched.predictions["x"].dtype == torch.float32
    torch.testing.assert_close(
        stitched.predictions["x"], torch.full((2, 1), float(torch.tensor(0.1).bfloat16())), rtol=1e-5, atol=0
    )


def test_windows_take_what_they_share_from_the_one_before():
    values = torch.tensor([[0, 0, 4, 5], [0, 0, 0, 6], [7, 8, 9, 10]])
    last = fill_overlaps(values, (2, 3, 0), torch.tensor([0, 1, 2, 3]))
    assert values.tolist() == [[2, 3, 4, 5], [3, 4, 5, 6], [7, 8, 9, 10]]
    assert last.tolist() == [7, 8, 9, 10]
    assert fill_overlaps(torch.ones(1, 2, 3), (0,), None).shape == (2, 3)
