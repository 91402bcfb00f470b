"""A self-contained page of the scores of runs: one HTML file that needs no network."""

import html
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any

import pandas as pd
import vl_convert

from abaw.evaluation.scores import best_constant
from abaw.files import atomic_path, check_writable
from abaw.report import figures, videos
from abaw.report.aggregates import BinaryAggregate, ClassAggregate, RealAggregate, RunAggregates
from abaw.report.curves import learning_curves
from abaw.report.style import Chart, save_figure, themed
from abaw.tasks import VA, Task

_FILE = Path(__file__).with_name("page.html")


@dataclass(frozen=True)
class RunReport:
    """What is known of one run.

    Attributes:
        name: Name of the run, unique on the page.
        scores: Its scores, from `scores.summarise`.
        aggregates: Its frames.
        metrics: Its table `metrics.csv`; None: it has none.
        calibrated: Its scores with a calibration, from `scores.summarise`; None: there is none.
        against: How much better it is than the first run, from `scores.compare`; None: it is the first.
        notes: Sentences for the reader, such as which videos a calibration was fitted on.
    """

    name: str
    scores: Mapping[str, Any]
    aggregates: RunAggregates
    metrics: pd.DataFrame | None = None
    calibrated: Mapping[str, Any] | None = None
    against: Mapping[str, Any] | None = None
    notes: Sequence[str] = ()

    @property
    def tasks(self) -> tuple[Task, ...]:
        """The tasks with labels."""
        return tuple(self.aggregates.sums.labelled)


def overview(reports: Sequence[RunReport]) -> dict[str, Chart]:
    """The figure of all runs together, by name."""
    scores: dict[str, Mapping[str, Any]] = {}
    for report in reports:
        scores[report.name] = report.scores
        if report.calibrated is not None:
            scores[f"{report.name} calibrated"] = report.calibrated
    tasks = list(dict.fromkeys(task for report in reports for task in report.tasks))
    return {"scores": figures.task_scores(scores, tasks)}


def run_figures(report: RunReport) -> dict[str, Chart]:
    """The figures of one run, by name; those of a task begin with its name."""
    sums = report.aggregates.sums
    made = figures.score_figures(report.scores, sums)
    for task in report.tasks:
        name, total = task.name, report.aggregates.by_task[task]
        if isinstance(total, RealAggregate):
            made[f"{name}-agreement"] = figures.agreement(task, total.agreement)
            if task == VA:
                made[f"{name}-density"] = figures.va_density(total.density)
                made[f"{name}-quadrants"] = figures.quadrant_errors(total.quadrants)
        elif isinstance(total, ClassAggregate):
            made[f"{name}-calibration"] = figures.class_calibration(task, total.confidence)
        elif isinstance(total, BinaryAggregate):
            made[f"{name}-thresholds"] = figures.threshold_curves(task, total.counts)
            made[f"{name}-calibration"] = figures.presence_calibration(task, total.counts)
        if report.calibrated is not None:
            calibrated = report.calibrated[name]
            made[f"{name}-calibrated"] = figures.score_changes(task, report.scores[name], calibrated)
    table = videos.video_table(sums, report.aggregates.missing)
    made["missing-faces"] = videos.missing_faces(table, report.tasks)
    curves = None if report.metrics is None else learning_curves(report.metrics, report.tasks)
    if curves is not None:
        made["learning-curves"] = curves
    return made


def write_figures(reports: Sequence[RunReport], folder: Path) -> list[Path]:
    """Writes every figure as PNG, SVG and PDF, those of a run to a folder of its name; returns their paths.

    Raises:
        AbawError: A file cannot be written.
    """
    paths = []
    groups = {folder: overview(reports)}
    groups |= {folder / report.name.replace("/", "-"): run_figures(report) for report in reports}
    for target, charts in groups.items():
        check_writable(target)
        for name, chart in charts.items():
            paths += save_figure(chart, target / name)
    return paths


def write_report(reports: Sequence[RunReport], out: Path, *, title: str) -> None:
    """Writes the page.

    Args:
        reports: One or several runs; the others are compared with the first.
        out: HTML file to write.
        title: Title of the page.

    Raises:
        AbawError: The file cannot be written.
    """
    specs: dict[str, Any] = {}
    curves: dict[str, Any] = {}
    body = [_section("Scores", [_score_table(reports), _figures(overview(reports), specs, "")])]
    for report in reports[1:]:
        if report.against is not None:
            heading = f"{report.name} compared with {reports[0].name}"
            body.append(_section(heading, [_comparison(report.against)]))
    for number, report in enumerate(reports):
        body.append(_run(report, f"run{number}", specs, curves))
    page = Template(_FILE.read_text(encoding="utf-8")).substitute(
        title=html.escape(title),
        body="\n".join(body),
        library=vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;"),
        data=_json({"specs": specs, "curves": curves}),
        scores=_json({report.name: report.scores for report in reports}),
    )
    with atomic_path(out) as temporary:
        temporary.write_text(page, encoding="utf-8")


def _json(value: Any) -> str:
    return json.dumps(value).replace("</", "<\\/")


def _section(heading: str, parts: Sequence[str], level: int = 2) -> str:
    return f"<section><h{level}>{html.escape(heading)}</h{level}>{''.join(parts)}</section>"


