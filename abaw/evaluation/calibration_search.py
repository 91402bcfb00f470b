"""Grid search for the calibration with the highest score, from cached sums per video."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from abaw.data.labels import Labels
from abaw.evaluation.calibration import FILTERS, Calibration, Smoothing, log_odds, log_probabilities
from abaw.evaluation.formulas import confusion, extend, label_scores, sums_shape, video_sums
from abaw.evaluation.scores import Sums, compare
from abaw.evaluation.tracks import Track
from abaw.tasks import Task, TaskLabels

STRENGTHS = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5)

# the first entry of every grid changes nothing, so that it wins ties
THRESHOLDS = tuple(float(special.expit(step / 4)) for step in sorted(range(-16, 17), key=abs))  # 0.02 to 0.98
TEMPERATURES = tuple(float(np.exp(step / 8)) for step in sorted(range(-12, 13), key=abs))  # 0.22 to 4.5
_NONE = Calibration()


@dataclass(frozen=True)
class Choice:
    """Position of a candidate in a grid.

    Attributes:
        smoothing: Index of the smoothing.
        rules: Index of the decision rule, of a binary task one for each output.
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
        widths = (1, 2, 3, 5, 8, 12) if task.kind == "binary" else (1, 2, 3, 5, 10, 20, 35, 50, 75, 100)
        self.smoothings = [Smoothing(), *(Smoothing(kind, n) for kind in FILTERS[1:] for n in widths)]
        self._priors = self._class_priors() if task.kind == "class" else []
        # (V, S, D, *sums_shape(task)): S smoothings, D decision rules: class priors or thresholds
        self.sums = np.stack([self._video(track) for track in tracks])

    def choose(self, videos: NDArray[np.int64], *, without: int | None, smooth: bool, decide: bool) -> Choice:
        """The settings with the best score on some videos.

        Args:
            videos: int64 (n,), indices in `tracks`.
            without: The held-out fold; null: none.
            smooth: Whether to search over smoothings.
            decide: Whether to search over prior strengths or AU thresholds.
        """
        rules = self._rules(without) if decide else np.zeros(1, np.int64)
        tried = self.sums[np.ix_(videos, np.arange(len(self.smoothings) if smooth else 1), rules)]
        scores = label_scores(self.task, tried.sum(0))  # (S, D, K)
        if self.task.kind == "binary":  # every output has its own threshold
            s = int(scores.max(1).mean(-1).argmax())
            return Choice(s, tuple(rules[scores[s].argmax(0)].tolist()))
        s, d = (int(place) for place in np.unravel_index(scores.mean(-1).argmax(), scores.shape[:2]))
        return Choice(s, (int(rules[d]),))

    def sums_of(self, choice: Choice, videos: NDArray[np.int64]) -> NDArray:
        """Sums of some settings, (videos, *sums_shape(task))."""
        sums = self.sums[videos, choice.smoothing]
        if self.task.kind == "binary":
            return np.stack([sums[:, rule, unit] for unit, rule in enumerate(choice.rules)], axis=1)
        return sums[:, choice.rules[0]]

    @property
    def raw(self) -> NDArray:
        """Sums of the uncalibrated tracks, (V, *sums_shape(task))."""
        return self.sums[:, 0, 0]

    def calibration(self, choice: Choice, base: Calibration = _NONE) -> Calibration:
        """The calibration `base` with some settings of this task."""
        smoothing = {**base.smoothing, self.task: self.smoothings[choice.smoothing]}
        settings: dict[str, Any] = {}
        if self.task.kind == "binary":
            settings = {"au_thresholds": tuple(THRESHOLDS[rule] for rule in choice.rules)}
        elif self.task.kind == "class":
            _, prior, strength = self._priors[choice.rules[0]]
            settings = {"expr_prior": prior, "expr_prior_strength": strength}
        return replace(base, smoothing=smoothing, **settings)

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
                if self.task.kind == "class":
                    logs = special.log_softmax(log_probabilities(values) / temperature, axis=1)
                    row[k] = -logs[np.flatnonzero(valid), target[valid]].sum()
                else:
                    signs = np.where(target == 1, 1, -1)
                    row[k] = -special.log_expit(signs * log_odds(values) / temperature)[valid].sum()
        return result

    def _rules(self, without: int | None) -> NDArray[np.int64]:
        """Indices of the decision rules to search, the one that changes nothing first."""
        if self.task.kind != "class":
            return np.arange(self.sums.shape[2])
        folds = [fold for fold, _, _ in self._priors[1:]]
        return np.array([0, *(rule for rule, fold in enumerate(folds, 1) if fold == without)])

    def _class_priors(self) -> list[tuple[int | None, tuple[float, ...], float]]:
        """The decision rules of a class task: fold left out (None: none), prior, and strength.

        The prior is the mean predicted probability of every class.
        """
        sums = np.stack([track.values[self.task].sum(0, dtype=np.float64) for track in self.tracks])
        priors: list[tuple[int | None, tuple[float, ...], float]] = [(None, _NONE.expr_prior, 0.0)]
        for fold in (None, *sorted(set(self.fold_of.tolist()))):
            total = sums[self.fold_of != fold].sum(0)
            if total.any():  # there is another fold
                # the floor keeps a class that is never predicted from outweighing all others
                mean = np.maximum(total / total.sum(), 1e-3)
                prior = tuple((mean / mean.sum()).tolist())
                priors += [(fold, prior, strength) for strength in STRENGTHS]
        return priors

    def _video(self, track: Track) -> NDArray:
        """Sums of one track in all settings, (S, D, *sums_shape(task))."""
        labels, values = self.labels_of(track.video), track.values[self.task]
        smooth = (Calibration(smoothing={self.task: s}).smoothed(self.task, values) for s in self.smoothings)
        return np.stack([self._decisions(extend(each, len(labels)), labels[self.task]) for each in smooth])

    def _decisions(self, values: NDArray, labels: TaskLabels[NDArray[Any]]) -> NDArray:
        """Sums of smoothed values under all decision rules, (D, *sums_shape(task))."""
        target, valid = labels
        if self.task.kind == "real":
            return video_sums(self.task, values, labels)[None]
        if self.task.kind == "binary":
            return threshold_counts(values, target, valid)
        logs = log_probabilities(values)
        classes = ((logs - strength * np.log(prior)).argmax(1) for _, prior, strength in self._priors)
        return np.stack([confusion(each, target, valid, self.task.size) for each in classes])


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
    return counts.swapaxes(0, 1)[rank]


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

