"""From a frame's state to the outputs of every task."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from torch import Tensor, nn

from abaw.errors import check_settings
from abaw.tasks import Task


@dataclass(frozen=True, kw_only=True)
class HeadSettings:
    """The fully connected layers behind the transformer; every task has its own."""

    hidden: int | None = None
    """Width of a hidden layer; null has none."""
    dropout: float = 0.1
    """In front of every layer."""

    def __post_init__(self) -> None:
        rules = {
            "hidden": (self.hidden is None or self.hidden >= 1, "1 or more, or null"),
            "dropout": (0 <= self.dropout < 1, "a chance in [0, 1)"),
        }
        check_settings("model.heads", self, rules)


class Heads(nn.Module):
    """One head per task. All of them always run, so every parameter has a gradient whatever is labelled.

    Valence and arousal come out as values in [-1, 1]: the squashing is done here, once, so that the loss
    and the score see the same numbers. Expressions and action units come out as logits.
    """

    def __init__(self, settings: HeadSettings, tasks: Sequence[Task], *, width: int) -> None:
        """`width` is the length of a frame's state."""
        super().__init__()
        self.heads = nn.ModuleDict({str(task): _head(settings, width, task.size) for task in tasks})

    def forward(self, states: Tensor) -> dict[Task, Tensor]:
        """From float (B, T, width) to float32 (B, T, K) per task."""
        outputs = {Task(name): cast(Tensor, head(states)).float() for name, head in self.heads.items()}
        if Task.VA in outputs:
            outputs[Task.VA] = outputs[Task.VA].tanh()
        return outputs


def predictions(outputs: Mapping[Task, Tensor]) -> dict[Task, Tensor]:
    """What the outputs of the network mean.

    Args:
        outputs: Per task (..., K), as `Network` gives them.

    Returns:
        Per task float32 (..., K): valence and arousal in [-1, 1], probabilities of the eight expressions,
        which sum to 1, and of the twelve action units, each for itself.
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
