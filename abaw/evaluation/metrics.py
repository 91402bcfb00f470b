"""The official scores as torchmetrics metrics, with the sums and formulas of `scores`.

States are sums per video in float64 or int64, independent of the model's precision, and are summed over
devices. They stay on the CPU if the device has no float64.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics import Metric

from abaw.evaluation.scores import SHAPES, Sums, label_scores, summarise
from abaw.evaluation.stitching import Stitched
from abaw.tasks import Task


class Labelled(Protocol):
    """Labels of all rows of a video, such as `data.labels.Labels`."""

    def values(self, task: Task) -> NDArray:
        """(R, 2), (R,) or (R, 12)."""

    def valid(self, task: Task) -> NDArray[np.bool_]:
        """(R,), for AU (R, 12)."""


class VideoSums(Metric):
    """Base class of the metrics: sums per task and video, reduced over devices.

    Args:
        tasks: The tasks.
        n_videos: Number of videos with sums of their own.
    """

    full_state_update = False
    higher_is_better = True
    is_differentiable = False

    def __init__(self, tasks: Sequence[Task], n_videos: int = 1) -> None:
        super().__init__()
        self.tasks = tuple(tasks)
        for task in self.tasks:
            dtype = torch.float64 if task is Task.VA else torch.int64
            self.add_state(task, torch.zeros(n_videos, *SHAPES[task], dtype=dtype), dist_reduce_fx="sum")

    def set_dtype(self, dst_type: str | torch.dtype) -> "VideoSums":  # noqa: ARG002
        """Keeps the dtype of the states: a count in half precision stops growing."""
        return self

    def _apply(self, fn: Callable[[Tensor], Tensor], exclude_state: Sequence[str] = "") -> torch.nn.Module:
        def move(tensor: Tensor) -> Tensor:  # changes the device, never the dtype
            device = fn(torch.empty(0, device=tensor.device)).device
            return tensor.to("cpu" if device.type == "mps" else device)

        return super()._apply(move, exclude_state)

    def _add(self, task: Task, video: int, prediction: Tensor, target: Tensor, valid: Tensor) -> None:
        """Adds frames: predictions (N, K) and labels as in `Labelled`, moved to the device of the states."""
        state: Tensor = getattr(self, task)
        prediction = prediction.detach().to(state.device).float()  # (N, K)
        target, valid = target.to(state.device), valid.to(state.device)
        state[video] += _SUMS[task](prediction, target, valid)

    def _score(self, task: Task) -> Tensor:
        state: Tensor = getattr(self, task)
        return torch.tensor(label_scores(task, state.sum(0).cpu().numpy()).mean(), device=state.device)


class CCC(VideoSums):
    """The official VA score: mean CCC of valence and arousal over all frames."""

    def __init__(self, n_videos: int = 1) -> None:
        super().__init__([Task.VA], n_videos)

    def update(self, prediction: Tensor, target: Tensor, valid: Tensor, video: int = 0) -> None:
        """Adds frames: prediction and target (N, 2), valid bool (N,)."""
        self._add(Task.VA, video, prediction, target, valid)

    def compute(self) -> Tensor:
        """The score, a scalar; 0 if undefined."""
        return self._score(Task.VA)


class ExpressionF1(VideoSums):
    """The official EXPR score: F1 averaged over all eight classes."""

    def __init__(self, n_videos: int = 1) -> None:
        super().__init__([Task.EXPR], n_videos)

    def update(self, prediction: Tensor, target: Tensor, valid: Tensor, video: int = 0) -> None:
        """Adds frames: prediction (N, 8) probabilities or logits, target int (N,), valid bool (N,)."""
        self._add(Task.EXPR, video, prediction, target, valid)

    def compute(self) -> Tensor:
        """The score, a scalar."""
        return self._score(Task.EXPR)


class ActionUnitF1(VideoSums):
    """The official AU score: F1 of presence averaged over twelve AUs."""

    def __init__(self, n_videos: int = 1) -> None:
        super().__init__([Task.AU], n_videos)

    def update(self, prediction: Tensor, target: Tensor, valid: Tensor, video: int = 0) -> None:
        """Adds frames: prediction (N, 12) probabilities, target 0 or 1 and valid bool (N, 12)."""
        self._add(Task.AU, video, prediction, target, valid)

    def compute(self) -> Tensor:
        """The score, a scalar."""
        return self._score(Task.AU)


class OfficialScores(VideoSums):
    """All official scores of a set of videos with intervals, as in `scores.json`.

    Args:
        tasks: The predicted tasks.
        videos: Names of all videos of the set, the same on every device.
        draws: Number of bootstrap draws for the intervals.
    """

    def __init__(self, tasks: Sequence[Task], videos: Sequence[str], draws: int = 1000) -> None:
        super().__init__(tasks, len(videos))
        self.videos = tuple(videos)
        self.draws = draws

    def update(self, position: int, video: Stitched[Task], labels: Labelled) -> None:
        """Adds one whole video.

        Label rows beyond the last frame are scored with the last prediction; frames in no window, as with
        limited batches, are not scored.

        Args:
            position: Index of the video in `videos`.
            video: Predictions of its N frames.
            labels: Labels of its R rows.
        """
        for task in self.tasks:
            target, valid = (torch.from_numpy(np.array(a)) for a in (labels.values(task), labels.valid(task)))
            rows = torch.arange(len(target)).clamp(max=len(video.covered) - 1)
            covered = video.covered.cpu()[rows]
            valid &= covered if valid.ndim == 1 else covered[:, None]
            prediction = video.predictions[task]
            self._add(task, position, prediction[rows.to(prediction.device)], target, valid)

    @property
    def sums(self) -> Sums:
        """Sums of this device; inside `compute`, of all devices."""
        return Sums(self.videos, **{str(task): getattr(self, task).cpu().numpy() for task in self.tasks})

    def compute(self) -> dict[str, Any]:
        """The scores, as returned by `scores.summarise`."""
        return summarise(self.sums, self.draws)


def _va_sums(prediction: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """`scores.va_sums` on any device."""
    x, y = prediction[valid].double().T, target[valid].double().T  # (2, n)
    return torch.stack([torch.ones_like(x), x, y, x * x, y * y, x * y], 1).sum(-1)


def _expr_confusion(prediction: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """`scores.expr_confusion` of the most probable classes, on any device."""
    size = prediction.shape[1]
    cells = target[valid].long() * size + prediction[valid].argmax(1)
    return torch.bincount(cells, minlength=size * size).view(size, size)


def _au_counts(prediction: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """`scores.au_counts` at the threshold 0.5, on any device."""
    p, t = prediction >= 0.5, target.bool()
    return torch.stack([(cell & valid).sum(0) for cell in (p & t, p & ~t, ~p & t, ~p & ~t)], dim=-1)


_SUMS: dict[Task, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    Task.VA: _va_sums,
    Task.EXPR: _expr_confusion,
    Task.AU: _au_counts,
}
