"""Random tracks, and whether two of them are the same."""

import numpy as np
from scipy.ndimage import gaussian_filter1d

from abaw.evaluation.tracks import Track
from abaw.tasks import AU, EXPR, TASKS, VA
from tests.support.label_arrays import labels_from


def make_track(video="v", n=6, tasks=TASKS, seed=0):
    rng = np.random.default_rng(seed)
    values = {
        VA: rng.uniform(-1, 1, (n, 2)),
        EXPR: rng.dirichlet(np.ones(8), n),
        AU: rng.random((n, 12)),
    }
    chosen = {task: values[task].astype(np.float32) for task in values if task in tasks}
    return Track(video=video, seen=rng.random(n) < 0.7, values=chosen)


def assert_same(a, b):
    assert (a.video, a.tasks) == (b.video, b.tasks)
    np.testing.assert_array_equal(a.seen, b.seen)
    for task in a.tasks:
        np.testing.assert_array_equal(a.values[task], b.values[task])
        assert b.values[task].dtype == np.float32


def smooth_noise(rng, n, k, width):
    return gaussian_filter1d(rng.normal(size=(n, k)), width, axis=0) * np.sqrt(width) * 1.9


def simulate(n_videos, seed, noise=1.0, bias=0.0, frames=(150, 400)):
    """Tracks of slowly changing labels under noise that is new in every frame; `bias` lowers the AUs."""
    rng = np.random.default_rng(seed)
    tracks, labels = [], {}
    for k in range(n_videos):
        n, name = int(rng.integers(*frames)), f"v{k // 2}_{('left', 'right')[k % 2]}"
        va = np.tanh(smooth_noise(rng, n, 2, 30))
        scores = 2 * smooth_noise(rng, n, 8, 25)
        scores[:, 0] += 1.5  # a common class
        au = smooth_noise(rng, n, 12, 8) - 0.5
        labels[name] = labels_from(
            va=va.astype(np.float32),
            va_valid=np.ones(n, bool),
            expr=scores.argmax(1),
            expr_valid=rng.random(n) < 0.9,
            au=(au > 0).astype(np.float32),
            au_valid=np.ones((n, 12), bool),
        )
        logits = scores + 2 * noise * rng.normal(size=scores.shape)
        shown = np.exp(logits - logits.max(1, keepdims=True))
        tracks.append(
            Track(
                video=name,
                seen=np.ones(n, bool),
                values={
                    VA: np.tanh(va + noise * rng.normal(size=va.shape)).astype(np.float32),
                    EXPR: (shown / shown.sum(1, keepdims=True)).astype(np.float32),
                    AU: (1 / (1 + np.exp(bias - 2 * (au + 0.7 * noise * rng.normal(size=au.shape))))).astype(
                        np.float32
                    ),
                },
            )
        )
    return tracks, labels.__getitem__
