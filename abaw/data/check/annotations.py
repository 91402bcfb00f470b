"""Checks of annotation files: all defects of a file, including those that the reader tolerates."""

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from abaw.data.check.kinds import DataFinding
from abaw.data.formats.annotations import (
    MTL_COLUMNS,
    columns_of,
    header_defect,
    parse_annotations,
    read_bytes,
    split_header,
)
from abaw.data.labels import Labels
from abaw.errors import AbawError
from abaw.tasks import TASKS, Task

_BEGINNING = 4096  # bytes, enough for the header and the first row
_SHOWN = 20  # defects of one kind that are listed individually per file


def check_annotations(path: Path, task: Task | None) -> tuple[dict[str, Labels], list[DataFinding]]:
    """The labels of a file by video, none if it is unusable, and findings for its defects.

    The first defects of every kind have a finding each, further ones are counted.

    Args:
        path: The file; one of a single task is named for its video.
        task: Its task; None for an MTL file.
    """
    try:
        parsed = parse_annotations(read_bytes(path), task, path.stem)
    except AbawError as error:
        return {}, [DataFinding("unreadable annotation", path, str(error))]
    findings, met = [], Counter[str]()
    for defect in parsed.defects + parsed.remarks:
        met[defect.kind] += 1
        if met[defect.kind] <= _SHOWN:
            findings.append(DataFinding(defect.kind, path, defect.detail, defect.line))
    more = {kind: n - _SHOWN for kind, n in met.items() if n > _SHOWN}
    findings += [DataFinding(kind, path, f"{n} more such lines") for kind, n in more.items()]
    return parsed.labels, findings


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
        for task in (None, *TASKS):
            columns = columns_of(task) if task else ("image", *MTL_COLUMNS)
            # a sample submission has the header of an MTL file and rows without values
            if header_defect(names, task) is None and len(cells) == len(columns) and all(cells):
                kind = "the multi-task labels" if task is None else f"{task.name.upper()} labels"
                yield DataFinding("unrecognised annotation", path, f"it holds {kind} and is not read")
