"""Figures of single videos: scores by missing faces, the best and worst ones, and their timelines."""

import json
from collections.abc import Sequence
from typing import Any

import altair as alt
import pandas as pd
from numpy.typing import NDArray

from abaw.evaluation.formulas import label_scores, n_frames
from abaw.evaluation.scores import Sums
from abaw.report.figures import score_name
from abaw.report.style import COLOURS, WIDTH, Chart
from abaw.tasks import Task

SHOWN = 3
"""Number of best and of worst videos of each task that have timelines."""


def video_table(sums: Sums, missing: NDArray) -> pd.DataFrame:
    """One row per video and labelled task: `video`, `task`, `score`, labelled `frames`, `missing` (share).

    `missing` (V,) are the shares of all videos of `sums`.
    """
    rows = [
        {"video": video, "task": task.name, "score": score, "frames": int(n), "missing": share}
        for task, values in sums.labelled.items()
        for video, score, n, share in zip(
            sums.videos,
            label_scores(task, values).mean(-1).tolist(),
            n_frames(task, values).tolist(),
            missing.tolist(),
            strict=True,
        )
        if n
    ]
    return pd.DataFrame(rows, columns=["video", "task", "score", "frames", "missing"])


def best_and_worst(table: pd.DataFrame) -> dict[str, tuple[list[str], list[str]]]:
    """Per task the names of its best and of its worst videos, `SHOWN` each, without a video in both."""
    found = {}
    for task, rows in table.groupby("task", sort=False):
        names = rows.sort_values(["score", "video"], ascending=[False, True])["video"].tolist()
        half = min(SHOWN, (len(names) + 1) // 2)
        found[str(task)] = (names[:half], names[half:][-SHOWN:][::-1])
    return found


def missing_faces(table: pd.DataFrame, tasks: Sequence[Task]) -> Chart:
    """The score of each video by its share of frames without a face; `table` is of `video_table`."""
    titles = {task.name: f"{task.name.upper()} ({score_name(task)})" for task in tasks}
    rows = table.assign(of=table["task"].map(titles), missing=table["missing"].round(4))
    points = (
        alt.Chart(rows)
        .mark_point(filled=True, size=50)
        .encode(
            x=alt.X("missing:Q", axis=alt.Axis(format="%"), title="frames without a face"),
            y=alt.Y("score:Q", title="score of the video"),
            color=alt.Color(
                "of:N",
                sort=list(titles.values()),
                scale=alt.Scale(range=list(COLOURS[: len(titles)])),
                title=None,
            ),
            shape=alt.Shape("of:N", sort=list(titles.values()), title=None),
            tooltip=["video:N", "task:N", alt.Tooltip("score:Q", format=".3f"), "frames:Q",
                     alt.Tooltip("missing:Q", format=".1%")],
        )
    )  # fmt: skip
    text = "The score of each video by the share of its frames without a face."
    return points.properties(width=WIDTH, height=240, description=text)


def timeline_columns(curve: pd.DataFrame) -> dict[str, list[float | None]]:
    """The columns of a timeline of `aggregates`, rounded, with `stop`, the frame where the next point begins.

    Unknown values are None.
    """
    rows = curve.round(3)
    step = float(rows["frame"].diff().median()) if len(rows) > 1 else 1.0
    rows["stop"] = rows["frame"].shift(-1).fillna(rows["frame"] + step)
    return {str(name): [None if pd.isna(v) else v for v in column] for name, column in rows.items()}


def timelines(tasks: Sequence[Task]) -> dict[str, Chart]:
    """Per task a chart of its labels and predictions in one video, whose points are the data set `curve`.

    The wheel and dragging zoom and move its time axis; shaded: the face was not seen.
    """
    makers = {"real": _values, "class": _classes, "binary": _presence}
    return {task.name: _shaded(task, *makers[task.kind](task)) for task in tasks}


def _curve() -> Any:
    return alt.Chart(alt.NamedData(name="curve"))


def _frames() -> Any:
    return alt.X("frame:Q", title="frame", scale=alt.Scale(nice=False))


def _shaded(task: Task, layer: Chart, height: int) -> Chart:
    shade = (
        _curve()
        .mark_rect(color="#888888", opacity=0.3)
        .transform_filter("datum.unseen > 0.5")
        .encode(x=_frames(), x2="stop:Q")
    )
    zoom = alt.selection_interval(bind="scales", encodings=["x"], name="zoom")
    text = f"Labels and predictions of {task.name.upper()} over the frames of the chosen video."
    return (
        alt.layer(layer, shade)
        .add_params(zoom)
        .properties(title=task.name.upper(), width="container", height=height, description=text)
    )


def _values(task: Task) -> tuple[Chart, int]:
    names = [f"{name}{of}" for name in task.names for of in (" label", "")]
    colours = [COLOURS[k % len(COLOURS)] for k in range(task.size) for _ in range(2)]
    lines = (
        _curve()
        .transform_fold(names, as_=["curve", "value"])
        .transform_filter("isValid(datum.value)")
        .mark_line(strokeWidth=1.5)
        .encode(
            x=_frames(),
            y=alt.Y("value:Q", scale=alt.Scale(domain=[task.low, task.high]), title="value"),
            color=alt.Color("curve:N", scale=alt.Scale(domain=names, range=colours), sort=names, title=None),
            strokeDash=alt.StrokeDash(
                "curve:N",
                sort=names,
                title=None,
                scale=alt.Scale(domain=names, range=[[4, 3], [1, 0]] * task.size),
            ),
            tooltip=["curve:N", "frame:Q", alt.Tooltip("value:Q", format=".2f")],
        )
    )
    return lines, 180


def _classes(task: Task) -> tuple[Chart, int]:
    """Two lanes, labels and predictions, coloured by the class with the largest share of an interval."""
    names = [f"{name}{suffix}" for name in task.names for suffix in (" label", "")]
    lanes = (
        _curve()
        .transform_calculate(**{"of label": _highest(task, " label"), "of prediction": _highest(task, "")})
        .transform_fold(names, as_=["column", "share"])
        .transform_filter("isValid(datum.share) && datum.share > 0")
        .transform_calculate(
            of="indexof(datum.column, ' label') > 0 ? 'label' : 'prediction'",
            name="replace(datum.column, ' label', '')",
        )
        .transform_filter("datum.share >= datum['of ' + datum.of]")
        .mark_rect()
        .encode(
            x=_frames(),
            x2="stop:Q",
            y=alt.Y("of:N", sort=["label", "prediction"], title=None),
            color=alt.Color(
                "name:N",
                scale=alt.Scale(domain=list(task.names), range=_colours(task.size)),
                sort=list(task.names),
                title=None,
            ),
            tooltip=["of:N", "name:N", "frame:Q", alt.Tooltip("share:Q", format=".2f")],
        )
    )
    return lanes, 60


def _highest(task: Task, suffix: str) -> str:
    """Vega expression for the largest share of a class among the columns with a suffix."""
    columns = [f"datum[{json.dumps(name + suffix)}]" for name in task.names]
    return f"max({', '.join(f'isValid({column}) ? {column} : 0' for column in columns)})"


def _presence(task: Task) -> tuple[Chart, int]:
    """Per label a lane of its predicted probability above one of the label."""
    names = [f"{name}{suffix}" for name in task.names for suffix in (" label", "")]
    lanes = (
        _curve()
        .transform_fold(names, as_=["lane", "probability"])
        .transform_filter("isValid(datum.probability)")
        .mark_rect()
        .encode(
            x=_frames(),
            x2="stop:Q",
            y=alt.Y("lane:N", sort=names, scale=alt.Scale(domain=names), title=None),
            color=alt.Color(
                "probability:Q", scale=alt.Scale(scheme="viridis", domain=[0, 1]), title="probability, label"
            ),
            tooltip=["lane:N", "frame:Q", alt.Tooltip("probability:Q", format=".2f")],
        )
    )
    return lanes, 13 * len(names)


def _colours(n: int) -> list[str]:
    """Colours of classes; the first, which is neutral in the challenge, is grey."""
    order = [COLOURS[-1], *COLOURS[:-1]]
    return [order[k % len(order)] for k in range(n)]