def _figures(charts: Mapping[str, Chart], specs: dict[str, Any], prefix: str) -> str:
    """Places for charts, whose specifications are added to `specs`."""
    places = []
    for name, chart in charts.items():
        specs[prefix + name] = themed(chart, "page")
        text = html.escape(str(specs[prefix + name].get("description", "")))
        places.append(
            f'<figure><div class="plot" id="{html.escape(prefix + name)}" tabindex="0" role="img"'
            f' aria-label="{text}"></div><figcaption>{text}</figcaption></figure>'
        )
    return "".join(places)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    first = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in head)
    lines = "".join(
        f'<tr><th scope="row">{html.escape(name)}</th>'
        + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells)
        + "</tr>"
        for name, *cells in rows
    )
    return f'<div class="wide"><table><thead><tr>{first}</tr></thead><tbody>{lines}</tbody></table></div>'


def _score_table(reports: Sequence[RunReport]) -> str:
    tasks = list(dict.fromkeys(task for report in reports for task in report.tasks))
    columns: dict[str, dict[str, str]] = {}
    for report in reports:
        columns[report.name] = _cells(report.scores)
        if report.calibrated is not None:
            columns[f"{report.name} calibrated"] = _cells(report.calibrated)
    constant = best_constant(reports[0].aggregates.sums)
    columns["best constant prediction"] = {task.name: f"{score:.4f}" for task, score in constant.items()}
    columns["organisers' baseline"] = {task.name: f"{score:.2f}" for task, score in figures.BASELINES.items()}
    rows = [
        [
            f"{task.name.upper()} ({figures.score_name(task)})",
            *(c.get(task.name, "-") for c in columns.values()),
        ]
        for task in tasks
    ]
    rows.append(["total", *(column.get("total", "-") for column in columns.values())])
    frames = ", ".join(
        f"{reports[0].scores[task.name]['frames']:,} frames of {task.name.upper()}"
        for task in reports[0].tasks
    )
    note = (
        f"<p>{len(reports[0].aggregates.sums.videos)} videos, {frames}. In brackets: 95 % intervals of the"
        " bootstrap over recordings. The organisers' baseline is that of Aff-Wild2's validation set, which"
        " says nothing about other data.</p>"
    )
    return note + _table(["task", *columns], rows)


def _cells(scores: Mapping[str, Any]) -> dict[str, str]:
    cells = {
        name: _number(part["score"], part.get("interval"))
        for name, part in scores.items()
        if isinstance(part, Mapping) and "score" in part
    }
    return cells | {"total": _number(scores["total"], scores.get("total_interval"))}


def _number(score: float, ends: Sequence[float] | None) -> str:
    return f"{score:.4f}" + (f" [{ends[0]:.4f}, {ends[1]:.4f}]" if ends else "")


def _comparison(differences: Mapping[str, Any]) -> str:
    rows = [
        [
            name.upper() if name != "total" else name,
            f"{part['difference']:+.4f}",
            "-" if part["interval"] is None else f"[{part['interval'][0]:+.4f}, {part['interval'][1]:+.4f}]",
            "-" if part["probability"] is None else f"{part['probability']:.0%}",
        ]
        for name, part in differences.items()
    ]
    note = (
        "<p>Paired bootstrap over recordings: an interval without 0 is a difference that is not chance.</p>"
    )
    return note + _table(["task", "difference", "95 % interval", "draws in which it is better"], rows)


def _run(report: RunReport, key: str, specs: dict[str, Any], curves: dict[str, Any]) -> str:
    charts = run_figures(report)
    parts = [f"<p>{html.escape(note)}</p>" for note in report.notes]
    for task in report.tasks:
        own = {name: chart for name, chart in charts.items() if name.startswith(f"{task.name}-")}
        parts.append(_section(task.name.upper(), [_figures(own, specs, f"{key}-")], level=3))
    rest: dict[str, Chart] = {n: charts[n] for n in ("missing-faces", "learning-curves") if n in charts}
    parts.append(_section("Videos", [_videos(report, key, specs, curves)], level=3))
    parts.append(_section("Missing faces and training", [_figures(rest, specs, f"{key}-")], level=3))
    return _section(report.name, parts)


def _videos(report: RunReport, key: str, specs: dict[str, Any], curves: dict[str, Any]) -> str:
    """Tables of the best and worst videos, and their timelines with a choice of the video."""
    table = videos.video_table(report.aggregates.sums, report.aggregates.missing)
    chosen = videos.best_and_worst(table)
    rows, names = [], []
    for task, ends in chosen.items():
        of_task = table[table["task"] == task].set_index("video")
        for kind, those in zip(("best", "worst"), ends, strict=True):
            names += those
            rows += [
                [
                    video,
                    task.upper(),
                    kind,
                    f"{of_task['score'][video]:.4f}",
                    f"{of_task['frames'][video]:,}",
                    f"{of_task['missing'][video]:.1%}",
                ]
                for video in those
            ]
    names = list(dict.fromkeys(names))
    curves[key] = {video: videos.timeline_columns(report.aggregates.timelines[video]) for video in names}
    options = "".join(f"<option>{html.escape(video)}</option>" for video in names)
    specs_of = {f"timeline-{task}": chart for task, chart in videos.timelines(report.tasks).items()}
    return (
        _table(["video", "task", "", "score", "labelled frames", "frames without a face"], rows)
        + f'<p><label>Timeline of <select data-run="{key}">{options}</select></label>'
        " Scroll to zoom, drag to move, double-click to see all. Shaded: no face was seen.</p>"
        + f'<div class="timelines" data-run="{key}">{_figures(specs_of, specs, f"{key}-")}</div>'
    )
