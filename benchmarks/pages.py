"""Pages generated from docs/benchmarks.json: docs/benchmarks.md and the table of docs/scale.md."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from benchmarks.rows import Row

Figures = Mapping[str, Mapping[str, Any]]
"""Date, machine, seconds and rows by measurement."""

_HEAD = """\
# Benchmarks

Every figure is a ratio of two measurements that alternate in one run, as the median over the rounds.
`make bench` measures all of them and writes this page; the command above a table measures only its rows.
The limits are requirements. Rates are those of the named machine and given for reference. For your own
configuration and machine, use `abaw bench`.
"""

_FIGURE = "![Time per epoch over the amount of data, time per window over its length](cost.png)\n"

_TITLES = {
    "loader": "Clips of images",
    "features": "Windows of cached features",
    "windows": "All windows of a data set",
    "extraction": "Extraction",
    "evaluation": "Evaluation on images",
    "epoch": "Training on the cache",
    "memory": "Memory at full size",
    "growth": "Growth",
    "step": "The training step on a CPU",
    "gpu": "On one GPU: ViT-B/16 at 224 pixels, bfloat16, compiled",
}

FRAMES = 2_940_000
"""Number of images of Aff-Wild2."""

RATE, PRICE = 400e12, 3.0
"""Assumed for a GPU: matrix products of a ViT-B in bfloat16, FLOP per second; dollars per hour."""
EXTRACTING, TRAINING = 0.55, 0.45
"""Assumed shares of that rate, the limits on the page of measurements."""
FORWARD = 35.2e9
"""FLOP of a ViT-B/16 at 224 pixels per face, as counted by `abaw bench`; three times that in training."""
CORE_PRICE, STORED_PRICE = 0.05, 0.023
"""Assumed: dollars per core and hour, and per GB and month in object storage."""
JPEG, FEATURES = 5_000, 2 * 768
"""Bytes of a JPEG image and of its cached features."""
EPOCHS = 20


def rows_of(figures: Figures, name: str) -> list[Row]:
    """The rows of a measurement."""
    return [Row(**row) for row in figures[name]["rows"]]


def benchmarks_page(figures: Figures) -> str:
    """Text of docs/benchmarks.md."""
    parts = [_HEAD]
    for name, title in _TITLES.items():
        if name not in figures:
            continue
        about = figures[name]
        parts.append(
            f"## {title}\n\n`python -m benchmarks {name}`, {about['date']}, {about['seconds']} s, on"
            f" {about['machine']}.\n\n| measured | limit | what | on |\n|--:|--:|---|---|\n"
            + "".join(
                f"| {row.figure} | {row.limit} | {row.what} | {row.details} |\n"
                for row in rows_of(figures, name)
            )
        )
        if name == "growth":
            parts.append(_FIGURE)
    return "\n".join(parts)


def scale_table(figures: Figures) -> str:
    """Table of docs/scale.md: cost of each stage for Aff-Wild2 and for a hundred times as much."""
    lines = ["| | formula | Aff-Wild2 | × 100 |", "|---|---|--:|--:|"]
    lines += [
        f"| {what} | {formula} | {one} | {hundred} |" for what, formula, one, hundred in _stages(figures)
    ]
    return "\n".join(lines)


def _stages(figures: Figures) -> Iterator[tuple[str, str, str, str]]:
    """Rows of the table: stage, formula, and the values at both sizes."""
    decode = rows_of(figures, "loader")[0].rates["decode"]
    loader = rows_of(figures, "loader")[0].rates["loader"]
    cache = rows_of(figures, "features")[0].rates["cache"]
    extract, train = EXTRACTING * RATE / FORWARD, TRAINING * RATE / (3 * FORWARD * 0.5)
    sizes = (FRAMES, 100 * FRAMES)

    def stage(what: str, formula: str, values: list[str]) -> tuple[str, str, str, str]:
        return what, formula, values[0], values[1]

    def gpu(frames: float, rate: float) -> str:
        hours = frames / rate / 3600
        return f"{_time(hours)}, {_dollars(hours * PRICE)}"

    yield stage("JPEG files", "N · J", [_bytes(n * JPEG) for n in sizes])
    yield stage(
        "the same in object storage, a month",
        "N · J · s",
        [_dollars(n * JPEG / 1e9 * STORED_PRICE) for n in sizes],
    )
    yield stage("features of one backbone", "N · 2 · 768", [_bytes(n * FEATURES) for n in sizes])
    yield stage("extraction, one GPU", "N · F / (.55 R)", [gpu(n, extract) for n in sizes])
    yield stage("cores that decode for it", ".55 R / F / d", [f"{extract / decode:.1f}"] * 2)
    yield stage("one core reads all features", "N / c", [_time(n / cache / 3600) for n in sizes])
    yield stage(
        f"{EPOCHS} epochs on images, every frame in two windows, half of them masked, one GPU",
        f"{EPOCHS} · 2 N · 3 F · ½ / (.45 R)",
        [gpu(2 * n * EPOCHS, train) for n in sizes],
    )
    yield stage("cores that feed it", ".45 R / (1.5 F) / a", [f"{train / loader:.1f}"] * 2)
    yield stage("bytes per second that it reads", ".45 R / (1.5 F) · J", [f"{_bytes(train * JPEG)}/s"] * 2)


def with_table(page: str, table: str) -> str:
    """A page with the table between its two markers replaced."""
    return re.sub(
        r"(<!-- table: .*? -->\n).*?(<!-- end -->)",
        lambda m: f"{m[1]}\n{table}\n\n{m[2]}",
        page,
        flags=re.DOTALL,
    )


def _time(hours: float) -> str:
    for unit, size in (("h", 1.0), ("min", 1 / 60), ("s", 1 / 3600)):
        if hours >= 2 * size or unit == "s":
            return f"{hours / size:,.3g} {unit}" if hours / size < 100 else f"{hours / size:,.0f} {unit}"
    raise AssertionError("seconds take whatever is left")


def _dollars(amount: float) -> str:
    return f"${amount:,.2f}" if amount < 10 else f"${amount:,.0f}"


def _bytes(n: float) -> str:
    return f"{n / 1e12:,.2g} TB" if n >= 1e12 else f"{n / 1e9:,.2g} GB" if n >= 1e9 else f"{n / 1e6:,.2g} MB"
