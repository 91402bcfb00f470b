"""Labels by task from arrays under short names."""

from typing import Any

from abaw.data.labels import Labels, unlabelled
from abaw.tasks import TASKS, Task, TaskLabels


def by_task(**arrays: Any) -> dict[Task, TaskLabels[Any]]:
    """Labels from `va`, `va_valid`, `expr` and so on, arrays or tensors."""
    return {t: TaskLabels(arrays[t.name], arrays[f"{t.name}_valid"]) for t in TASKS if t.name in arrays}


def labels_from(**arrays: Any) -> Labels:
    """As `by_task`, of R rows; tasks that are left out are unlabelled."""
    given = by_task(**arrays)
    n_rows = len(next(iter(given.values())).valid)
    return Labels(n_rows, {task: given.get(task) or unlabelled(task, n_rows) for task in TASKS})
