"""What the figures show, against counts made frame by frame."""

from dataclasses import replace

import numpy as np
import pytest

from abaw.data.labels import Labels
from abaw.evaluation.scores import official
from abaw.evaluation.tracks import score_tracks
from abaw.report.aggregates import (
    CELLS,
    STEPS,
    RunAggregates,
    aggregate,
    presence_by_threshold,
    probability_steps,
    thresholds,
)
from abaw.report.intervals import POINTS
from abaw.tasks import AU, EXPR, TASKS, VA
from tests.support.predicted_runs import simulated
from tests.support.random_labels import random_labels
from tests.support.tracks import make_track

N = (40, 3, 120)
TRACKS = [make_track(f"v{k}", n, seed=k) for k, n in enumerate(N)]
LABELS = {f"v{k}": random_labels(n + (k == 1), seed=k) for k, n in enumerate(N)}  # v1 has a row more


@pytest.fixture(scope="module")
def found() -> RunAggregates:
    return aggregate(TRACKS, LABELS.__getitem__, TASKS)


def frames(task):
    """Predictions and labels of all labelled frames, the last prediction repeated beyond the last frame."""
    parts = []
    for track in TRACKS:
        values, valid = LABELS[track.video][task]
        rows = np.minimum(np.arange(len(valid)), len(track) - 1)
        parts.append((track.values[task][rows], values, valid))
    return [np.concatenate(each) for each in zip(*parts, strict=True)]


def test_the_scores_are_those_of_the_score_command(found: RunAggregates) -> None:
    assert official(found.sums) == official(score_tracks(TRACKS, LABELS.__getitem__, TASKS))
    np.testing.assert_allclose(found.missing, [1 - track.seen.mean() for track in TRACKS])


def test_values_are_counted_in_cells(found: RunAggregates) -> None:
    guess, truth, valid = frames(VA)
    guess, truth = guess[valid], truth[valid]
    edges = np.linspace(-1, 1, CELLS + 1)
    for k in range(2):
        expected = np.histogram2d(truth[:, k], guess[:, k], (edges, edges))[0]
        np.testing.assert_array_equal(found.by_task[VA].agreement[k], expected)
    for source, values in zip(found.by_task[VA].density, (truth, guess), strict=True):
        np.testing.assert_array_equal(source, np.histogram2d(*values.T, (edges, edges))[0])
    positive, active = truth[:, 0] >= 0, truth[:, 1] >= 0
    places = (positive & ~active, positive & active, ~positive & ~active, ~positive & active)
    for row, place in zip(found.by_task[VA].quadrants, places, strict=True):
        np.testing.assert_allclose(row, [place.sum(), *np.abs(guess - truth)[place].sum(0)], rtol=1e-6)


def test_classes_are_counted_by_confidence(found: RunAggregates) -> None:
    guess, truth, valid = frames(EXPR)
    highest, right = guess[valid].max(1), guess[valid].argmax(1) == truth[valid]
    for step, row in enumerate(found.by_task[EXPR].confidence):
        inside = (highest >= np.float32(step / STEPS)) & (highest < np.float32((step + 1) / STEPS))
        np.testing.assert_allclose(row, [inside.sum(), highest[inside].sum(), right[inside].sum()], rtol=1e-5)


def test_curves_over_thresholds_are_those_of_decisions(found: RunAggregates) -> None:
    guess, truth, valid = frames(AU)
    curves = presence_by_threshold(found.by_task[AU].counts)
    for step in (0, 1, 33, 50, 99):
        present = guess >= thresholds()[step]
        for k in range(12):
            p, t = present[valid[:, k], k], truth[valid[:, k], k] > 0
            assert curves[k, step].tolist() == [(p & t).sum(), (p & ~t).sum(), (~p & t).sum()]


def test_at_a_half_the_curve_has_the_official_score() -> None:
    tracks, labels = simulated(4, seed=2)
    found = aggregate(tracks, labels.__getitem__, TASKS)
    tp, fp, fn = presence_by_threshold(found.by_task[AU].counts)[:, 50].T
    assert (2 * tp / (2 * tp + fp + fn)).mean() == pytest.approx(official(found.sums)[AU], abs=1e-12)


def test_a_probability_belongs_to_the_highest_threshold_it_reaches() -> None:
    values = np.array(
        [0, 1e-9, 0.01, 0.5, np.nextafter(np.float32(0.5), np.float32(0)), 0.999, 1], np.float32
    )
    assert probability_steps(values).tolist() == [0, 0, 1, 50, 49, 99, 99]


def test_timelines_have_labels_beside_predictions(found: RunAggregates) -> None:
    rows, track, labels = found.timelines["v0"], TRACKS[0], LABELS["v0"]
    assert rows["frame"].tolist() == list(range(1, 41))
    np.testing.assert_array_equal(rows["unseen"], ~track.seen)
    values, valid = labels[VA]
    np.testing.assert_allclose(rows["valence label"], np.where(valid, values[:, 0], np.nan), rtol=1e-6)
    np.testing.assert_allclose(rows["AU26"], track.values[AU][:, -1], rtol=1e-6)
    classes, valid = labels[EXPR]
    names = [f"{name} label" for name in EXPR.names]
    np.testing.assert_array_equal(rows[names].to_numpy()[valid].argmax(1), classes[valid])
    assert rows[names].to_numpy()[~valid].size == np.isnan(rows[names].to_numpy()[~valid]).sum()


def test_a_long_timeline_has_few_points() -> None:
    track = make_track("long", 4500)
    found = aggregate([track], {"long": random_labels(4500)}.__getitem__, TASKS)
    assert len(found.timelines["long"]) == POINTS


def test_a_task_without_labels_has_no_frames() -> None:
    track = replace(make_track("v", 5), values={EXPR: make_track("v", 5).values[EXPR]})
    found = aggregate([track], lambda _: Labels.unlabelled(5), [EXPR])
    assert found.by_task[EXPR].confidence.sum() == 0
    assert found.sums.labelled == {}
