"""Figures of the scores: functions from plain data to Altair charts, for pages, files and loggers."""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import altair as alt
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from abaw.evaluation.formulas import f1, scores_of
from abaw.evaluation.scores import Sums, by_label
from abaw.report.aggregates import CELLS, QUADRANTS, STEPS, presence_by_threshold, thresholds
from abaw.report.style import COLOURS, NEUTRAL, WIDTH, Chart
from abaw.tasks import AU, EXPR, VA, Task

BASELINES = {VA: 0.22, EXPR: 0.25, AU: 0.39}
"""The organisers' baseline on the validation set: ResNet-50 for VA, VGGFACE for EXPR and AU (6th ABAW)."""
SCORE_NAMES = {"ccc": "CCC", "class_f1": "F1", "binary_f1": "F1"}
_SMALL = 118  # width and height of one of many small charts
_BINS = 10  # of a calibration plot


def score_name(task: Task) -> str:
    """Name of the official score of a task, for axes."""
    first = task.scores[0]
    name = first if isinstance(first, str) else first.name
    return SCORE_NAMES.get(name, name)


def score_figures(scores: Mapping[str, Any], sums: Sums) -> dict[str, Chart]:
    """What official scores show without the predictions, by name: `<task>-labels`, `<task>-confusion`.

    Args:
        scores: From `scores.summarise`.
        sums: The sums from which they are.
    """
    made: dict[str, Chart] = {}
    for task, values in sums.labelled.items():
        made[f"{task}-labels"] = label_scores(task, scores[task.name])
        score, columns = scores_of(task)[0]
        if score.name == "class_f1":
            made[f"{task}-confusion"] = confusion_matrix(task, values.sum(0)[:, columns])
    return made


def task_scores(runs: Mapping[str, Mapping[str, Any]], tasks: Sequence[Task]) -> Chart:
    """The official score of each task with its 95 % interval, and the organisers' baseline.

    Args:
        runs: Per name of a run its scores, as from `scores.summarise`.
        tasks: Tasks to show.
    """
    rows = [
        {"task": _title(task), "run": run, **_ends(scores[task.name])}
        for run, scores in runs.items()
        for task in tasks
        if task.name in scores
    ]
    known = [
        {"task": _title(task), "run": run, "baseline": BASELINES[task]}
        for run, scores in runs.items()
        for task in tasks
        if task in BASELINES and task.name in scores
    ]
    y = alt.Y("task:N", title=None, sort=[_title(task) for task in tasks])
    offset = alt.YOffset("run:N", sort=list(runs))
    colour = alt.Color("run:N", scale=_scale(list(runs)), sort=list(runs), title=None)
    base = alt.Chart(pd.DataFrame(rows)).encode(y=y, yOffset=offset, color=colour)
    x = alt.X("score:Q", scale=_score_scale(rows), title="official score, with 95 % interval")
    tips = ["run:N", "task:N", *(alt.Tooltip(f"{name}:Q", format=".4f") for name in ("score", "low", "high"))]
    marks = [
        base.mark_rule(strokeWidth=2).encode(x=alt.X("low:Q"), x2="high:Q"),
        base.mark_point(filled=True, size=70, opacity=1).encode(x=x, tooltip=tips),
    ]
    if known:
        marks.append(
            alt.Chart(pd.DataFrame(known))
            .mark_tick(thickness=2, size=14, color=NEUTRAL)
            .encode(
                x="baseline:Q",
                y=y,
                yOffset=offset,
                tooltip=["task:N", alt.Tooltip("baseline:Q", format=".2f")],
            )
        )
    text = "Official score of each task; upright ticks are the organisers' baseline."
    return alt.layer(*marks).properties(width=WIDTH, height=alt.Step(16), description=text)


def label_scores(task: Task, entry: Mapping[str, Any]) -> Chart:
    """The score of each label of a task with its 95 % interval; `entry` is of `scores.summarise`."""
    ends = entry.get("intervals", {})
    rows = [
        {"label": name, **_ends({"score": score, "interval": ends.get(name)})}
        for name, score in by_label(task, entry).items()
    ]
    base = alt.Chart(pd.DataFrame(rows)).encode(y=alt.Y("label:N", sort=list(task.names), title=None))
    x = alt.X("score:Q", scale=_score_scale(rows), title=f"{score_name(task)}, with 95 % interval")
    tips = ["label:N", *(alt.Tooltip(f"{name}:Q", format=".4f") for name in ("score", "low", "high"))]
    bars = base.mark_bar(color=COLOURS[0], opacity=0.75).encode(x=x, tooltip=tips)
    rules = base.mark_rule(strokeWidth=2).encode(x="low:Q", x2="high:Q")
    text = f"{score_name(task)} of each label of {_title(task)}."
    return alt.layer(bars, rules).properties(width=WIDTH, height=alt.Step(20), description=text)


