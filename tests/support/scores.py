"""Random sums of scores, and the official CCC from its definition."""

import numpy as np

from abaw.evaluation.formulas import ccc_sums, confusion, presence_counts
from abaw.evaluation.scores import Sums
from abaw.tasks import AU, EXPR, TASKS, VA


def plain_ccc(x, y):
    """The definition, with population statistics."""
    x, y = x.astype(float), y.astype(float)
    covariance = ((x - x.mean()) * (y - y.mean())).mean()
    denominator = x.var() + y.var() + (x.mean() - y.mean()) ** 2
    return 2 * covariance / denominator if denominator > 0 else 0.0


def random_sums(n_videos=8, n_rows=50, seed=0, noise=0.3):
    rng = np.random.default_rng(seed)
    videos = [random_video(rng, n_rows, noise) for _ in range(n_videos)]
    return Sums(tuple(f"v{k}" for k in range(n_videos)), {t: np.stack([v[t] for v in videos]) for t in TASKS})


def random_video(rng, n_rows, noise):
    everywhere = np.ones(n_rows, bool)
    va = rng.uniform(-1, 1, (n_rows, 2))
    expr, au = rng.integers(0, 8, n_rows), rng.integers(0, 2, (n_rows, 12))
    wrong = rng.random(n_rows) < noise
    return {
        VA: ccc_sums(va + noise * rng.normal(size=va.shape), va, everywhere),
        EXPR: confusion(np.where(wrong, (expr + 1) % 8, expr), expr, everywhere, 8),
        AU: presence_counts((au ^ wrong[:, None]) > 0, au, np.ones((n_rows, 12), bool)),
    }
