"""Random labels of every task, and whether two tables of labels are the same."""

import numpy as np

from abaw.data.labels import Labels
from abaw.tasks import TASKS, Task
from tests.support.label_arrays import labels_from


def random_labels(n_rows: int, seed: int = 0) -> Labels:
    """Random labels of every task with unlabelled rows and single unlabelled AUs."""
    rng = np.random.default_rng(seed)
    va_valid, expr_valid = rng.random((2, n_rows)) < 0.8
    au_valid = rng.random((n_rows, 12)) < 0.8
    return labels_from(
        va=(rng.uniform(-1, 1, (n_rows, 2)) * va_valid[:, None]).astype(np.float32),
        va_valid=va_valid,
        expr=rng.integers(0, 8, n_rows) * expr_valid,
        expr_valid=expr_valid,
        au=(rng.integers(0, 2, (n_rows, 12)) * au_valid).astype(np.float32),
        au_valid=au_valid,
    )


def assert_equal(mine: Labels, other: Labels, tasks: tuple[Task, ...] = TASKS) -> None:
    for task in tasks:
        np.testing.assert_array_equal(mine[task].values, other[task].values)
        np.testing.assert_array_equal(mine[task].valid, other[task].valid)


def labels_of_character(rng: np.random.Generator, n_rows: int) -> Labels:
    """Labels of a video with its own favourite expressions, levels and units, as real videos have."""
    liking = rng.dirichlet(np.full(8, 0.4))
    level = rng.uniform(-0.6, 0.6, 2)
    habit = rng.beta(0.5, 2, 12)
    valid = np.ones(n_rows, np.bool_)
    return labels_from(
        va=np.clip(level + rng.normal(0, 0.3, (n_rows, 2)), -1, 1).astype(np.float32),
        va_valid=valid,
        expr=rng.choice(8, n_rows, p=liking),
        expr_valid=valid,
        au=(rng.random((n_rows, 12)) < habit).astype(np.float32),
        au_valid=np.ones((n_rows, 12), np.bool_),
    )
