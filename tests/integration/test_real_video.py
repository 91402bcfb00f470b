"""A real face, from a video file to a track; skipped where there is no such file beside the project."""

import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from abaw.__main__ import main
from tests.support.aligned_faces import SIZE, TEMPLATE, align_video
from tests.support.project import PROJECT
from tests.support.tiny_run import tiny_config

SHARED = PROJECT.parent / "shared"
VIDEO = SHARED / "media/single_face.mp4"
DETECTOR = SHARED / "models/face_detection_yunet_2023mar.onnx"
N_FRAMES = 72
Predict = Callable[[Path, Path], pd.DataFrame]

pytestmark = pytest.mark.skipif(not (VIDEO.exists() and DETECTOR.exists()), reason="no real video here")


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("real")
    assert align_video(VIDEO, root, DETECTOR) == N_FRAMES
    return root


@pytest.fixture(scope="module")
def predict(synth_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Predict:
    """Gives the track that a tiny trained network makes of the one video in a folder."""
    folder = tmp_path_factory.mktemp("runs")
    configs = tiny_config(folder, trainer={"limit_train_batches": 1})
    assert main(["fit", *configs, f"--run={folder / 'trained'}", f"--data.root={synth_root}"]) == 0
    best = f"--ckpt_path={folder / 'trained/checkpoints/best.ckpt'}"

    def make(root: Path, run: Path) -> pd.DataFrame:
        assert main(["predict", *configs, f"--run={run}", best, f"--data.root={root}"]) == 0
        (path,) = (run / "tracks").glob("*.parquet")
        assert path.stem == VIDEO.stem
        return pd.read_parquet(path)

    return make


def is_whole(track: pd.DataFrame) -> bool:
    """Whether there is a row for every frame, in order, and every value is a number."""
    frames = list(track["frame"]) == list(range(1, N_FRAMES + 1))
    return frames and bool(np.isfinite(track.drop(columns=["frame", "seen"]).to_numpy(np.float64)).all())


def test_the_landmarks_of_a_crop_lie_on_the_template(faces: Path) -> None:
    finder = cv2.FaceDetectorYN.create(str(DETECTOR), "", (SIZE, SIZE))
    crops = sorted(faces.rglob("*.jpg"))
    distances = []
    for path in crops:
        found = finder.detect(cv2.imread(str(path)))[1]
        assert found is not None, path
        distances.append(np.linalg.norm(found[0, 4:14].reshape(5, 2) - TEMPLATE, axis=1).mean())
    assert np.median(distances) < 6  # pixels


def test_every_frame_of_a_real_video_is_predicted(faces: Path, predict: Predict, tmp_path: Path) -> None:
    track = predict(faces, tmp_path / "run")
    assert is_whole(track)
    assert track["seen"].all()


def test_frames_without_a_crop_are_predicted_too(faces: Path, predict: Predict, tmp_path: Path) -> None:
    root = tmp_path / "faces"
    shutil.copytree(faces, root)
    missing = range(1, 71, 3)
    for number in missing:
        (root / "cropped_aligned" / VIDEO.stem / f"{number:05d}.jpg").unlink()
    track = predict(root, tmp_path / "run")
    assert is_whole(track)
    assert list(track.loc[~track["seen"], "frame"]) == list(missing)
    assert (~track["seen"]).sum() == 24
