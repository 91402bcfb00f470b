"""A tiny data set in the official layout whose pixels and labels tell which frame they are of."""

from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np

from abaw.data.formats.annotations import write_mtl_file, write_task_file
from abaw.data.labels import Labels
from abaw.tasks import AU, EXPR, TASKS, VA, Task
from tests.support.label_arrays import labels_from

SIZE = 16
FOLDERS = {
    VA: "VA_Estimation_Challenge",
    EXPR: "EXPR_Recognition_Challenge",
    AU: "AU_Detection_Challenge",
}
SPLITS = {"train": "Train_Set", "val": "Validation_Set"}


def brightness(frame: int) -> int:
    """The grey of every pixel of a frame."""
    return 10 + 3 * (frame % 80)


def labels_of(n_rows: int, unlabelled: Iterable[int] = ()) -> Labels:
    """VA is the frame modulo 100 / 100, the expression the frame modulo 8, the action units its bits."""
    frames = np.arange(n_rows)
    valid = ~np.isin(frames, list(unlabelled))
    values = labels_from(
        va=np.stack([frames % 100 / 100, -(frames % 100) / 100], 1).astype(np.float32),
        va_valid=valid,
        expr=frames % 8,
        expr_valid=valid,
        au=(frames[:, None] >> np.arange(12) & 1).astype(np.float32),
        au_valid=np.repeat(valid[:, None], 12, axis=1),
    )
    values[VA].values[~valid], values[EXPR].values[~valid], values[AU].values[~valid] = 0, 0, 0
    return values


def write_images(root: Path, video: str, n_frames: int, missing: range = range(0)) -> None:
    folder = root / "cropped_aligned" / video
    folder.mkdir(parents=True)
    for frame in range(n_frames):
        if frame not in missing:
            image = np.full((SIZE, SIZE, 3), brightness(frame), np.uint8)
            cv2.imwrite(str(folder / f"{frame + 1:05d}.jpg"), image)


def write_labels(root: Path, video: str, split: str, tasks: tuple[Task, ...], labels: Labels) -> None:
    for task in tasks:
        path = root / FOLDERS[task] / SPLITS[split] / f"{video}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_task_file(path, task, labels)


def write_tiny_set(root: Path) -> Path:
    """Five videos: two to train on, two to validate on, one without annotation."""
    everything = TASKS
    write_images(root, "a_train", 60, missing=range(20, 45))  # crops missing for longer than a window
    write_labels(root, "a_train", "train", (VA, EXPR), labels_of(61, unlabelled=range(48, 61)))
    write_images(root, "b_train", 7)  # shorter than a window
    write_labels(root, "b_train", "train", (AU,), labels_of(8))
    write_images(root, "c_val", 21, missing=range(3, 5))
    write_labels(root, "c_val", "val", everything, labels_of(22))
    write_images(root, "d_val", 5)
    write_labels(root, "d_val", "val", (VA,), labels_of(6))
    write_labels(root, "d_val", "train", (AU,), labels_of(6))
    write_images(root, "e_free", 13)
    return root


def write_tiny_mtl_set(root: Path) -> Path:
    """Two videos of which every seventh frame carries labels."""
    for video, split, n_frames in (("p", "train", 30), ("q", "validation", 24)):
        write_images(root, video, n_frames, missing=range(14, 16))
        sparse = labels_of(n_frames, unlabelled=[frame for frame in range(n_frames) if frame % 7])
        path = root / "MTL_Challenge" / f"{split}_set.txt"
        path.parent.mkdir(exist_ok=True)
        write_mtl_file(path, {video: sparse})
    return root
