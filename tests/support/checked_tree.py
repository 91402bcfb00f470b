"""A small data set in the official layout with one image per frame, for tests of `abaw check`."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from abaw.data.check.check import check_dataset
from abaw.data.check.report import DataReport
from abaw.data.formats.annotations import write_mtl_file, write_task_file
from abaw.data.labels import Labels, image_name
from abaw.data.layout import DataSource
from abaw.tasks import AU, EXPR, TASKS, VA, Task
from tests.support.label_arrays import labels_from

FOLDERS = {VA: "VA_Estimation_Challenge", EXPR: "EXPR_Set", AU: "AU_Detection_Challenge"}


SPLITS = {"train": "Train_Set", "val": "Validation_Set"}


def some_labels(n_rows: int, seed: int) -> Labels:
    rng = np.random.default_rng(seed)
    valid = rng.random(n_rows) < 0.9
    return labels_from(
        va=(rng.uniform(-1, 1, (n_rows, 2)) * valid[:, None]).astype(np.float32),
        va_valid=valid,
        expr=rng.integers(0, 8, n_rows) * valid,
        expr_valid=valid,
        au=(rng.integers(0, 2, (n_rows, 12)) * valid[:, None]).astype(np.float32),
        au_valid=np.repeat(valid[:, None], 12, axis=1),
    )


def write_image(path: Path, seed: int, size: int = 112) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    assert cv2.imwrite(str(path), cv2.resize(coarse, (size, size)))


class Tree:
    """A small data set like the official one; with gaps, an extra last row and a two-subject recording."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.images = root / "cropped_aligned"
        for number, (video, split) in enumerate(
            {"a": "train", "b_left": "train", "b_right": "train", "c": "val"}.items()
        ):
            for frame in set(range(1, 13)) - {4, 5}:
                write_image(self.image(video, frame), 100 * number + frame)
            for task in TASKS:
                write_task_file(self.label(video, task, split), task, some_labels(13, number))
        write_image(root / "cropped_aligned_new_50_vids/unlabelled/00001.jpg", 1000)
        write_mtl_file(root / "Annotations/MTL_Challenge/train_set.txt", {"a": some_labels(12, 5)})
        write_mtl_file(root / "Annotations/MTL_Challenge/validation_set.txt", {"c": some_labels(12, 6)})

    def image(self, video: str, number: int) -> Path:
        return self.images / video / image_name(number)

    def label(self, video: str, task: Task = VA, split: str = "train") -> Path:
        return self.root / "Annotations" / FOLDERS[task] / SPLITS[split] / f"{video}.txt"

    def check(self, **options: object) -> DataReport:
        cache = self.root.parent / "cache"
        return check_dataset(DataSource(self.root, cache_dir=cache), jobs=1, progress=False, **options)  # type: ignore[arg-type]


def edit(path: Path, change: Callable[[bytes], bytes]) -> None:
    path.write_bytes(change(path.read_bytes()))


def replace_line(path: Path, line: int, text: str) -> None:
    lines = path.read_text().split("\n")
    lines[line - 1] = text
    path.write_text("\n".join(lines))
