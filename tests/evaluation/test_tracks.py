from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from abaw.data.labels import Labels
from abaw.errors import AbawError, UsageError
from abaw.evaluation.formulas import n_frames, sums_shape
from abaw.evaluation.scores import summarise
from abaw.evaluation.tracks import (
    ensemble_tracks,
    find_tracks,
    read_track,
    score_tracks,
    track_frame,
    write_track,
)
from abaw.tasks import AU, EXPR, TASKS, VA
from tests.support.label_arrays import labels_from
from tests.support.tracks import assert_same, make_track


@pytest.mark.parametrize("tasks", [TASKS, (VA,), (EXPR,), (AU, VA)])
@pytest.mark.parametrize("video", ["1-30-1280x720", "122-60-1920x1080-3_left", "a.b c", "größe%2F", ".dot"])
def test_round_trip(tmp_path, tasks, video):
    track = make_track(video, tasks=tasks)
    path = write_track(track, tmp_path / "tracks")
    assert path == tmp_path / "tracks" / f"{video}.parquet"
    assert_same(track, read_track(path))
    assert list(find_tracks(tmp_path / "tracks")) == [video]
    assert [p.name for p in path.parent.iterdir()] == [path.name]  # nothing temporary is left


def test_another_program_reads_it(tmp_path):
    track = make_track()
    table = pd.read_parquet(write_track(track, tmp_path))
    assert list(table) == [
        *("frame", "seen", "valence", "arousal"),
        *(f"expr_{name}" for name in EXPR.names),
        *AU.names,
    ]
    assert table["frame"].tolist() == [1, 2, 3, 4, 5, 6]
    assert {str(kind) for kind in table.dtypes} == {"int32", "bool", "float32"}
    np.testing.assert_array_equal(table["AU26"], track.values[AU][:, 11])
    pd.testing.assert_frame_equal(table, track_frame(track))


def test_another_programs_types_and_column_order_are_read(tmp_path):
    track = make_track()
    table = track_frame(track).astype({"frame": "int64", "valence": "float64"})
    table[reversed(table.columns)].to_parquet(tmp_path / "v.parquet")
    assert_same(track, read_track(tmp_path / "v.parquet"))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda t: t.drop(columns="seen"), "lacks 'seen'"),
        (lambda t: t.drop(columns="expr_Fear"), "lacks 'expr_Fear'"),
        (lambda t: t.assign(extra=1), "has 'extra'"),
        (lambda t: t[["frame", "seen"]], "holds no task"),
        (lambda t: t.drop(index=2), "row 3 is frame 4"),
        (lambda t: t.iloc[[0, 2, 1, 3]], "row 2 is frame 3"),
        (lambda t: t.assign(frame=t["frame"] - 1), "row 1 is frame 0"),
        (lambda t: t.assign(AU4=["x"] * len(t)), "wrong type"),
        (lambda t: t.assign(frame=t["frame"] + 0.5), "wrong type"),
        (lambda t: t.assign(seen=[None, *t["seen"][1:]]), "empty cells in 'seen'"),
        (lambda t: t.assign(arousal=np.float32([0, 0, np.inf, 0, 0, 0])), "frame 3 has a value of va"),
    ],
)
def test_a_damaged_track_is_refused_by_name(tmp_path, spoil, message):
    path = tmp_path / "v.parquet"
    spoil(track_frame(make_track())).to_parquet(path, index=False)
    with pytest.raises(AbawError, match=message) as error:
        read_track(path)
    assert str(path) in str(error.value)


def test_a_truncated_or_missing_file_is_refused_by_name(tmp_path):
    path = write_track(make_track(), tmp_path)
    path.write_bytes(path.read_bytes()[:100])
    for bad in (path, tmp_path / "none.parquet"):
        with pytest.raises(AbawError, match="cannot be read as a track"):
            read_track(bad)


@pytest.mark.parametrize("video", ["../x", "a/b", "a\\b", "", "..", "a\0"])
def test_no_name_leaves_the_folder(tmp_path, video):
    with pytest.raises(AbawError, match="cannot name a file"):
        write_track(make_track(video), tmp_path / "tracks")
    assert not (tmp_path / "x.parquet").exists()


def test_a_failed_write_leaves_the_old_track(tmp_path):
    path = write_track(make_track(seed=1), tmp_path)
    bad = make_track(seed=2)
    bad.values[VA][3, 0] = np.nan
    with pytest.raises(AbawError, match="frame 4 has a value of va that is NaN or infinite"):
        write_track(bad, tmp_path)
    assert_same(make_track(seed=1), read_track(path))


def test_tracks_come_sorted_and_a_damaged_one_is_named(tmp_path):
    for video in ("b", "a", "10", "9"):
        write_track(make_track(video), tmp_path)
    (tmp_path / "b.parquet").write_bytes(b"no track")
    tracks = map(read_track, find_tracks(tmp_path).values())
    assert [next(tracks).video for _ in range(3)] == ["10", "9", "a"]
    with pytest.raises(AbawError, match=r"b\.parquet"):
        next(tracks)


