"""`abaw.load`: three lines from a checkpoint to a table."""

import warnings
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import torch

import abaw
from abaw.errors import AbawError, UsageError
from abaw.evaluation.calibration import Calibration, Smoothing, store_calibration
from abaw.evaluation.tracks import Track, track_frame
from abaw.inference.predictor import Predictor
from abaw.model.backbone import BackboneSettings
from abaw.model.checkpoints import FORMAT
from abaw.model.heads import HeadSettings
from abaw.model.network import Network
from abaw.model.temporal import TemporalSettings
from abaw.tasks import AU, EXPR, TASKS, VA
from tests.support.aligned_faces import align_video

SHARED = Path(__file__).parents[2] / "shared"
VIDEO = SHARED / "media/single_face.mp4"
DETECTOR = SHARED / "models/face_detection_yunet_2023mar.onnx"
WINDOWS = {"window": 8, "stride": 4, "step": 1}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    network = Network(
        tasks=TASKS,
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
    about = {"format": FORMAT, "network": network.describe(), "windows": WINDOWS, "frame_size": 32}
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
    columns = ["frame", "seen", *(c for task in TASKS for c in task.columns), "expression"]
    assert table.columns.tolist() == columns
    best = [EXPR.names[k].lower() for k in table[list(EXPR.columns)].to_numpy().argmax(1)]
    assert table["expression"].tolist() == best
    assert np.allclose(table[list(EXPR.columns)].sum(axis=1), 1, atol=1e-5)
    assert table["valence"].between(-1, 1).all()
    assert table[list(AU.columns)].stack().between(0, 1).all()


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
    tables = [
        each.predict_frames(video(30)).drop(columns="expression").astype(float) for each in (one, model)
    ]
    np.testing.assert_allclose(*tables, atol=1e-6)


@pytest.mark.parametrize(
    ("frames", "met"),
    [
        (np.zeros((4, 32, 32, 3), np.float32), "float32"),
        (np.zeros((32, 32, 3), np.uint8), r"\(32, 32, 3\)"),
        (np.zeros((0, 32, 32, 3), np.uint8), r"\(0, 32, 32, 3\)"),
        (np.zeros((4, 32, 32, 4), np.uint8), r"\(4, 32, 32, 4\)"),
        (np.zeros((4, 360, 640, 3), np.uint8), r"640 x 360 pixels are not an aligned face crop"),
        (np.zeros((4, 0, 0, 3), np.uint8), r"0 x 0 pixels"),
    ],
)
def test_an_array_that_is_no_video_is_refused(model: Predictor, frames: np.ndarray, met: str) -> None:
    with pytest.raises(AbawError, match=met):
        model.predict_frames(frames)


def faces(folder: Path) -> np.ndarray:
    """The crops of a video, RGB."""
    return np.stack([cv2.imread(str(path))[..., ::-1] for path in sorted(folder.glob("*.jpg"))])


def warned(model: Predictor, frames: np.ndarray, visible: np.ndarray | None = None) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.predict_frames(frames, visible)
    return [str(each.message) for each in caught]


def check_channel_order(model: Predictor, rgb: np.ndarray) -> None:
    assert (
        warned(model, rgb) == warned(model, rgb.mean(-1, keepdims=True).astype(np.uint8).repeat(3, -1)) == []
    )
    (message,) = warned(model, rgb[..., ::-1])
    assert "BGR" in message
    assert warned(model, rgb[..., ::-1], np.zeros(len(rgb), bool)) == []  # nothing of it is looked at


def test_faces_in_the_order_of_opencv_are_warned_of(checkpoint: Path, synth_root: Path) -> None:
    network = abaw.load(checkpoint, device="cpu").network
    model = Predictor(network, **WINDOWS, frame_size=112)
    folders = sorted(path for path in synth_root.glob("cropped_aligned*/*") if path.is_dir())
    assert len(folders) > 3
    for folder in folders:
        check_channel_order(model, faces(folder))


@pytest.mark.skipif(not (VIDEO.exists() and DETECTOR.exists()), reason="no real video here")
def test_a_real_face_in_the_order_of_opencv_is_warned_of(checkpoint: Path, tmp_path: Path) -> None:
    network = abaw.load(checkpoint, device="cpu").network
    align_video(VIDEO, tmp_path, DETECTOR)
    check_channel_order(
        Predictor(network, **WINDOWS, frame_size=112), faces(tmp_path / "cropped_aligned" / VIDEO.stem)
    )
    capture = cv2.VideoCapture(str(VIDEO))
    whole = np.stack([capture.read()[1] for _ in range(3)])
    capture.release()
    with pytest.raises(AbawError, match="640 x 360 pixels are not an aligned face crop"):
        Predictor(network, **WINDOWS).predict_frames(whole)


def test_crops_much_larger_than_those_of_the_training_are_warned_of(model: Predictor) -> None:
    assert model.frame_size == 32
    assert warned(model, video(2, 64)) == []
    (message,) = warned(model, video(2, 65))
    assert "65 x 65 pixels are much larger than the 32 x 32 of the training" in message
    assert warned(Predictor(model.network, **WINDOWS), video(2, 65)) == []  # an older checkpoint


def test_visible_must_fit(model: Predictor) -> None:
    with pytest.raises(AbawError, match=r"\(4,\)"):
        model.predict_frames(video(4), np.ones(3, bool))


def test_the_calibration_in_the_checkpoint_is_applied_on_request(
    checkpoint: Path, model: Predictor, tmp_path: Path
) -> None:
    with pytest.raises(AbawError, match=r"best\.ckpt: holds no calibration; `abaw calibrate"):
        abaw.load(checkpoint, calibrated=True)
    calibration = Calibration(
        smoothing={VA: Smoothing("box", 3)}, au_thresholds=(0.3,) * 12, temperature={EXPR: 2.0}
    )
    stored = tmp_path / "best.ckpt"
    stored.write_bytes(checkpoint.read_bytes())
    store_calibration(calibration, stored)
    raw, corrected = (
        abaw.load(stored, device="cpu", calibrated=calibrated).predict_frames(video(21))
        for calibrated in (False, True)
    )
    pd.testing.assert_frame_equal(raw, model.predict_frames(video(21)))
    values = {task: raw[list(task.columns)].to_numpy(np.float32) for task in TASKS}
    track = Track(video="", seen=raw["seen"].to_numpy(), values=values)
    expected = track_frame(calibration.apply(track))
    pd.testing.assert_frame_equal(corrected[list(expected)], expected)
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


@pytest.mark.parametrize("n", [1, 64, 65, 200])
def test_an_iterator_of_frames_gives_the_same(n: int, model: Predictor) -> None:
    visible = np.arange(n) % 7 > 0
    one_by_one = model.predict_frames(iter(video(n)), visible)
    pd.testing.assert_frame_equal(one_by_one, model.predict_frames(video(n), visible))


def test_frames_of_an_iterator_are_checked(model: Predictor) -> None:
    def changes() -> Iterator[np.ndarray]:
        yield from video(70)
        yield from video(3, size=30)

    with pytest.raises(AbawError, match=r"all need the same shape, got \(30, 30, 3\) and \(32, 32, 3\)"):
        model.predict_frames(changes())
    with pytest.raises(AbawError, match="uint8"):
        model.predict_frames(iter([]))
    with pytest.raises(AbawError, match="visible: has 4 values, but there are more frames"):
        model.predict_frames(iter(video(9)), np.ones(4, bool))


def test_with_fps_the_table_has_times(model: Predictor) -> None:
    table = model.predict_frames(video(4), fps=25)
    assert list(table)[:3] == ["frame", "timestamp", "seen"]
    np.testing.assert_allclose(table["timestamp"], [0, 0.04, 0.08, 0.12])


def test_the_folder_of_a_run_stands_for_its_best_checkpoint(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "run/checkpoints").mkdir(parents=True)
    (tmp_path / "run/checkpoints/best.ckpt").write_bytes(checkpoint.read_bytes())
    assert abaw.load(tmp_path / "run", device="cpu").window == 8
    with pytest.raises(AbawError, match=r"checkpoints/best\.ckpt: there is no such checkpoint"):
        abaw.load(tmp_path)


def test_the_predictor_says_what_it_is(checkpoint: Path) -> None:
    text = repr(abaw.load(checkpoint, device="cpu"))
    assert text.startswith("Predictor(va, expr, au; windows of 8 frames; crops of 32 x 32 pixels; on cpu; ")
    assert text.endswith("best.ckpt)")
