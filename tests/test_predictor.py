"""`abaw.load`: three lines from a checkpoint to a table."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import abaw
from abaw.apply.predictor import Predictor
from abaw.apply.stored_calibration import store_calibration
from abaw.checkpoints import FORMAT
from abaw.errors import AbawError, UsageError
from abaw.model.backbone import BackboneSettings
from abaw.model.heads import HeadSettings
from abaw.model.network import Network
from abaw.model.temporal import TemporalSettings
from abaw.outputs.calibration import Calibration, Smoothing
from abaw.outputs.tracks import Track, track_frame
from abaw.tasks import Task

WINDOWS = {"window": 8, "stride": 4, "step": 1}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    network = Network(
        tasks=tuple(Task),
        backbone=BackboneSettings(
            name="vit_tiny_patch16_224",
            weights="none",
            image_size=32,
            overrides={"depth": 1, "embed_dim": 48},
        ),
        temporal=TemporalSettings(layers=1, heads=2, width=32, feedforward=32),
        heads=HeadSettings(),
    )
    path = tmp_path_factory.mktemp("checkpoint") / "best.ckpt"
    weights = {f"network.{name}": weight for name, weight in network.state_dict().items()}
    about = {"format": FORMAT, "network": network.describe(), "windows": WINDOWS}
    torch.save({"abaw": about, "state_dict": weights | {"losses.expr_weight": torch.ones(8)}}, path)
    return path


@pytest.fixture(scope="module")
def model(checkpoint: Path) -> Predictor:
    return abaw.load(str(checkpoint), device="cpu")


def video(n: int, size: int = 32) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, size, size, 3), dtype=np.uint8)


@pytest.mark.parametrize("n", [1, 5, 8, 21])
def test_every_frame_has_a_row(model: Predictor, n: int) -> None:
    table = model.predict_frames(video(n))
    assert table["frame"].tolist() == list(range(1, n + 1))
    assert table.columns.tolist() == ["frame", "seen", *(c for task in Task for c in task.columns)]
    assert np.allclose(table[list(Task.EXPR.columns)].sum(axis=1), 1, atol=1e-5)
    assert table["valence"].between(-1, 1).all()
    assert table[list(Task.AU.columns)].stack().between(0, 1).all()


def test_frames_of_any_size_are_taken(model: Predictor) -> None:
    assert len(model.predict_frames(video(3, size=50))) == 3


def test_a_list_of_frames_will_do(model: Predictor) -> None:
    assert model.predict_frames(list(video(5))).equals(model.predict_frames(video(5)))


def test_a_frame_without_a_face_has_a_row_and_its_pixels_do_not_matter(model: Predictor) -> None:
    frames, visible = video(12), np.arange(12) % 3 > 0
    table = model.predict_frames(frames, visible)
    assert table["seen"].tolist() == visible.tolist()
    frames[~visible] = 0
    assert model.predict_frames(frames, visible).equals(table)


def test_how_many_windows_go_at_once_changes_nothing(model: Predictor) -> None:
    one = Predictor(model.network, **WINDOWS, batch_size=1)
    tables = [each.predict_frames(video(30)).astype(float) for each in (one, model)]
    np.testing.assert_allclose(*tables, atol=1e-6)


@pytest.mark.parametrize(
    ("frames", "met"),
    [
        (np.zeros((4, 32, 32, 3), np.float32), "float32"),
        (np.zeros((32, 32, 3), np.uint8), r"\(32, 32, 3\)"),
        (np.zeros((0, 32, 32, 3), np.uint8), r"\(0, 32, 32, 3\)"),
    ],
)
def test_an_array_that_is_no_video_is_refused(model: Predictor, frames: np.ndarray, met: str) -> None:
    with pytest.raises(AbawError, match=met):
        model.predict_frames(frames)


def test_visible_must_fit(model: Predictor) -> None:
    with pytest.raises(AbawError, match=r"\(4,\)"):
        model.predict_frames(video(4), np.ones(3, bool))


def test_the_calibration_in_the_checkpoint_is_applied_on_request(
    checkpoint: Path, model: Predictor, tmp_path: Path
) -> None:
    with pytest.raises(AbawError, match=r"best\.ckpt: holds no calibration; `abaw calibrate"):
        abaw.load(checkpoint, calibrated=True)
    calibration = Calibration(
        smoothing={Task.VA: Smoothing("box", 3)}, au_thresholds=(0.3,) * 12, temperature={Task.EXPR: 2.0}
    )
    stored = tmp_path / "best.ckpt"
    stored.write_bytes(checkpoint.read_bytes())
    store_calibration(calibration, stored)
    raw, corrected = (
        abaw.load(stored, device="cpu", calibrated=calibrated).predict_frames(video(21))
        for calibrated in (False, True)
    )
    pd.testing.assert_frame_equal(raw, model.predict_frames(video(21)))
    values = {str(task): raw[list(task.columns)].to_numpy(np.float32) for task in Task}
    track = Track(video="", seen=raw["seen"].to_numpy(), **values)
    pd.testing.assert_frame_equal(corrected, track_frame(calibration.apply(track)))
    assert not corrected["AU1"].equals(raw["AU1"])


def test_frames_of_several_shapes_are_refused(model: Predictor) -> None:
    frames = [np.zeros((32, 32, 3), np.uint8), np.zeros((30, 32, 3), np.uint8)]
    with pytest.raises(
        AbawError, match=r"frames: all need the same shape, got \(30, 32, 3\) and \(32, 32, 3\)"
    ):
        model.predict_frames(frames)


@pytest.mark.parametrize("name", ["gpu", "cuda:99", "cup"])
def test_a_device_that_is_not_there_is_refused(name: str, checkpoint: Path) -> None:
    with pytest.raises(
        UsageError, match=rf"device: '{name}' cannot be used \(.+\); give cpu, or cuda"
    ) as refused:
        abaw.load(checkpoint, device=name)
    assert len(str(refused.value).splitlines()) == 1
