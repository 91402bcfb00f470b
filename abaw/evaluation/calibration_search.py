"""Grid search for the calibration with the highest score, from cached sums per video."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from abaw.data.labels import Labels
from abaw.evaluation.calibration import FILTERS, Calibration, Smoothing, log_odds, log_probabilities
from abaw.evaluation.formulas import confusion, extend, label_scores, sums_shape, video_sums
from abaw.evaluation.scores import Sums, compare
from abaw.evaluation.tracks import Track
from abaw.tasks import AU, EXPR, VA, Task

# the first entry of every grid changes nothing, so that it wins ties
_WIDE, _NARROW = (1, 2, 3, 5, 10, 20, 35, 50, 75, 100), (1, 2, 3, 5, 8, 12)

STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5)

THRESHOLDS = tuple(float(special.expit(step / 4)) for step in sorted(range(-16, 17), key=abs))  # 0.02 to 0.98

TEMPERATURES = tuple(float(np.exp(step / 8)) for step in sorted(range(-12, 13), key=abs))  # 0.22 to 4.5


def smoothings(task: Task) -> list[Smoothing]:
    """The candidate smoothings of a task."""
    widths = _NARROW if task == AU else _WIDE
    return [Smoothing(), *(Smoothing(kind, width) for kind in FILTERS if kind != "none" for width in widths)]


@dataclass(frozen=True)
class Choice:
    """Position of a candidate in a grid.

    Attributes:
        smoothing: Index of the smoothing.
        rules: Index of the decision rule, for action units one index each.
    """

    smoothing: int
    rules: tuple[int, ...]


class Grid:
    """All candidate settings of one task and their sums on every video.

    Args:
        task: The task.
        tracks: V uncalibrated tracks with that task.
        labels_of: Function from the name of a video to its labels.
        fold_of: int (V,), the fold of every track.
    """

    def __init__(
        self,
        task: Task,
        tracks: Sequence[Track],
        labels_of: Callable[[str], Labels],
        fold_of: NDArray[np.int64],
    ) -> None:
        self.task = task
        self.tracks = tracks
        self.labels_of = labels_of
        self.fold_of = fold_of
        self.smoothings = smoothings(task)
        self._priors = self._expected_classes() if task == EXPR else {}
        # (V, S, D, *sums_shape(task)): D decision rules, class priors of some strength or AU thresholds
        self.sums = np.stack([self._video(track) for track in tracks])

    def choose(self, videos: NDArray[np.int64], *, without: int | None, smooth: bool, decide: bool) -> Choice:
        """The settings with the best score on some videos.

        Args:
            videos: Indices in `tracks`.
            without: The held-out fold; null: none.
            smooth: Whether to search over smoothings.
            decide: Whether to search over prior strengths or AU thresholds.
        """
        rules = self._rules(without) if decide else np.zeros(1, np.int64)
        tried = self.sums[np.ix_(videos, np.arange(len(self.smoothings) if smooth else 1), rules)]
        scores = label_scores(self.task, tried.sum(0))  # (S, D, K)
        if self.task == AU:  # every AU has its own threshold
            s = int(scores.max(1).mean(-1).argmax())
            return Choice(s, tuple(rules[scores[s].argmax(0)].tolist()))
        s, d = (int(place) for place in np.unravel_index(scores.mean(-1).argmax(), scores.shape[:2]))
        return Choice(s, (int(rules[d]),))

    def sums_of(self, choice: Choice, videos: NDArray[np.int64]) -> NDArray:
        """Sums of some settings, (videos, *sums_shape(task))."""
        sums = self.sums[videos, choice.smoothing]
        if self.task == AU:
            return np.stack([sums[:, rule, unit] for unit, rule in enumerate(choice.rules)], axis=1)
        return np.asarray(sums[:, choice.rules[0]])

    @property
    def raw(self) -> NDArray:
        """Sums of the uncalibrated tracks, (V, *sums_shape(task))."""
        return np.asarray(self.sums[:, 0, 0])

    def calibration(self, choice: Choice) -> Calibration:
        """The calibration with some settings."""
        smoothing = {self.task: self.smoothings[choice.smoothing]}
        if self.task == AU:
            return Calibration(smoothing=smoothing, au_thresholds=tuple(THRESHOLDS[r] for r in choice.rules))
        if self.task == VA or choice.rules == (0,):
            return Calibration(smoothing=smoothing)
        prior, strength = list(product(self._priors.values(), STRENGTHS[1:]))[choice.rules[0] - 1]
        return Calibration(smoothing=smoothing, expr_prior=prior, expr_prior_strength=strength)

    def log_losses(self, calibration: Calibration) -> NDArray[np.float64]:
        """Number of labelled values and their summed log loss per temperature, (V, 1 + temperatures).

        Of the smoothed probabilities at each of `TEMPERATURES`, before prior and thresholds.
        """
        result = np.zeros((len(self.tracks), 1 + len(TEMPERATURES)))
        for row, track in zip(result, self.tracks, strict=True):
            labels = self.labels_of(track.video)
            values = extend(calibration.smoothed(self.task, track.values[self.task]), len(labels))
            target, valid = labels[self.task]
            row[0] = valid.sum()
            for k, temperature in enumerate(TEMPERATURES, 1):
                if self.task == EXPR:
                    logs = special.log_softmax(log_probabilities(values) / temperature, axis=1)
                    row[k] = -logs[np.flatnonzero(valid), target[valid]].sum()
                else:
                    signs = np.where(target == 1, 1, -1)
                    row[k] = -special.log_expit(signs * log_odds(values) / temperature)[valid].sum()
        return result

    def _rules(self, without: int | None) -> NDArray[np.int64]:
        """Indices of the decision rules to search, the one that changes nothing first."""
        if self.task != EXPR:
            return np.arange(self.sums.shape[2])
        n, place = len(STRENGTHS) - 1, list(self._priors).index(without)
        return np.array([0, *range(1 + place * n, 1 + (place + 1) * n)])

    def _expected_classes(self) -> dict[int | None, tuple[float, ...]]:
        """Mean predicted probabilities of the classes, over all tracks and without each fold."""
        sums = np.stack([track.values[EXPR].sum(0, dtype=np.float64) for track in self.tracks])
        priors: dict[int | None, tuple[float, ...]] = {}
        for fold in (None, *sorted(set(self.fold_of.tolist()))):
            total = sums[self.fold_of != fold].sum(0) if fold is not None else sums.sum(0)
            if total.any():  # there is another fold
                # the floor keeps a class that is never predicted from outweighing all others
                mean = np.maximum(total / total.sum(), 1e-3)
                priors[fold] = tuple((mean / mean.sum()).tolist())
        return priors

    def _video(self, track: Track) -> NDArray:
        """Sums of one track in all settings, (S, D, *sums_shape(task))."""
        labels, values = self.labels_of(track.video), track.values[self.task]
        rows = []
        for smoothing in self.smoothings:
            smooth = Calibration(smoothing={self.task: smoothing}).smoothed(self.task, values)
            rows.append(self._decisions(extend(smooth, len(labels)), labels))
        return np.stack(rows)

    def _decisions(self, values: NDArray, labels: Labels) -> NDArray:
        """Sums of smoothed values under all decision rules, (D, *sums_shape(task))."""
        if self.task == VA:
            return video_sums(self.task, values, labels[self.task])[None]
        if self.task == AU:
            return threshold_counts(values, *labels[AU])
        target, valid = labels[EXPR]
        logs, target = log_probabilities(values[valid]), target[valid]
        shifts = [np.zeros(self.task.size)]
        shifts += [s * np.log(prior) for prior, s in product(self._priors.values(), STRENGTHS[1:])]
        every = np.ones(len(logs), bool)
        return np.stack([confusion((logs - shift).argmax(1), target, every, EXPR.size) for shift in shifts])


def threshold_counts(values: NDArray, target: NDArray, valid: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The counts of `presence_counts` (D, 12, 4) at each of `THRESHOLDS`, from probabilities (N, 12)."""
    rising = np.sort(THRESHOLDS)
    reached = np.searchsorted(rising, values, side="right")  # number of thresholds at or below a value
    n_bins = len(rising) + 1
    cells = (np.arange(values.shape[1]) * 2 + target.astype(np.int64)) * n_bins + reached
    bins = np.bincount(cells[valid], minlength=values.shape[1] * 2 * n_bins).reshape(-1, 2, n_bins)
    below = bins.cumsum(-1)[..., :-1]  # (12, 2, D): values below the threshold
    above = bins.sum(-1, keepdims=True) - below
    counts = np.stack([above[:, 1], above[:, 0], below[:, 1], below[:, 0]], axis=-1)  # (12, D, 4)
    rank = np.searchsorted(rising, THRESHOLDS)
    return np.asarray(counts.swapaxes(0, 1)[rank])


