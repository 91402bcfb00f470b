"""The loss of validation videos: that of training, over frames instead of batches."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from abaw.batch import Batch
from abaw.evaluation.stitching import Stitched
from abaw.tasks import EXPR, TASKS, VA, Task, TaskLabels
from abaw.training.losses import LossSettings, TaskLosses
from abaw.training.validation_loss import ValidationLoss
from tests.support.clips import random_batch

N = 40
COUNTS = {task: np.arange(1, 9) if task == EXPR else np.ones((12, 2)) for task in TASKS if task != VA}


def some_losses(**change: Any) -> TaskLosses:
    losses = TaskLosses(replace(LossSettings(), **change), TASKS)
    losses.set_label_counts(COUNTS)
    return losses.eval()


def outputs_and_labels(seed: int) -> tuple[dict[Task, Tensor], Batch]:
    """Outputs of the network (1, N, K), and labels of which a part is missing."""
    torch.manual_seed(seed)
    outputs = {task: 2 * torch.randn(1, N, task.size) for task in TASKS}
    outputs[VA] = outputs[VA].tanh()
    return outputs, random_batch(b=1, t=N, labelled=0.7, seed=seed)


def predicted(outputs: dict[Task, Tensor], covered: Tensor) -> Stitched:
    values = {
        task: output[0] if task == VA else output[0].softmax(1) if task == EXPR else output[0].sigmoid()
        for task, output in outputs.items()
    }
    return Stitched(0, values, covered, covered)


def labels_of(batch: Batch) -> Any:
    return {
        task: TaskLabels(labels.values[0].numpy(), labels.valid[0].numpy())
        for task, labels in batch.labels.items()
    }


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"va": "mse", "expr": "ce", "au": "bce"},
        {"label_smoothing": 0.1, "task_weights": {"va": 2.0, "au": 0.5}},
        {"task_weights": "uncertainty"},
    ],
)
def test_it_is_the_training_loss_of_all_frames_together(change: dict[str, Any]) -> None:
    losses = some_losses(**change)
    if change.get("task_weights") == "uncertainty":
        with torch.no_grad():
            losses.log_variance["expr"].fill_(0.7)
    parts = [outputs_and_labels(seed) for seed in (1, 2)]
    metric = ValidationLoss(losses)
    for outputs, batch in parts:
        metric.update(predicted(outputs, torch.ones(N, dtype=torch.bool)), labels_of(batch))
    joined = {task: torch.cat([outputs[task] for outputs, _ in parts], 1) for task in TASKS}
    labels = {
        task: TaskLabels(
            *(torch.cat(each, 1) for each in zip(*(b.labels[task] for _, b in parts), strict=True))
        )
        for task in TASKS
    }
    batch = replace(
        random_batch(b=1, t=2 * N),
        labels=labels,
        present=torch.ones(1, 2 * N, dtype=torch.bool),
    )
    want, _ = losses(joined, batch)
    assert metric.compute() == pytest.approx(want.item(), rel=1e-5)


def test_frames_in_no_window_and_rows_beyond_the_video() -> None:
    losses = some_losses()
    outputs, batch = outputs_and_labels(3)
    covered = torch.arange(N) < N // 2
    half, whole = ValidationLoss(losses), ValidationLoss(losses)
    half.update(predicted(outputs, covered), labels_of(batch))
    labels = {
        task: TaskLabels(part.values[: N // 2], part.valid[: N // 2])
        for task, part in labels_of(batch).items()
    }
    whole.update(predicted(outputs, torch.ones(N, dtype=torch.bool)), labels)
    assert half.compute() == pytest.approx(whole.compute(), rel=1e-9)


def test_without_labels_it_is_zero_and_certain_predictions_are_finite() -> None:
    losses = some_losses()
    outputs, batch = outputs_and_labels(4)
    metric = ValidationLoss(losses)
    assert metric.compute() == 0
    certain = {task: output if task == VA else 200 * output for task, output in outputs.items()}
    metric.update(predicted(certain, torch.ones(N, dtype=torch.bool)), labels_of(batch))
    assert np.isfinite(metric.compute())