_DECISIONS = {"class": "class prior", "binary": "thresholds", "real": ""}
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

    def note(self, n_videos: int, best: "Trial | None", *, confirmed: bool = True) -> str:
        """One line for the report, with the reason if the corrections are left out.

        Args:
            n_videos: Number of held-out videos.
            best: The trial with the largest significant gain; None: there is none.
            confirmed: Whether its gain remains when its own selection is cross-fitted.
        """
        ends = self.gain["interval"]
        text = f"{self.what}: {self.gain['difference']:+.4f} on {n_videos} held-out videos"
        text += "" if ends is None else f", 95 % [{ends[0]:+.4f}, {ends[1]:+.4f}]"
        text += f", a gain in {self.gain['probability']:.0%} of draws"
        if self is best:
            reason = "" if confirmed else "no gain when this choice itself is cross-fitted"
        elif not self.gains:
            reason = f"fewer than {SURE:.0%}" if self.gain["difference"] > 0 else "no gain"
        else:
            assert best is not None  # this one gains too
            reason = f"{best.what} gains more"
        return f"{text}: {f'left out, {reason}' if reason else 'kept'}"


def run_trials(
    grid: Grid, videos: NDArray[np.int64], fold_of: NDArray[np.int64], seed: int, without: int | None = None
) -> list[Trial]:
    """Trials of the corrections alone and together, simplest first; empty with fewer than two folds.

    Args:
        grid: Grid of the task.
        videos: int64 (n,), indices of the tracks to use.
        fold_of: int64 (n,), fold of each of these tracks.
        seed: Seed of the bootstrap.
        without: Fold of the grid held out from all trials; null: `fold_of` are the folds of the grid.
    """
    if len(set(fold_of.tolist())) < 2:
        return []
    trials, raw = [], named_sums(grid, videos, grid.raw[videos])
    for name, parts in _PARTS.items():
        if parts["decide"] and grid.task.kind == "real":
            continue

        def choose(rest: NDArray[np.int64], fold: int, parts: Mapping[str, bool] = parts) -> Choice:
            return grid.choose(rest, without=fold if without is None else without, **parts)

        what = name.replace("decisions", _DECISIONS[grid.task.kind])
        gain = compare(cross_fit(grid, videos, fold_of, choose), raw, DRAWS, seed)[grid.task.name]
        trials.append(Trial(what, parts, gain))
    return trials


def best_of(trials: Sequence[Trial]) -> Trial | None:
    """The trial with the largest significant gain; None if there is none."""
    return max((t for t in trials if t.gains), key=lambda trial: trial.gain["difference"], default=None)


def cross_fit(grid: Grid, videos: NDArray[np.int64], fold_of: NDArray[np.int64], choose: Choose) -> Sums:
    """Sums of some videos (n,), those of each fold (n,) with the settings chosen on the other folds."""
    sums = np.empty((len(videos), *sums_shape(grid.task)))
    for fold in set(fold_of.tolist()):
        inside = fold_of == fold
        sums[inside] = grid.sums_of(choose(videos[~inside], fold), videos[inside])
    return named_sums(grid, videos, sums)


def named_sums(grid: Grid, videos: NDArray[np.int64], sums: NDArray) -> Sums:
    """`Sums` of some tracks of a grid, from an array (videos, ...)."""
    return Sums(tuple(grid.tracks[video].video for video in videos), {grid.task: sums})