def score_changes(task: Task, before: Mapping[str, Any], after: Mapping[str, Any]) -> Chart:
    """The score of each label of a task without and with a calibration; entries are of `scores.summarise`."""
    steps = ("as predicted", "calibrated")
    scores = [by_label(task, entry) for entry in (before, after)]
    rows = [
        {"label": name, "predictions": step, **_ends({"score": of_step[name]})}
        for step, of_step in zip(steps, scores, strict=True)
        for name in task.names
    ]
    base = alt.Chart(_data(rows)).encode(y=alt.Y("label:N", sort=list(task.names), title=None))
    x = alt.X("score:Q", scale=_score_scale(rows), title=score_name(task))
    line = base.mark_line(color=NEUTRAL).encode(x=x, detail="label:N")
    shape = alt.Shape("predictions:N", scale=alt.Scale(domain=list(steps)), sort=list(steps), title=None)
    colour = alt.Color("predictions:N", scale=_scale(steps), sort=list(steps), title=None)
    tips = ["label:N", "predictions:N", alt.Tooltip("score:Q", format=".4f")]
    points = base.mark_point(filled=True, size=70, opacity=1).encode(
        x=x, color=colour, shape=shape, tooltip=tips
    )
    text = f"{score_name(task)} of each label of {_title(task)} without and with the calibration."
    return alt.layer(line, points).properties(width=WIDTH, height=alt.Step(20), description=text)


def confusion_matrix(task: Task, counts: NDArray) -> Chart:
    """Share of the frames of each labelled class by predicted class.

    Args:
        task: A `class` task of K classes.
        counts: (K, K), frames by labelled (first axis) and predicted class.
    """
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    rows = [
        {"labelled": label, "predicted": guess, "share": shares[i, j], "frames": int(counts[i, j])}
        for i, label in enumerate(task.names)
        for j, guess in enumerate(task.names)
    ]
    base = alt.Chart(pd.DataFrame(rows)).encode(
        x=alt.X("predicted:N", sort=list(task.names), title="predicted class", axis=alt.Axis(labelAngle=-40)),
        y=alt.Y("labelled:N", sort=list(task.names), title="labelled class"),
    )
    cells = base.mark_rect().encode(
        color=alt.Color(
            "share:Q",
            scale=alt.Scale(scheme="viridis", domain=[0, 1]),
            title="share of the labelled class's frames",
        ),
        tooltip=["labelled:N", "predicted:N", alt.Tooltip("share:Q", format=".1%"), "frames:Q"],
    )
    ink = alt.when("datum.share > 0.6").then(alt.value("#000000")).otherwise(alt.value("#ffffff"))
    numbers = base.mark_text(fontSize=10).encode(text=alt.Text("share:Q", format=".2f"), color=ink)
    text = f"Confusion matrix of {_title(task)}: rows are labels, columns are predictions."
    return alt.layer(cells, numbers).properties(width=WIDTH, height=36 * task.size, description=text)


def threshold_curves(task: Task, counts: NDArray[np.int64]) -> Chart:
    """Precision, recall and F1 of each label at every threshold.

    Args:
        task: A `binary` task of K labels.
        counts: (K, 2, STEPS), see `aggregates.BinaryAggregate`.
    """
    tp, fp, fn = np.moveaxis(presence_by_threshold(counts), -1, 0)  # (K, STEPS) each
    curves = {
        "precision": tp / np.maximum(tp + fp, 1),
        "recall": tp / np.maximum(tp + fn, 1),
        "F1": f1(tp, fp, fn),
    }
    shown = range(0, STEPS, 2)
    at = thresholds()
    rows = [
        {"label": label, "curve": name, "threshold": round(float(at[t]), 2), "value": float(values[k, t])}
        for name, values in curves.items()
        for k, label in enumerate(task.names)
        for t in shown
    ]
    domain, ticks = alt.Scale(domain=[0, 1]), alt.Axis(values=[0, 0.5, 1])
    lines = (
        alt.Chart()
        .mark_line()
        .encode(
            x=alt.X("threshold:Q", scale=domain, axis=ticks, title="threshold"),
            y=alt.Y("value:Q", scale=domain, axis=ticks, title="value"),
            color=alt.Color("curve:N", scale=_scale(list(curves)), sort=list(curves), title=None),
            strokeDash=alt.StrokeDash(
                "curve:N",
                sort=list(curves),
                title=None,
                scale=alt.Scale(domain=list(curves), range=[[1, 0], [4, 2], [2, 1]]),
            ),
            tooltip=["label:N", "curve:N", "threshold:Q", alt.Tooltip("value:Q", format=".3f")],
        )
    )
    rule = alt.Chart().mark_rule(strokeDash=[2, 2]).encode(x=alt.datum(0.5))
    text = f"Precision, recall and F1 of each label of {_title(task)} by threshold; scored at 0.5."
    return _small_charts(alt.layer(lines, rule), rows, task.names, text)


