"""A page with a video beside curves of its predictions; a click on a curve seeks in the video."""

import base64
import html
import json
from pathlib import Path
from string import Template
from typing import Any

import altair as alt
import pandas as pd
import vl_convert

from abaw.files import atomic_path
from abaw.inference.face_tables import AU_THRESHOLD, au_columns, frame_numbers, read_table, task_columns
from abaw.inference.inputs import ASSUMED_FPS
from abaw.inference.rows import NO_FACE
from abaw.report.intervals import interval_means
from abaw.tasks import EXPR

_EMBEDDED = 24_000_000  # bytes of the largest video that is part of the page
_MOST_FACES = 12  # faces with the most frames, which have curves
_FILE = Path(__file__).with_name("timeline.html")
_PALETTE = ["#999999", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#0072B2", "#56B4E9", "#F0E442"]


def write_page(table: Path, video: Path | None, out: Path, *, title: str) -> None:
    """Writes the page, one file that needs no network.

    Args:
        table: Table of an analysis, of either format.
        video: The overlay video; part of the page if it is small, else a link to the file beside it.
        out: HTML file to write.
        title: Title of the page.

    Raises:
        AbawError: The file cannot be written.
    """
    rows = read_table(table)
    if rows["timestamp"].isna().all():
        rows["timestamp"] = frame_numbers(rows) / ASSUMED_FPS
    rows["seconds"] = rows["timestamp"] - rows["timestamp"].iloc[0]  # the video begins at 0
    faces = rows.loc[rows["face_id"] != NO_FACE, "face_id"].value_counts().index[:_MOST_FACES].tolist()
    curves = {int(face): face_curves(rows[rows["face_id"] == face]) for face in sorted(faces)}
    end = float(rows["seconds"].iloc[-1])
    specs = [spec.to_dict() for spec in charts(rows, end)]
    with atomic_path(out) as temporary:
        temporary.write_text(_page(title, specs, curves, _source(video, out), end), encoding="utf-8")


def face_curves(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """Points of the curves of one face: at most `intervals.POINTS`, each the mean of an interval.

    Args:
        rows: The rows of the face, with the column `seconds`.

    Returns:
        Per point `seconds`, `width` (seconds to the next point), the share of frames predicted from
        `context`, and the mean of every predicted column.
    """
    names = [name for name in _value_columns(rows) if name in rows]
    seen = rows["success"].astype("float64")
    values = interval_means(rows[["seconds", *names]].assign(context=1 - seen))
    steps = values["seconds"].diff().shift(-1)
    values["width"] = steps.fillna(steps.median()).fillna(1 / ASSUMED_FPS)
    return json.loads(values.round(4).to_json(orient="records"))


def _value_columns(rows: pd.DataFrame) -> list[str]:
    return ["valence", "arousal", *task_columns(EXPR), *au_columns(rows)]


def charts(rows: pd.DataFrame, end: float) -> list[Any]:
    """Vega-Lite charts of what a table holds: valence and arousal, expressions, action units.

    Each has the parameter `position`, that of the video in seconds, and the named data set `curve`.
    """
    made = []
    if "valence" in rows:
        made.append(_va_chart(end))
    expressions = [name for name in task_columns(EXPR) if name in rows]
    if expressions:
        made.append(_expression_chart(expressions, end))
    if units := au_columns(rows):
        made.append(_au_chart(units, end))
    return made


def _x(end: float) -> Any:
    return alt.X(
        "seconds:Q", scale=alt.Scale(domain=[0, max(end, 1e-3)], nice=False), title="time in seconds"
    )


def _layers(title: str, height: int, *layers: Any) -> Any:
    """Layers over shaded intervals in which the face was not seen, under the position of the video."""
    curve: Any = alt.NamedData(name="curve")
    shade = (
        alt.Chart(curve)
        .mark_rect(color="#888", opacity=0.25)
        .transform_filter("datum.context > 0.5")
        .transform_calculate(stop="datum.seconds + datum.width")
        .encode(x=alt.X("seconds:Q"), x2="stop:Q")
    )
    now = (
        alt.Chart(alt.InlineData(values=[{}]))
        .mark_rule(color="#C00000", strokeWidth=2)
        .transform_calculate(now="position")
        .encode(x="now:Q")
    )
    return (
        alt.layer(shade, *layers, now)
        .add_params(alt.param(name="position", value=0))
        .properties(title=title, width="container", height=height)
        .configure(background="transparent")
        .configure_axis(labelColor="#808080", titleColor="#808080", gridColor="#80808040")
        .configure_axisY(minExtent=46, maxExtent=46)
        .configure_title(color="#808080", anchor="start")
        .configure_legend(labelColor="#808080", titleColor="#808080", orient="bottom", columns=4)
        .configure_view(stroke="#80808080")
    )


def _va_chart(end: float) -> Any:
    names = {"valence": "#0072B2", "arousal": "#D55E00"}
    lines = (
        alt.Chart(alt.NamedData(name="curve"))
        .transform_fold(list(names), as_=["name", "value"])
        .mark_line(strokeWidth=1.5)
        .encode(
            x=_x(end),
            y=alt.Y("value:Q", scale=alt.Scale(domain=[-1, 1]), title="value in [-1, 1]"),
            color=alt.Color(
                "name:N",
                scale=alt.Scale(domain=list(names), range=list(names.values())),
                title=None,
            ),
            tooltip=["name:N", alt.Tooltip("seconds:Q", format=".2f"), alt.Tooltip("value:Q", format=".2f")],
        )
    )
    return _layers("Valence and arousal", 150, lines)


def _expression_chart(names: list[Any], end: float) -> Any:
    areas = (
        alt.Chart(alt.NamedData(name="curve"))
        .transform_fold(names, as_=["name", "probability"])
        .transform_calculate(order=f"indexof({json.dumps(names)}, datum.name)")
        .mark_area()
        .encode(
            x=_x(end),
            y=alt.Y("probability:Q", stack="zero", scale=alt.Scale(domain=[0, 1]), title="probability"),
            color=alt.Color("name:N", scale=alt.Scale(domain=names, range=_PALETTE), sort=names, title=None),
            order=alt.Order("order:Q"),
            tooltip=[
                "name:N",
                alt.Tooltip("seconds:Q", format=".2f"),
                alt.Tooltip("probability:Q", format=".2f"),
            ],
        )
    )
    return _layers("Expressions", 170, areas)


def _au_chart(names: list[Any], end: float) -> Any:
    cells = (
        alt.Chart(alt.NamedData(name="curve"))
        .transform_fold(names, as_=["name", "probability"])
        .transform_calculate(stop="datum.seconds + datum.width")
        .mark_rect()
        .encode(
            x=_x(end),
            x2="stop:Q",
            y=alt.Y("name:N", sort=names, title="action unit"),
            color=alt.Color(
                "probability:Q",
                scale=alt.Scale(scheme="viridis", domain=[0, 1]),
                title=f"probability (active from {AU_THRESHOLD})",
            ),
            tooltip=[
                "name:N",
                alt.Tooltip("seconds:Q", format=".2f"),
                alt.Tooltip("probability:Q", format=".2f"),
            ],
        )
    )
    return _layers("Action units", 15 * len(names), cells)


def _source(video: Path | None, out: Path) -> str:
    """The address of the video: its content if it is small, else its path from the page."""
    if video is None:
        return ""
    if video.stat().st_size > _EMBEDDED:
        return video.name if video.parent == out.parent else str(video)
    return f"data:video/mp4;base64,{base64.b64encode(video.read_bytes()).decode()}"


def _page(title: str, specs: list[Any], curves: dict[int, Any], source: str, end: float) -> str:
    options = "".join(f'<option value="{face}">face {face}</option>' for face in curves)
    media = f'<video id="video" controls playsinline src="{html.escape(source)}"></video>' if source else ""
    plots = "".join(f'<div class="plot" id="plot{k}"></div>' for k in range(len(specs)))
    message = "" if curves else "<p>No face was found in this video.</p>"
    data = json.dumps({"specs": specs, "curves": curves, "end": end}).replace("</", "<\\/")
    return Template(_FILE.read_text(encoding="utf-8")).substitute(
        title=html.escape(title),
        media=media,
        message=message,
        hidden="" if len(curves) > 1 else "hidden",
        options=options,
        plots=plots if curves else "",
        library=vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;"),
        data=data,
    )
