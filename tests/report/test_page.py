"""The page of a report: its numbers are the scores, it needs no network, and a browser draws it."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from abaw.evaluation.scores import compare, summarise
from abaw.report.aggregates import aggregate
from abaw.report.curves import read_metrics
from abaw.report.page import RunReport, overview, run_figures, write_figures, write_report
from abaw.report.videos import timeline_columns
from abaw.tasks import EXPR, TASKS, VA
from tests.support.browser import draw, needs_browser
from tests.support.predicted_runs import METRICS, simulated


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> list[RunReport]:
    path = tmp_path_factory.mktemp("run") / "metrics.csv"
    path.write_text(METRICS)
    made: list[RunReport] = []
    for name, noise in (("<quiet> & co", 0.5), ("loud", 2.0)):
        tracks, labels = simulated(4, 0, noise)
        found = aggregate(tracks, labels.__getitem__, TASKS)
        against = compare(found.sums, made[0].aggregates.sums, 50) if made else None
        scores = summarise(found.sums, 50)
        calibrated = None if made else scores
        made.append(RunReport(name, scores, found, read_metrics(path), calibrated, against, ["A note."]))
    return made


@pytest.fixture(scope="module")
def page(reports: list[RunReport], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("page") / "report.html"
    write_report(reports, out, title="abaw: <quiet> & co, loud")
    return out


def data(page: Path, name: str) -> Any:
    (text,) = re.findall(
        rf'<script id="{name}" type="application/json">(.*?)</script>', page.read_text(encoding="utf-8")
    )
    return json.loads(text)


def own_text(page: Path) -> str:
    """The page without the drawing library."""
    text = page.read_text(encoding="utf-8")
    library = re.search(r"<script>.*?</script>", text, re.DOTALL)
    assert library is not None
    return text.replace(library[0], "")


def test_the_page_holds_the_scores_exactly(page: Path, reports: list[RunReport]) -> None:
    assert data(page, "scores") == {report.name: report.scores for report in reports}
    text = own_text(page)
    for report in reports:
        for task in TASKS:
            part = report.scores[task.name]
            low, high = part["interval"]
            assert f"<td>{part['score']:.4f} [{low:.4f}, {high:.4f}]</td>" in text
    part = reports[1].against["total"]
    assert f"<td>{part['difference']:+.4f}</td>" in text


def test_the_page_needs_no_network_and_names_are_text(page: Path) -> None:
    text = own_text(page)
    addresses = set(re.findall(r"https?://[^\"' ]+", text))
    assert all("vega.github.io/schema" in address for address in addresses)  # a name, never fetched
    assert "<quiet>" not in text.split('<script id="scores"')[0]
    assert "&lt;quiet&gt; &amp; co" in text
    assert page.stat().st_size < 5_000_000


def test_every_run_has_its_figures_and_timelines(page: Path, reports: list[RunReport]) -> None:
    specs, curves = (data(page, "data")[name] for name in ("specs", "curves"))
    wanted = {
        "va-labels", "va-agreement", "va-density", "va-quadrants",
        "expr-labels", "expr-confusion", "expr-calibration",
        "au-labels", "au-thresholds", "au-calibration",
        "missing-faces", "learning-curves",
    }  # fmt: skip
    calibrated = {f"{task}-calibrated" for task in TASKS}  # the first run has a calibration
    assert set(run_figures(reports[0])) == wanted | calibrated
    both = wanted | {f"timeline-{task}" for task in TASKS}
    shown = {f"run{k}-{name}" for k in range(2) for name in both} | {f"run0-{name}" for name in calibrated}
    assert set(specs) == {"scores"} | shown
    for video, columns in curves["run0"].items():
        assert columns == timeline_columns(reports[0].aggregates.timelines[video])


def test_a_run_of_one_task_without_curves_has_fewer(reports: list[RunReport]) -> None:
    tracks, labels = simulated(2, 0)
    found = aggregate(tracks, labels.__getitem__, [EXPR])
    made = run_figures(RunReport("one", summarise(found.sums, 0), found))
    assert set(made) == {"expr-labels", "expr-confusion", "expr-calibration", "missing-faces"}
    assert VA not in found.by_task


def test_figures_are_files_by_run(tmp_path: Path) -> None:
    tracks, labels = simulated(3, 0)
    found = aggregate(tracks, labels.__getitem__, [EXPR])
    report = RunReport("loud", summarise(found.sums, 0), found)
    paths = write_figures([report], tmp_path / "figures")
    names = [*overview([report]), *(f"loud/{name}" for name in run_figures(report))]
    assert {str(path.relative_to(tmp_path / "figures")) for path in paths} == {
        f"{name}{suffix}" for name in names for suffix in (".png", ".svg", ".pdf")
    }


@needs_browser
@pytest.mark.slow
def test_a_browser_draws_it_and_timelines_answer_hover_and_wheel(page: Path) -> None:
    act = """
    const over = (x, y, type, more) => document.elementFromPoint(x, y).dispatchEvent(
      new (type === "wheel" ? WheelEvent : PointerEvent)(
        type, {clientX: x, clientY: y, bubbles: true, cancelable: true, ...more}));
    window.ready.then(async all => {
      const place = document.getElementById("run0-timeline-expr");
      const view = all[Object.keys(specs).indexOf(place.id)].view;
      place.scrollIntoView();
      const width = () => { const [a, b] = view.scale("x").domain(); return b - a; };
      const before = width(), box = place.querySelector("svg .mark-rect path").getBoundingClientRect();
      const [x, y] = [box.left + box.width / 2, box.top + box.height / 2];
      over(x, y, "pointerover"), over(x, y, "pointermove"), over(x, y, "mousemove");
      await new Promise(done => setTimeout(done, 300));
      const tip = document.querySelector("#vg-tooltip-element.visible")?.textContent || "no tooltip";
      over(x, y, "wheel", {deltaY: -200});
      await view.runAsync();
      const zoomed = width() < before, points = view.data("curve").length;
      const choice = document.querySelector("select[data-run=run0]");
      choice.selectedIndex = 1;
      choice.dispatchEvent(new Event("change"));
      await view.runAsync();
      document.title = `zoomed ${zoomed}, other ${view.data("curve").length !== points}, tip ${tip}`;
    }).catch(error => { document.title = `failed ${error.stack}`; });
    """
    drawn = draw(page, act)
    title = re.findall("<title>(.*?)</title>", drawn.html, re.DOTALL)[0]
    assert re.match(r"zoomed true, other true, tip .*of.*name.*frame", title, re.DOTALL), title
    specs = data(page, "data")["specs"]
    assert len(re.findall(r'<svg [^>]*class="marks"', drawn.html)) == len(specs), drawn.log[-2000:]
    assert not drawn.console
