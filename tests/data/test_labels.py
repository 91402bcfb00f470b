"""Which videos belong to one recording, and that folds, calibration and bootstrap keep them whole."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from abaw.data.check.consistency import find_shared_subjects
from abaw.data.discovery import AnnotationFile
from abaw.data.formats.annotations import write_task_file
from abaw.data.index import build_index
from abaw.data.labels import count_recordings, recording, recording_places
from abaw.evaluation import cross_fitting
from abaw.evaluation.scores import SHAPES, Sums, compare, draw_recordings, interval, summarise
from abaw.evaluation.tracks import Track
from abaw.loading.splits import make_folds
from abaw.tasks import Task
from tests.loading.test_splits import labels_of_character

WHOLE = {
    "video45": [f"video45_{part}" for part in range(1, 8)],
    "122-60-1920x1080": [f"122-60-1920x1080-{part}" for part in range(1, 6)],
    "9": ["9_left", "9_right"],
    "10": ["10", "10_left"],
    "video7": ["video7_2_left", "video7_2_right", "video7_3"],
}
"""Recordings of several videos, by name."""

ALONE = [
    "video2",
    *(f"clip_{n:03d}" for n in range(1, 11)),
    "1-30-1280x720",
    "102",
    "a_2",
    "1-2-3",
    "3-30-4x5_1",
]
"""Videos that are a recording of their own."""

NAMES = [*(name for names in WHOLE.values() for name in names), *ALONE]


@pytest.mark.parametrize(
    ("video", "expected"),
    [
        *((name, whole) for whole, names in WHOLE.items() for name in names),
        *((name, name) for name in ALONE),
        ("6-30-1920x1080_left", "6-30-1920x1080"),
        ("6-30-1920x1080-2_right", "6-30-1920x1080"),
        ("left_turn", "left_turn"),
        ("a_left_right", "a_left"),
        ("video45_left_1", "video45_left_1"),
        ("my_video45_1", "my_video45_1"),
        ("video_1", "video_1"),
        ("video45_1_2", "video45_1_2"),
        ("video٤٥_1", "video٤٥_1"),
        ("video45_1\n", "video45_1\n"),
        ("", ""),
    ],
)
def test_a_recording_is_named_without_side_and_part(video: str, expected: str) -> None:
    assert recording(video) == expected


def test_recordings_are_numbered_as_they_first_appear() -> None:
    names = ["b_left", "a", "video1_2", "b_right", "video1_1", "c"]
    assert recording_places(names).tolist() == [0, 1, 2, 0, 2, 3]
    assert count_recordings(names) == 4
    assert count_recordings([]) == 0
    assert count_recordings(NAMES) == len(WHOLE) + len(ALONE)


@pytest.mark.parametrize("seed", range(3))
def test_folds_keep_every_recording_whole(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    for name in NAMES:
        split = "Train_Set" if rng.random() < 0.7 else "Validation_Set"
        path = tmp_path / "data/EXPR_Set" / split / f"{name}.txt"
        write_task_file(path, Task.EXPR, labels_of_character(rng, int(rng.integers(20, 60))))
    folds = make_folds(build_index(tmp_path / "data", cache_dir=tmp_path / "cache"), 5, seed)
    assert set(folds) == set(NAMES)
    for names in WHOLE.values():
        assert len({folds[name] for name in names}) == 1, names
    assert len({folds[name] for name in ALONE}) > 1


@pytest.mark.parametrize("n_folds", [2, 5])
def test_calibration_folds_keep_every_recording_whole(n_folds: int) -> None:
    tracks = [
        Track(video=name, seen=np.ones(20 + k, bool), va=np.zeros((20 + k, 2), np.float32))
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
    return Sums(tuple(names), au=np.round(100 * share).astype(np.int64))


def added_up(sums: Sums) -> Sums:
    """The same sums with one row per recording."""
    whole = sorted({recording(video) for video in sums.videos})
    rows = np.zeros((len(whole), *SHAPES[Task.AU]), np.int64)
    for video, values in zip(sums.videos, sums.au, strict=True):
        rows[whole.index(recording(video))] += values
    return Sums(tuple(whole), au=rows)


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
        other = Sums(other.videos, au=one.au[::, :, [1, 0, 3, 2]])
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
    sums = labelled.over([*labelled.videos, "empty_1", "empty_2"], [Task.AU])
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
        Track(video=n, seen=np.ones(30, bool), expr=rng.dirichlet(np.ones(8), 30).astype(np.float32))
        for n in labels
    ]
    cross_fitting.calibrate(tracks, labels.__getitem__, 2)
    assert len(seen) > 2
    assert all(set(names) <= set(labels) for names in seen)


@pytest.mark.parametrize(
    ("train", "val", "found"),
    [
        ("9_left", "9_right", True),
        ("10", "10_left", True),
        ("video45_1", "video45_7", True),
        ("122-60-1920x1080-1", "122-60-1920x1080-5", True),
        ("clip_001", "clip_002", False),
        ("1-30-1280x720", "2-30-1280x720", False),
    ],
)
def test_the_doctor_finds_a_recording_in_two_splits(train: str, val: str, found: bool) -> None:
    files = [
        AnnotationFile(path=Path(f"{split}/{video}.txt"), task=Task.VA, split=split, video=video)
        for video, split in ((train, "train"), (val, "val"))
    ]
    findings = list(find_shared_subjects(files))
    assert bool(findings) == found
    assert all(train in finding.detail and val in finding.detail for finding in findings)


def test_the_interval_widens_with_fewer_recordings() -> None:
    values = np.random.default_rng(0).normal(size=5000)
    widths = [np.ptp(interval(values, n)) for n in (3, 10, 1000)]
    assert widths == sorted(widths, reverse=True)
