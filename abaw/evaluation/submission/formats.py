"""Sample submissions: the rows that an edition of the challenge expects, and their order."""

from bisect import bisect_left
from codecs import BOM_UTF8
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from abaw.data.formats.annotations import MTL_HEADER, parse_image, read_bytes
from abaw.data.labels import is_video_name
from abaw.errors import AbawError, UsageError
from abaw.tasks import Task


def misplaced_rows(
    images: Sequence[str], wanted: Sequence[str], first_line: int
) -> Iterator[tuple[int, str]]:
    """Rows that are missing, unknown, repeated or out of order; after each the comparison goes on.

    Args:
        images: As they stand in the submission.
        wanted: The images of the sample, each once.
        first_line: Line of the submission's first row.

    Yields:
        Line and message; a run of missing rows is one of them, at the line before which it belongs.
    """
    place = {image: row for row, image in enumerate(wanted)}
    met = np.array([place.get(image, -1) for image in images], dtype=np.int64)
    line_of: dict[int, int] = {}  # row of the sample -> line of the submission
    for line, row in enumerate(met.tolist(), first_line):
        if row < 0:
            yield line, (f"{images[line - first_line]!r} is not in the sample; remove the row")
        elif line_of.setdefault(row, line) != line:
            yield line, (f"{wanted[row]} repeats line {line_of[row]}; remove one of them")
    rows = np.fromiter(line_of, np.int64, len(line_of))  # in the order of the submission
    in_order = np.sort(rows)
    missing = np.setdiff1d(np.arange(len(wanted)), in_order)
    for run in np.split(missing, np.flatnonzero(np.diff(missing) > 1) + 1) if len(missing) else ():
        after = np.searchsorted(in_order, run[0])
        line = line_of[int(in_order[after])] if after < len(in_order) else first_line + len(images)
        names = wanted[run[0]] + (f" to {wanted[run[-1]]}" if len(run) > 1 else "")
        yield line, (f"{len(run):,} row{'s' * (len(run) > 1)} missing before this line: {names}")
    for row, message in _disordered(rows, in_order, wanted):
        yield line_of[row], message


def _disordered(
    rows: NDArray[np.int64], in_order: NDArray[np.int64], wanted: Sequence[str]
) -> Iterator[tuple[int, str]]:
    """Rows of the sample that stand at another's place: pairs that changed places, then the fewest others."""
    belongs = dict(zip(rows.tolist(), in_order.tolist(), strict=True))  # row -> row that belongs there
    swapped = {row for row, other in belongs.items() if row != other and belongs[other] == row}
    for row in swapped:
        yield row, f"{wanted[row]} is swapped with {wanted[belongs[row]]}"
    others = [row for row in rows.tolist() if row not in swapped]
    for row in sorted(set(others) - set(_longest_rising(others))):
        yield row, f"{wanted[row]} is out of order; keep the order of the sample"


def _longest_rising(rows: Sequence[int]) -> Iterator[int]:
    """The longest subsequence of rising numbers, last first (patience sorting)."""
    ends: list[int] = []  # smallest possible end of a rising subsequence of each length
    before: dict[int, int | None] = {}
    for row in rows:
        length = bisect_left(ends, row)
        before[row] = ends[length - 1] if length else None
        ends[length : length + 1] = [row]
    row_or_end = ends[-1] if ends else None
    while row_or_end is not None:
        yield row_or_end
        row_or_end = before[row_or_end]


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


def form_with_header(line: str) -> Form | None:
    """The form whose first line this is, in a file with images or one per video; quotes do not matter."""
    header = line.replace('"', "").strip().lower()
    headers = {text.lower(): form for form in FORMS.values() for text in (form.header, form.video_header)}
    return headers.get(header) if header else None


