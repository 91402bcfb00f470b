"""The official annotation files: read strictly, written as the organisers do. Row k (from 0) is frame k.

The markers -5 and -1 become masks here and appear nowhere else.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from abaw.data.label_rows import (
    AnnotationError,
    Defect,
    columns_of,
    read_rows,
    shown,
    split_header,
    text_defect,
)
from abaw.errors import AbawError
from abaw.files import atomic_path
from abaw.tasks import EXPR_NAMES, Task

IMAGE_NAME = re.compile(r"(\d{5}|[1-9]\d{5,6})\.jpg", re.ASCII)
"""The name of frame n's file: n from 1, five digits, more only where five do not suffice."""

MTL_HEADER = ("image", "valence", "arousal", "expression", "aus")
MTL_COLUMNS = tuple(column for task in Task for column in columns_of(task))
_MTL_SLICES = {Task.VA: slice(0, 2), Task.EXPR: slice(2, 3), Task.AU: slice(3, 15)}


@dataclass(frozen=True, kw_only=True, eq=False)
class Labels:
    """Labels of R consecutive frames, each under its own mask (True = labelled); values are 0 elsewhere.

    Attributes:
        va: float32 (R, 2), valence and arousal in [-1, 1].
        va_valid: bool (R,); a frame counts only where both values are there.
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
        """No label on any of `n_rows` frames."""
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
        """The labels of a task on those frames that have one: (n,) for EXPR, (n, 2) or (n, 12)."""
        valid = self.valid(task)
        values: NDArray[np.float32] | NDArray[np.int64]
        values = self.values(task)[valid.any(1) if valid.ndim == 2 else valid]
        return values

    def rows(self, start: int, stop: int) -> "Labels":
        """Frames `start` up to `stop` (excluded); those beyond the last row are unlabelled."""
        inside = {name: getattr(self, name)[start:stop] for name in self.__dataclass_fields__}
        n_missing = max(stop - start, 0) - len(inside["va"])
        if n_missing <= 0:
            return Labels(**inside)
        beyond = Labels.unlabelled(n_missing)
        return Labels(
            **{name: np.concatenate([part, getattr(beyond, name)]) for name, part in inside.items()}
        )

    def with_task(self, task: Task, other: "Labels") -> "Labels":
        """The same labels with those of `other` for one task, as many rows as the longer of the two."""
        n_rows = max(len(self), len(other))
        mine, theirs = self.rows(0, n_rows), other.rows(0, n_rows)
        changes: dict[str, Any] = {str(task): theirs.values(task), f"{task}_valid": theirs.valid(task)}
        return replace(mine, **changes)


def constant_label(parts: Iterable[NDArray[np.float32] | NDArray[np.int64]]) -> tuple[float, ...] | None:
    """The value that two or more labels all have, as in a file of placeholders; None where they differ.

    Args:
        parts: Of a task, as given by `Labels.labelled`.
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
    """The file name of an image by its number, from 1."""
    return f"{number:05d}.jpg"


def read_task_file(path: Path, task: Task) -> Labels:
    """The labels of one video for one task; the other tasks are unlabelled.

    The seven-class EXPR files of 2021 (no Other) are read too: their classes are the first seven.

    Raises:
        AnnotationError: The header or a row is wrong; the message names line and value.
        AbawError: The file cannot be read.
    """
    data = read_bytes(path)
    names, body = split_header(data)
    if (defect := text_defect(data) or header_defect(names, task)) is not None:
        raise AnnotationError(path, defect)
    labels = _labels(task, read_rows(path, body, columns_of(task)))
    if task is Task.EXPR and len(names) < task.size and (labels.expr == len(names)).any():
        row = int((labels.expr == len(names)).argmax())
        detail = f"expression is '{len(names)}', but the header names only classes 0 to {len(names) - 1}"
        raise AnnotationError(path, Defect("range", row + 2, detail))
    return labels


def read_bytes(path: Path) -> bytes:
    """The content of a file.

    Raises:
        AbawError: It cannot be read.
    """
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise AbawError(
            f"{path}: cannot be read ({error.strerror}); check the path and its permissions"
        ) from error


def header_defect(names: Sequence[str], task: Task | None) -> Defect | None:
    """What is wrong with the first line of a task's file, or of an MTL file (`task` None)."""
    wanted = [MTL_HEADER if task is None else task.names]
    if task is Task.EXPR:
        wanted.append(EXPR_NAMES[:7])
    if tuple(names) in wanted:
        return None
    met = shown(",".join(names).encode())
    for other in (None, *Task):
        if tuple(names) == (MTL_HEADER if other is None else other.names):
            met += f" (that of {'an MTL' if other is None else other.upper()} file)"
    return Defect("header", 1, f"the header is {met} instead of '{','.join(wanted[0])}'")