def presence_calibration(task: Task, counts: NDArray[np.int64]) -> Chart:
    """Share of frames in which a label is present by its predicted probability.

    `counts` (K, 2, STEPS) as of `threshold_curves`.
    """
    centres = (np.arange(STEPS) + 0.5) / STEPS
    rows = []
    for k, label in enumerate(task.names):
        n, present = counts[k].sum(0), counts[k, 1]
        rows += _calibration_rows(n, n * centres, present, label=label)
    return _calibration(rows, task.names, "share of frames in which it is present", f"{_title(task)}")


def class_calibration(task: Task, confidence: NDArray[np.float64]) -> Chart:
    """Share of right predictions by the probability of the predicted class.

    Args:
        task: A `class` task.
        confidence: (STEPS, 3), see `aggregates.ClassAggregate`.
    """
    rows = _calibration_rows(*confidence.T, label="predicted class")
    return _calibration(rows, ["predicted class"], "share of frames in which it is right", _title(task))


def _calibration_rows(n: NDArray, total: NDArray, hits: NDArray, **same: Any) -> list[dict[str, Any]]:
    """One row per tenth of the probabilities that has frames."""
    n, total, hits = (part.reshape(_BINS, -1).sum(1) for part in (n, total, hits))
    return [
        {**same, "probability": total[b] / n[b], "share": hits[b] / n[b], "frames": int(n[b])}
        for b in range(_BINS)
        if n[b]
    ]


def _calibration(rows: list[dict[str, Any]], names: Sequence[str], share: str, what: str) -> Chart:
    domain, ticks = alt.Scale(domain=[0, 1]), alt.Axis(values=[0, 0.5, 1])
    points = (
        alt.Chart()
        .mark_line(point=True, color=COLOURS[0])
        .encode(
            x=alt.X("probability:Q", scale=domain, axis=ticks, title="probability"),
            y=alt.Y("share:Q", scale=domain, axis=ticks, title="share" if len(names) > 1 else share),
            tooltip=[
                "label:N",
                *(alt.Tooltip(f"{n}:Q", format=".3f") for n in ("probability", "share")),
                "frames:Q",
            ],
        )
    )
    ends = alt.Chart().mark_rule(strokeDash=[3, 3]).encode(
        x=alt.datum(0), y=alt.datum(0), x2=alt.datum(1), y2=alt.datum(1)
    )  # fmt: skip
    text = f"Calibration of {what}: predicted probability against the {share}; on the diagonal they agree."
    chart = alt.layer(ends, points)
    if len(names) > 1:
        return _small_charts(chart, rows, names, text)
    return chart.properties(data=_data(rows), width=300, height=300, description=text)


def _small_charts(chart: Chart, rows: list[dict[str, Any]], names: Sequence[str], text: str) -> Chart:
    by_label = alt.Facet("label:N", sort=list(names), title=None)
    return (
        chart.properties(width=_SMALL, height=_SMALL)
        .facet(by_label, columns=4, data=_data(rows))
        .properties(description=text)
    )


def _data(rows: list[dict[str, Any]]) -> Any:
    return alt.InlineData(values=_plain(rows))


def _plain(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{k: round(float(v), 4) if isinstance(v, float) else v for k, v in row.items()} for row in rows]


