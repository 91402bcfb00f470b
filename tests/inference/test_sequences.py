"""Predictions of a sequence in pieces equal those of whole-video windows, in bounded memory."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from abaw.evaluation.stitching import Stitcher
from abaw.inference.sequences import Predicted, SequencePredictor
from abaw.tasks import AU, VA
from abaw.windows import cut, window_at


class Model:
    """Predictions that depend on the place in the window and on what is visible in it."""

    tasks = (VA, AU)
    dim = 3

    def __init__(self, window: int, stride: int, step: int = 1, batch_size: int = 3) -> None:
        self.window, self.stride, self.step, self.batch_size = window, stride, step, batch_size
        self.windows = 0

    def predict_windows(self, features, visible, present):
        self.windows += len(features)
        assert features.shape == (len(features), self.window, self.dim)
        place = np.linspace(0, 1, self.window, dtype=np.float32)[:, None]
        mean = (
            np.where(visible[..., None], features, 0).sum(1, keepdims=True)
            / (1 + visible.sum(1))[:, None, None]
        )
        own = np.where(present[..., None], features, 0) * visible[..., None]
        return {
            VA: (own[..., :2] + place + mean[..., :2]).astype(np.float32),
            AU: (np.tile(own, 4) * 0.1 + place).astype(np.float32),
        }


def stitched(model: Model, features: np.ndarray, visible: np.ndarray) -> dict:
    """The same by the windows of a whole video and the stitching of the evaluation."""
    n = len(visible)
    stitcher = Stitcher(lambda _: n)
    for start in cut(n, model.window, model.stride, model.step):
        window = window_at(0, start, n, model.window, model.step)
        f, v, p = (
            np.zeros((1, model.window, *s), d) for s, d in (((3,), np.float32), ((), bool), ((), bool))
        )
        f[0, : len(window)] = features[list(window.frames)]
        v[0, : len(window)] = visible[list(window.frames)]
        p[0, : len(window)] = True
        values = {task: torch.from_numpy(x) for task, x in model.predict_windows(f, v, p).items()}
        stitcher.add((window,), values, torch.from_numpy(v))
    (video,) = stitcher.flush()
    return {task: values.numpy() for task, values in video.predictions.items()}


shapes = st.tuples(st.integers(1, 90), st.integers(1, 12), st.integers(1, 12), st.integers(1, 3)).map(
    lambda s: (s[0], s[1], min(s[2], s[1]), s[3])
)


@settings(max_examples=150)
@given(shapes, st.lists(st.integers(1, 25), min_size=1, max_size=8), st.integers(0, 99))
def test_pieces_of_any_size_give_the_tracks_of_whole_videos(shape, sizes, seed):
    n, length, stride, step = shape
    random = np.random.default_rng(seed)
    features, visible = random.normal(size=(n, 3)).astype(np.float32), random.random(n) < 0.7
    model = Model(length, stride, step)
    sequence, parts, done = SequencePredictor(model), [], 0
    while done < n:
        size = sizes[done % len(sizes)]
        parts += sequence.push(features[done : done + size], visible[done : done + size])
        done += size
    parts += sequence.finish()
    whole = Predicted.cat(parts)
    assert [part.start for part in parts] == np.cumsum([0, *(len(part) for part in parts)])[:-1].tolist()
    assert len(sequence) == len(whole) == n
    np.testing.assert_array_equal(whole.seen, visible)
    for task, values in stitched(Model(length, stride, step), features, visible).items():
        np.testing.assert_allclose(whole.values[task], values, atol=1e-6)


def test_no_window_is_predicted_twice():
    model = Model(8, 4)
    sequence = SequencePredictor(model)
    for _ in range(41):
        sequence.push(np.ones((1, 3), np.float32), np.ones(1, bool))
    sequence.finish()
    assert model.windows == len(cut(41, 8, 4))


@pytest.mark.parametrize("step", [1, 3])
def test_memory_is_that_of_a_few_windows_and_predictions_come_soon(step):
    sequence = SequencePredictor(Model(8, 4, step))
    n_final = 0
    for n in range(1, 2000):
        n_final += sum(map(len, sequence.push(np.ones((1, 3), np.float32), np.ones(1, bool))))
        assert n - n_final <= 3 * 8 * step
        assert sum(len(phase._features) for phase in sequence._phases) <= 3 * 8 * step


def test_an_empty_sequence_has_no_predictions():
    assert SequencePredictor(Model(8, 4)).finish() == []
