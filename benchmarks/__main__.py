"""Runs the benchmarks and writes docs/benchmarks.md and its figure.

`python -m benchmarks` runs all of them, `python -m benchmarks loader memory` only these and keeps the other
rows. The figures are stored in docs/benchmarks.json, from which the pages are generated.
"""

import argparse
import datetime
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from benchmarks.feeding import feature_windows, loader, windows
from benchmarks.growth import draw, growth
from benchmarks.memory import memory
from benchmarks.network import cached_epoch, evaluation, extraction, gpu, step
from benchmarks.pages import benchmarks_page, scale_table, with_table
from benchmarks.rows import Row

DOCS = Path(__file__).parents[1] / "docs"
FIGURES = DOCS / "benchmarks.json"
MEASUREMENTS: dict[str, Callable[[Path], Any]] = {
    "loader": loader,
    "features": feature_windows,
    "windows": windows,
    "extraction": extraction,
    "evaluation": evaluation,
    "epoch": cached_epoch,
    "memory": memory,
    "growth": growth,
    "step": step,
    "gpu": gpu,
}


def machine() -> str:
    """Description of the processor and the accelerator."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        named = [
            line.partition(":")[2].strip() for line in info.read_text().splitlines() if "model name" in line
        ]
        cpu = named[0] if named else cpu
    accelerator = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return f"{os.cpu_count()} cores of {cpu}, {accelerator}, PyTorch {torch.__version__}"


def main() -> None:
    """Runs the benchmarks and writes the pages."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"any of {', '.join(MEASUREMENTS)}")
    names = parser.parse_args().names or list(MEASUREMENTS)
    if unknown := set(names) - set(MEASUREMENTS):
        parser.error(f"there is no measurement {', '.join(sorted(unknown))}")
    figures = json.loads(FIGURES.read_text(encoding="utf-8")) if FIGURES.exists() else {}
    for name in names:
        start = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            measured = MEASUREMENTS[name](Path(folder))
        rows: list[Row]
        rows, points = measured if isinstance(measured, tuple) else (measured, None)
        if points is not None:
            draw(points, DOCS / "cost.png")
        for row in rows:
            print(f"{row.figure:>12}  {row.limit:<10}  {row.what}", flush=True)
        figures[name] = {
            "date": datetime.date.today().isoformat(),
            "machine": machine(),
            "seconds": round(time.perf_counter() - start),
            "rows": [asdict(row) for row in rows],
        }
        figures = {each: figures[each] for each in MEASUREMENTS if each in figures}
        FIGURES.write_text(json.dumps(figures, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    (DOCS / "benchmarks.md").write_text(benchmarks_page(figures), encoding="utf-8")
    scale = DOCS / "scale.md"
    scale.write_text(with_table(scale.read_text(encoding="utf-8"), scale_table(figures)), encoding="utf-8")


if __name__ == "__main__":
    main()