@dataclass(frozen=True, eq=False)
class Sample:
    """The rows that a submission must have, in order.

    Attributes:
        images: R entries `video/00001.jpg`, as they stand in the sample.
        videos: Names, in order of appearance.
        video: int32 (R,), place in `videos`.
        frame: int32 (R,), frame of the video, from 0.
        form: The form that its header is of; None where it has none, or one that nobody knows.
    """

    images: Sequence[str]
    videos: tuple[str, ...]
    video: NDArray[np.int32]
    frame: NDArray[np.int32]
    form: Form | None = None

    def __len__(self) -> int:
        return len(self.images)

    def numbers(self) -> dict[str, NDArray[np.int64]]:
        """By video, the numbers of its images, from 1, in the order of the sample."""
        order = np.argsort(self.video, kind="stable")
        ends = np.cumsum(np.bincount(self.video, minlength=len(self.videos)))
        parts = np.split(self.frame[order].astype(np.int64) + 1, ends[:-1])
        return dict(zip(self.videos, parts, strict=True))


@dataclass(frozen=True)
class VideoList:
    """The videos that need a file each, in the order of the list."""

    videos: tuple[str, ...]

    def numbers(self) -> dict[str, NDArray[np.int64]]:
        """By video, nothing: a list does not say how many images a video has."""
        return {video: np.empty(0, np.int64) for video in self.videos}


def read_sample(path: Path | str, form: Form | None = None) -> Sample | VideoList:
    """Reads a sample file, or a list of videos: it is a list when neither of its first rows names an image.

    A header is optional, and whatever stands behind the image is ignored.

    Args:
        path: The file.
        form: What it ought to be a sample of, where that is known.

    Raises:
        AbawError: The file is missing, empty or no text, an entry is malformed or stands there twice.
        UsageError: It is the sample of another form.
    """
    content = read_bytes(Path(path)).removeprefix(BOM_UTF8)
    if (place := content.find(b"\0")) >= 0:
        number = content.count(b"\n", 0, place) + 1
        raise AbawError(f"{path}, line {number}: is no text; give the organisers' sample file")
    lines = content.splitlines() or [b""]
    cells = [line.partition(b",")[0].strip() for line in lines]
    names_images = any(b"/" in cell for cell in cells[:2])
    found = form_with_header(_text(lines[0])) if b"/" not in lines[0] else None
    if form is not None and found is not None and form is not found:
        raise UsageError(
            f"{path}: its header is that of {found.name}, not of {form.name}; give the sample of the task"
        )
    header = int(found is not None or (names_images and b"/" not in cells[0]))
    entries = [(number, cell) for number, cell in enumerate(cells[header:], header + 1) if cell]
    if not entries:
        raise AbawError(f"{path}: names neither images nor videos; give the organisers' sample file")
    _refuse_twice(path, entries)
    if not names_images and not header:
        return VideoList(tuple(_video(path, number, cell) for number, cell in entries))
    places: dict[str, int] = {}
    video, frame = (np.empty(len(entries), np.int32) for _ in range(2))
    for row, (number, cell) in enumerate(entries):
        image = parse_image(cell)
        if isinstance(image, str):
            raise AbawError(f"{path}, line {number}: {image}; correct the sample file")
        video[row] = places.setdefault(image[0], len(places))
        frame[row] = image[1]
    return Sample([cell.decode() for _, cell in entries], tuple(places), video, frame, found)


def _refuse_twice(path: Path | str, entries: Sequence[tuple[int, bytes]]) -> None:
    first: dict[bytes, int] = {}
    for number, cell in entries:
        if first.setdefault(cell, number) != number:
            raise AbawError(
                f"{path}, line {number}: {_text(cell)} stands on line {first[cell]} too; remove one of them"
            )


def _video(path: Path | str, number: int, cell: bytes) -> str:
    name = _text(cell).removesuffix(".txt")
    if not is_video_name(name):
        raise AbawError(f"{path}, line {number}: {name!r} is not the name of a video; correct the list")
    return name


def _text(cell: bytes) -> str:
    return cell.decode("utf-8", "backslashreplace")
