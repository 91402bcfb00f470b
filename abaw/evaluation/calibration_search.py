"""Search for the calibration that scores highest, over grids evaluated from cached sums."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from abaw.data.labels import Labels
from abaw.evaluation.calibration import KINDS, Calibration, Smoothing, log_odds, log_probabilities
from abaw.evaluation.scores import SHAPES, Sums, compare, expr_confusion, extend, label_scores
from abaw.evaluation.tracks import Track, video_sums
from abaw.tasks import Task

# every grid begins with what changes nothing, so that it wins ties
_WIDE, _NARROW = (1, 2, 3, 5, 10, 20, 35, 50, 75, 100), (1, 2, 3, 5, 8, 12)

STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5)

THRESHOLDS = tuple(float(special.expit(step / 4)) for step in sorted(range(-16, 17), key=abs))  # 0.02 to 0.98

TEMPERATURES = tuple(float(np.exp(step / 8)) for step in sorted(range(-12, 13), key=abs))  # 0.22 to 4.5


def smoothings(task: Task) -> list[Smoothing]:
    """The smoothings tried for a task."""
    widths = _NARROW if task is Task.AU else _WIDE
    return [Smoothing(), *(Smoothing(kind, width) for kind in KINDS if kind != "none" for width in widths)]


@dataclass(frozen=True)
class Choice:
    """One of the settings of a grid.

    Attributes:
        smoothing: Place of the smoothing.
        rules: Place of the decision rule, for action units one place for each.
    """

    smoothing: int
    rules: tuple[int, ...]


class Grid:
    """The settings of one task, and what they score on every video.

    Args:
        task: The task.
        tracks: V raw tracks with that task.
        labels_of: Gives the labels of a video by name.
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
        self._priors = self._expected_classes() if task is Task.EXPR else {}
        # (V, S, D, *SHAPES[task]): D decision rules, class priors of some strength or AU thresholds
        self.sums = np.stack([self._video(track) for track in tracks])

    def choose(self, videos: NDArray[np.int64], *, without: int | None, smooth: bool, decide: bool) -> Choice:
        """The settings that score best on these videos together.

        Args:
            videos: Places in `tracks`.
            without: A fold of which nothing may be known; null where all are to be calibrated.
            smooth: Smoothing may be chosen.
            decide: A prior strength or AU thresholds may be chosen.
        """
        rules = self._rules(without) if decide else np.zeros(1, np.int64)
        tried = self.sums[np.ix_(videos, np.arange(len(self.smoothings) if smooth else 1), rules)]
        scores = label_scores(self.task, tried.sum(0))  # (S, D, K)
        if self.task is Task.AU:  # every AU has its own threshold
            s = int(scores.max(1).mean(-1).argmax())
            return Choice(s, tuple(rules[scores[s].argmax(0)].tolist()))
        s, d = (int(place) for place in np.unravel_index(scores.mean(-1).argmax(), scores.shape[:2]))
        return Choice(s, (int(rules[d]),))

    def sums_of(self, choice: Choice, videos: NDArray[np.int64]) -> NDArray:
        """What some settings score: sums (videos, *SHAPES[task])."""
        sums = self.sums[videos, choice.smoothing]
        if self.task is Task.AU:
            return np.stack([sums[:, rule, unit] for unit, rule in enumerate(choice.rules)], axis=1)
        return np.asarray(sums[:, choice.rules[0]])

    @property
    def raw(self) -> NDArray:
        """What the tracks score as they are: sums (V, *SHAPES[task])."""
        return np.asarray(self.sums[:, 0, 0])

    def calibration(self, choice: Choice) -> Calibration:
        """Settings as a calibration."""
        smoothing = {self.task: self.smoothings[choice.smoothing]}
        if self.task is Task.AU:
            return Calibration(smoothing=smoothing, au_thresholds=tuple(THRESHOLDS[r] for r in choice.rules))
        if self.task is Task.VA or choice.rules == (0,):
            return Calibration(smoothing=smoothing)
        prior, strength = list(product(self._priors.values(), STRENGTHS[1:]))[choice.rules[0] - 1]
        return Calibration(smoothing=smoothing, expr_prior=prior, expr_prior_strength=strength)

    def log_losses(self, calibration: Calibration) -> NDArray[np.float64]:
        """Sums (V, 1 + temperatures) over the labelled values of each video: their number, their log losses.

        Of the smoothed probabilities at each of `TEMPERATURES`, before prior and thresholds.
        """
        result = np.zeros((len(self.tracks), 1 + len(TEMPERATURES)))
        for row, track in zip(result, self.tracks, strict=True):
            labels = self.labels_of(track.video)
            values = extend(calibration.smoothed(self.task, track.values[self.task]), len(labels))
            target, valid = labels.values(self.task), labels.valid(self.task)
            row[0] = valid.sum()
            for k, temperature in enumerate(TEMPERATURES, 1):
                if self.task is Task.EXPR:
                    logs = special.log_softmax(log_probabilities(values) / temperature, axis=1)
                    row[k] = -logs[np.flatnonzero(valid), target[valid]].sum()
                else:
                    signs = np.where(target == 1, 1, -1)
                    row[k] = -special.log_expit(signs * log_odds(values) / temperature)[valid].sum()
        return result

    def _rules(self, without: int | None) -> NDArray[np.int64]:
        """The decision rules that may be chosen, the one that changes nothing first."""
        if self.task is not Task.EXPR:
            return np.arange(self.sums.shape[2])
        n, place = len(STRENGTHS) - 1, list(self._priors).index(without)
        return np.array([0, *range(1 + place * n, 1 + (place + 1) * n)])

    def _expected_classes(self) -> dict[int | None, tuple[float, ...]]:
        """How often the model expects each class in all tracks, and without each fold; no label is used."""
        sums = np.stack([track.values[Task.EXPR].sum(0, dtype=np.float64) for track in self.tracks])
        priors: dict[int | None, tuple[float, ...]] = {}
        for fold in (None, *sorted(set(self.fold_of.tolist()))):
            total = sums[self.fold_of != fold].sum(0) if fold is not None else sums.sum(0)
            if total.any():  # there is another fold
                mean = np.maximum(
                    total / total.sum(), 1e-3
                )  # one never expected shall not outweigh all others
                priors[fold] = tuple((mean / mean.sum()).tolist())
        return priors

    def _video(self, track: Track) -> NDArray:
        """(S, D, *SHAPES[task])."""
        labels, values = self.labels_of(track.video), track.values[self.task]
        rows = []
        for smoothing in self.smoothings:
            smooth = Calibration(smoothing={self.task: smoothing}).smoothed(self.task, values)
            rows.append(self._decisions(extend(smooth, len(labels)), labels))
        return np.stack(rows)

    def _decisions(self, values: NDArray, labels: Labels) -> NDArray:
        """(D, *SHAPES[task])."""
        if self.task is Task.VA:
            return video_sums(self.task, values, labels)[None]
        if self.task is Task.AU:
            return threshold_counts(values, labels.au, labels.au_valid)
        logs = log_probabilities(values[labels.expr_valid])
        shifts = [np.zeros(self.task.size)]
        shifts += [s * np.log(prior) for prior, s in product(self._priors.values(), STRENGTHS[1:])]
        target, valid = labels.expr[labels.expr_valid], np.ones(len(logs), bool)
        return np.stack([expr_confusion((logs - shift).argmax(1), target, valid) for shift in shifts])


def threshold_counts(values: NDArray, target: NDArray, valid: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The counts of `scores.au_counts` (D, 12, 4) at each of `THRESHOLDS`, from probabilities (N, 12)."""
    rising = np.sort(THRESHOLDS)
    reached = np.searchsorted(rising, values, side="right")  # how many thresholds a value reaches
    n_bins = len(rising) + 1
    cells = (np.arange(values.shape[1]) * 2 + target.astype(np.int64)) * n_bins + reached
    bins = np.bincount(cells[valid], minlength=values.shape[1] * 2 * n_bins).reshape(-1, 2, n_bins)
    below = bins.cumsum(-1)[..., :-1]  # (12, 2, D): values that do not reach the threshold
    above = bins.sum(-1, keepdims=True) - below
    counts = np.stack([above[:, 1], above[:, 0], below[:, 1], below[:, 0]], axis=-1)  # (12, D, 4)
    rank = np.searchsorted(rising, THRESHOLDS)
    return np.asarray(counts.swapaxes(0, 1)[rank])


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
