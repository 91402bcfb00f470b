"""Predicted tracks beside the annotations of a data set."""

import pytest

from abaw.data.layout import DataSource
from abaw.errors import AbawError
from abaw.evaluation.labelled_tracks import LabelledTracks
from abaw.evaluation.tracks import (
    write_track,
)
from abaw.tasks import VA
from tests.support.tiny_set import FOLDERS, write_tiny_set
from tests.support.tracks import make_track


def test_an_annotation_without_any_frame_needs_no_track(tmp_path):
    root = write_tiny_set(tmp_path / "set")
    (root / FOLDERS[VA] / "Validation_Set" / "f_val.txt").write_text("valence,arousal\n")
    for video, n in (("c_val", 21), ("d_val", 5)):
        write_track(make_track(video, n, tasks=(VA,)), tmp_path / "tracks")
    labelled = LabelledTracks(DataSource(root), "val")
    assert labelled.videos_and_tasks(tmp_path / "tracks") == (["c_val", "d_val"], (VA,))
    (tmp_path / "tracks" / "d_val.parquet").unlink()
    with pytest.raises(AbawError, match=r"1 of 2 annotated videos have no track, such as d_val"):
        labelled.videos_and_tasks(tmp_path / "tracks")


@pytest.mark.parametrize(("n_frames", "fits"), [(21, True), (30, True), (20, False)])
def test_a_track_shorter_than_its_video_is_refused(tmp_path, n_frames, fits):
    labelled = LabelledTracks(DataSource(write_tiny_set(tmp_path / "set")), "val")
    write_track(make_track("c_val", n_frames), tmp_path / "tracks")
    assert len(labelled.labels_of("c_val")) == 22
    if fits:
        (track,) = labelled.read(tmp_path / "tracks", ["c_val"])
        assert len(track) == n_frames
    else:
        with pytest.raises(AbawError, match=r"c_val\.parquet: holds 20 frames, but the video has 22 label"):
            list(labelled.read(tmp_path / "tracks", ["c_val"]))
