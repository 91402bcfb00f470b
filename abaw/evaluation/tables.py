"""Text tables of the official scores."""

from collections.abc import Mapping, Sequence
from typing import Any

from abaw.tasks import AU, EXPR, TASKS, VA, Task

_TITLES = {VA: "VA    mean CCC", EXPR: "EXPR  macro F1", AU: "AU    macro F1"}


def score_table(scores: Mapping[str, Any], labels: bool = False) -> str:
    """Table with a line per task and one for the total.

    Args:
        scores: Scores from `scores.summarise`.
        labels: Whether to add a line for every class and action unit.
    """
    tasks = [task for task in TASKS if task.name in scores]
    if not tasks:
        return "no labels to score against"
    lines = []
    for task in tasks:
        part = scores[task.name]
        frames = f"  {part['frames']:,} frames"
        lines.append(_line(_TITLES[task], part["score"], part.get("interval")) + frames)
        if labels:
            by_label = part.get(task.score_key, part)
            ends = part.get("intervals", {})
            lines += [_line(f"  {name}", by_label[name], ends.get(name)) for name in task.names]
    return "\n".join([*lines, _line("total", scores["total"], scores.get("total_interval"))])


def comparison_table(differences: Mapping[str, Any]) -> str:
    """Table with a line per entry of `scores.compare`."""
    lines = []
    for name, part in differences.items():
        probability = part["probability"]
        share = "" if probability is None else f"  better in {probability:.0%} of draws"
        lines.append(f"{name:<14} {part['difference']:+.4f}{_ends(part['interval'])}{share}")
    return "\n".join(lines)


def baseline_table(columns: Mapping[str, Mapping[Task, float]]) -> str:
    """Table of the tasks' scores with a column for each of several predictions."""
    tasks = [task for task in TASKS if any(task in column for column in columns.values())]
    widths = {name: max(len(name), 8) + 2 for name in columns}
    head = " " * 14 + "".join(f"{name:>{width}}" for name, width in widths.items())
    rows = [
        f"{_TITLES[task]:<14}"
        + "".join(f"{_cell(columns[name].get(task)):>{w}}" for name, w in widths.items())
        for task in tasks
    ]
    return "\n".join([head, *rows])


def _cell(score: float | None) -> str:
    return "-" if score is None else f"{score:.4f}"


def _line(name: str, score: float, ends: Sequence[float] | None) -> str:
    return f"{name:<14}  {score:.4f}{_ends(ends)}"


def _ends(ends: Sequence[float] | None) -> str:
    return f"  [{ends[0]:.4f}, {ends[1]:.4f}]" if ends else ""
