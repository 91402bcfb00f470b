"""Text tables of the official scores."""

from collections.abc import Mapping, Sequence
from typing import Any

from abaw.tasks import Task

_TITLES = {"va": "VA    mean CCC", "expr": "EXPR  macro F1", "au": "AU    macro F1"}
_GROUPS = ("per_class", "per_au", "per_label")


def score_table(scores: Mapping[str, Any], labels: bool = False) -> str:
    """Table with a line per task and one for the total.

    Args:
        scores: Scores from `scores.summarise`.
        labels: Whether to add a line for every class, action unit or other label, and for further scores.
    """
    lines = []
    for name, part in scores.items():
        if not _is_score(part):
            continue
        frames = f"  {part['frames']:,} frames"
        lines.append(_line(_title(name), part["score"], part.get("interval")) + frames)
        if labels:
            lines += _label_lines(part)
            further = {key: value for key, value in part.items() if key not in _GROUPS and _is_score(value)}
            for key, other in further.items():
                lines += [_line(f"  {key}", other["score"], other.get("interval")), *_label_lines(other)]
    if not lines:
        return "no labels to score against"
    return "\n".join([*lines, _line("total", scores["total"], scores.get("total_interval"))])


def _is_score(part: Any) -> bool:
    return isinstance(part, Mapping) and "frames" in part


def _title(name: str) -> str:
    return _TITLES.get(name, name.upper())


def _label_lines(part: Mapping[str, Any]) -> list[str]:
    grouped = next((part[key] for key in _GROUPS if key in part), None)
    by_label = grouped or {k: v for k, v in part.items() if isinstance(v, float) and k != "score"}
    ends = part.get("intervals", {})
    return [_line(f"  {name}", score, ends.get(name)) for name, score in by_label.items()]


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
    tasks = dict.fromkeys(task for column in columns.values() for task in column)
    widths = {name: max(len(name), 8) + 2 for name in columns}
    head = " " * 14 + "".join(f"{name:>{width}}" for name, width in widths.items())
    rows = [
        f"{_title(task.name):<14}"
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
