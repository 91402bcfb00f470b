"""What the figures of a report show, summed over the videos of a run in one pass over its tracks."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from abaw.data.labels import Labels
from abaw.evaluation.formulas import extend
from abaw.evaluation.scores import Sums
from abaw.evaluation.tracks import Track, score_tracks
from abaw.report.intervals import interval_means
from abaw.tasks import VA, Task

CELLS = 40
"""Cells per axis of the density of a real task."""
STEPS = 100
"""Intervals of probability; thresholds are their lower ends."""
QUADRANTS = ("positive, calm", "positive, active", "negative, calm", "negative, active")
"""Quadrants of valence and arousal; 0 counts as positive and as active."""


@dataclass
class RealAggregate:
    """Frames of a `real` task.

    Attributes:
        agreement: (K, CELLS, CELLS), labelled frames of each output by label (first axis) and prediction.
        density: (2, CELLS, CELLS), those of VA by valence and arousal: of the labels, of the predictions.
        quadrants: (4, 3), those of VA by the label's quadrant: frames, sums of the absolute errors of
            valence and arousal.
    """

    agreement: NDArray[np.int64]
    density: NDArray[np.int64]
    quadrants: NDArray[np.float64]


@dataclass
class ClassAggregate:
    """Frames of a `class` task.

    Attributes:
        confidence: (STEPS, 3), labelled frames by the probability of the predicted class: frames, sum of
            the probabilities, frames in which the class is right.
    """

    confidence: NDArray[np.float64]


@dataclass
class BinaryAggregate:
    """Frames of a `binary` task.

    Attributes:
        counts: (K, 2, STEPS), labelled frames by label (absent, present) and probability.
    """

    counts: NDArray[np.int64]


Aggregate = RealAggregate | ClassAggregate | BinaryAggregate


@dataclass
class RunAggregates:
    """What the report shows of one run.

    Attributes:
        sums: Sums of the official scores per video.
        missing: Per video of `sums` the share of its frames that were not seen.
        by_task: Frames of each task.
        timelines: Per video the means of intervals of its frames: `frame` (the first is 1), `unseen`
            (share), and per output of a task `<name> label` and `<name>`.
    """

    sums: Sums
    missing: NDArray[np.float64]
    by_task: dict[Task, Aggregate]
    timelines: dict[str, pd.DataFrame] = field(repr=False)


def aggregate(
    tracks: Iterable[Track], labels_of: Callable[[str], Labels], tasks: Sequence[Task]
) -> RunAggregates:
    """Reads each track once; see `score_tracks` for the arguments and errors."""
    by_task = {task: _empty(task) for task in tasks}
    missing: list[float] = []
    timelines: dict[str, pd.DataFrame] = {}

    def added() -> Iterator[Track]:
        for track in tracks:
            labels = labels_of(track.video)
            present = [task for task in tasks if task in track.values]
            for task in present:
                _add(task, by_task[task], track.values[task], labels[task])
            missing.append(float(1 - track.seen.mean()) if len(track) else 0.0)
            timelines[track.video] = _timeline(track, labels, present)
            yield track

    sums = score_tracks(added(), labels_of, tasks)
    return RunAggregates(sums, np.array(missing), by_task, timelines)


def _empty(task: Task) -> Aggregate:
    if task.kind == "real":
        cells = np.zeros((task.size, CELLS, CELLS), np.int64)
        return RealAggregate(cells, np.zeros((2, CELLS, CELLS), np.int64), np.zeros((4, 3)))
    if task.kind == "class":
        return ClassAggregate(np.zeros((STEPS, 3)))
    return BinaryAggregate(np.zeros((task.size, 2, STEPS), np.int64))


def _add(task: Task, total: Aggregate, predictions: NDArray[np.float32], labels: Any) -> None:
    values, valid = labels
    if task.per == "clip":
        predictions, values, valid = predictions.mean(0, keepdims=True), values[:1], valid[:1]
    if not valid.any():
        return
    predictions = extend(predictions, len(valid))
    if isinstance(total, BinaryAggregate):
        place = probability_steps(predictions)
        for k in range(task.size):
            known = valid[:, k]
            cells = values[known, k].astype(np.int64) * STEPS + place[known, k]
            total.counts[k] += np.bincount(cells, minlength=2 * STEPS).reshape(2, STEPS)
        return
    predictions, values = predictions[valid], values[valid]
    if isinstance(total, ClassAggregate):
        highest, right = predictions.max(1), predictions.argmax(1) == values
        place = probability_steps(highest)
        for column, weights in enumerate((np.ones(len(highest)), highest, right)):
            total.confidence[:, column] += np.bincount(place, weights, minlength=STEPS)
        return
    _add_real(task, total, predictions, values)


def _add_real(task: Task, total: RealAggregate, predictions: NDArray, values: NDArray) -> None:
    truth, guess = (_cells(task, part) for part in (values, predictions))
    for k in range(task.size):
        total.agreement[k] += _joint(truth[:, k], guess[:, k])
    if task == VA:
        for density, part in zip(total.density, (truth, guess), strict=True):
            density += _joint(part[:, 0], part[:, 1])
        quadrant = 2 * (values[:, 0] < 0) + (values[:, 1] >= 0)
        error = np.abs(predictions - values)
        for column, weights in enumerate((np.ones(len(error)), error[:, 0], error[:, 1])):
            total.quadrants[:, column] += np.bincount(quadrant, weights, minlength=4)


def _cells(task: Task, values: NDArray) -> NDArray[np.int64]:
    """The cell of each value between the smallest and the largest label; beyond them, the last one."""
    scaled = (values.astype(np.float64) - task.low) / (task.high - task.low) * CELLS
    return np.clip(np.floor(scaled), 0, CELLS - 1).astype(np.int64)


def _joint(one: NDArray[np.int64], other: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.bincount(one * CELLS + other, minlength=CELLS * CELLS).reshape(CELLS, CELLS)


def thresholds() -> NDArray[np.float32]:
    """Lower ends of the intervals of probability, (STEPS,)."""
    return (np.arange(STEPS) / STEPS).astype(np.float32)


def probability_steps(probabilities: NDArray[np.float32]) -> NDArray[np.int64]:
    """The interval of each probability, in the same shape: that of the highest threshold it reaches."""
    found = np.searchsorted(thresholds(), probabilities.astype(np.float32), side="right") - 1
    return found.clip(min=0)


def presence_by_threshold(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """True positives, false positives, false negatives (K, STEPS, 3) from counts (K, 2, STEPS).

    Entry t has those of the decision "present from the threshold t on".
    """
    reached = counts[..., ::-1].cumsum(-1)[..., ::-1]  # (K, 2, STEPS)
    positives = counts[:, 1].sum(-1, keepdims=True)
    return np.stack([reached[:, 1], reached[:, 0], positives - reached[:, 1]], -1)


def _timeline(track: Track, labels: Labels, tasks: Sequence[Task]) -> pd.DataFrame:
    columns: dict[str, NDArray] = {
        "frame": np.arange(1, len(track) + 1),
        "unseen": 1.0 - track.seen,
    }
    for task in tasks:
        values, valid = (_rows(part, len(track)) for part in labels[task])
        if task.kind == "class":
            values = np.eye(task.size)[values]
        known = np.where(valid if valid.ndim == 2 else valid[:, None], values, np.nan)
        for k, name in enumerate(task.names):
            columns |= {f"{name} label": known[:, k], name: track.values[task][:, k]}
    return interval_means(pd.DataFrame(columns))


def _rows(values: NDArray, n: int) -> NDArray:
    """The first n rows, with rows of zeros appended where there are fewer."""
    missing = max(n - len(values), 0)
    return np.pad(values[:n], [(0, missing)] + [(0, 0)] * (values.ndim - 1))
