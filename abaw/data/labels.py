"""Labels of consecutive frames with validity masks; names of images, videos and recordings."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from abaw.tasks import Task

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


@dataclass(frozen=True, kw_only=True, eq=False)
class Labels:
    """Labels of R consecutive frames with validity masks (True = labelled); unlabelled values are 0.

    Attributes:
        va: float32 (R, 2), valence and arousal in [-1, 1].
        va_valid: bool (R,); True if both values are labelled.
        expr: int64 (R,), class number.
        expr_valid: bool (R,).
        au: float32 (R, 12), 0 or 1.
        au_valid: bool (R, 12).
    """

    va: NDArray[np.float32]
    va_valid: NDArray[np.bool_]
    expr: NDArray[np.int64]
    expr_valid: NDArray[np.bool_]
    au: NDArray[np.float32]
    au_valid: NDArray[np.bool_]

    def __post_init__(self) -> None:
        n = len(self.va)
        want = {
            "va": (n, 2),
            "va_valid": (n,),
            "expr": (n,),
            "expr_valid": (n,),
            "au": (n, 12),
            "au_valid": (n, 12),
        }
        for name, shape in want.items():
            if getattr(self, name).shape != shape:
                raise ValueError(f"labels.{name} has shape {getattr(self, name).shape}, expected {shape}")

    @classmethod
    def unlabelled(cls, n_rows: int) -> "Labels":
        """Labels of `n_rows` unlabelled frames."""
        return cls(
            va=np.zeros((n_rows, 2), np.float32),
            va_valid=np.zeros(n_rows, np.bool_),
            expr=np.zeros(n_rows, np.int64),
            expr_valid=np.zeros(n_rows, np.bool_),
            au=np.zeros((n_rows, 12), np.float32),
            au_valid=np.zeros((n_rows, 12), np.bool_),
        )

    def __len__(self) -> int:
        return len(self.va)

    def values(self, task: Task) -> NDArray[np.float32] | NDArray[np.int64]:
        """The labels of a task: (R, 2), (R,) or (R, 12)."""
        values: NDArray[np.float32] | NDArray[np.int64] = getattr(self, task)
        return values

    def valid(self, task: Task) -> NDArray[np.bool_]:
        """The mask of a task: (R,), for AU (R, 12)."""
        valid: NDArray[np.bool_] = getattr(self, f"{task}_valid")
        return valid

    def labelled(self, task: Task) -> NDArray[np.float32] | NDArray[np.int64]:
        """The labels of a task on labelled frames only: (n, 2), (n,) or (n, 12)."""
        valid = self.valid(task)
        values: NDArray[np.float32] | NDArray[np.int64]
        values = self.values(task)[valid.any(1) if valid.ndim == 2 else valid]
        return values

    def rows(self, start: int, stop: int) -> "Labels":
        """The labels of frames `start` up to `stop` (excluded); frames after the last row are unlabelled."""
        inside = {name: getattr(self, name)[start:stop] for name in self.__dataclass_fields__}
        n_missing = max(stop - start, 0) - len(inside["va"])
        if n_missing <= 0:
            return Labels(**inside)
        beyond = Labels.unlabelled(n_missing)
        return Labels(
            **{name: np.concatenate([part, getattr(beyond, name)]) for name, part in inside.items()}
        )

    def with_task(self, task: Task, other: "Labels") -> "Labels":
        """A copy with the labels of one task taken from `other`, as long as the longer of the two."""
        n_rows = max(len(self), len(other))
        mine, theirs = self.rows(0, n_rows), other.rows(0, n_rows)
        changes: dict[str, Any] = {str(task): theirs.values(task), f"{task}_valid": theirs.valid(task)}
        return replace(mine, **changes)


def constant_label(parts: Iterable[NDArray[np.float32] | NDArray[np.int64]]) -> tuple[float, ...] | None:
    """The value of two or more equal labels, as in files of placeholders; None if labels differ.

    Args:
        parts: Labels of a task from `Labels.labelled`.
    """
    n_labels, first = 0, None
    for part in parts:
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
