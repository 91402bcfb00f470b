"""Prediction heads: from the state of a frame to the outputs of every task."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from torch import Tensor, nn

from abaw.errors import check_settings
from abaw.tasks import Task


@dataclass(frozen=True, kw_only=True)
class HeadSettings:
    """Architecture of the fully connected head that every task has after the temporal encoder."""

    hidden: int | None = None
    """Width of a hidden layer; null: no hidden layer."""
    dropout: float = 0.1
    """Dropout before every layer."""

    def __post_init__(self) -> None:
        rules = {
            "hidden": (self.hidden is None or self.hidden >= 1, "1 or more, or null"),
            "dropout": (0 <= self.dropout < 1, "a probability in [0, 1)"),
        }
        check_settings("model.heads", self, rules)


class Heads(nn.Module):
    """One head per task. All of them run on every batch, so that every parameter has a gradient.

    Outputs of a `real` task are scaled to its range by tanh, so that loss and score use the same values;
    those of the other tasks are logits. A task with one label per clip has one output for all its frames.
    """

    def __init__(self, settings: HeadSettings, tasks: Sequence[Task], *, width: int) -> None:
        """`width` is the embedding dimension of the temporal encoder."""
        super().__init__()
        self.tasks = tuple(tasks)
        self.heads = nn.ModuleDict({task.name: _head(settings, width, task.size) for task in tasks})

    def forward(self, states: Tensor, present: Tensor) -> dict[Task, Tensor]:
        """From float (B, T, width) and bool (B, T), False for padding, to float32 (B, T, K) per task."""
        outputs = {}
        for task in self.tasks:
            of_task = states if task.per == "frame" else _mean_over(states, present)
            output = cast(Tensor, self.heads[task.name](of_task)).float()
            if task.kind == "real":
                middle, half = (task.high + task.low) / 2, (task.high - task.low) / 2
                output = output.tanh() if half == 1 and middle == 0 else middle + half * output.tanh()
            outputs[task] = output.expand(*states.shape[:2], -1)
        return outputs


def _mean_over(states: Tensor, present: Tensor) -> Tensor:
    """The mean state of each clip, (B, 1, width)."""
    weights = present[..., None].to(states.dtype)
    return (states * weights).sum(1, keepdim=True) / weights.sum(1, keepdim=True).clamp(min=1)


def predictions(outputs: Mapping[Task, Tensor]) -> dict[Task, Tensor]:
    """Predictions from the outputs of the network: probabilities instead of logits.

    Args:
        outputs: Per task (..., K), as `Network` returns them.

    Returns:
        Per task float32 (..., K): the values of a `real` task; probabilities of classes, which sum to 1; or
        those of binary labels, which are independent.
    """
    return {task: _prediction(task, values.float()) for task, values in outputs.items()}


def _prediction(task: Task, values: Tensor) -> Tensor:
    if task.kind == "real":
        return values
    return values.softmax(-1) if task.kind == "class" else values.sigmoid()


def _head(settings: HeadSettings, width: int, size: int) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Dropout(settings.dropout)]
    if settings.hidden is not None:
        layers += [nn.Linear(width, settings.hidden), nn.GELU(), nn.Dropout(settings.dropout)]
    return nn.Sequential(*layers, nn.Linear(settings.hidden or width, size))
