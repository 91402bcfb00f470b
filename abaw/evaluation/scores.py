"""Official scores from additive sums per video, with bootstrap intervals and paired comparisons.

Frames of a video are correlated, so the bootstrap resamples whole recordings. The draws are a matrix of
counts, whose product with the sums per video gives the sums of all draws.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import compress
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from abaw.data.labels import count_recordings, recording_places
from abaw.errors import AbawError, UsageError
from abaw.randomness import Purpose, keyed_generator
from abaw.tasks import EXPR_NAMES, Task

SHAPES: dict[Task, tuple[int, int]] = {Task.VA: (2, 6), Task.EXPR: (8, 8), Task.AU: (12, 4)}
"""Shape of the sums of one video, from `va_sums`, `expr_confusion` and `au_counts`."""


def va_sums(prediction: NDArray, target: NDArray, valid: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Sums (2, 6) of n, x, y, xx, yy, xy for valence and arousal; x predicted, y labelled.

    Args:
        prediction: (N, 2).
        target: (N, 2).
        valid: bool (N,).
    """
    x, y = (values[valid].astype(np.float64).T for values in (prediction, target))  # (2, n)
    sums: NDArray[np.float64] = np.stack([np.ones_like(x), x, y, x * x, y * y, x * y], 1).sum(-1)
    return sums


