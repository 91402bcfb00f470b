"""The tasks in the official order, with their names and the markers of missing labels."""

import json
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

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


PAIN = Task(name="pain", kind="real", names=("pain",), high=16.0, loss="mse", scores=("ccc", "mae"))
CODED = Task(name="coded", kind="binary", names=("a", "b"), loss=len, scores=("binary_f1",))
TAKEN = Task(name="va", kind="binary", names=("a",), loss="bce", scores=("binary_f1",))


def test_a_task_is_named_by_its_import_path() -> None:
    assert parse_tasks([f"{__name__}.PAIN", "va"]) == (VA, PAIN)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no_such_module.PAIN", "no_such_module.PAIN cannot be imported .*give MODULE.NAME of a Task"),
        (f"{__name__}.NONE", "NONE cannot be imported"),
        (f"{__name__}.pytest", "is a module, not a Task"),
        (f"{__name__}.TAKEN", "two of .* have the same name"),
    ],
)
def test_an_import_path_of_no_task_is_refused(name: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_tasks(["va", name])


def test_a_description_restores_the_task_without_code() -> None:
    assert [task.describe() for task in TASKS] == ["va", "expr", "au"]
    for task in (*TASKS, PAIN):
        assert Task.from_description(json.loads(json.dumps(task.describe()))) == task


def test_a_task_with_code_is_imported_only_where_it_is_trusted() -> None:
    with pytest.raises(UsageError, match="has code of its own, so name it by its import path"):
        CODED.describe()
    (coded,) = parse_tasks([f"{__name__}.CODED"])
    with pytest.raises(UsageError, match=rf"the task {__name__}\.CODED is code.*trust_code=True"):
        Task.from_description(coded.describe())
    assert Task.from_description(coded.describe(), trust_code=True) == CODED


@pytest.mark.parametrize("wrong", [{"name": "two words"}, {"names": ()}, {"scores": ()}])
def test_a_task_without_name_outputs_or_scores_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="needs an identifier as its name, names and scores"):
        replace(PAIN, **wrong)
