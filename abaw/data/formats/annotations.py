"""Parser, strict reader and writer of the official annotation files. Row k (from 0) is frame k.

The markers -5 and -1 of missing labels are converted to masks here.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from abaw.data.labels import IMAGE_NAME, Labels, image_name, is_video_name
from abaw.errors import AbawError
from abaw.files import atomic_path
from abaw.tasks import AU, EXPR, TASKS, VA, Task, TaskLabels

_NUMBER = re.compile(rb"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_NUMBER_CHARACTERS = b"0123456789+-.eE"
_BLANKS = b" \t\r"  # stripped from cells; the last for Windows line endings
_SPACES = re.compile(rb"[ \t]+(?=,|\r?\n|\r?\Z)|(?<=[,\n])[ \t]+")


@dataclass(frozen=True)
class Column:
    """Name and valid values of a column of an annotation file.

    Attributes:
        name: Name in the official header.
        lowest: Smallest valid label.
        highest: Largest valid label.
        unlabelled: Marker of a missing label.
        whole: Whether labels are integers.
    """

    name: str
    lowest: float
    highest: float
    unlabelled: int
    whole: bool

    def admits(self, values: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Whether each value is a valid label or the marker; bool, shape of `values`."""
        inside = (values >= self.lowest) & (values <= self.highest)  # False for NaN
        if self.whole:
            inside &= np.trunc(values) == values
        return inside | (values == self.unlabelled)

    def __str__(self) -> str:
        kind = "a whole number" if self.whole else "a number"
        return f"{kind} from {self.lowest:g} to {self.highest:g}, or {self.unlabelled} for unlabelled"


def columns_of(task: Task) -> tuple[Column, ...]:
    """The columns of a task's annotation rows: 2 for VA, 1 for EXPR, 12 for AU."""
    if task.kind == "real":
        return tuple(Column(name, task.low, task.high, task.unlabelled, whole=False) for name in task.names)
    if task.kind == "class":
        name = "expression" if task == EXPR else task.name
        return (Column(name, 0, task.size - 1, task.unlabelled, whole=True),)
    return tuple(Column(name, 0, 1, task.unlabelled, whole=True) for name in task.names)


@dataclass(frozen=True)
class LineDefect:
    """A defect of a text file.

    Attributes:
        kind: `empty annotation`, `encoding`, `header`, `blank line`, `columns`, `number`, `range`,
            `image` or `duplicate row`.
        line: Line number, from 1.
        detail: Description of the defect, with the value found.
    """

    kind: str
    line: int
    detail: str


class AnnotationError(AbawError):
    """An invalid annotation file; the message names file, line, value and cure.

    Attributes:
        path: The file.
        defect: The first defect.
    """

    def __init__(self, path: Path, defect: LineDefect) -> None:
        super().__init__(path, defect)  # so that it can be pickled
        self.path, self.defect = path, defect

    def __str__(self) -> str:
        where = f"{self.path}:{self.defect.line}: {self.defect.detail}"
        return f"{where}; correct it or fetch the annotations again (`abaw check` lists every defect)"


def shown(cell: bytes) -> str:
    """A cell for an error message: printable, quoted, truncated to 40 characters."""
    text = cell.decode("utf-8", "backslashreplace")
    return repr(text if len(text) <= 40 else f"{text[:40]}…")


def _text_defect(data: bytes) -> LineDefect | None:
    """The defect of a file that is empty or encoded as UTF-16; None for other files."""
    if not data.strip():
        return LineDefect("empty annotation", 1, "the file is empty")
    if data.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0\0" in (data[:4:2], data[1:4:2]):
        cure = "save it as UTF-8, for instance with `iconv -f UTF-16 -t UTF-8`"
        return LineDefect("encoding", 1, f"the file is UTF-16; {cure}")
    return None


