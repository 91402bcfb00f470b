"""What a submission must look like: the forms of the editions, and the lists of rows to fill.

Editions 5 to 10 give a sample file with one row per image, and so do the multi-task ones (7th, 11th); the
3rd gave a list of videos and took one file for each.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from abaw.data.annotations import MTL_HEADER, parse_image, read_bytes
from abaw.errors import AbawError, UsageError
from abaw.tasks import Task


@dataclass(frozen=True)
class Form:
    """The form of a submission.

    Attributes:
        name: What users call it: a task's name, or `mtl`.
        tasks: The tasks it takes, in the order of its columns.
        header: First line of a file with one row per image.
        video_header: First line of a file per video; empty where no edition took such files.
    """

    name: str
    tasks: tuple[Task, ...]
    header: str
    video_header: str = ""

    @property
    def columns(self) -> tuple[str, ...]:
        """What stands in a row, the image apart; a row gives one class, whatever the header names."""
        return tuple(c for task in self.tasks for c in (("class",) if task is Task.EXPR else task.names))


FORMS: dict[str, Form] = {
    str(task): Form(task, (task,), ",".join(("image_location", *task.names)), ",".join(task.names))
    for task in Task
} | {"mtl": Form("mtl", tuple(Task), ",".join(MTL_HEADER))}
"""Every form, by name."""


def form_named(name: str) -> Form:
    """The form of that name.

    Raises:
        UsageError: There is none.
    """
    if name not in FORMS:
        raise UsageError(f"task: {name!r} has no submission; choose one of {', '.join(FORMS)}")
    return FORMS[name]


@dataclass(frozen=True, eq=False)
class Sample:
    """The rows that a submission must have, in order.

    Attributes:
        images: R entries `video/00001.jpg`, as they stand in the sample.
        videos: Names, in order of appearance.
        video: int32 (R,), place in `videos`.
        frame: int32 (R,), frame of the video, from 0.
    """

    images: Sequence[str]
    videos: tuple[str, ...]
    video: NDArray[np.int32]
    frame: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True)
class VideoList:
    """The videos that need a file each, in the order of the list."""

    videos: tuple[str, ...]


def read_sample(path: Path | str) -> Sample | VideoList:
    """Reads a sample file, or a list of videos: it is a list when its first row names no image.

    A header is optional, and whatever stands behind the image is ignored.

    Raises:
        AbawError: The file is missing or empty, an entry is malformed or stands there twice.
    """
    lines = read_bytes(Path(path)).splitlines()
    cells = [line.partition(b",")[0].strip() for line in lines]
    header = int(bool(cells) and cells[0].strip(b'"') in (b"image", b"image_location"))
    entries = [(number, cell) for number, cell in enumerate(cells[header:], header + 1) if cell]
    if not entries:
        raise AbawError(f"{path}: names neither images nor videos; give the organisers' sample file")
    _refuse_twice(path, entries)
    if header == 0 and b"/" not in entries[0][1]:
        return VideoList(tuple(cell.decode().removesuffix(".txt") for _, cell in entries))
    places: dict[str, int] = {}
    video, frame = (np.empty(len(entries), np.int32) for _ in range(2))
    for row, (number, cell) in enumerate(entries):
        image = parse_image(cell)
        if isinstance(image, str):
            raise AbawError(f"{path}, line {number}: {image}; correct the sample file")
        video[row] = places.setdefault(image[0], len(places))
        frame[row] = image[1]
    return Sample([cell.decode() for _, cell in entries], tuple(places), video, frame)


def _refuse_twice(path: Path | str, entries: Sequence[tuple[int, bytes]]) -> None:
    first: dict[bytes, int] = {}
    for number, cell in entries:
        if first.setdefault(cell, number) != number:
            raise AbawError(
                f"{path}, line {number}: {cell.decode()} stands on line {first[cell]} too; remove one of them"
            )