SURE = 0.95
"""Share of bootstrap draws with a gain on held-out videos from which a correction is kept."""

DRAWS = 1000

NOTHING = {"smooth": False, "decide": False}
"""Arguments of `Grid.choose` without any correction."""

_PARTS = {
    "smoothing": {"smooth": True, "decide": False},
    "decisions": {"smooth": False, "decide": True},
    "smoothing and decisions": {"smooth": True, "decide": True},
}

_DECISIONS = {EXPR: "class prior", AU: "thresholds"}

Choose = Callable[[NDArray[np.int64], int], Choice]
"""Function from the indices of tracks and the held-out fold to the settings chosen on the tracks."""


@dataclass(frozen=True)
class Trial:
    """Gain of some corrections on held-out videos.

    Attributes:
        what: Names of the corrections.
        parts: Arguments of `Grid.choose` for them.
        gain: Difference from the uncalibrated tracks, from `scores.compare`.
    """

    what: str
    parts: Mapping[str, bool]
    gain: Mapping[str, Any]

    @property
    def gains(self) -> bool:
        """Whether the gain is significant."""
        return bool(self.gain["difference"] > 0 and self.gain["probability"] >= SURE)

    def note(self, kept: bool) -> str:
        """One line for the report."""
        did = f"{self.gain['difference']:+.4f} on held-out videos"
        share = f"a gain in {self.gain['probability']:.0%} of draws"
        return f"{self.what}: {did}, {share}: {'kept' if kept else 'left out'}"


