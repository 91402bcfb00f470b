"""Figures show the numbers they are given, with named axes."""

import numpy as np
import pytest

from abaw.evaluation.scores import summarise
from abaw.report import figures
from abaw.report.aggregates import RunAggregates, aggregate
from abaw.report.figures import BASELINES
from abaw.report.style import themed
from abaw.tasks import AU, EXPR, TASKS, VA
from tests.support.predicted_runs import simulated


@pytest.fixture(scope="module")
def run() -> RunAggregates:
    tracks, labels = simulated(6, seed=0)
    return aggregate(tracks, labels.__getitem__, TASKS)


def raised(entry: dict) -> dict:
    """Scores of AUs, each a tenth higher."""
    return entry | {"per_au": {name: score + 0.1 for name, score in entry["per_au"].items()}}


@pytest.fixture(scope="module")
def charts(run: RunAggregates) -> dict[str, dict]:
    scores = summarise(run.sums, draws=50)
    va, expr, au = (run.by_task[task] for task in TASKS)
    made = {
        "scores": figures.task_scores({"one": scores, "other": scores}, TASKS),
        "labels": figures.label_scores(AU, scores["au"]),
        "changes": figures.score_changes(AU, scores["au"], raised(scores["au"])),
        "confusion": figures.confusion_matrix(EXPR, run.sums.by_task[EXPR].sum(0)),
        "thresholds": figures.threshold_curves(AU, au.counts),
        "presence": figures.presence_calibration(AU, au.counts),
        "class": figures.class_calibration(EXPR, expr.confidence),
        "density": figures.va_density(va.density),
        "agreement": figures.agreement(VA, va.agreement),
        "quadrants": figures.quadrant_errors(va.quadrants),
    }
    return {name: themed(chart, "page") for name, chart in made.items()}


def rows(spec: dict) -> list[dict]:
    """All rows of data in a specification."""
    found = [*spec.get("datasets", {}).values()]
    found += [
        part["data"]["values"] for part in (spec, *spec.get("layer", [])) if "values" in part.get("data", {})
    ]
    return [row for values in found for row in values]


def encodings(value) -> list[tuple[str, dict]]:
    """The encodings of x and y in a specification."""
    if isinstance(value, list):
        return [found for part in value for found in encodings(part)]
    if not isinstance(value, dict):
        return []
    own = [(channel, entry) for channel, entry in value.get("encoding", {}).items() if channel in ("x", "y")]
    return own + [found for part in value.values() for found in encodings(part)]


def test_every_figure_says_what_it_shows_and_names_its_axes(charts) -> None:
    for name, spec in charts.items():
        assert spec["description"].endswith("."), name
        titles = {channel: entry.get("title") for channel, entry in encodings(spec) if entry.get("title")}
        assert "x" in titles, name
        assert "y" in titles or name in ("scores", "labels", "changes", "confusion", "quadrants"), (
            name
        )  # categories


def test_scores_and_baselines_are_those_given(run, charts) -> None:
    scores = summarise(run.sums, draws=50)
    shown = [row for row in rows(charts["scores"]) if row["run"] == "other" and "score" in row]
    for task, row in zip(TASKS, shown, strict=True):
        assert row == {
            "task": task.name.upper(),
            "run": "other",
            "score": scores[task.name]["score"],
            "low": scores[task.name]["interval"][0],
            "high": scores[task.name]["interval"][1],
        }
    ticks = [row["baseline"] for row in rows(charts["scores"]) if "baseline" in row]
    assert ticks == 2 * list(BASELINES.values())  # of each run


def test_what_a_calibration_changed_is_shown_label_by_label(run, charts) -> None:
    before = summarise(run.sums, draws=50)["au"]["per_au"]
    shown = {(row["label"], row["predictions"]): row["score"] for row in rows(charts["changes"])}
    for name, score in before.items():
        assert shown[name, "as predicted"] == pytest.approx(score, abs=1e-4)
        assert shown[name, "calibrated"] == pytest.approx(score + 0.1, abs=1e-4)


def test_a_confusion_matrix_has_the_shares_of_each_labelled_class(run, charts) -> None:
    counts = run.sums.by_task[EXPR].sum(0)
    shown = np.array([row["frames"] for row in rows(charts["confusion"])]).reshape(8, 8)
    np.testing.assert_array_equal(shown, counts)
    shares = np.array([row["share"] for row in rows(charts["confusion"])]).reshape(8, 8)
    np.testing.assert_allclose(shares.sum(1), 1)


def test_the_threshold_curve_at_a_half_is_the_score(run, charts) -> None:
    at_half = [row for row in rows(charts["thresholds"]) if row["threshold"] == 0.5 and row["curve"] == "F1"]
    scores = summarise(run.sums, draws=0)["au"]["per_au"]
    assert {row["label"]: row["value"] for row in at_half} == pytest.approx(scores, abs=1e-4)


def test_calibration_is_the_share_of_present_labels() -> None:
    counts = np.zeros((12, 2, 100), np.int64)
    counts[3, 0, 25], counts[3, 1, 25] = 30, 10
    (row,) = rows(themed(figures.presence_calibration(AU, counts), "page"))
    assert row == {"label": "AU6", "probability": pytest.approx(0.255, abs=1e-3), "share": 0.25, "frames": 40}


def test_errors_are_means_per_quadrant() -> None:
    quadrants = np.array([[4, 1.0, 2.0], [0, 0, 0], [1, 0.5, 0.25], [0, 0, 0]])
    shown = {
        (row["quadrant"], row["output"]): row["error"]
        for row in rows(themed(figures.quadrant_errors(quadrants), "page"))
    }
    assert shown == {
        ("positive, calm", "valence"): 0.25,
        ("positive, calm", "arousal"): 0.5,
        ("negative, calm", "valence"): 0.5,
        ("negative, calm", "arousal"): 0.25,
    }
