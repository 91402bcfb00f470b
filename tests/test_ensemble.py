import numpy as np
import pytest
from test_tracks import assert_same, make_track

from abaw.errors import AbawError, UsageError
from abaw.outputs.ensemble import ensemble_tracks
from abaw.outputs.tracks import find_tracks, read_track, read_tracks, write_track
from abaw.tasks import Task


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
    for mean in read_tracks(out):
        members = [read_track(folder / f"{mean.video}.parquet") for folder in folders]
        assert mean.tasks == tuple(Task)
        for task in Task:
            want = sum(share * member.values[task] for share, member in zip(shares, members, strict=True))
            np.testing.assert_allclose(mean.values[task], want, atol=1e-6)
        np.testing.assert_allclose(mean.expr.sum(1), 1, atol=1e-6)
        heard = [m.seen for m, share in zip(members, shares, strict=True) if share]
        np.testing.assert_array_equal(mean.seen, np.any(heard, axis=0))


def test_a_track_with_itself_stays(tmp_path, folders):
    ensemble_tracks([folders[0], folders[0]], tmp_path / "out", [0.3, 0.7])
    got = read_track(tmp_path / "out" / "a.parquet")
    want = read_track(folders[0] / "a.parquet")
    np.testing.assert_allclose(got.au, want.au, atol=1e-6)
    ensemble_tracks(folders, tmp_path / "only", [1, 0, 0])
    assert_same(read_track(tmp_path / "only" / "a.parquet"), want)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: write_track(make_track("b", 9), f), "track of b: one has 8 frames .* another 9 frames"),
        (lambda f: write_track(make_track("a", 6), f), "track of a: one has 5 frames .* another 6 frames"),
        (
            lambda f: write_track(make_track("a", 5, tasks=("va",)), f),
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