def run_trials(
    grid: Grid, videos: NDArray[np.int64], fold_of: NDArray[np.int64], seed: int, without: int | None = None
) -> list[Trial]:
    """Trials of the corrections alone and together, simplest first; empty with fewer than two folds.

    Args:
        grid: Grid of the task.
        videos: Indices of the tracks to use.
        fold_of: Fold of each of these tracks.
        seed: Seed of the bootstrap.
        without: Fold of the grid held out from all trials; null: `fold_of` are the folds of the grid.
    """
    if len(set(fold_of.tolist())) < 2:
        return []
    trials, raw = [], named_sums(grid, videos, grid.raw[videos])
    for name, parts in _PARTS.items():
        if parts["decide"] and grid.task == VA:
            continue

        def choose(rest: NDArray[np.int64], fold: int, parts: Mapping[str, bool] = parts) -> Choice:
            return grid.choose(rest, without=fold if without is None else without, **parts)

        what = name.replace("decisions", _DECISIONS.get(grid.task, ""))
        gain = compare(cross_fit(grid, videos, fold_of, choose), raw, DRAWS, seed)[grid.task.name]
        trials.append(Trial(what, parts, gain))
    return trials


def best_of(trials: Sequence[Trial]) -> Trial | None:
    """The trial with the largest significant gain; None if there is none."""
    return max((t for t in trials if t.gains), key=lambda trial: trial.gain["difference"], default=None)


def cross_fit(grid: Grid, videos: NDArray[np.int64], fold_of: NDArray[np.int64], choose: Choose) -> Sums:
    """Sums of some videos, those of each fold with the settings chosen on the other folds."""
    sums = np.empty((len(videos), *sums_shape(grid.task)))
    for fold in set(fold_of.tolist()):
        inside = fold_of == fold
        sums[inside] = grid.sums_of(choose(videos[~inside], fold), videos[inside])
    return named_sums(grid, videos, sums)


def named_sums(grid: Grid, videos: NDArray[np.int64], sums: NDArray) -> Sums:
    """`Sums` of some tracks of a grid, from an array (videos, ...)."""
    return Sums(tuple(grid.tracks[video].video for video in videos), {grid.task: sums})