def test_a_folder_without_tracks_is_an_error(tmp_path):
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(AbawError, match="holds no track"):
            find_tracks(folder)


def test_a_track_checks_its_shapes():
    with pytest.raises(ValueError, match=r"track\.va has shape"):
        replace(make_track(), values={VA: np.zeros((5, 2), np.float32)})


def labels_like(track, n_rows):
    """Labels that equal the track's decisions, extended or cut to `n_rows`."""
    rows = np.minimum(np.arange(n_rows), len(track) - 1)
    return labels_from(
        va=track.values[VA][rows],
        va_valid=np.ones(n_rows, bool),
        expr=track.values[EXPR].argmax(1)[rows],
        expr_valid=np.ones(n_rows, bool),
        au=(track.values[AU] >= 0.5)[rows].astype(np.float32),
        au_valid=np.ones((n_rows, 12), bool),
    )


def test_every_label_row_is_scored_once_also_beyond_the_last_frame():
    tracks = [make_track("a", 60), make_track("b", 40, seed=1)]
    rows = {"a": 61, "b": 35}
    labels = {track.video: labels_like(track, rows[track.video]) for track in tracks}
    sums = score_tracks(tracks, labels.__getitem__, TASKS)
    assert sums.videos == ("a", "b")
    for task in TASKS:
        assert sums.by_task[task].shape == (2, *sums_shape(task))
        assert n_frames(task, sums.by_task[task]).tolist() == [61, 35]
    scores = summarise(sums, draws=0)
    assert scores["total"] == pytest.approx(3, abs=1e-9)


def test_a_track_without_the_task_is_an_error():
    track = make_track("clip 7", tasks=(VA,))
    with pytest.raises(AbawError, match="clip 7: au was not predicted there, only va"):
        score_tracks([track], lambda video: Labels.unlabelled(6), [AU])


@pytest.fixture
def folders(tmp_path):
    """Three folders of tracks of the same two videos."""
    paths = [tmp_path / name for name in ("one", "two", "three")]
    for seed, folder in enumerate(paths):
        for video, n in (("a", 5), ("b", 8)):
            write_track(make_track(video, n, seed=10 * seed + n), folder)
    return paths


@pytest.mark.parametrize(
    ("weights", "shares"), [(None, [1 / 3] * 3), ([2, 1, 1], [0.5, 0.25, 0.25]), ([0, 0, 5], [0, 0, 1])]
)
def test_the_mean_is_weighted(tmp_path, folders, weights, shares):
    out = tmp_path / "out"
    assert ensemble_tracks(folders, out, weights) == list(find_tracks(out).values())
    for mean in map(read_track, find_tracks(out).values()):
        members = [read_track(folder / f"{mean.video}.parquet") for folder in folders]
        assert mean.tasks == TASKS
        for task in TASKS:
            want = sum(share * member.values[task] for share, member in zip(shares, members, strict=True))
            np.testing.assert_allclose(mean.values[task], want, atol=1e-6)
        np.testing.assert_allclose(mean.values[EXPR].sum(1), 1, atol=1e-6)
        heard = [m.seen for m, share in zip(members, shares, strict=True) if share]
        np.testing.assert_array_equal(mean.seen, np.any(heard, axis=0))


def test_a_track_with_itself_stays(tmp_path, folders):
    ensemble_tracks([folders[0], folders[0]], tmp_path / "out", [0.3, 0.7])
    got = read_track(tmp_path / "out" / "a.parquet")
    want = read_track(folders[0] / "a.parquet")
    np.testing.assert_allclose(got.values[AU], want.values[AU], atol=1e-6)
    ensemble_tracks(folders, tmp_path / "only", [1, 0, 0])
    assert_same(read_track(tmp_path / "only" / "a.parquet"), want)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: write_track(make_track("b", 9), f), "track of b: one has 8 frames .* another 9 frames"),
        (lambda f: write_track(make_track("a", 6), f), "track of a: one has 5 frames .* another 6 frames"),
        (
            lambda f: write_track(make_track("a", 5, tasks=(VA,)), f),
            "va, expr, au, another 5 frames of va;",
        ),
        (
            lambda f: write_track(make_track("c"), f),
            "two and .*one hold .* 1 are in one of them only, such as c",
        ),
        (lambda f: (f / "b.parquet").unlink(), "such as b;"),
    ],
)
def test_disagreement_is_refused_by_name(tmp_path, folders, spoil, message):
    spoil(folders[1])
    with pytest.raises(AbawError, match=message):
        ensemble_tracks(folders[:2], tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("weights", [[1], [1, -1], [0, 0], [1, float("inf")], [1, float("nan")]])
def test_weights_must_fit(tmp_path, folders, weights):
    with pytest.raises(UsageError, match="weights"):
        ensemble_tracks(folders[:2], tmp_path / "out", weights)


def test_one_folder_or_the_result_among_them_is_refused(tmp_path, folders):
    with pytest.raises(UsageError, match="at least two"):
        ensemble_tracks(folders[:1], tmp_path / "out")
    with pytest.raises(UsageError, match="another one for the result"):
        ensemble_tracks(folders, folders[0] / ".." / "one")
