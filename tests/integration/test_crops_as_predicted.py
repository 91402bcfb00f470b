"""`predict` on a data set and `analyze` on its cropped_aligned folder give the same tracks."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from abaw.__main__ import main
from abaw.evaluation.tracks import find_tracks, read_track
from abaw.inference.face_tables import task_columns
from abaw.tasks import TASKS
from tests.support.tiny_run import tiny_config


@pytest.fixture(scope="module")
def run(synth_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained network, and its tracks of all videos of the data set, without labels."""
    folder = tmp_path_factory.mktemp("run")
    configs = tiny_config(folder, trainer={"limit_train_batches": 2})
    assert main(["fit", *configs, f"--run={folder / 'r'}", f"--data.root={synth_root}"]) == 0
    images = folder / "images"
    for crops in synth_root.glob("cropped_aligned*"):
        shutil.copytree(crops, images / crops.name)
    best = f"--ckpt_path={folder / 'r/checkpoints/best.ckpt'}"
    options = [f"--data.root={images}", "--data.evaluation.predict_split=all"]
    for precision in ("32-true", "bf16-mixed"):
        how = [f"--run={folder / precision}", f"--trainer.precision={precision}"]
        assert main(["predict", *configs, best, *options, *how]) == 0
    return folder


@pytest.mark.parametrize(("precision", "tolerance"), [("32-true", 1e-5), ("bf16-mixed", 0.01)])
def test_the_tracks_are_the_same(precision: str, tolerance: float, run: Path, tmp_path: Path) -> None:
    checkpoint = run / "r/checkpoints/best.ckpt"
    roots = sorted(str(path) for path in (run / "images").iterdir())
    options = [f"--ckpt={checkpoint}", f"--out={tmp_path}", "--device=cpu", f"--precision={precision}"]
    assert main(["analyze", *roots, *options, "--no_overlay", "--no_page", "--table=parquet"]) == 0
    tracks = find_tracks(run / precision / "tracks")
    tables = {path.stem: path for path in tmp_path.glob("*.parquet")}
    assert set(tables) == set(tracks)
    assert len(tables) >= 12
    n_missing = 0
    for video, path in tracks.items():
        track, table = read_track(path), pd.read_parquet(tables[video])
        assert table["frame"].tolist() == list(range(len(track)))
        np.testing.assert_array_equal(table["success"] == 1, track.seen)
        n_missing += int((~track.seen).sum())
        for task in TASKS:
            np.testing.assert_allclose(table[task_columns(task)], track.values[task], atol=tolerance)
    assert n_missing > 0
