"""Tasks: what is predicted, where its labels are found, and how it is trained and scored.

Source of the three tasks: the ABAW challenge papers and the headers of the official annotation files.
"""

import importlib
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Generic, Literal, NamedTuple, TypeVar

from abaw.errors import UsageError

Array = TypeVar("Array")


class TaskLabels(NamedTuple, Generic[Array]):
    """Labels of one task for frames (...), as arrays or tensors.

    Attributes:
        values: float32 (..., K) of a `real` or `binary` task, int64 (...) of a `class` task; where not valid,
            any value.
        valid: bool (...), of a `binary` task (..., K); True where labelled.
    """

    values: Array
    valid: Array


@dataclass(frozen=True, kw_only=True)
class Task:
    """A prediction task. Its name is its key in options, JSON and weights.

    Attributes:
        name: Lower-case identifier.
        kind: `real`: K numbers in [low, high]. `class`: one of K classes. `binary`: K labels, each absent (0)
            or present (1).
        names: Names of the K outputs, which are the header of its annotation files.
        per: Whether every `frame` has a label, or a `clip` has one for all its frames.
        low: Smallest label of a `real` task.
        high: Largest label of a `real` task.
        unlabelled: Marker of a missing label in annotation files.
        words: Words, lower-case, by which a folder is that of the task; its name is one of them.
        loss: Name of a loss in `training.losses.LOSSES`, or a function.
        scores: Names in `evaluation.formulas.SCORES`, or values of `Score`; the first is the official one.
        score_key: Key of the scores of the single outputs in JSON; empty: they stand beside the task's score.
        column_prefix: What the names of its columns in a track begin with.
        import_path: Module and name from which `parse_tasks` imported it; empty for a task of this package.
    """

    name: str
    kind: Literal["real", "class", "binary"]
    names: tuple[str, ...]
    per: Literal["frame", "clip"] = "frame"
    low: float = 0.0
    high: float = 1.0
    unlabelled: int = -1
    words: tuple[str, ...] = ()
    loss: str | Callable[..., Any]
    scores: tuple[Any, ...]
    score_key: str = "per_label"
    column_prefix: str = ""
    import_path: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        if not self.name.isidentifier() or not self.names or not self.scores:
            raise UsageError(f"task {self.name!r}: needs an identifier as its name, names and scores")

    def __hash__(self) -> int:
        return hash(self.name)

    def __str__(self) -> str:
        return self.name

    @property
    def size(self) -> int:
        """Number of outputs (K)."""
        return len(self.names)

    @property
    def columns(self) -> tuple[str, ...]:
        """The task's columns in a track file."""
        return tuple(f"{self.column_prefix}{name}" for name in self.names)

    @property
    def value_shape(self) -> tuple[int, ...]:
        """Shape of the label of one frame: () or (K,)."""
        return () if self.kind == "class" else (self.size,)

    @property
    def valid_shape(self) -> tuple[int, ...]:
        """Shape of the validity mask of one frame: () or (K,)."""
        return (self.size,) if self.kind == "binary" else ()

    def describe(self) -> Any:
        """Plain values for `Task.from_description`: the name of a task of this package, or all attributes.

        Raises:
            UsageError: It needs code (a function, or a class of its own), but has no import path.
        """
        if self in TASKS:
            return self.name
        if type(self) is Task and all(isinstance(part, str) for part in (self.loss, *self.scores)):
            plain = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "import_path"}
            return {name: list(value) if isinstance(value, tuple) else value for name, value in plain.items()}
        if not self.import_path:
            raise UsageError(f"task {self}: has code of its own, so name it by its import path")
        return {"import_path": self.import_path}

    @classmethod
    def from_description(cls, plain: Any, *, trust_code: bool = False) -> "Task":
        """The task of a description.

        Args:
            plain: From `describe`.
            trust_code: Whether to import a task that needs code.

        Raises:
            UsageError: It needs code that is not trusted, or cannot be imported.
        """
        if isinstance(plain, str):
            return task_named(plain)
        if path := plain.get("import_path"):
            if not trust_code:
                raise UsageError(
                    f"the task {path} is code, which is imported only on request: pass trust_code=True if you"
                    " trust it"
                )
            return import_task(path)
        values: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in plain.items()}
        return cls(**values)


