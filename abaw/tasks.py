"""The three tasks: names of their labels in the official order, sizes and markers.

Source: the ABAW challenge papers and the headers of the official annotation files.
"""

from collections.abc import Iterable
from enum import StrEnum

from abaw.errors import UsageError

VA_NAMES = ("valence", "arousal")
EXPR_NAMES = ("Neutral", "Anger", "Disgust", "Fear", "Happiness", "Sadness", "Surprise", "Other")
AU_NAMES = ("AU1", "AU2", "AU4", "AU6", "AU7", "AU10", "AU12", "AU15", "AU23", "AU24", "AU25", "AU26")


class Task(StrEnum):
    """One of the three tasks. A member equals its short name, so it can be used as a key."""

    VA = "va"
    """Valence and arousal: two numbers in [-1, 1] per frame."""
    EXPR = "expr"
    """One of eight mutually exclusive expressions per frame."""
    AU = "au"
    """Twelve action units per frame, each absent (0) or present (1)."""

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the outputs, in the order of the official header."""
        return _NAMES[self]

    @property
    def size(self) -> int:
        """Number of outputs of the task: 2, 8 or 12."""
        return len(_NAMES[self])

    @property
    def unlabelled(self) -> int:
        """The marker of a missing label in the official files."""
        return -5 if self is Task.VA else -1

    @property
    def columns(self) -> tuple[str, ...]:
        """The task's columns in a track file."""
        return tuple(f"expr_{name}" for name in EXPR_NAMES) if self is Task.EXPR else self.names


_NAMES = {Task.VA: VA_NAMES, Task.EXPR: EXPR_NAMES, Task.AU: AU_NAMES}


def parse_tasks(names: Iterable[str]) -> tuple[Task, ...]:
    """Returns the named tasks, each once, in the official order.

    Raises:
        UsageError: A name is unknown, or no task is named.
    """
    asked = list(names)
    unknown = [name for name in asked if name not in set(Task)]
    if unknown or not asked:
        raise UsageError(f"tasks: {asked!r} is not a choice of tasks; name at least one of {', '.join(Task)}")
    return tuple(task for task in Task if task in asked)