def _labels(task: Task, values: NDArray[np.float64]) -> Labels:
    """Labels of one task from rows with markers, float64 (R, columns)."""
    valid = values != task.unlabelled
    values = np.where(valid, values, 0)
    labels = Labels.unlabelled(len(values))
    if task is Task.VA:
        both = valid.all(1)
        return replace(labels, va=(values * both[:, None]).astype(np.float32), va_valid=both)
    if task is Task.EXPR:
        return replace(labels, expr=values[:, 0].astype(np.int64), expr_valid=valid[:, 0])
    return replace(labels, au=values.astype(np.float32), au_valid=valid)


def read_mtl_file(path: Path) -> dict[str, Labels]:
    """The labels of every video of an MTL file; frames the file does not list are unlabelled.

    Raises:
        AnnotationError: The header, an image name or a row is wrong, or an image is listed twice.
        AbawError: The file cannot be read.
    """
    data = read_bytes(path)
    names, body = split_header(data)
    if (defect := text_defect(data) or header_defect(names, None)) is not None:
        raise AnnotationError(path, defect)
    values = read_rows(path, body, MTL_COLUMNS, named=True)
    frames: dict[str, dict[int, int]] = {}  # of each video: row of the file by frame
    for row, line in enumerate(body.split(b"\n")[:-1]):
        image = line.partition(b",")[0]
        place = parse_image(image)
        if isinstance(place, str):
            raise AnnotationError(path, Defect("image", row + 2, place))
        video, frame = place
        if (first := frames.setdefault(video, {}).setdefault(frame, row)) != row:
            detail = f"{shown(image)} was listed before, on line {first + 2}"
            raise AnnotationError(path, Defect("duplicate row", row + 2, detail))
    return {video: _scattered(values[list(rows.values())], list(rows)) for video, rows in frames.items()}


def parse_image(cell: bytes) -> tuple[str, int] | str:
    """Video and frame (from 0) of an entry `video/00001.jpg`, or what is wrong with it."""
    video, _, name = cell.strip().decode("utf-8", "backslashreplace").rpartition("/")
    match = IMAGE_NAME.fullmatch(name)
    if not is_video_name(video) or match is None or (number := int(match[1])) == 0:
        return f"the image is {shown(cell)}, not of the form 'video/00001.jpg'"
    return video, number - 1


def is_video_name(text: str) -> bool:
    """Whether a video may be called so: a plain file name that leads nowhere else."""
    return text not in ("", ".", "..") and not set(text) & set("/\\\0:") and text.isprintable()


def _scattered(values: NDArray[np.float64], frames: list[int]) -> Labels:
    """Labels up to the last of `frames` from their rows (len(frames), 15)."""
    n_rows = max(frames) + 1
    labels = Labels.unlabelled(n_rows)
    for task in Task:
        sparse = _labels(task, values[:, _MTL_SLICES[task]])
        labels.values(task)[frames] = sparse.values(task)
        labels.valid(task)[frames] = sparse.valid(task)
    return labels


def _cells(labels: Labels, task: Task) -> list[str]:
    """The official text of every row."""
    values, valid = labels.values(task), labels.valid(task)
    if task is Task.VA:
        valid = valid[:, None]
    # a float32 as text is the shortest that reads back as the same number
    text = (values if task is Task.VA else values.astype(np.int64)).astype(np.str_)
    text = np.where(valid, text, str(task.unlabelled)).reshape(len(labels), -1)
    return [",".join(row) for row in text.tolist()]


def write_task_file(path: Path, task: Task, labels: Labels) -> None:
    """Writes one video's labels of one task as an official annotation file."""
    _write_lines(path, [",".join(task.names), *_cells(labels, task)])


def write_mtl_file(path: Path, labels: Mapping[str, Labels]) -> None:
    """Writes an MTL file with every frame that carries a label of any task."""
    lines = [",".join(MTL_HEADER)]
    for video, of_video in labels.items():
        rows = [_cells(of_video, task) for task in Task]
        labelled = of_video.va_valid | of_video.expr_valid | of_video.au_valid.any(1)
        for frame in np.flatnonzero(labelled).tolist():
            lines.append(
                ",".join([f"{video}/{image_name(frame + 1)}", *(task_rows[frame] for task_rows in rows)])
            )
    _write_lines(path, lines)


def _write_lines(path: Path, lines: list[str]) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")
