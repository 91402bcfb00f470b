"""Which rows of a file are not where the sample has them? Found so that one slip is one finding."""

from bisect import bisect_left
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray


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
