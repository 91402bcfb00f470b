"""The loss of whole validation videos."""

from collections.abc import Callable

import torch
from torch import Tensor

from abaw.evaluation.formulas import extend
from abaw.evaluation.metrics import Labelled, scored_labels
from abaw.evaluation.stitching import Stitched
from abaw.tasks import Task
from abaw.training.losses import TaskLosses, ccc_of_sums, concordance_sums

_SMALLEST = 1e-7  # probability; its logarithm is finite in float32


class ValidationLoss:
    """The training loss of stitched predictions: each task over all its labels, and their weighted sum.

    The CCC is that of all frames together, like the official one. Frames count once, as in the scores, so the
    value depends neither on windows nor on the number of devices.

    Args:
        losses: Losses of the training.
        device: Device of the sums; the CPU instead of one without float64.
    """

    def __init__(self, losses: TaskLosses, device: torch.device | str = "cpu") -> None:
        self._losses = losses
        self._device = device
        place = "cpu" if torch.device(device).type == "mps" else device
        self._sums: dict[Task, Tensor] = {}
        for task in losses.tasks:
            shape = (6, task.size) if losses.loss_of[task] == "ccc" else (2,)
            self._sums[task] = torch.zeros(shape, dtype=torch.float64).to(place)

    def update(self, video: Stitched, labels: Labelled) -> None:
        """Adds one whole video; see `OfficialScores.update`."""
        losses = self._losses
        for task, sums in self._sums.items():
            prediction = video.predictions[task].detach().float()
            target, valid = scored_labels(video, labels[task], prediction.device)
            if task.per == "clip":
                prediction = prediction.mean(0, keepdim=True)
            prediction = extend(prediction, len(valid))
            if losses.loss_of[task] == "ccc":
                sums += concordance_sums(prediction, target, valid).to(sums.device)
                continue
            elements = losses.elements(task, _output(task, prediction)[None], target[None], valid[None])[0]
            elements = torch.where(valid, elements, 0.0)
            sums += torch.stack([valid.to(sums.device).sum(), elements.to(sums.device).double().sum()])

    def compute(self, over_processes: Callable[[Tensor], Tensor] = torch.clone) -> float:
        """The weighted sum of the losses of all tasks; `over_processes` adds up a tensor of each process."""
        totals = {task: over_processes(sums.clone()) for task, sums in self._sums.items()}
        labelled = {task: sums.flatten()[0].to(self._device) > 0 for task, sums in totals.items()}
        values = {task: self._loss(task, sums).to(self._device) for task, sums in totals.items()}
        return float(self._losses.weighted_sum(values, labelled).detach())

    def _loss(self, task: Task, sums: Tensor) -> Tensor:
        settings = self._losses.settings
        if self._losses.loss_of[task] == "ccc":
            n = sums[0, 0]
            return torch.where(n > 0, 1 - ccc_of_sums(sums, settings.ccc_eps).mean(), 0.0).float()
        return (sums[1] / sums[0].clamp(min=1)).float()


def _output(task: Task, prediction: Tensor) -> Tensor:
    """Values (N, K) that the network would return for a prediction: logits of probabilities."""
    if task.kind == "real":
        return prediction
    if task.kind == "class":
        return prediction.clamp(min=_SMALLEST).log()
    return prediction.clamp(_SMALLEST, 1 - _SMALLEST).logit()
