"""Scores of single videos, which are best and worst, and what their timelines hold."""

import numpy as np
import pandas as pd
import pytest

from abaw.evaluation.scores import per_video
from abaw.report.aggregates import RunAggregates, aggregate
from abaw.report.videos import best_and_worst, missing_faces, timeline_columns, timelines, video_table
from abaw.tasks import TASKS
from tests.support.predicted_runs import simulated


@pytest.fixture(scope="module")
def run() -> RunAggregates:
    tracks, labels = simulated(8, seed=1)
    return aggregate(tracks, labels.__getitem__, TASKS)


def test_a_video_has_the_score_of_the_score_command(run: RunAggregates) -> None:
    table = video_table(run.sums, run.missing).set_index(["video", "task"])
    for video, scores in per_video(run.sums).items():
        for task in TASKS:
            assert table["score"][video, task.name] == pytest.approx(scores[task.name]["score"], abs=1e-12)
            assert table["frames"][video, task.name] == scores[task.name]["frames"]
    assert table["missing"]["v0_left", "va"] == pytest.approx(0.2, abs=0.01)


@pytest.mark.parametrize(("n", "best", "worst"), [(1, 1, 0), (2, 1, 1), (5, 3, 2), (9, 3, 3)])
def test_no_video_is_both_best_and_worst(n: int, best: int, worst: int) -> None:
    scores = np.random.default_rng(0).permutation(n) / 10
    table = pd.DataFrame({"video": [f"v{s}" for s in scores], "task": "va", "score": scores})
    first, last = best_and_worst(table)["va"]
    names = [f"v{s}" for s in sorted(scores, reverse=True)]
    assert first == names[:best]
    assert last == names[::-1][:worst]


def test_points_say_where_they_end_and_what_is_unknown() -> None:
    curve = pd.DataFrame({"frame": [1.0, 3.0, 5.0], "unseen": [0.0, 1.0, 0.0], "a label": [np.nan, 1, 0]})
    columns = timeline_columns(curve)
    assert columns == {"frame": [1, 3, 5], "unseen": [0, 1, 0], "a label": [None, 1, 0], "stop": [3, 5, 7]}


def test_every_task_has_a_timeline_that_zooms(run: RunAggregates) -> None:
    made = timelines(TASKS)
    assert list(made) == ["va", "expr", "au"]
    columns = set(next(iter(run.timelines.values())))
    for task in TASKS:
        spec = made[task.name].to_dict()
        assert [param["bind"] for param in spec["params"]] == ["scales"]
        folded = [t["fold"] for layer in spec["layer"] for t in layer.get("transform", []) if "fold" in t]
        assert set(folded[0]) == {f"{name}{suffix}" for name in task.names for suffix in ("", " label")}
        assert set(folded[0]) <= columns


def test_scores_stand_beside_missing_faces(run: RunAggregates) -> None:
    table = video_table(run.sums, run.missing)
    shown = next(iter(missing_faces(table, TASKS).to_dict()["datasets"].values()))
    assert len(shown) == 24
    assert {row["of"] for row in shown} == {"VA (CCC)", "EXPR (F1)", "AU (F1)"}
