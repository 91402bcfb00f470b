"""Prediction heads: from the state of a frame to the outputs of every task."""

from collections.abc import Callable, Mapping, Sequence
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

    Valence and arousal pass through tanh here, so that loss and score use the same values in [-1, 1];
    expressions and action units are logits.
    """

    def __init__(self, settings: HeadSettings, tasks: Sequence[Task], *, width: int) -> None:
        """`width` is the embedding dimension of the temporal encoder."""
        super().__init__()
        self.heads = nn.ModuleDict({str(task): _head(settings, width, task.size) for task in tasks})

    def forward(self, states: Tensor) -> dict[Task, Tensor]:
        """From float (B, T, width) to float32 (B, T, K) per task."""
        outputs = {Task(name): cast(Tensor, head(states)).float() for name, head in self.heads.items()}
        if Task.VA in outputs:
            outputs[Task.VA] = outputs[Task.VA].tanh()
        return outputs


def predictions(outputs: Mapping[Task, Tensor]) -> dict[Task, Tensor]:
    """Predictions from the outputs of the network: probabilities instead of logits.

    Args:
        outputs: Per task (..., K), as `Network` returns them.

    Returns:
        Per task float32 (..., K): valence and arousal in [-1, 1], probabilities of the eight expressions,
        which sum to 1, and of the twelve action units, independent of each other.
    """
    meaning: dict[Task, Callable[[Tensor], Tensor]] = {
        Task.VA: lambda values: values,
        Task.EXPR: lambda logits: logits.softmax(-1),
        Task.AU: lambda logits: logits.sigmoid(),
    }
    return {task: meaning[task](values.float()) for task, values in outputs.items()}


def _head(settings: HeadSettings, width: int, size: int) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Dropout(settings.dropout)]
    if settings.hidden is not None:
        layers += [nn.Linear(width, settings.hidden), nn.GELU(), nn.Dropout(settings.dropout)]
    return nn.Sequential(*layers, nn.Linear(settings.hidden or width, size))