def va_density(density: NDArray[np.int64]) -> Chart:
    """Where labels and predictions lie in the plane of valence and arousal; (2, CELLS, CELLS)."""
    rows = []
    for source, cells in zip(("labels", "predictions"), density, strict=True):
        rows += _cell_rows(cells, VA, source=source)
    text = "Density of labels and of predictions by valence and arousal."
    heat = _heat_map(VA, "source", "valence", "arousal").properties(width=WIDTH // 2, height=WIDTH // 2)
    return heat.facet(alt.Facet("source:N", title=None), data=_data(rows)).properties(description=text)


def agreement(task: Task, cells: NDArray[np.int64]) -> Chart:
    """Prediction against label of each output of a `real` task, (K, CELLS, CELLS)."""
    rows = []
    for name, each in zip(task.names, cells, strict=True):
        rows += _cell_rows(each, task, label=name)
    low, high = alt.datum(task.low), alt.datum(task.high)
    diagonal = alt.Chart().mark_rule(strokeDash=[3, 3]).encode(x=low, y=low, x2=high, y2=high)
    heat = _heat_map(task, "label", "label", "prediction")
    layered = alt.layer(heat, diagonal).properties(width=WIDTH // 2, height=WIDTH // 2)
    text = f"Prediction against label for {_title(task)}; on the diagonal they agree."
    facet = alt.Facet("label:N", title=None, sort=list(task.names))
    return layered.facet(facet, columns=2, data=_data(rows)).properties(description=text)


def _heat_map(task: Task, facet: str, x: str, y: str) -> Chart:
    """The share of frames per cell of `_cell_rows`; `facet` is the field of the chart, x and y are titles."""
    domain = alt.Scale(domain=[task.low, task.high])
    colours = alt.Scale(scheme="viridis", type="sqrt")
    return (
        alt.Chart()
        .mark_rect()
        .encode(
            x=alt.X("x:Q", title=x, scale=domain),
            x2="x2:Q",
            y=alt.Y("y:Q", title=y, scale=domain),
            y2="y2:Q",
            color=alt.Color("share:Q", scale=colours, title="share of the frames"),
            tooltip=[f"{facet}:N", "x:Q", "y:Q", alt.Tooltip("share:Q", format=".2%")],
        )
    )


def _cell_rows(counts: NDArray[np.int64], task: Task, **same: Any) -> list[dict[str, Any]]:
    shares = counts / max(int(counts.sum()), 1)
    edges = [round(float(edge), 4) for edge in np.linspace(task.low, task.high, CELLS + 1)]
    sides = list(pairwise(edges))
    return [
        {
            **same,
            "x": sides[i][0],
            "x2": sides[i][1],
            "y": sides[j][0],
            "y2": sides[j][1],
            "share": shares[i, j],
        }
        for i, j in np.argwhere(shares > 0).tolist()
    ]


def quadrant_errors(quadrants: NDArray[np.float64]) -> Chart:
    """Mean absolute error of valence and arousal by the label's quadrant, (4, 3)."""
    rows = [
        {"quadrant": name, "output": output, "error": part / max(n, 1), "frames": int(n)}
        for name, (n, *errors) in zip(QUADRANTS, quadrants.tolist(), strict=True)
        for output, part in zip(VA.names, errors, strict=True)
        if n
    ]
    chart = (
        alt.Chart(_data(rows))
        .mark_bar()
        .encode(
            y=alt.Y("quadrant:N", sort=list(QUADRANTS), title="label (valence, arousal)"),
            yOffset=alt.YOffset("output:N", sort=list(VA.names)),
            x=alt.X("error:Q", title="mean absolute error, on a scale from -1 to 1"),
            color=alt.Color("output:N", scale=_scale(VA.names), sort=list(VA.names), title=None),
            tooltip=["quadrant:N", "output:N", alt.Tooltip("error:Q", format=".3f"), "frames:Q"],
        )
    )
    text = "Mean absolute error of valence and arousal by the quadrant of the label."
    return chart.properties(width=WIDTH, height=alt.Step(14), description=text)


def _scale(names: Sequence[str]) -> Any:
    return alt.Scale(domain=list(names), range=list(COLOURS[: len(names)]))


def _score_scale(rows: Sequence[Mapping[str, Any]]) -> Any:
    """From 0, or the tenth below the lowest score or interval, up to 1 or the tenth above the highest."""
    low = min((min(row["score"], row["low"]) for row in rows), default=0.0)
    high = max((max(row["score"], row["high"]) for row in rows), default=1.0)
    return alt.Scale(
        domain=[min(math.floor(10 * low) / 10, 0), max(math.ceil(10 * high) / 10, 1)], nice=False
    )


def _title(task: Task) -> str:
    return task.name.upper()


def _ends(entry: Mapping[str, Any]) -> dict[str, float]:
    low, high = entry.get("interval") or (entry["score"], entry["score"])
    return {"score": entry["score"], "low": low, "high": high}
