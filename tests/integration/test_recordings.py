"""Recordings stay whole wherever videos are divided or drawn: folds, bootstrap draws, intervals."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from abaw.data.labels import recording
from abaw.evaluation import cross_fitting
from abaw.evaluation.formulas import sums_shape
from abaw.evaluation.scores import Sums, compare, draw_recordings, interval, summarise
from abaw.evaluation.tracks import Track
from abaw.tasks import AU, EXPR, VA
from tests.support.random_labels import labels_of_character
from tests.support.recordings import ALONE, NAMES, WHOLE


@pytest.mark.parametrize("n_folds", [2, 5])
def test_calibration_folds_keep_every_recording_whole(n_folds: int) -> None:
    tracks = [
        Track(video=name, seen=np.ones(20 + k, bool), values={VA: np.zeros((20 + k, 2), np.float32)})
        for k, name in enumerate(NAMES)
    ]
    fold_of = dict(zip(NAMES, cross_fitting._fold_of(tracks, n_folds).tolist(), strict=True))
    for names in WHOLE.values():
        assert len({fold_of[name] for name in names}) == 1, names
    assert set(fold_of.values()) == set(range(n_folds))
    assert len({fold_of[name] for name in ALONE}) > 1


def test_draws_take_recordings_whole() -> None:
    drawn = draw_recordings(NAMES, 200, 0)
    assert drawn.shape == (200, len(NAMES))
    of = dict(zip(NAMES, drawn.T, strict=True))
    for names in WHOLE.values():
        for one, other in pairwise(names):
            np.testing.assert_array_equal(of[one], of[other])
    first = [names[0] for names in WHOLE.values()] + ALONE
    assert (sum(of[name] for name in first) == len(first)).all()
    for one, other in pairwise(ALONE):
        assert (of[one] != of[other]).any()


def test_draws_are_counts_of_videos_where_each_is_a_recording() -> None:
    drawn = draw_recordings([f"clip_{k}" for k in range(7)], 40, 0)
    assert drawn.shape == (40, 7)
    assert (drawn.sum(1) == 7).all()
    assert set(drawn.ravel()) > {0, 1, 2}


def sums_of(names: list[str], rng: np.random.Generator, shift: float = 0.0) -> Sums:
    """AU counts of videos that differ much in how well they are predicted."""
    good = rng.beta(1, 1, (len(names), 12, 1))
    share = np.concatenate([good, 1 - good, 1 - good, good], axis=2) + shift
    return Sums(tuple(names), {AU: np.round(100 * share).astype(np.int64)})


def added_up(sums: Sums) -> Sums:
    """The same sums with one row per recording."""
    whole = sorted({recording(video) for video in sums.videos})
    rows = np.zeros((len(whole), *sums_shape(AU)), np.int64)
    for video, values in zip(sums.videos, sums.by_task[AU], strict=True):
        rows[whole.index(recording(video))] += values
    return Sums(tuple(whole), {AU: rows})


@pytest.mark.parametrize("n_recordings", [4, 25])
@pytest.mark.parametrize("way", ["score", "compare"])
def test_intervals_are_those_of_sums_per_recording(way: str, n_recordings: int) -> None:
    """Splitting recordings into parts changes neither draws nor the widening for small samples."""
    rng = np.random.default_rng(0)
    names = sorted(f"video{10 + k}_{part}" for k in range(n_recordings) for part in range(4))
    one, other = sums_of(names, rng), sums_of(names, rng, shift=0.1)
    if way == "score":
        parts, whole = (summarise(sums, 500) for sums in (one, added_up(one)))
        ours, theirs = ([r["au"]["interval"], r["total_interval"]] for r in (parts, whole))
    else:
        # the comparison asks for equal numbers of labelled frames
        other = Sums(other.videos, {AU: one.by_task[AU][::, :, [1, 0, 3, 2]]})
        parts, whole = compare(one, other, 500), compare(added_up(one), added_up(other), 500)
        ours, theirs = ([r[n]["interval"] for n in ("au", "total")] for r in (parts, whole))
        assert parts["au"]["probability"] == whole["au"]["probability"]
    np.testing.assert_allclose(ours, theirs)


def test_two_parts_of_one_recording_know_no_interval() -> None:
    sums = sums_of(WHOLE["video45"], np.random.default_rng(0))
    assert summarise(sums, 50)["au"]["interval"] is None
    assert summarise(sums, 50)["total_interval"] is None
    assert compare(sums, sums, 50)["au"]["interval"] is None


def test_unlabelled_recordings_do_not_narrow_the_total() -> None:
    """The widening counts recordings with labels: the interval of one task's total is that of the task."""
    rng = np.random.default_rng(0)
    labelled = sums_of([f"clip_{k}" for k in range(4)], rng)
    sums = labelled.over([*labelled.videos, "empty_1", "empty_2"], [AU])
    result = summarise(sums, 300)
    assert result["total_interval"] == result["au"]["interval"]


def test_the_keep_decisions_of_calibration_draw_recordings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both the trials of corrections and the temperature."""
    seen: list[Any] = []

    def recorder(original: Callable[..., Any]) -> Callable[..., Any]:
        def draw(videos: Any, *rest: Any) -> Any:
            seen.append(list(videos))
            return original(videos, *rest)

        return draw

    monkeypatch.setattr("abaw.evaluation.scores.draw_recordings", recorder(draw_recordings))
    monkeypatch.setattr(cross_fitting, "draw_recordings", recorder(draw_recordings))
    rng = np.random.default_rng(0)
    labels = {name: labels_of_character(rng, 30) for name in [*WHOLE["9"], *WHOLE["10"], "a", "b"]}
    tracks = [
        Track(
            video=n, seen=np.ones(30, bool), values={EXPR: rng.dirichlet(np.ones(8), 30).astype(np.float32)}
        )
        for n in labels
    ]
    cross_fitting.calibrate(tracks, labels.__getitem__, 2)
    assert len(seen) > 2
    assert all(set(names) <= set(labels) for names in seen)


def test_the_interval_widens_with_fewer_recordings() -> None:
    values = np.random.default_rng(0).normal(size=5000)
    widths = [np.ptp(interval(values, n)) for n in (3, 10, 1000)]
    assert widths == sorted(widths, reverse=True)
