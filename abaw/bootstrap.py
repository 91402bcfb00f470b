"""How far a score would move with other videos: the bootstrap over videos, all draws at once.

Frames of one video resemble each other, so whole videos are drawn. With draws as rows of a matrix of
counts, one product with the per-video sums gives the sums of every draw.
"""

from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from abaw.errors import UsageError
from abaw.randomness import Purpose, keyed_generator

LEVEL = 0.95
"""Share of repetitions in which an interval is meant to hold the truth."""


def draw_videos(n_videos: int, draws: int, seed: int) -> NDArray[np.float64]:
    """How often each video is drawn, (draws, n_videos); every row adds up to `n_videos`.

    Raises:
        UsageError: `draws` or `seed` is negative.
    """
    for name, value in (("draws", draws), ("seed", seed)):
        if value < 0:
            raise UsageError(f"{name}: {value} is too small; give 0 or more")
    rng = keyed_generator(Purpose.BOOTSTRAP, seed)
    chances = np.full(n_videos, 1 / n_videos)
    return rng.multinomial(n_videos, chances, size=draws).astype(np.float64)


def resample(sums: NDArray, drawn: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sums of each draw, (draws, ...), from the sums per video (n_videos, ...)."""
    return np.tensordot(drawn, sums.astype(np.float64), axes=1)


def interval(values: NDArray, n_videos: int) -> NDArray[np.float64] | None:
    """The 95 % interval of a statistic, (2, ...), from its values in all draws (draws, ...).

    The percentile interval, widened for the narrowness of the bootstrap in small samples (Hesterberg,
    "What teachers should know about the bootstrap", 2015). Draws without a value are NaN and left out.

    Args:
        values: float (draws, ...).
        n_videos: How many videos carry the statistic.

    Returns:
        Lower and upper end; None where fewer than two videos, or no draw, leave the spread unknown.
    """
    if n_videos < 2 or not np.isfinite(values).any():
        return None
    tail = NormalDist().cdf(-np.sqrt(n_videos / (n_videos - 1)) * _student(n_videos - 1))
    ends: NDArray[np.float64] = np.nanquantile(values, [tail, 1 - tail], axis=0)
    return ends


def _student(freedom: int) -> float:
    """Upper quantile of Student's t at `LEVEL`, by the Cornish-Fisher expansion."""
    z = NormalDist().inv_cdf((1 + LEVEL) / 2)
    return z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
