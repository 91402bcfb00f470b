"""How far a score would move with other recordings: the bootstrap over recordings, all draws at once.

Frames of one recording resemble each other, so whole recordings are drawn, with all their videos. With
draws as rows of a matrix of counts, one product with the per-video sums gives the sums of every draw.
"""

from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from abaw.errors import UsageError
from abaw.randomness import Purpose, keyed_generator
from abaw.recordings import recording_places

LEVEL = 0.95
"""Share of repetitions in which an interval is meant to hold the truth."""


def draw_recordings(videos: Sequence[str], draws: int, seed: int) -> NDArray[np.float64]:
    """How often each video is drawn, float64 (draws, V): as often as the recording it belongs to.

    Every draw takes as many recordings as there are.

    Args:
        videos: V names, at least one.
        draws: Number of draws.
        seed: Of the random generator.

    Raises:
        UsageError: `draws` or `seed` is negative.
    """
    for name, value in (("draws", draws), ("seed", seed)):
        if value < 0:
            raise UsageError(f"{name}: {value} is too small; give 0 or more")
    place = recording_places(videos)
    n_recordings = int(place.max()) + 1
    chances = np.full(n_recordings, 1 / n_recordings)
    rng = keyed_generator(Purpose.BOOTSTRAP, seed)
    drawn = rng.multinomial(n_recordings, chances, size=draws)
    counts: NDArray[np.float64] = drawn[:, place].astype(np.float64)
    return counts


def resample(sums: NDArray, drawn: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sums of each draw, (draws, ...), from the sums per video (n_videos, ...)."""
    return np.tensordot(drawn, sums.astype(np.float64), axes=1)


def interval(values: NDArray, n_recordings: int) -> NDArray[np.float64] | None:
    """The 95 % interval of a statistic, (2, ...), from its values in all draws (draws, ...).

    The percentile interval, widened for the narrowness of the bootstrap in small samples (Hesterberg,
    "What teachers should know about the bootstrap", 2015). Draws without a value are NaN and left out.

    Args:
        values: float (draws, ...).
        n_recordings: How many recordings carry the statistic.

    Returns:
        Lower and upper end; None where fewer than two recordings, or no draw, leave the spread unknown.
    """
    if n_recordings < 2 or not np.isfinite(values).any():
        return None
    tail = NormalDist().cdf(-np.sqrt(n_recordings / (n_recordings - 1)) * _student(n_recordings - 1))
    ends: NDArray[np.float64] = np.nanquantile(values, [tail, 1 - tail], axis=0)
    return ends


def _student(freedom: int) -> float:
    """Upper quantile of Student's t at `LEVEL`, by the Cornish-Fisher expansion."""
    z = NormalDist().inv_cdf((1 + LEVEL) / 2)
    return z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
