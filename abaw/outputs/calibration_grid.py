"""What each setting of a calibration would score: sums of every video for every setting, counted once.

The grids follow what helped ABAW participants: half-widths around 50 frames for VA and EXPR, a few for AU.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import special

from abaw.data.annotations import Labels
from abaw.outputs.calibration import KINDS, Calibration, Smoothing, expr_scores, log_odds
from abaw.outputs.tracks import Track, video_sums
from abaw.scores import expr_confusion, extend, label_scores
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


class Grid:
    """The settings of one task, and what they score on every video.

    Args:
        task: The task.
        tracks: V raw tracks with that task.
        labels_of: Gives the labels of a video by name.
    """

    def __init__(self, task: Task, tracks: Sequence[Track], labels_of: Callable[[str], Labels]) -> None:
        self.task = task
        self.tracks = tracks
        self.labels_of = labels_of
        self.smoothings = smoothings(task)
        self.prior = self._prior() if task is Task.EXPR else Calibration().expr_prior
        # (V, S, D, *SHAPES[task]): D decision rules, class-prior strengths or AU thresholds
        self.sums = np.stack([self._video(track) for track in tracks])

    def choose(self, videos: Sequence[int], *, smooth: bool, decide: bool) -> Calibration:
        """The settings that score best on these videos together, by their places.

        Args:
            videos: Places in `tracks`.
            smooth: Smoothing may be chosen.
            decide: A prior strength or AU thresholds may be chosen.
        """
        scores = label_scores(self.task, self.sums[list(videos)].sum(0))  # (S, D, K)
        scores = scores[: None if smooth else 1, : None if decide else 1]
        if self.task is Task.AU:  # every AU has its own threshold
            s = int(scores.max(1).mean(-1).argmax())
            thresholds = tuple(THRESHOLDS[d] for d in scores[s].argmax(0))
            return Calibration(smoothing={self.task: self.smoothings[s]}, au_thresholds=thresholds)
        s, d = (int(place) for place in np.unravel_index(scores.mean(-1).argmax(), scores.shape[:2]))
        return Calibration(
            smoothing={self.task: self.smoothings[s]}, expr_prior=self.prior, expr_prior_strength=STRENGTHS[d]
        )

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
                    logs = special.log_softmax(expr_scores(values, self.prior, 0) / temperature, axis=1)
                    row[k] = -logs[np.flatnonzero(valid), target[valid]].sum()
                else:
                    signs = np.where(target == 1, 1, -1)
                    row[k] = -special.log_expit(signs * log_odds(values) / temperature)[valid].sum()
        return result

    def _prior(self) -> tuple[float, ...]:
        """How often the model expects each class; labels have no part in it."""
        mean = np.concatenate([track.values[Task.EXPR] for track in self.tracks]).mean(0, dtype=np.float64)
        mean = np.maximum(mean, 1e-3)  # a class that is never expected shall not outweigh all others
        return tuple((mean / mean.sum()).tolist())

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
        classes = (expr_scores(values, self.prior, strength).argmax(1) for strength in STRENGTHS)
        return np.stack([expr_confusion(c, labels.expr, labels.expr_valid) for c in classes])


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
