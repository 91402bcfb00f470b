"""Scores as pairs: additive sums per video, and a formula over sums."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from abaw.errors import AbawError, UsageError
from abaw.tasks import Task, TaskLabels

ArrayOrTensor = Any
"""An array, or a tensor on any device; the result of a function is of the same kind."""


def _library(values: ArrayOrTensor) -> Any:
    """NumPy for an array, PyTorch for a tensor: of the functions used here the names are the same."""
    return np if isinstance(values, np.ndarray) else import_module("torch")


def _float64(values: ArrayOrTensor) -> ArrayOrTensor:
    return values.astype(np.float64) if isinstance(values, np.ndarray) else values.double()


def ccc_sums(prediction: ArrayOrTensor, target: ArrayOrTensor, valid: ArrayOrTensor) -> ArrayOrTensor:
    """Sums (K, 6) of n, x, y, xx, yy, xy of each output in float64; x predicted, y labelled.

    Args:
        prediction: (N, K).
        target: (N, K).
        valid: bool (N,).
    """
    library = _library(valid)
    x, y = (_float64(values[valid]).T for values in (prediction, target))  # (K, n)
    return library.stack([library.ones_like(x), x, y, x * x, y * y, x * y], 1).sum(-1)


def absolute_errors(prediction: ArrayOrTensor, target: ArrayOrTensor, valid: ArrayOrTensor) -> ArrayOrTensor:
    """Sums (K, 2) of n and |x - y|, arguments as of `ccc_sums`."""
    library = _library(valid)
    error = abs(_float64(prediction[valid]) - target[valid])
    return library.stack([library.ones_like(error), error], -1).sum(0)


def confusion(
    predicted: ArrayOrTensor, target: ArrayOrTensor, valid: ArrayOrTensor, size: int
) -> ArrayOrTensor:
    """Counts (K, K) of frames by labelled (first axis) and predicted class (N,); `size` is the number K."""
    cells = target[valid] * size + predicted[valid]
    return _library(valid).bincount(cells, minlength=size * size).reshape(size, size)


def presence_counts(predicted: ArrayOrTensor, target: ArrayOrTensor, valid: ArrayOrTensor) -> ArrayOrTensor:
    """Counts (K, 4) of true positives, false positives, false negatives, true negatives per label.

    Args:
        predicted: bool (N, K), from `decide`.
        target: (N, K), 0 or 1.
        valid: bool (N, K).
    """
    p, t = predicted, target > 0
    return _library(valid).stack([(cell & valid).sum(0) for cell in (p & t, p & ~t, ~p & t, ~p & ~t)], -1)


def decide(task: Task, predictions: ArrayOrTensor, thresholds: ArrayLike = 0.5) -> ArrayOrTensor:
    """The decisions that are scored, from predictions (N, K).

    Returns:
        The values (N, K) of a `real` task; the most probable class (N,), the first of equal ones; for a
        `binary` task bool (N, K), whether a probability is at or above its threshold.
    """
    if task.kind == "class":
        return predictions.argmax(-1)
    if task.kind == "binary":
        return predictions >= _library(predictions).asarray(thresholds, dtype=predictions.dtype)
    return predictions


def extend(values: ArrayOrTensor, n_rows: int) -> ArrayOrTensor:
    """Values (N, ...) truncated, or extended by repeating the last one, to `n_rows` label rows.

    Raises:
        AbawError: There are rows but no values.
    """
    if n_rows and not len(values):
        raise AbawError(f"a video without any frame cannot be scored on its {n_rows} label rows")
    return values[np.arange(n_rows).clip(max=len(values) - 1)]


def ccc(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """Concordance correlation coefficients (...) from sums (..., 6); 0 if undefined."""
    _, x, y, xx, yy, xy = np.moveaxis(sums / np.maximum(sums[..., :1], 1), -1, 0)  # means
    covariance = xy - x * y
    # the covariance of a constant is 0 up to rounding
    related = np.abs(covariance) > 1e-12 * np.sqrt(xx * yy)
    spread = xx - x * x + yy - y * y + (x - y) ** 2
    return np.where(related, 2 * covariance / np.where(related, spread, 1), 0.0)


def f1(tp: NDArray, fp: NDArray, fn: NDArray) -> NDArray[np.float64]:
    """Elementwise F1 score of counts of one shape; 0 if there are neither labels nor predictions."""
    return 2 * tp / np.maximum(2 * tp + fp + fn, 1)


@dataclass(frozen=True)
class Score:
    """A score as a pair: additive sums per video, and a formula over sums.

    Attributes:
        name: Key in JSON.
        sums: From decisions, labels and their mask (N, ...) and the number of outputs to sums (K, S); arrays,
            or for the scores of this package also tensors.
        formula: From sums (..., K, S) to the score of each output (..., K); 0 where undefined.
        count: From sums to the number of labelled frames (...); by default the largest first sum.
        constant: From sums (K, S) to the score of the best constant prediction; None: unknown.
        higher_is_better: Whether it may be the first of a task, which is maximised.
    """

    name: str
    sums: Callable[[Any, Any, Any, int], Any]
    formula: Callable[[NDArray], NDArray]
    count: Callable[[NDArray], NDArray] = lambda sums: sums[..., 0].max(-1)
    constant: Callable[[NDArray], float] | None = None
    higher_is_better: bool = True


def _class_f1(sums: NDArray) -> NDArray[np.float64]:
    tp = np.diagonal(sums, axis1=-2, axis2=-1)
    return f1(tp, sums.sum(-2) - tp, sums.sum(-1) - tp)


def _constant_class(sums: NDArray) -> float:
    n = sums.sum(-1)  # labelled frames of each class
    return float(f1(n, n.sum() - n, 0 * n).max() / len(n))


def _constant_presence(sums: NDArray) -> float:
    present, absent = sums[:, 0] + sums[:, 2], sums[:, 1] + sums[:, 3]
    return float(f1(present, absent, 0 * present).mean())


def _without_size(sums: Callable[..., ArrayOrTensor]) -> Callable[..., ArrayOrTensor]:
    return lambda decisions, target, valid, _: sums(decisions, target, valid)


_ALL = (
    Score("ccc", _without_size(ccc_sums), ccc, constant=lambda _: 0.0),
    Score(
        "mae",
        _without_size(absolute_errors),
        lambda sums: sums[..., 1] / np.maximum(sums[..., 0], 1),
        higher_is_better=False,
    ),
    Score("class_f1", confusion, _class_f1, lambda sums: sums.sum((-2, -1)), _constant_class),
    Score(
        "binary_f1",
        _without_size(presence_counts),
        lambda sums: f1(sums[..., 0], sums[..., 1], sums[..., 2]),
        lambda sums: sums.sum(-1).max(-1),
        _constant_presence,
    ),
)

SCORES = {score.name: score for score in _ALL}
"""Scores by the names that tasks give. The best constant of `ccc` scores 0: it has no covariance."""


@lru_cache
def scores_of(task: Task) -> tuple[tuple[Score, slice], ...]:
    """The scores of a task, the official one first, each with its columns in the task's sums.

    Raises:
        UsageError: A score has no such name, or the official one is not maximised.
    """
    if unknown := [score for score in task.scores if isinstance(score, str) and score not in SCORES]:
        raise UsageError(f"task {task}: {unknown[0]!r} is not a score; choose from {', '.join(SCORES)}")
    scores = [SCORES[score] if isinstance(score, str) else score for score in task.scores]
    if not scores[0].higher_is_better:
        raise UsageError(f"task {task}: {scores[0].name} is not maximised; give another score first")
    found, first = [], 0
    for score in scores:
        empty = (np.zeros((0, *task.value_shape), np.int64), np.zeros((0, *task.valid_shape), np.bool_))
        width = score.sums(empty[0], *empty, task.size).shape[-1]
        found.append((score, slice(first, first + width)))
        first += width
    return tuple(found)


def video_sums(task: Task, predictions: ArrayOrTensor, labels: TaskLabels[Any]) -> ArrayOrTensor:
    """Sums of one video and task for all its scores, (K, S).

    Label rows beyond the last frame are scored with the last prediction. A label per clip is compared with
    the mean of the predictions.

    Args:
        task: The task.
        predictions: (N, K), values or probabilities.
        labels: Labels of R rows.
    """
    values, valid = labels
    if task.per == "clip":
        predictions, values, valid = predictions.mean(0, keepdims=True), values[:1], valid[:1]
    decisions = decide(task, extend(predictions, len(valid)))
    sums = [score.sums(decisions, values, valid, task.size) for score, _ in scores_of(task)]
    return _library(valid).concatenate(sums, -1)


def sums_shape(task: Task) -> tuple[int, int]:
    """Shape (K, S) of the sums of one video."""
    return task.size, scores_of(task)[-1][1].stop


def label_scores(task: Task, sums: NDArray) -> NDArray[np.float64]:
    """Official score per output (..., K): CCC per dimension, F1 per class or AU. The task's is their mean.

    Args:
        task: Task of the sums.
        sums: (..., K, S), summed over videos.
    """
    score, columns = scores_of(task)[0]
    return score.formula(sums[..., columns])


def n_frames(task: Task, sums: NDArray) -> NDArray:
    """Number of labelled frames (...) in sums (..., K, S); for AU of the most labelled AU."""
    score, columns = scores_of(task)[0]
    return score.count(sums[..., columns])
