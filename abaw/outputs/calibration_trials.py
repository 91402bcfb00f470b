"""What each correction of a calibration gains on videos that had no part in choosing its settings."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from abaw.comparison import compare
from abaw.outputs.calibration_grid import Choice, Grid
from abaw.scores import SHAPES, Sums
from abaw.tasks import Task

SURE = 0.95
"""A correction is kept if it gains on held-out videos in at least this share of bootstrap draws."""

DRAWS = 1000

NOTHING = {"smooth": False, "decide": False}
"""What `Grid.choose` may choose where no correction is kept."""

_PARTS = {
    "smoothing": {"smooth": True, "decide": False},
    "decisions": {"smooth": False, "decide": True},
    "smoothing and decisions": {"smooth": True, "decide": True},
}
_DECISIONS = {Task.EXPR: "class prior", Task.AU: "thresholds"}

Choose = Callable[[NDArray[np.int64], int], Choice]
"""Chooses on some tracks, by their places, for those of a fold of which it may know nothing."""


@dataclass(frozen=True)
class Trial:
    """What some of the corrections do on held-out videos.

    Attributes:
        what: Their names.
        parts: What `Grid.choose` may choose for them.
        gain: Over the raw tracks, as `comparison.compare` gives it.
    """

    what: str
    parts: Mapping[str, bool]
    gain: Mapping[str, Any]

    @property
    def gains(self) -> bool:
        """Whether they surely help."""
        return bool(self.gain["difference"] > 0 and self.gain["probability"] >= SURE)

    def note(self, kept: bool) -> str:
        """A line about them for the report."""
        did = f"{self.gain['difference']:+.4f} on held-out videos"
        share = f"a gain in {self.gain['probability']:.0%} of draws"
        return f"{self.what}: {did}, {share}: {'kept' if kept else 'left out'}"


def run_trials(
    grid: Grid, videos: NDArray[np.int64], fold_of: NDArray[np.int64], seed: int, without: int | None = None
) -> list[Trial]:
    """The corrections alone and together, the simpler ones first; none where nothing can be held out.

    Args:
        grid: Of the task.
        videos: Places of the tracks to try them on.
        fold_of: The fold of each of these.
        seed: Of the bootstrap.
        without: A fold of the grid of which nothing may be known; null where `fold_of` are the grid's own.
    """
    if len(set(fold_of.tolist())) < 2:
        return []
    trials, raw = [], named_sums(grid, videos, grid.raw[videos])
    for name, parts in _PARTS.items():
        if parts["decide"] and grid.task is Task.VA:
            continue

        def choose(rest: NDArray[np.int64], fold: int, parts: Mapping[str, bool] = parts) -> Choice:
            return grid.choose(rest, without=fold if without is None else without, **parts)

        what = name.replace("decisions", _DECISIONS.get(grid.task, ""))
        gain = compare(cross_fit(grid, videos, fold_of, choose), raw, DRAWS, seed)[grid.task]
        trials.append(Trial(what, parts, gain))
    return trials


def best_of(trials: Sequence[Trial]) -> Trial | None:
    """The trial that gains most; None if none surely gains."""
    return max((t for t in trials if t.gains), key=lambda trial: trial.gain["difference"], default=None)


def cross_fit(grid: Grid, videos: NDArray[np.int64], fold_of: NDArray[np.int64], choose: Choose) -> Sums:
    """The sums of these videos, those of each fold with what `choose` takes on the others."""
    sums = np.empty((len(videos), *SHAPES[grid.task]))
    for fold in set(fold_of.tolist()):
        inside = fold_of == fold
        sums[inside] = grid.sums_of(choose(videos[~inside], fold), videos[inside])
    return named_sums(grid, videos, sums)


def named_sums(grid: Grid, videos: NDArray[np.int64], sums: NDArray) -> Sums:
    """Sums (videos, ...) of some of a grid's tracks, with the names of their videos."""
    return Sums(tuple(grid.tracks[video].video for video in videos), **{str(grid.task): sums})