def expr_confusion(predicted: NDArray, target: NDArray, valid: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Counts (8, 8) of frames by labelled (first axis) and predicted class, from classes (N,)."""
    size = len(EXPR_NAMES)
    cells = target[valid].astype(np.int64) * size + predicted[valid]
    confusion: NDArray[np.int64] = np.bincount(cells, minlength=size * size).reshape(size, size)
    return confusion


def au_counts(predicted: NDArray[np.bool_], target: NDArray, valid: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Counts (12, 4) of true positives, false positives, false negatives, true negatives per AU.

    Args:
        predicted: bool (N, 12), from `au_present`.
        target: (N, 12), 0 or 1.
        valid: bool (N, 12).
    """
    p, t = predicted.astype(bool), target.astype(bool)
    return np.stack([(cell & valid).sum(0) for cell in (p & t, p & ~t, ~p & t, ~p & ~t)], axis=-1)


def expr_class(probabilities: NDArray) -> NDArray[np.int64]:
    """The most probable class (N,) of probabilities (N, 8), the first of equal ones."""
    classes: NDArray[np.int64] = probabilities.argmax(-1)
    return classes


def au_present(probabilities: NDArray, thresholds: ArrayLike = 0.5) -> NDArray[np.bool_]:
    """Presence of AUs, bool (N, 12): probability at or above its threshold."""
    present: NDArray[np.bool_] = probabilities >= np.asarray(thresholds, dtype=probabilities.dtype)
    return present


def extend(values: NDArray, n_rows: int) -> NDArray:
    """Values (N, ...) truncated, or extended by repeating the last one, to `n_rows` label rows.

    Raises:
        AbawError: There are rows but no values.
    """
    if n_rows and not len(values):
        raise AbawError(f"a video without any frame cannot be scored on its {n_rows} label rows")
    rows: NDArray = values[np.minimum(np.arange(n_rows), len(values) - 1)]
    return rows


def ccc(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """Concordance correlation coefficients (...) from sums (..., 6); 0 if undefined."""
    _, x, y, xx, yy, xy = np.moveaxis(sums / np.maximum(sums[..., :1], 1), -1, 0)  # means
    covariance = xy - x * y
    # the covariance of a constant is 0 up to rounding
    related = np.abs(covariance) > 1e-12 * np.sqrt(xx * yy)
    spread = xx - x * x + yy - y * y + (x - y) ** 2
    scores: NDArray[np.float64] = np.where(related, 2 * covariance / np.where(related, spread, 1), 0.0)
    return scores


def f1(tp: NDArray, fp: NDArray, fn: NDArray) -> NDArray[np.float64]:
    """Elementwise F1 score of counts; 0 if there are neither labels nor predictions."""
    scores: NDArray[np.float64] = 2 * tp / np.maximum(2 * tp + fp + fn, 1)
    return scores


def label_scores(task: Task, sums: NDArray) -> NDArray[np.float64]:
    """Score per label (..., K): CCC per dimension, F1 per class or AU. The official score is their mean.

    Args:
        task: Task of the sums.
        sums: (..., *SHAPES[task]), summed over videos.
    """
    if task is Task.VA:
        return ccc(sums)
    if task is Task.EXPR:
        tp = np.diagonal(sums, axis1=-2, axis2=-1)
        return f1(tp, sums.sum(-2) - tp, sums.sum(-1) - tp)
    return f1(sums[..., 0], sums[..., 1], sums[..., 2])


def n_frames(task: Task, sums: NDArray) -> NDArray:
    """Number of labelled frames (...) in sums (..., *SHAPES[task]); for AU of the most labelled AU."""
    if task is Task.VA:
        counts: NDArray = sums[..., 0, 0]
    else:
        counts = sums.sum((-2, -1)) if task is Task.EXPR else sums.sum(-1).max(-1)
    return counts


@dataclass(frozen=True, eq=False)
class Sums:
    """Sufficient statistics of the scores for V videos; None for a task that was not predicted.

    Attributes:
        videos: Names of the V videos.
        va: float64 (V, 2, 6), see `va_sums`.
        expr: int64 (V, 8, 8), see `expr_confusion`.
        au: int64 (V, 12, 4), see `au_counts`.
    """

    videos: tuple[str, ...]
    va: NDArray | None = None
    expr: NDArray | None = None
    au: NDArray | None = None

    def __post_init__(self) -> None:
        for task in Task:
            sums, want = getattr(self, task), (len(self.videos), *SHAPES[task])
            if sums is not None and sums.shape != want:
                raise ValueError(f"sums of {task} have shape {sums.shape}, expected {want}")

    @property
    def labelled(self) -> dict[Task, NDArray]:
        """Sums of every task with at least one labelled frame."""
        return {t: s for t in Task if (s := getattr(self, t)) is not None and n_frames(t, s).any()}

    def select(self, positions: Sequence[int]) -> "Sums":
        """The sums of the videos at some positions, in that order."""
        picked = {t: s[list(positions)] for t in Task if (s := getattr(self, t)) is not None}
        return replace(self, videos=tuple(self.videos[p] for p in positions), **picked)

    def over(self, videos: Sequence[str], tasks: Sequence[Task]) -> "Sums":
        """The sums of some tasks aligned to other videos by name; zeros for videos that are missing here."""
        place = {video: k for k, video in enumerate(self.videos)}
        taken = [place.get(video, -1) for video in videos]  # -1 is the row of zeros appended
        rows = {t: np.concatenate([s, np.zeros_like(s[:1])]) for t, s in self.labelled.items() if t in tasks}
        return Sums(tuple(videos), **{str(task): s[taken] for task, s in rows.items()})


def official(sums: Sums) -> dict[Task, float]:
    """The official score of every labelled task."""
    return {task: float(label_scores(task, v.sum(0)).mean()) for task, v in sums.labelled.items()}


def replicas(sums: Sums, drawn: NDArray[np.float64]) -> dict[Task, NDArray[np.float64]]:
    """Label scores (draws, K) per task in every bootstrap draw; NaN in draws without labelled frames."""
    result = {}
    for task, values in sums.labelled.items():
        drawn_sums = resample(values, drawn)
        empty = n_frames(task, drawn_sums) == 0
        result[task] = np.where(empty[:, None], np.nan, label_scores(task, drawn_sums))
    return result


def summarise(sums: Sums, draws: int = 1000, seed: int = 0) -> dict[str, Any]:
    """The official scores as plain values, as printed by `abaw score --json`.

    Args:
        sums: Sums of all videos of the set.
        draws: Number of bootstrap draws for the 95 % intervals; 0: no intervals.
        seed: Seed of the draws.

    Returns:
        Per labelled task the score, the score of each label, the number of labelled frames, the `interval` of
        the score and the `intervals` of the labels; the `total` of the tasks' scores. An interval is null
        with fewer than two recordings, that of the total if the interval of any task is null.
    """
    result: dict[str, Any] = {}
    drawn = draw_recordings(sums.videos, draws, seed) if draws and sums.videos else None
    drawn_scores = {} if drawn is None else replicas(sums, drawn)
    for task, values in sums.labelled.items():
        scores = label_scores(task, values.sum(0))
        by_label = dict(zip(task.names, scores.tolist(), strict=True))
        named = {Task.VA: by_label, Task.EXPR: {"per_class": by_label}, Task.AU: {"per_au": by_label}}[task]
        result[task] = {**named, "score": float(scores.mean()), "frames": int(n_frames(task, values).sum())}
        if task in drawn_scores:
            n_recordings = count_recordings(compress(sums.videos, n_frames(task, values) > 0))
            ends = interval(drawn_scores[task], n_recordings)
            whole = interval(drawn_scores[task].mean(1), n_recordings)
            result[task]["interval"] = None if whole is None else whole.tolist()
            result[task]["intervals"] = {
                name: None if ends is None else ends[:, k].tolist() for k, name in enumerate(task.names)
            }
    result["total"] = float(sum(result[task]["score"] for task in sums.labelled))
    if drawn_scores:
        labelled = np.any([n_frames(task, values) > 0 for task, values in sums.labelled.items()], axis=0)
        total = sum(values.mean(1) for values in drawn_scores.values())
        known = all(result[task]["interval"] is not None for task in drawn_scores)
        size = count_recordings(compress(sums.videos, labelled)) if known else 0
        ends = interval(np.asarray(total), size)
        result["total_interval"] = None if ends is None else ends.tolist()
    return {str(key): value for key, value in result.items()}


def per_video(sums: Sums) -> dict[str, dict[str, Any]]:
    """The scores of every single video, as from `summarise` without intervals."""
    return {video: summarise(sums.select([k]), draws=0) for k, video in enumerate(sums.videos)}


LEVEL = 0.95
"""Confidence level of the intervals."""


def draw_recordings(videos: Sequence[str], draws: int, seed: int) -> NDArray[np.float64]:
    """Bootstrap counts of each video, float64 (draws, V): those of its recording.

    Every draw has as many recordings as there are.

    Args:
        videos: Names of V videos, at least one.
        draws: Number of draws.
        seed: Seed of the random generator.

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
    """Sums of each draw (draws, ...), from sums per video (n_videos, ...)."""
    return np.tensordot(drawn, sums.astype(np.float64), axes=1)


def interval(values: NDArray, n_recordings: int) -> NDArray[np.float64] | None:
    """The 95 % interval (2, ...) of a statistic from its values in all bootstrap draws (draws, ...).

    The percentile interval, expanded to correct its bias in small samples (Hesterberg,
    "What teachers should know about the bootstrap", 2015). Draws without a value are NaN and ignored.

    Args:
        values: float (draws, ...).
        n_recordings: Number of recordings with labels for the statistic.

    Returns:
        Lower and upper end; None with fewer than two recordings or no draws.
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


def compare(a: Sums, b: Sums, draws: int = 1000, seed: int = 0) -> dict[str, Any]:
    """Paired comparison of two runs: differences of their scores with paired bootstrap intervals.

    Compares the tasks that both predict; videos without labels of these tasks may be missing in one run.

    Returns:
        Per common task, and for their `total`: `difference` (a - b), its 95 % `interval`, and the
        `probability` that a is better: its share of the draws with labels of every task, ties counting half.
        Both are null without draws, or with fewer than two labelled recordings of a task.

    Raises:
        AbawError: The runs differ in their labelled frames or videos.
    """
    tasks = [task for task in a.labelled if task in b.labelled]
    videos = sorted(_labelled_videos(a, tasks) | _labelled_videos(b, tasks))
    a, b = a.over(videos, tasks), b.over(videos, tasks)
    counts, others = (np.array([n_frames(t, runs.labelled[t]) for t in tasks]) for runs in (a, b))
    if not tasks or (counts != others).any():
        differing = [videos[k] for k in np.flatnonzero((counts != others).any(0))] if tasks else []
        raise AbawError(
            "two runs can be compared only on the same labelled frames of the same videos and on a common "
            f"task; videos in which they differ: {', '.join(differing[:5]) or 'none'}"
        )
    drawn = draw_recordings(videos, draws, seed)
    ours, theirs = replicas(a, drawn), replicas(b, drawn)
    gaps = {str(task): ours[task].mean(1) - theirs[task].mean(1) for task in tasks}
    differences = {str(task): official(a)[task] - official(b)[task] for task in tasks}
    sizes = {str(t): count_recordings(compress(videos, n > 0)) for t, n in zip(tasks, counts, strict=True)}
    parts = {name: _part(differences[name], gap, sizes[name]) for name, gap in gaps.items()}
    known = all(part["interval"] is not None for part in parts.values())
    size = count_recordings(videos) if known else 0
    total = _part(sum(differences.values()), np.asarray(sum(gaps.values())), size)
    return {**parts, "total": total}


def _part(difference: float, gaps: NDArray, n_recordings: int) -> dict[str, Any]:
    """One entry of `compare`, from the differences in all draws (draws,); NaN in draws without labels."""
    ends, drawn = interval(gaps, n_recordings), gaps[np.isfinite(gaps)]
    return {
        "difference": difference,
        "interval": None if ends is None else ends.tolist(),
        "probability": None if ends is None else float(((drawn > 0) + 0.5 * (drawn == 0)).mean()),
    }


def _labelled_videos(sums: Sums, tasks: Sequence[Task]) -> set[str]:
    """Names of the videos with a labelled frame in any of some tasks."""
    found = (np.flatnonzero(n_frames(task, sums.labelled[task])) for task in tasks)
    return {sums.videos[place] for places in found for place in places}


def best_constant(sums: Sums) -> dict[Task, float]:
    """The official scores of the best constant prediction, chosen on the labels scored.

    VA: 0, as a constant has no covariance. EXPR: one class for all frames. AU: each AU always or never.
    """
    result: dict[Task, float] = {}
    for task, values in sums.labelled.items():
        total = values.sum(0)
        if task is Task.VA:
            result[task] = 0.0
        elif task is Task.EXPR:
            n = total.sum(-1)  # labelled frames of each class
            result[task] = float(f1(n, n.sum() - n, 0 * n).max() / len(n))
        else:
            present, absent = total[:, 0] + total[:, 2], total[:, 1] + total[:, 3]
            result[task] = float(f1(present, absent, 0 * present).mean())
    return result
