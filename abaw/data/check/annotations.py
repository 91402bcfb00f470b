"""Checks of annotation files: all defects of a file, including those that the readers tolerate."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from abaw.data.check.kinds import DataFinding
from abaw.data.formats.annotations import (
    MTL_COLUMNS,
    AnnotationError,
    LineDefect,
    columns_of,
    header_defect,
    parse_image,
    read_bytes,
    read_mtl_file,
    read_rows,
    read_task_file,
    row_defects,
    shown,
    split_header,
    text_defect,
)
from abaw.data.labels import Labels
from abaw.errors import AbawError
from abaw.tasks import Task

_SPACES = re.compile(rb"[ \t]+(?=,|\r?\n|\r?\Z)|(?<=[,\n])[ \t]+")

_BEGINNING = 4096  # bytes, enough for the header and the first row

_SHOWN = 20  # defects of one kind that are listed individually per file


def check_task_file(path: Path, task: Task) -> tuple[Labels | None, list[DataFinding]]:
    """The labels of a video's file, None if it is unusable, and the findings in it."""
    try:
        data = read_bytes(path)
    except AbawError as error:
        return None, [DataFinding("unreadable annotation", path, str(error))]
    if (not_text := text_defect(data)) is not None:
        return None, _findings(path, [not_text])
    names, body = split_header(data)
    defects = list(_untidy(data))
    labels = None
    try:
        labels = read_task_file(path, task)
    except AnnotationError as error:
        in_header = header_defect(names, task)
        in_rows = list(row_defects(body, columns_of(task))) if in_header is None else []
        defects += [in_header] if in_header else in_rows or [error.defect]
    else:
        if not body:
            defects.append(LineDefect("empty annotation", 1, "the file has a header but no rows"))
        if task is Task.EXPR and len(names) < task.size:
            defects.append(LineDefect("seven classes", 1, "the header names seven classes, without Other"))
        if task is Task.VA:
            n_missing = (read_rows(path, body, columns_of(task)) == task.unlabelled).sum(1)
            for row in (n_missing == 1).nonzero()[0].tolist():
                defects.append(LineDefect("half-labelled row", row + 2, "one of valence and arousal is -5"))
    return labels, _findings(path, defects)


def check_mtl_file(path: Path) -> tuple[dict[str, Labels], list[DataFinding]]:
    """The labels of an MTL file by video, empty if it is unusable, and the findings in it."""
    try:
        data = read_bytes(path)
    except AbawError as error:
        return {}, [DataFinding("unreadable annotation", path, str(error))]
    if (not_text := text_defect(data)) is not None:
        return {}, _findings(path, [not_text])
    names, body = split_header(data)
    defects = list(_untidy(data))
    labels: dict[str, Labels] = {}
    try:
        labels = read_mtl_file(path)
    except AnnotationError:
        in_header = header_defect(names, None)
        defects += (
            [in_header] if in_header else [*row_defects(body, MTL_COLUMNS, named=True), *_image_defects(body)]
        )
    else:
        if not labels:
            defects.append(LineDefect("empty annotation", 1, "the file has a header but no rows"))
    return labels, _findings(path, defects)


def find_unrecognised(texts: Iterable[Path]) -> Iterator[DataFinding]:
    """Files with an official header and at least one row of labels that are not read as annotations.

    Args:
        texts: Text files whose folder names identify neither task nor split.
    """
    for path in texts:
        try:
            with path.open("rb") as file:
                names, body = split_header(file.read(_BEGINNING))
        except OSError as error:
            yield DataFinding("unreadable annotation", path, f"cannot be read ({error.strerror})")
            continue
        cells = body.partition(b"\n")[0].split(b",")
        for task in (None, *Task):
            columns = columns_of(task) if task else ("image", *MTL_COLUMNS)
            # a sample submission has the header of an MTL file and rows without values
            if header_defect(names, task) is None and len(cells) == len(columns) and all(cells):
                kind = "the multi-task labels" if task is None else f"{task.upper()} labels"
                yield DataFinding("unrecognised annotation", path, f"it holds {kind} and is not read")


def _image_defects(body: bytes) -> Iterator[LineDefect]:
    """Invalid and duplicate image names in the rows of an MTL file."""
    first: dict[tuple[str, int], int] = {}
    for number, line in enumerate(body.split(b"\n")[:-1], start=2):
        image = line.partition(b",")[0]
        place = parse_image(image)
        if isinstance(place, str):
            if line.strip():  # blank lines are reported separately
                yield LineDefect("image", number, place)
        elif first.setdefault(place, number) != number:
            yield LineDefect("duplicate row", number, f"{shown(image)} was listed on line {first[place]}")


def _untidy(data: bytes) -> Iterator[LineDefect]:
    """Defects that the readers tolerate: byte-order mark, carriage returns, trailing blank lines, spaces."""
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


def _findings(path: Path, defects: Iterable[LineDefect]) -> list[DataFinding]:
    """Findings for the first defects of every kind, and the number of further ones."""
    findings, met = [], Counter[str]()
    for defect in defects:
        met[defect.kind] += 1
        if met[defect.kind] <= _SHOWN:
            findings.append(DataFinding(defect.kind, path, defect.detail, defect.line))
    more = {kind: n - _SHOWN for kind, n in met.items() if n > _SHOWN}
    return findings + [DataFinding(kind, path, f"{n} more such lines") for kind, n in more.items()]
