"""A data set in the official layout whose images are empty files: names are all that an index looks at."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from abaw.data.formats.annotations import write_task_file
from abaw.data.index import Index
from abaw.data.labels import Labels, image_name
from abaw.tasks import AU, EXPR, VA, Task

FOLDERS = {VA: "VA_Estimation_Challenge", EXPR: "EXPR_Classification_Challenge", AU: "AU_Set"}


SPLIT_FOLDERS = {"train": "Train_Set", "val": "Validation_Set", "test": "Test_Set"}


def add_images(root: Path, video: str, numbers: Iterable[int]) -> None:
    """Names are all the index looks at."""
    (root / video).mkdir(parents=True, exist_ok=True)
    for number in numbers:
        (root / video / image_name(number)).touch()


def add_labels(root: Path, video: str, task: Task, split: str, labels: Labels) -> Path:
    path = root / FOLDERS[task] / SPLIT_FOLDERS[split] / f"{video}.txt"
    write_task_file(path, task, labels)
    return path


def assert_same(one: Index, other: Index) -> None:
    assert one.videos == other.videos
    assert one.roots == other.roots
    for name, array in one.arrays.items():
        np.testing.assert_array_equal(array, other.arrays[name])


def cached(tmp_path: Path) -> Path:
    (path,) = (tmp_path / "cache/index").iterdir()
    return path
