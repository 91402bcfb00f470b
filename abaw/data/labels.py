"""Labels of consecutive frames with validity masks; names of images, videos and recordings."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from abaw.tasks import TASKS, Task, TaskLabels

_SIDE = re.compile(r"_(left|right)\Z")
_PART = re.compile(r"(video\d+)_\d+|(\d+-\d+-\d+x\d+)-\d+", re.ASCII)


def recording(video_name: str) -> str:
    """The name of the recording that a video belongs to.

    A trailing `_left` or `_right` denotes a subject. Names of the form `video<n>_<part>` or
    `<n>-<fps>-<width>x<height>-<part>` denote a part of a recording; any other trailing number belongs to
    the name.
    """
    stem = _SIDE.sub("", video_name)
    part = _PART.fullmatch(stem)
    return stem if part is None else part[1] or part[2]


def recording_places(video_names: Iterable[str]) -> NDArray[np.int64]:
    """The recording of every video as a number, int64 (V,), from 0 in order of first appearance."""
    places: dict[str, int] = {}
    return np.array([places.setdefault(recording(name), len(places)) for name in video_names], np.int64)


def count_recordings(video_names: Iterable[str]) -> int:
    """The number of recordings that these videos belong to."""
    return len({recording(name) for name in video_names})


IMAGE_NAME = re.compile(r"(\d{5}|[1-9]\d{5,6})\.jpg", re.ASCII)
"""Pattern of image names: the frame number from 1, with at least five digits."""


@dataclass(frozen=True, eq=False)
class Labels:
    """Labels of R consecutive frames by task, with validity masks; unlabelled values are 0.

    Attributes:
        n_rows: Number of frames (R).
        by_task: The labels of every task, see `TaskLabels`.
    """

    n_rows: int
    by_task: Mapping[Task, TaskLabels[NDArray[Any]]]

    def __post_init__(self) -> None:
        for task, labels in self.by_task.items():
            shapes = ((self.n_rows, *task.value_shape), (self.n_rows, *task.valid_shape))
            for array, shape in zip(labels, shapes, strict=True):
                if array.shape != shape:
                    raise ValueError(f"labels of {task} have shape {array.shape}, expected {shape}")

    @classmethod
    def unlabelled(cls, n_rows: int, tasks: Iterable[Task] = TASKS) -> "Labels":
        """Labels of `n_rows` unlabelled frames."""
        return cls(n_rows, {task: unlabelled(task, n_rows) for task in tasks})

    def __getitem__(self, task: Task) -> TaskLabels[NDArray[Any]]:
        return self.by_task[task]

    def __len__(self) -> int:
        """Number of frames (R)."""
        return self.n_rows

    def labelled_rows(self, tasks: Iterable[Task]) -> NDArray[np.bool_]:
        """Whether each frame has a label of at least one of some tasks, bool (R,)."""
        rows = np.zeros(self.n_rows, np.bool_)
        for task in tasks:
            valid = self[task].valid
            rows |= valid.any(1) if valid.ndim == 2 else valid
        return rows

    def rows(self, start: int, stop: int, step: int = 1) -> "Labels":
        """The labels of frames `start` up to `stop` (excluded); frames after the last row are unlabelled."""
        n_rows = len(range(start, stop, step))
        result = Labels.unlabelled(n_rows, self.by_task)
        for task, labels in self.by_task.items():
            for array, target in zip(labels, result[task], strict=True):
                inside = array[start:stop:step]
                target[: len(inside)] = inside
        return result


def unlabelled(task: Task, *shape: int) -> TaskLabels[NDArray[Any]]:
    """Labels of a task for unlabelled frames of any shape."""
    dtype = np.int64 if task.kind == "class" else np.float32
    return TaskLabels(
        np.zeros((*shape, *task.value_shape), dtype), np.zeros((*shape, *task.valid_shape), np.bool_)
    )


def count_labels(task: Task, labels: TaskLabels[NDArray[Any]]) -> NDArray[np.int64]:
    """Number of labelled frames, (); of a class task by class, (K,); of a binary one by value, (K, 2)."""
    values, valid = labels
    if task.kind == "class":
        return np.bincount(values[valid], minlength=task.size)
    if task.kind == "binary":
        return np.stack([(valid & (values == value)).sum(0) for value in (0, 1)], axis=1)
    return np.asarray(valid.sum())


def constant_label(labels: Iterable[TaskLabels[NDArray[Any]]]) -> tuple[float, ...] | None:
    """The value of two or more equal labels of a task, as in files of placeholders; None if labels differ."""
    n_labels, first = 0, None
    for values, valid in labels:
        part = values[valid.any(1) if valid.ndim == 2 else valid]
        if not len(part):
            continue
        first = part[0] if first is None else first
        if (part != first).any():
            return None
        n_labels += len(part)
    return None if first is None or n_labels < 2 else tuple(np.atleast_1d(first).tolist())


def image_name(number: int) -> str:
    """The file name of an image by its frame number, from 1."""
    return f"{number:05d}.jpg"


def is_video_name(text: str) -> bool:
    """Whether a text is a valid video name: a file name without path separators."""
    return text not in ("", ".", "..") and not set(text) & set("/\\\0:") and text.isprintable()
