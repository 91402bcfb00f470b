"""Rows of numbers in a text file: a strict and fast reader that names the line when a row is wrong."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from abaw.errors import AbawError
from abaw.tasks import Task

_NUMBER = re.compile(rb"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_IN_NUMBERS = b"0123456789+-.eE"
_BLANKS = b" \t\r"  # around a cell; the last for Windows' line ends


@dataclass(frozen=True)
class Column:
    """What a column of an annotation file may hold.

    Attributes:
        name: As in the official header.
        lowest: Smallest label.
        highest: Largest label.
        unlabelled: The marker of a missing label.
        whole: True where only whole numbers are labels.
    """

    name: str
    lowest: int
    highest: int
    unlabelled: int
    whole: bool

    def admits(self, values: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Bool, shape of `values`: a label or the marker."""
        inside = (values >= self.lowest) & (values <= self.highest)  # false for nan
        if self.whole:
            inside &= np.trunc(values) == values
        admitted: NDArray[np.bool_] = inside | (values == self.unlabelled)
        return admitted

    def __str__(self) -> str:
        kind = "a whole number" if self.whole else "a number"
        return f"{kind} from {self.lowest} to {self.highest}, or {self.unlabelled} for unlabelled"


def columns_of(task: Task) -> tuple[Column, ...]:
    """The columns of a task's annotation rows: 2 for VA, 1 for EXPR, 12 for AU."""
    if task is Task.VA:
        return tuple(Column(name, -1, 1, task.unlabelled, whole=False) for name in task.names)
    if task is Task.EXPR:
        return (Column("expression", 0, task.size - 1, task.unlabelled, whole=True),)
    return tuple(Column(name, 0, 1, task.unlabelled, whole=True) for name in task.names)


@dataclass(frozen=True)
class Defect:
    """Something wrong in a text file.

    Attributes:
        kind: `empty annotation`, `encoding`, `header`, `blank line`, `columns`, `number`, `range`,
            `image` or `duplicate row`.
        line: Line number, from 1.
        detail: What is wrong, with the value met.
    """

    kind: str
    line: int
    detail: str


class AnnotationError(AbawError):
    """An annotation file that cannot be trusted; names file, line, value and cure.

    Attributes:
        path: The file.
        defect: What is wrong, and on which line.
    """

    def __init__(self, path: Path, defect: Defect) -> None:
        super().__init__(path, defect)  # so that it travels between processes
        self.path, self.defect = path, defect

    def __str__(self) -> str:
        where = f"{self.path}:{self.defect.line}: {self.defect.detail}"
        return f"{where}; correct it or fetch the annotations again (`abaw check` lists every defect)"


def shown(cell: bytes) -> str:
    """A cell as it may stand in a message: printable, quoted, cut at 40 characters."""
    text = cell.decode("utf-8", "backslashreplace")
    return repr(text if len(text) <= 40 else f"{text[:40]}…")


def text_defect(data: bytes) -> Defect | None:
    """Why a file holds no text to be read at all: it is empty, or UTF-16 as some editors save it."""
    if not data.strip():
        return Defect("empty annotation", 1, "the file is empty")
    if data.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0\0" in (data[:4:2], data[1:4:2]):
        cure = "save it as UTF-8, for instance with `iconv -f UTF-16 -t UTF-8`"
        return Defect("encoding", 1, f"the file is UTF-16; {cure}")
    return None


def split_header(data: bytes) -> tuple[list[str], bytes]:
    """Parts a file into the names of its first line and the rows, which end in a line feed each.

    A byte-order mark, Windows' line ends and blank lines at the end are tolerated.
    """
    data = data.removeprefix(b"\xef\xbb\xbf").rstrip(_BLANKS + b"\n").replace(b"\r\n", b"\n")
    header, _, body = data.partition(b"\n")
    names = [name.strip() for name in header.decode("utf-8", "backslashreplace").split(",")]
    return names, body + b"\n" if body else b""


def read_rows(path: Path, body: bytes, columns: Sequence[Column], named: bool = False) -> NDArray[np.float64]:
    """The values of all rows.

    Args:
        path: For messages.
        body: Lines of comma-separated cells, each line ending in a line feed; the first is line 2.
        columns: What each cell may hold.
        named: Each row begins with one more cell, a name, which is passed over.

    Returns:
        float64 (R, len(columns)), all admitted by their columns.

    Raises:
        AnnotationError: A row is blank, has too few or too many cells, or a cell is wrong.
    """
    numbers = body
    if named:
        numbers = b"".join([line.partition(b",")[2] + b"\n" for line in body.split(b"\n")[:-1]])
    values = _read_fast(numbers, columns)
    if values is None:
        for defect in row_defects(body, columns, named):
            raise AnnotationError(path, defect)
        cells = numbers.replace(b"\n", b",").split(b",")[:-1]
        values = np.array([float(cell) for cell in cells]).reshape(-1, len(columns))
    return values


def _read_fast(body: bytes, columns: Sequence[Column]) -> NDArray[np.float64] | None:
    """The values, or None where the file must be looked at cell by cell."""
    n_rows = body.count(b"\n")
    separators = b"," * (len(columns) - 1) + b"\n"
    if body.translate(None, delete=_IN_NUMBERS) != separators * n_rows:
        return None  # a wrong number of cells, or something that belongs to no number
    single = body.replace(b"-1", b"/")  # the character before "0": a class or a marker is one byte
    if all(column.whole for column in columns) and len(single) == 2 * n_rows * len(columns):
        # a cell of another width would bring a separator into an even place, which no column admits
        values = np.frombuffer(single, np.uint8)[::2].astype(np.float64) - ord("0")
    else:
        try:
            values = np.array([float(cell) for cell in body.replace(b"\n", b",").split(b",")[:-1]])
        except ValueError:
            return None
    values = values.reshape(n_rows, len(columns))
    good = all(column.admits(values[:, k]).all() for k, column in enumerate(columns))
    return values if good else None


def row_defects(body: bytes, columns: Sequence[Column], named: bool = False) -> Iterator[Defect]:
    """Everything wrong in the rows, line by line (slow: for what `read_rows` refuses, and for the doctor)."""
    expected = len(columns) + named
    for number, line in enumerate(body.split(b"\n")[:-1], start=2):
        cells = [cell.strip(_BLANKS) for cell in line.split(b",")]
        if cells == [b""]:
            yield Defect("blank line", number, "the line is blank, so it is not clear which frame follows")
        elif len(cells) != expected:
            yield Defect("columns", number, f"the row has {len(cells)} cells instead of {expected}")
        else:
            for column, cell in zip(columns, cells[named:], strict=True):
                if not _NUMBER.fullmatch(cell):
                    yield Defect("number", number, f"{column.name} is {shown(cell)}, not a number")
                elif not column.admits(np.array(float(cell))):
                    yield Defect("range", number, f"{column.name} is {shown(cell)}, not {column}")
