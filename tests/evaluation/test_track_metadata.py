"""Which checkpoint made a track, and folders that hold tracks of two."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch

import abaw
from abaw.errors import AbawError
from abaw.evaluation.submission.write import write_submission
from abaw.evaluation.track_metadata import KEY, TrackMetadata, check_fits, common_metadata, read_metadata
from abaw.evaluation.tracks import ensemble_tracks, find_tracks, read_track, write_track
from abaw.model.checkpoints import weights_fingerprint
from tests.support.tracks import make_track

ONE = TrackMetadata(run="runs/one", weights="1" * 64, settings={"window": 8, "drop_frames": 0.0})
OTHERS = {
    "weights": replace(ONE, run="runs/two", weights="2" * 64),
    "settings": replace(ONE, settings={"window": 8, "drop_frames": 0.5}),
    "unknown": None,
}


def write(folder: Path, **made_by: TrackMetadata | None) -> Path:
    """A folder with a track for each video."""
    for video, metadata in made_by.items():
        write_track(make_track(video), folder, metadata)
    return folder


def test_metadata_is_read_back_and_the_track_stays_a_table(tmp_path: Path) -> None:
    path = write_track(make_track("a"), tmp_path, ONE)
    assert read_metadata(path) == ONE
    assert ONE.version == abaw.__version__
    pd.testing.assert_frame_equal(
        pd.read_parquet(path), pd.read_parquet(write_track(make_track("b"), tmp_path))
    )
    assert read_track(path).video == "a"
    assert common_metadata(tmp_path, {"a": path}) == ONE


def test_a_moved_run_or_a_newer_version_goes_with_the_old(tmp_path: Path) -> None:
    folder = write(tmp_path, a=ONE, b=replace(ONE, run="elsewhere", version="0"))
    assert common_metadata(folder, find_tracks(folder)) == ONE


def test_a_track_of_an_earlier_version_goes_with_a_new_one(tmp_path: Path) -> None:
    earlier = replace(ONE, settings={"window": 8, "hide_frames": 0.0}, version="0.1.0")
    folder = write(tmp_path, a=earlier, b=ONE)
    assert b"hide_frames" in pq.read_schema(folder / "a.parquet").metadata[KEY]
    check_fits(folder, find_tracks(folder), ONE)
    common = common_metadata(folder, find_tracks(folder))
    assert common is not None
    assert common.settings == ONE.settings
    with pytest.raises(AbawError, match=r"drop_frames 0\)"):
        check_fits(folder, find_tracks(folder), replace(ONE, settings={"window": 8, "drop_frames": 0.5}))


def test_tracks_of_unknown_origin_are_legal_among_themselves(tmp_path: Path) -> None:
    folder = write(tmp_path, a=None, b=None)
    assert common_metadata(folder, find_tracks(folder)) is None


def submit(folder: Path, tmp_path: Path) -> None:
    sample = tmp_path / "sample.txt"
    sample.write_text("image_location,valence,arousal\na/00001.jpg,\nb/00001.jpg,\n")
    write_submission(folder, sample, "va", tmp_path / "va.txt")


@pytest.mark.parametrize("other", OTHERS)
@pytest.mark.parametrize(
    "use",
    [
        lambda folder, _: common_metadata(folder, find_tracks(folder)),
        lambda folder, tmp_path: ensemble_tracks([folder, folder], tmp_path / "out"),
        submit,
    ],
    ids=["folder", "ensemble", "submit"],
)
def test_a_mixture_is_refused(tmp_path: Path, other: str, use: Callable[[Path, Path], object]) -> None:
    folder = write(tmp_path / "tracks", a=ONE, b=OTHERS[other])
    with pytest.raises(AbawError, match="different checkpoints or settings: a of") as error:
        use(folder, tmp_path)
    for word in (ONE, OTHERS[other] or "unknown origin"):
        assert str(word) in str(error.value)
    assert {path.name for path in tmp_path.iterdir()} <= {"tracks", "sample.txt"}


@pytest.mark.parametrize("other", OTHERS)
def test_new_tracks_do_not_join_those_of_another_origin(tmp_path: Path, other: str) -> None:
    tracks = find_tracks(write(tmp_path, a=OTHERS[other]))
    with pytest.raises(AbawError, match="another checkpoint or other settings, such as a of"):
        check_fits(tmp_path, tracks, ONE)
    check_fits(tmp_path, {}, ONE)
    check_fits(tmp_path, find_tracks(write(tmp_path, a=ONE)), ONE)


def test_an_ensemble_names_its_sources(tmp_path: Path) -> None:
    members: list[TrackMetadata | None] = [ONE, OTHERS["weights"], None]
    folders = [write(tmp_path / str(n), a=member) for n, member in enumerate(members)]
    made_by = [
        read_metadata(ensemble_tracks(folders, tmp_path / f"out{weights[0]}", weights)[0])
        for weights in ([1, 2, 1], [2, 1, 1])
    ]
    assert made_by[0] is not None
    assert made_by[0].run == str(tmp_path / "out1")
    assert [source["share"] for source in made_by[0].sources] == [0.25, 0.5, 0.25]
    assert [source["folder"] for source in made_by[0].sources] == list(map(str, folders))
    found = [source["metadata"] and TrackMetadata(**source["metadata"]) for source in made_by[0].sources]
    assert found == members
    assert not made_by[0].goes_with(made_by[1])  # other shares
    assert read_metadata(ensemble_tracks(folders, tmp_path / "out1", [2, 4, 2])[0]) == made_by[0]
    with pytest.raises(AbawError, match="remove or rename the folder first"):
        ensemble_tracks(folders, tmp_path / "out1")


def test_damaged_metadata_is_refused_by_name(tmp_path: Path) -> None:
    path = write(tmp_path, a=ONE) / "a.parquet"
    table = pq.read_table(path)
    for damaged in (b"{}", b'"text"', b"{", b'{"run": "r", "weights": "w", "unheard": 1}'):
        pq.write_table(table.replace_schema_metadata({KEY: damaged}), path)
        with pytest.raises(AbawError, match=r"a\.parquet: its metadata cannot be read"):
            read_metadata(path)
    path.write_bytes(b"no track")
    with pytest.raises(AbawError, match=r"a\.parquet: cannot be read as a track"):
        read_metadata(path)


def test_the_fingerprint_is_that_of_the_tensors() -> None:
    weights = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.tensor(1), "c": torch.ones(2).bfloat16()}
    same = {name: weights[name].clone() for name in reversed(weights)}
    assert weights_fingerprint(weights) == weights_fingerprint(same)
    assert weights_fingerprint(weights | {"a": weights["a"].T.contiguous().T}) == weights_fingerprint(weights)
    changed = [
        weights | {"a": weights["a"] + 1e-6},
        weights | {"a": weights["a"].reshape(3, 2)},
        weights | {"b": torch.tensor(1.0)},
        {"a": weights["a"], "b": weights["b"], "d": weights["c"]},
    ]
    assert len({weights_fingerprint(each) for each in [weights, *changed]}) == 5