def split_header(data: bytes) -> tuple[list[str], bytes]:
    """Splits a file into the column names of its first line and its rows, each ending in a line feed.

    A byte-order mark, Windows line endings and trailing blank lines are tolerated.
    """
    data = data.removeprefix(b"\xef\xbb\xbf").rstrip(_BLANKS + b"\n").replace(b"\r\n", b"\n")
    header, _, body = data.partition(b"\n")
    names = [name.strip() for name in header.decode("utf-8", "backslashreplace").split(",")]
    return names, body + b"\n" if body else b""


def read_rows(
    body: bytes, columns: Sequence[Column], named: bool = False
) -> tuple[NDArray[np.float64], list[LineDefect]]:
    """The values of all rows, or all defects of the rows.

    Args:
        body: Lines of comma-separated cells, each ending in a line feed; the first is line 2.
        columns: Columns of the cells.
        named: Whether each row begins with an additional cell, an image name, which is ignored.

    Returns:
        float64 (R, len(columns)), valid labels or markers, no rows if there are defects; and the defects.
    """
    numbers = body
    if named:
        numbers = b"".join([line.partition(b",")[2] + b"\n" for line in body.split(b"\n")[:-1]])
    values = _read_fast(numbers, columns)
    if values is not None:
        return values, []
    defects = list(row_defects(body, columns, named))
    cells = [] if defects else numbers.replace(b"\n", b",").split(b",")[:-1]
    return np.array([float(cell) for cell in cells]).reshape(-1, len(columns)), defects


def _read_fast(body: bytes, columns: Sequence[Column]) -> NDArray[np.float64] | None:
    """The values of all rows, or None if the cells must be parsed one by one."""
    n_rows = body.count(b"\n")
    separators = b"," * (len(columns) - 1) + b"\n"
    if body.translate(None, delete=_NUMBER_CHARACTERS) != separators * n_rows:
        return None  # a wrong number of cells, or a character that is not part of a number
    single = body.replace(b"-1", b"/")  # the character before "0", so that every class or marker is one byte
    if all(column.whole for column in columns) and len(single) == 2 * n_rows * len(columns):
        # a cell of another width would shift a separator to an even position, which no column admits
        values = np.frombuffer(single, np.uint8)[::2].astype(np.float64) - ord("0")
    else:
        try:
            values = np.array([float(cell) for cell in body.replace(b"\n", b",").split(b",")[:-1]])
        except ValueError:
            return None
    values = values.reshape(n_rows, len(columns))
    good = all(column.admits(values[:, k]).all() for k, column in enumerate(columns))
    return values if good else None


def row_defects(body: bytes, columns: Sequence[Column], named: bool = False) -> Iterator[LineDefect]:
    """All defects of the rows, line by line; slow, for files that `_read_fast` rejects."""
    expected = len(columns) + named
    for number, line in enumerate(body.split(b"\n")[:-1], start=2):
        cells = [cell.strip(_BLANKS) for cell in line.split(b",")]
        if cells == [b""]:
            yield LineDefect("blank line", number, "the line is blank, so it is unclear which frame follows")
        elif len(cells) != expected:
            yield LineDefect("columns", number, f"the row has {len(cells)} cells instead of {expected}")
        else:
            for column, cell in zip(columns, cells[named:], strict=True):
                if not _NUMBER.fullmatch(cell):
                    yield LineDefect("number", number, f"{column.name} is {shown(cell)}, not a number")
                elif not column.admits(np.array(float(cell))):
                    yield LineDefect("range", number, f"{column.name} is {shown(cell)}, not {column}")


def _untidy(data: bytes) -> Iterator[LineDefect]:
    """Defects that the reader tolerates: byte-order mark, carriage returns, trailing blank lines, spaces."""
    if data.startswith(b"\xef\xbb\xbf"):
        yield LineDefect("byte-order mark", 1, "the file begins with a byte-order mark")
    if (at := data.find(b"\r")) >= 0:
        yield LineDefect(
            "carriage returns", data.count(b"\n", 0, at) + 1, f"{data.count(bytes([13]))} carriage returns"
        )
    content = data.rstrip(b" \t\r\n")
    n_blank = data.count(b"\n", len(content)) - 1
    if content and n_blank > 0:
        yield LineDefect("blank line", content.count(b"\n") + 2, f"{n_blank} blank lines at the end")
    if (b" " in data or b"\t" in data) and (match := _SPACES.search(data)) is not None:
        yield LineDefect("trailing spaces", data.count(b"\n", 0, match.start()) + 1, "spaces around a value")


