"""The choice of smoothing, thresholds and class weights on a grid."""

from dataclasses import replace

import numpy as np
import pytest

from abaw.evaluation.calibration_search import THRESHOLDS, Grid, threshold_counts
from abaw.evaluation.formulas import presence_counts
from abaw.evaluation.tracks import score_tracks
from abaw.tasks import TASKS
from tests.support.tracks import simulate


def test_threshold_counts_are_those_of_the_scores():
    rng = np.random.default_rng(0)
    values = rng.random((300, 12)).astype(np.float32)
    values[:33, 0] = np.float32(THRESHOLDS)
    target, valid = rng.integers(0, 2, (300, 12)), rng.random((300, 12)) < 0.8
    counts = threshold_counts(values, target, valid)
    for d, threshold in enumerate(THRESHOLDS):
        np.testing.assert_array_equal(
            counts[d], presence_counts(values.astype(float) >= threshold, target, valid)
        )


@pytest.mark.parametrize("task", TASKS, ids=str)
def test_what_a_grid_promises_is_what_the_calibration_scores(task):
    tracks, labels_of = simulate(6, seed=0, bias=1.0)
    tracks = [replace(track, values={task: track.values[task]}) for track in tracks]
    fold_of = np.arange(6) % 3
    grid = Grid(task, tracks, labels_of, fold_of)
    for without, smooth, decide in [
        (None, True, True),
        (1, True, True),
        (2, False, True),
        (None, False, False),
    ]:
        videos = np.flatnonzero(fold_of != without)
        choice = grid.choose(videos, without=without, smooth=smooth, decide=decide)
        applied = map(grid.calibration(choice).apply, [tracks[v] for v in videos])
        want = score_tracks(applied, labels_of, [task]).by_task[task]
        np.testing.assert_allclose(grid.sums_of(choice, videos), want)