VA = Task(
    name="va",
    kind="real",
    names=("valence", "arousal"),
    low=-1.0,
    high=1.0,
    unlabelled=-5,
    words=("valence", "arousal"),
    loss="ccc",
    scores=("ccc",),
    score_key="",
)
"""Valence and arousal: two numbers in [-1, 1] per frame."""

EXPR = Task(
    name="expr",
    kind="class",
    names=("Neutral", "Anger", "Disgust", "Fear", "Happiness", "Sadness", "Surprise", "Other"),
    words=("expression", "expressions"),
    loss="focal",
    scores=("class_f1",),
    score_key="per_class",
    column_prefix="expr_",
)
"""One of eight mutually exclusive expressions per frame."""

AU = Task(
    name="au",
    kind="binary",
    names=("AU1", "AU2", "AU4", "AU6", "AU7", "AU10", "AU12", "AU15", "AU23", "AU24", "AU25", "AU26"),
    words=("aus", "action", "actionunit", "actionunits"),
    loss="focal",
    scores=("binary_f1",),
    score_key="per_au",
)
"""Twelve action units per frame, each absent (0) or present (1)."""

TASKS = (VA, EXPR, AU)
"""The three tasks of the challenge, in the official order."""

_BY_NAME = {task.name: task for task in TASKS}


def task_named(name: str) -> Task:
    """The task with a name.

    Raises:
        UsageError: There is none.
    """
    if name not in _BY_NAME:
        raise UsageError(f"tasks: {name!r} is not a task; choose from {', '.join(_BY_NAME)}")
    return _BY_NAME[name]


def import_object(path: str, key: str, what: str) -> Any:
    """The object at an import path; modules in the working directory are found too.

    Args:
        path: The import path, such as `pain.PAIN`.
        key: Key of the path in the configuration, for messages.
        what: What it should be, for messages.

    Raises:
        UsageError: There is none.
    """
    module, _, name = path.rpartition(".")
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.append(here)
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise UsageError(
            f"{key}: {path} cannot be imported ({error}); give MODULE.NAME of {what} that is found from the"
            " working directory or PYTHONPATH"
        ) from error


def import_task(path: str) -> Task:
    """The task at an import path, such as `pain.PAIN`; modules in the working directory are found too.

    Raises:
        UsageError: There is none.
    """
    task = import_object(path, "tasks", "a Task")
    if not isinstance(task, Task):
        raise UsageError(f"tasks: {path} is a {type(task).__name__}, not a Task")
    return replace(task, import_path=path)


def parse_tasks(names: Iterable[str]) -> tuple[Task, ...]:
    """Returns the named tasks, each once: those of the challenge in the official order, then others.

    Args:
        names: Names of tasks of the challenge, or import paths of others, such as `pain.PAIN`.

    Raises:
        UsageError: A name is unknown or taken, or no task is named.
    """
    asked = list(names)
    unknown = [name for name in asked if name not in _BY_NAME and "." not in name]
    if unknown or not asked:
        raise UsageError(
            f"tasks: {asked!r} is not a choice of tasks; name at least one of {', '.join(_BY_NAME)}, or the"
            " import path of another task, such as pain.PAIN"
        )
    own = [import_task(name) for name in dict.fromkeys(asked) if name not in _BY_NAME]
    tasks = (*(task for task in TASKS if task.name in asked), *own)
    if len({str(task) for task in (*TASKS, *own)}) < len(TASKS) + len(own):
        raise UsageError(f"tasks: two of {asked!r} have the same name; rename one")
    return tasks