MTL_HEADER = ("image", "valence", "arousal", "expression", "aus")
MTL_COLUMNS = tuple(column for task in TASKS for column in columns_of(task))
_MTL_SLICES = {VA: slice(0, 2), EXPR: slice(2, 3), AU: slice(3, 15)}


@dataclass(frozen=True, eq=False)
class ParsedAnnotations:
    """Content of an annotation file.

    Attributes:
        labels: Labels by video; none if there are defects.
        defects: Why the file is unusable.
        remarks: What is wrong with the file, but tolerated by its reader.
    """

    labels: dict[str, Labels]
    defects: list[LineDefect]
    remarks: list[LineDefect]


def parse_annotations(data: bytes, task: Task | None, video: str) -> ParsedAnnotations:
    """Parses the file of one video and task or, with `task` None, an MTL file.

    EXPR files of 2021 with seven classes (without Other) are supported; theirs are the first seven classes.
    """
    if (defect := _text_defect(data)) is not None:
        return ParsedAnnotations({}, [defect], [])
    names, body = split_header(data)
    remarks = list(_untidy(data))
    if (defect := header_defect(names, task)) is not None:
        return ParsedAnnotations({}, [defect], remarks)
    values, defects = read_rows(body, MTL_COLUMNS if task is None else columns_of(task), named=task is None)
    frames: dict[str, dict[int, int]] = {}
    if task is None:
        frames, in_names = _listed_frames(body)
        defects += in_names
    if task == EXPR and len(names) < task.size:
        remarks.append(LineDefect("seven classes", 1, "the header names seven classes, without Other"))
        detail = f"expression is '{len(names)}', but the header names only classes 0 to {len(names) - 1}"
        defects += [LineDefect("range", k + 2, detail) for k in _rows_where(values[:, 0] == len(names))]
    if defects:
        return ParsedAnnotations({}, defects, remarks)
    if not body:
        remarks.append(LineDefect("empty annotation", 1, "the file has a header but no rows"))
    if task is None:
        labels = {name: _scattered(values[list(rows.values())], list(rows)) for name, rows in frames.items()}
        return ParsedAnnotations(labels, [], remarks)
    if task == VA:
        half = _rows_where((values == task.unlabelled).sum(1) == 1)
        detail = f"one of valence and arousal is {task.unlabelled}"
        remarks += [LineDefect("half-labelled row", k + 2, detail) for k in half]
    return ParsedAnnotations({video: Labels(len(values), {task: _labels(task, values)})}, [], remarks)


def _rows_where(condition: NDArray[np.bool_]) -> list[int]:
    return [int(row) for row in np.flatnonzero(condition)]


def read_annotations(path: Path, task: Task | None) -> dict[str, Labels]:
    """The labels of a file by video; frames that an MTL file does not list are unlabelled.

    Args:
        path: The file; one of a single task is named for its video.
        task: Its task, whose labels are returned; None for an MTL file.

    Raises:
        AnnotationError: The header, a row or an image name is invalid; the message names line and value.
        AbawError: The file cannot be read.
    """
    parsed = parse_annotations(read_bytes(path), task, path.stem)
    if parsed.defects:
        raise AnnotationError(path, parsed.defects[0])
    return parsed.labels


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


