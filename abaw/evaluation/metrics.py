"""The official scores as a torchmetrics metric, with the sums and formulas of `scores`.

States are sums per video in float64, independent of the model's precision, and are summed over devices.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics import Metric

from abaw.evaluation.formulas import sums_shape, video_sums
from abaw.evaluation.scores import Sums, summarise
from abaw.evaluation.stitching import Stitched
from abaw.tasks import Task, TaskLabels


class Labelled(Protocol):
    """Labels of all rows of a video, such as `data.labels.Labels`."""

    def __getitem__(self, task: Task, /) -> TaskLabels[NDArray[Any]]:
        """Arrays (R, ...)."""


class OfficialScores(Metric):
    """All official scores of a set of videos with intervals, as in `scores.json`.

    Args:
        tasks: The predicted tasks.
        videos: Names of all videos of the set, the same on every device.
        draws: Number of bootstrap draws for the intervals.
        device: Device of the states; the CPU instead of one without float64.
    """

    full_state_update = False
    higher_is_better = True
    is_differentiable = False

    def __init__(
        self,
        tasks: Sequence[Task],
        videos: Sequence[str],
        draws: int = 1000,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__()
        device = torch.device(device)
        self.tasks = tuple(tasks)
        self.videos = tuple(videos)
        self.draws = draws
        for task in self.tasks:
            sums = torch.zeros(len(self.videos), *sums_shape(task), dtype=torch.float64)
            sums = sums.to("cpu" if device.type == "mps" else device)
            self.add_state(task.name, sums, dist_reduce_fx="sum")

    def set_dtype(self, dst_type: str | torch.dtype) -> "OfficialScores":  # noqa: ARG002
        """Keeps the dtype of the states: a count in half precision stops growing."""
        return self

    def update(self, position: int, video: Stitched, labels: Labelled) -> None:
        """Adds one whole video.

        Label rows beyond the last frame are scored with the last prediction; frames in no window, as with
        limited batches, are not scored.

        Args:
            position: Index of the video in `videos`.
            video: Predictions of its N frames.
            labels: Labels of its R rows.
        """
        for task in self.tasks:
            state: Tensor = getattr(self, task.name)
            target, valid = (torch.from_numpy(np.array(array)) for array in labels[task])
            rows = torch.arange(len(target)).clamp(max=len(video.covered) - 1)
            covered = video.covered.cpu()[rows]
            valid &= covered if valid.ndim == 1 else covered[:, None]
            prediction = video.predictions[task].detach().to(state.device).float()
            if task.per == "clip" or not set(task.scores) <= set(_SUMS):
                sums = video_sums(task, prediction.cpu().numpy(), TaskLabels(target.numpy(), valid.numpy()))
                state[position] += torch.from_numpy(sums).to(state.device)
                continue
            prediction = prediction[rows.to(state.device)]
            target, valid = target.to(state.device), valid.to(state.device)
            state[position] += torch.cat([_SUMS[name](prediction, target, valid) for name in task.scores], -1)

    @property
    def sums(self) -> Sums:
        """Sums of this device; inside `compute`, of all devices."""
        return Sums(self.videos, {task: getattr(self, task.name).cpu().numpy() for task in self.tasks})

    def compute(self) -> dict[str, Any]:
        """The scores, as returned by `scores.summarise`."""
        return summarise(self.sums, self.draws)


def _ccc_sums(prediction: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """`scores.ccc_sums` on any device."""
    x, y = prediction[valid].double().T, target[valid].double().T  # (K, n)
    return torch.stack([torch.ones_like(x), x, y, x * x, y * y, x * y], 1).sum(-1)


def _confusion(prediction: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """`scores.confusion` of the most probable classes, on any device."""
    size = prediction.shape[1]
    cells = target[valid].long() * size + prediction[valid].argmax(1)
    return torch.bincount(cells, minlength=size * size).view(size, size)


def _presence_counts(prediction: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """`scores.presence_counts` at the threshold 0.5, on any device."""
    p, t = prediction >= 0.5, target.bool()
    return torch.stack([(cell & valid).sum(0) for cell in (p & t, p & ~t, ~p & t, ~p & ~t)], dim=-1)


_SUMS = {"ccc": _ccc_sums, "class_f1": _confusion, "binary_f1": _presence_counts}
"""Sums of the scores that are computed on the device; others are computed on the CPU."""
