"""Submission formats and sample files: the expected columns, rows and their order."""

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
from abaw.tasks import EXPR, TASKS, Task


def misplaced_rows(
    images: Sequence[str], wanted: Sequence[str], first_line: int
) -> Iterator[tuple[int, str]]:
    """Messages about missing, unknown, repeated and unordered rows of a submission.

    Args:
        images: Images of the submission.
        wanted: Images of the sample, without repetition.
        first_line: Line number of the submission's first row.

    Yields:
        Line and message; consecutive missing rows are one message, at the line before which they belong.
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
    """Rows of the sample in the wrong order: swapped pairs, then a smallest set of other rows."""
    belongs = dict(zip(rows.tolist(), in_order.tolist(), strict=True))  # row -> row expected in its place
    swapped = {row for row, other in belongs.items() if row != other and belongs[other] == row}
    for row in swapped:
        yield row, f"{wanted[row]} is swapped with {wanted[belongs[row]]}"
    others = [row for row in rows.tolist() if row not in swapped]
    for row in sorted(set(others) - set(_longest_increasing(others))):
        yield row, f"{wanted[row]} is out of order; keep the order of the sample"


def _longest_increasing(rows: Sequence[int]) -> Iterator[int]:
    """The longest increasing subsequence, last element first (patience sorting)."""
    ends: list[int] = []  # smallest last element of an increasing subsequence of each length
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
    """Format of a submission.

    Attributes:
        name: Name of a task, or `mtl`.
        tasks: The submitted tasks, in the order of the columns.
        header: First line of a file with one row per image.
        video_header: First line of a file per video; empty if no edition of the challenge uses them.
    """

    name: str
    tasks: tuple[Task, ...]
    header: str
    video_header: str = ""

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of a row without the image; EXPR has the single column `class`."""
        return tuple(c for task in self.tasks for c in (("class",) if task == EXPR else task.names))


FORMS: dict[str, Form] = {
    task.name: Form(task.name, (task,), ",".join(("image_location", *task.names)), ",".join(task.names))
    for task in TASKS
} | {"mtl": Form("mtl", TASKS, ",".join(MTL_HEADER))}
"""All formats by name."""


def form_named(name: str) -> Form:
    """The format with a name.

    Raises:
        UsageError: There is no such format.
    """
    if name not in FORMS:
        raise UsageError(f"task: {name!r} has no submission; choose one of {', '.join(FORMS)}")
    return FORMS[name]


def form_with_header(line: str) -> Form | None:
    """The format with a header, of a file with images or a file per video; quotes are ignored."""
    header = line.replace('"', "").strip().lower()
    headers = {text.lower(): form for form in FORMS.values() for text in (form.header, form.video_header)}
    return headers.get(header) if header else None


@dataclass(frozen=True, eq=False)
class Sample:
    """The rows that a submission must have, in order.

    Attributes:
        images: R entries `video/00001.jpg`, as in the sample.
        videos: Names of the videos, in order of appearance.
        video: int32 (R,), index into `videos`.
        frame: int32 (R,), frame of the video, from 0.
        form: Format with the header of the sample; None if the header is missing or unknown.
    """

    images: Sequence[str]
    videos: tuple[str, ...]
    video: NDArray[np.int32]
    frame: NDArray[np.int32]
    form: Form | None = None

    def __len__(self) -> int:
        return len(self.images)

    def numbers(self) -> dict[str, NDArray[np.int64]]:
        """Image numbers per video, from 1, in the order of the sample."""
        order = np.argsort(self.video, kind="stable")
        ends = np.cumsum(np.bincount(self.video, minlength=len(self.videos)))
        parts = np.split(self.frame[order].astype(np.int64) + 1, ends[:-1])
        return dict(zip(self.videos, parts, strict=True))


@dataclass(frozen=True)
class VideoList:
    """List of videos, each of which needs a file of its own."""

    videos: tuple[str, ...]

    def numbers(self) -> dict[str, NDArray[np.int64]]:
        """Empty image numbers per video: a list has no images."""
        return {video: np.empty(0, np.int64) for video in self.videos}


def read_sample(path: Path | str, form: Form | None = None) -> Sample | VideoList:
    """Reads a sample file, or a list of videos, which has no image in its first two rows.

    A header is optional, and columns after the image are ignored.

    Args:
        path: The file.
        form: The expected format; null: any.

    Raises:
        AbawError: The file is missing, empty or not text, or an entry is malformed or repeated.
        UsageError: The sample has another format.
    """
    content = read_bytes(Path(path)).removeprefix(BOM_UTF8)
    if (place := content.find(b"\0")) >= 0:
        number = content.count(b"\n", 0, place) + 1
        raise AbawError(f"{path}, line {number}: is not text; give the organisers' sample file")
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
                f"{path}, line {number}: {_text(cell)} repeats line {first[cell]}; remove one of them"
            )


def _video(path: Path | str, number: int, cell: bytes) -> str:
    name = _text(cell).removesuffix(".txt")
    if not is_video_name(name):
        raise AbawError(f"{path}, line {number}: {name!r} is not the name of a video; correct the list")
    return name


def _text(cell: bytes) -> str:
    return cell.decode("utf-8", "backslashreplace")