def header_defect(names: Sequence[str], task: Task | None) -> LineDefect | None:
    """The defect of the header of a task's file or, with `task` None, of an MTL file; None if it is valid."""
    wanted = [MTL_HEADER if task is None else task.names]
    if task == EXPR:
        wanted.append(EXPR.names[:7])
    if tuple(names) in wanted:
        return None
    met = shown(",".join(names).encode())
    for other in (None, *TASKS):
        if tuple(names) == (MTL_HEADER if other is None else other.names):
            met += f" (that of {'an MTL' if other is None else other.name.upper()} file)"
    return LineDefect("header", 1, f"the header is {met} instead of '{','.join(wanted[0])}'")


def _labels(task: Task, values: NDArray[np.float64]) -> TaskLabels[NDArray[Any]]:
    """Labels of one task from float64 (R, columns) values with markers; real ones are valid together."""
    valid = values != task.unlabelled
    if task.kind != "binary":
        valid = valid.all(1, keepdims=True)
    values = np.where(valid, values, 0)
    if task.kind == "class":
        return TaskLabels(values[:, 0].astype(np.int64), valid[:, 0])
    return TaskLabels(values.astype(np.float32), valid.reshape(-1, *task.valid_shape))


def _listed_frames(body: bytes) -> tuple[dict[str, dict[int, int]], list[LineDefect]]:
    """Per video, the row of each frame that an MTL file lists, and invalid and duplicate image names."""
    frames: dict[str, dict[int, int]] = {}
    defects = []
    for row, line in enumerate(body.split(b"\n")[:-1]):
        image = line.partition(b",")[0]
        place = parse_image(image)
        if isinstance(place, str):
            if line.strip():  # a blank line is a defect of the row
                defects.append(LineDefect("image", row + 2, place))
        elif (first := frames.setdefault(place[0], {}).setdefault(place[1], row)) != row:
            detail = f"{shown(image)} was listed before, on line {first + 2}"
            defects.append(LineDefect("duplicate row", row + 2, detail))
    return frames, defects


def parse_image(cell: bytes) -> tuple[str, int] | str:
    """Video and frame (from 0) of an image name `video/00001.jpg`, or a description of its defect."""
    video, _, name = cell.strip().decode("utf-8", "backslashreplace").rpartition("/")
    match = IMAGE_NAME.fullmatch(name)
    if not is_video_name(video) or match is None or (number := int(match[1])) == 0:
        return f"the image is {shown(cell)}, not of the form 'video/00001.jpg'"
    return video, number - 1


def _scattered(values: NDArray[np.float64], frames: list[int]) -> Labels:
    """Labels of frames 0 to max(frames) from the values of `frames`, (len(frames), 15)."""
    n_rows = max(frames) + 1
    labels = Labels.unlabelled(n_rows)
    for task in TASKS:
        for array, listed in zip(labels[task], _labels(task, values[:, _MTL_SLICES[task]]), strict=True):
            array[frames] = listed
    return labels


def _cells(labels: Labels, task: Task) -> list[str]:
    """The text of every row in the official format."""
    values, valid = (np.atleast_2d(array.T).T for array in labels[task])  # (R, K) or (R, 1)
    # float32 values are formatted with the fewest digits that parse to the same value
    text = (values if task.kind == "real" else values.astype(np.int64)).astype(np.str_)
    text = np.where(valid, text, str(task.unlabelled))
    return [",".join(row) for row in text.tolist()]


def write_task_file(path: Path, task: Task, labels: Labels) -> None:
    """Writes one video's labels of one task as an official annotation file."""
    _write_lines(path, [",".join(task.names), *_cells(labels, task)])


def write_mtl_file(path: Path, labels: Mapping[str, Labels]) -> None:
    """Writes an MTL file with every frame that has a label of any task."""
    lines = [",".join(MTL_HEADER)]
    for video, of_video in labels.items():
        rows = [_cells(of_video, task) for task in TASKS]
        for frame in np.flatnonzero(of_video.labelled_rows(TASKS)).tolist():
            lines.append(
                ",".join([f"{video}/{image_name(frame + 1)}", *(task_rows[frame] for task_rows in rows)])
            )
    _write_lines(path, lines)


def _write_lines(path: Path, lines: list[str]) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")
