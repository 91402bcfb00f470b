"""Verification of submissions: all defects with their lines."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from abaw.data.formats.annotations import read_bytes
from abaw.errors import UsageError
from abaw.evaluation.submission.formats import (
    FORMS,
    Form,
    Sample,
    form_named,
    form_with_header,
    misplaced_rows,
    read_sample,
)
from abaw.tasks import EXPR

_CLASSES = frozenset(str(number) for number in range(len(EXPR.names)))
_PRESENCE = frozenset("01")
_VALUE = re.compile(r"'[^']*'|\S+/\S+|\b\d+\b")  # values, images and numbers in messages


@dataclass(frozen=True, slots=True)
class SubmissionDefect:
    """A defect of a submission.

    Attributes:
        line: Line number, from 1; 0: the whole file. For a missing row the line before which it belongs.
        message: Description of the defect.
        file: Name of the file if there are several.
    """

    line: int
    message: str
    file: str = ""

    def __str__(self) -> str:
        place = [self.file] * bool(self.file) + [f"line {self.line}"] * bool(self.line)
        return f"{', '.join(place)}: {self.message}"


def verify_submission(
    path: Path | str, sample: Path | str, task: str | None = None
) -> list[SubmissionDefect]:
    """All defects of a submission, compared with the organisers' sample.

    Args:
        path: The submission: a file, or for a list of videos a folder with a file per video.
        sample: Sample file or list of videos.
        task: va, expr, au or mtl; null: inferred from the sample, or else from the submission's header or
            number of columns.

    Returns:
        Defects in the order of lines; empty for a valid submission.

    Raises:
        AbawError: A file cannot be read.
        UsageError: The task is unknown, not that of the sample, or cannot be inferred.
    """
    form = None if task is None else form_named(task)
    rows = read_sample(sample, form)
    if isinstance(rows, Sample):
        lines = split_lines(read_bytes(Path(path)))
        return check_file(lines, rows, form or rows.form or _guess(lines, path))
    findings = []
    for name in rows.videos:
        file = Path(path) / f"{name}.txt"
        if not file.is_file():
            findings.append(SubmissionDefect(0, "is missing", file.name))
            continue
        lines = split_lines(read_bytes(file))
        form = form or _guess(lines, file)
        findings += check_video_file(lines, form, file.name)
    unasked = sorted({file.stem for file in Path(path).glob("*.txt")} - set(rows.videos))
    return findings + [SubmissionDefect(0, "is not a video of the list", f"{name}.txt") for name in unasked]


def grouped(findings: Sequence[SubmissionDefect]) -> list[str]:
    """A line per kind of defect, in the order of their first lines: the first one, and how many are like it.

    Two defects are alike if they differ in the line, the file, or the value that was met.
    """
    kinds: dict[str, list[SubmissionDefect]] = {}
    for finding in findings:
        kinds.setdefault(_VALUE.sub("", finding.message), []).append(finding)
    lines = []
    for alike in kinds.values():
        more = len(alike) - 1
        last = f", to {str(alike[-1]).partition(':')[0]}" if more else ""
        lines.append(f"{alike[0]}" + (f" (and {more:,} like it{last})" if more else ""))
    return lines


def split_lines(content: bytes) -> list[str]:
    """The lines of a file with LF or CRLF line endings; the last one is optional."""
    lines = content.decode("utf-8", "backslashreplace").replace("\r\n", "\n").split("\n")
    return lines if lines[-1] else lines[:-1]


def check_file(lines: Sequence[str], sample: Sample, form: Form) -> list[SubmissionDefect]:
    """Defects of the lines of a file with one row per image."""
    findings = list(_header_defects(lines, form.header))
    # a file that starts with a row has no header
    first = 0 if lines and "/" in lines[0] else 1
    images = []
    for number, line in enumerate(lines[first:], first + 1):
        image, _, cells = line.partition(",")
        images.append(image.strip(' "'))
        if '"' in line:
            findings.append(SubmissionDefect(number, "the row is quoted; write it without quotes"))
        elif image != images[-1]:
            findings.append(SubmissionDefect(number, f"spaces around {images[-1]}; remove them"))
        elif defect := _row_defect(cells, form):
            findings.append(SubmissionDefect(number, defect))
    if images != sample.images:
        findings += [SubmissionDefect(*found) for found in misplaced_rows(images, sample.images, first + 1)]
    return sorted(findings, key=lambda finding: finding.line)


def check_video_file(
    lines: Sequence[str], form: Form, file: str, n_rows: int | None = None
) -> list[SubmissionDefect]:
    """Defects of a file of the 3rd edition: one row per frame, without images.

    Args:
        lines: Lines of the file.
        form: Format of the submission.
        file: Name of the file.
        n_rows: Expected number of rows; null: unknown.
    """
    findings = list(_header_defects(lines, form.video_header))
    findings += [
        SubmissionDefect(number, defect)
        for number, line in enumerate(lines[1:], 2)
        if (defect := _row_defect(line, form))
    ]
    n_met = max(len(lines) - 1, 0)
    if n_met == 0 or n_rows not in (None, n_met):
        findings.append(
            SubmissionDefect(len(lines) + 1, f"{n_met} rows, expected {n_rows or 'one per frame'}")
        )
    return [SubmissionDefect(finding.line, finding.message, file) for finding in findings]


def _guess(lines: Sequence[str], path: Path | str) -> Form:
    """The format of a file, inferred from its header or else from the most frequent number of columns."""
    if lines and (form := form_with_header(lines[0])) is not None:
        return form
    commonest = Counter(line.count(",") for line in lines[1:1000]).most_common(1)
    for form in FORMS.values():
        if commonest and commonest[0][0] == len(form.columns):
            return form
    raise UsageError(f"{path}: neither header nor columns tell the task; name it: --task va|expr|au|mtl")


def _header_defects(lines: Sequence[str], wanted: str) -> Iterator[SubmissionDefect]:
    met = lines[0] if lines else ""
    if met == wanted:
        return
    if met.replace('"', "") == wanted:
        yield SubmissionDefect(1, "the header is quoted; write it without quotes")
    elif "/" in met:
        yield SubmissionDefect(1, f"the header is missing; write {wanted!r}")
    else:
        yield SubmissionDefect(1, f"the header is {met[:200]!r}; write {wanted!r}")


def _row_defect(cells: str, form: Form) -> str | None:
    """Description of the defect of the values of a row, without its image."""
    values = cells.split(",")
    if len(values) != len(form.columns):
        if not cells.strip(", "):
            return "the row is not filled"
        return f"{len(values)} values, expected {len(form.columns)} ({', '.join(form.columns)})"
    for name, text in zip(form.columns, values, strict=True):
        if name in ("valence", "arousal"):
            if defect := _number_defect(text):
                return f"{name} is {text!r}: {defect}"
        elif text not in (_CLASSES if name == "class" else _PRESENCE):
            return f"{name} is {text!r}: {_integer_defect(text, 7 if name == 'class' else 1)}"
    return None


def _number_defect(text: str) -> str | None:
    if (value := _number(text)) is None:
        return "not a number"
    if not -1 <= value <= 1:  # true for NaN too
        return "outside [-1, 1]" if abs(value) < np.inf else "NaN or infinite"
    return None if text.strip() == text else "write the number alone"


def _number(text: str) -> float | None:
    """The value of a number in ASCII digits, as other programs read it; None for other text."""
    # float() also accepts non-ASCII digits and underscores between digits
    if not text.isascii() or "_" in text:
        return None
    try:
        return float(text)
    except ValueError:
        return None


def _integer_defect(text: str, highest: int) -> str:
    if (value := _number(text)) is None:
        return "not a number"
    if not np.isfinite(value):
        return "NaN or infinite"
    if not 0 <= value <= highest or value % 1:
        return f"expected an integer from 0 to {highest}"
    return f"write the integer {int(value)}"
