"""The official scores as a torchmetrics metric, with the sums of `formulas`.

States are sums per video in float64, independent of the model's precision, and are summed over devices.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics import Metric

from abaw.evaluation.formulas import extend, sums_shape, video_sums
from abaw.evaluation.scores import Sums, summarise
from abaw.evaluation.stitching import Stitched
from abaw.tasks import Task, TaskLabels


class Labelled(Protocol):
    """Labels of all rows of a video, such as `data.labels.Labels`."""

    def __getitem__(self, task: Task, /) -> TaskLabels[NDArray[Any]]:
        """Arrays (R, ...)."""


def scored_labels(
    video: Stitched, labels: TaskLabels[NDArray[Any]], device: torch.device
) -> TaskLabels[Tensor]:
    """The labels (R, ...) of a task as tensors; those of frames in no window are not valid."""
    target, valid = (torch.from_numpy(np.array(array)).to(device) for array in labels)
    covered = extend(video.covered.to(device), len(valid))
    return TaskLabels(target, valid & (covered if valid.ndim == 1 else covered[:, None]))


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
        self.total: Sums | None = None
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
            target, valid = scored_labels(video, labels[task], state.device)
            prediction = video.predictions[task].detach().to(state.device).float()
            if all(isinstance(score, str) for score in task.scores):
                state[position] += video_sums(task, prediction, TaskLabels(target, valid))
            else:  # a score from outside the package may take arrays only
                arrays = TaskLabels(target.cpu().numpy(), valid.cpu().numpy())
                sums = video_sums(task, prediction.cpu().numpy(), arrays)
                state[position] += torch.from_numpy(sums).to(state.device)

    @property
    def sums(self) -> Sums:
        """Sums of this device; inside `compute`, of all devices."""
        return Sums(self.videos, {task: getattr(self, task.name).cpu().numpy() for task in self.tasks})

    def compute(self) -> dict[str, Any]:
        """The scores, as returned by `scores.summarise`; `total` then has the sums of all devices."""
        self.total = self.sums
        return summarise(self.total, self.draws)
