"""The tasks in the official order, with their names and the markers of missing labels."""

from collections.abc import Iterable

import pytest

from abaw.errors import UsageError
from abaw.tasks import AU, EXPR, TASKS, VA, Task, parse_tasks


@pytest.mark.parametrize(
    ("task", "size", "first", "last", "unlabelled"),
    [
        (VA, 2, "valence", "arousal", -5),
        (EXPR, 8, "Neutral", "Other", -1),
        (AU, 12, "AU1", "AU26", -1),
    ],
)
def test_a_task_knows_its_outputs(task: Task, size: int, first: str, last: str, unlabelled: int) -> None:
    assert task.size == len(task.names) == len(set(task.names)) == size
    assert (task.names[0], task.names[-1], task.unlabelled) == (first, last, unlabelled)


def test_no_two_tasks_share_a_column_of_a_track() -> None:
    columns = [column for task in TASKS for column in task.columns]
    assert len(columns) == len(set(columns)) == 22


@pytest.mark.parametrize(
    ("names", "tasks"),
    [(["va"], (VA,)), (["au", "va"], (VA, AU)), (["expr", "expr"], (EXPR,)), (map(str, TASKS), TASKS)],
)
def test_named_tasks_come_once_in_the_official_order(names: Iterable[str], tasks: tuple[Task, ...]) -> None:
    assert parse_tasks(names) == tasks


@pytest.mark.parametrize("names", [[], ["va", "pain"]])
def test_no_task_or_an_unknown_one_is_refused(names: list[str]) -> None:
    with pytest.raises(UsageError, match=r"is not a choice of tasks; name at least one of va, expr, au"):
        parse_tasks(names)
