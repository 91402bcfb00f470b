"""From a video to rows: every frame once, stages side by side, continued after a stop, in bounded memory."""

import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from abaw.errors import UsageError
from abaw.inference import analysis
from abaw.inference.analysis import Analysis, AnalysisSettings
from abaw.inference.face_tables import face_table
from abaw.inference.inputs import ImageFile, Reader
from abaw.inference.observations import Journal
from abaw.inference.predictor import Predictor
from abaw.inference.video import VideoFile, VideoFrame
from tests.support.marker_faces import MarkerDetector, scene
from tests.support.shared_media import DETECTOR, FIVE_FACES, NO_FACE, ONE_FACE, needs_media
from tests.support.video_predictor import SIZE, video_predictor

SETTINGS = AnalysisSettings(crop_size=SIZE)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    return video_predictor(tmp_path_factory.mktemp("model"))


@pytest.fixture
def markers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(analysis, "FaceDetector", MarkerDetector)


class Scenes:
    """A video of `n` frames that are drawn when they are read."""

    aligned, fps, problem, name, path = False, 25.0, "", "scenes", Path("scenes")

    def __init__(self, n: int, draw=None) -> None:
        self.n_frames = n
        self.draw = draw or (lambda k: scene(("red", 60 + 20 * np.sin(k / 20), 80)))
        self.read_numbers: list[int] = []

    def read(self, every: int = 1, after: VideoFrame | None = None) -> Iterator[VideoFrame]:
        for k in range(0, self.n_frames, every):
            if after is None or k > after.number:
                self.read_numbers.append(k)
                yield VideoFrame(k, k / 25, self.draw(k), k)


def table(reader: Reader, model: Predictor, settings: AnalysisSettings = SETTINGS, **options) -> pd.DataFrame:
    found = Analysis(reader, model, Path("markers"), settings, **options)
    return pd.concat([face_table(rows) for rows in found], ignore_index=True)


def two(k: int) -> np.ndarray:
    """Two people, one of whom leaves for a while, and a cut to a third."""
    faces = [("red", 60.0, 80.0)] if not 40 <= k < 70 else []
    faces += [("blue", 180.0, 80.0)]
    return scene(*faces, tone=40) if k < 120 else scene(("green", 120, 80), tone=220)


@pytest.mark.usefixtures("markers")
def test_identities_gaps_and_cuts_in_one_table(model: Predictor) -> None:
    rows = table(Scenes(200, two), model)
    assert rows["frame"].is_monotonic_increasing
    frames = {face: own["frame"].tolist() for face, own in rows.groupby("face_id")}
    first = rows.loc[rows["frame"] == 0].set_index("face_id")["FaceRectX"]
    assert first.index.tolist() == [0, 1]
    assert frames == {0: list(range(120)), 1: list(range(120)), 2: list(range(120, 200))}
    lost = rows[rows["success"] == 0]
    assert lost["frame"].tolist() == list(range(40, 70))
    assert lost["FaceRectX"].isna().all()
    predicted = rows.drop(columns=["expression", "FaceRectX", "FaceRectY", "FaceRectWidth", "FaceRectHeight"])
    assert np.isfinite(predicted.drop(columns="FaceScore").to_numpy(np.float64)).all()
    np.testing.assert_allclose(rows.groupby("frame")["timestamp"].first(), np.arange(200) / 25)


@pytest.mark.usefixtures("markers")
def test_predictions_are_those_of_the_crops(model: Predictor) -> None:
    from abaw.inference.faces import FaceAligner, warp

    reader = Scenes(40)
    rows = table(reader, model)
    find, aligner = MarkerDetector(Path()), FaceAligner()
    crops = [
        warp(frame.pixels, aligner(frame.timestamp, find(frame.pixels).landmarks[0]), SIZE)
        for frame in Scenes(40).read()
    ]
    expected = model.predict_frames(crops)
    for name in ("valence", "arousal"):
        np.testing.assert_allclose(rows[name], expected[name], atol=1e-6)
    np.testing.assert_allclose(rows["AU01"], expected["AU1"], atol=1e-6)
    np.testing.assert_allclose(rows["happiness"], expected["expr_Happiness"], atol=1e-6)


@pytest.mark.usefixtures("markers")
def test_every_and_detect_every(model: Predictor) -> None:
    rows = table(Scenes(100), model, AnalysisSettings(crop_size=SIZE, every=4))
    assert rows["frame"].tolist() == list(range(0, 100, 4))
    sparse = table(Scenes(100), model, AnalysisSettings(crop_size=SIZE, detect_every=5))
    dense = table(Scenes(100), model)
    assert sparse["frame"].tolist() == list(range(100))
    assert (sparse["success"] == 1).all()
    assert (sparse["FaceRectX"] - dense["FaceRectX"]).abs().max() < 6  # of 1 pixel a frame


class KilledError(Exception):
    pass


@pytest.mark.usefixtures("markers")
@pytest.mark.parametrize("stop", [1, 64, 65, 150, 199])
def test_a_stopped_analysis_continues_and_ends_with_the_same_table(
    stop: int, model: Predictor, tmp_path: Path
) -> None:
    whole = table(Scenes(200, two), model)

    def dies(k: int) -> np.ndarray:
        if k == stop:
            raise KilledError
        return two(k)

    with pytest.raises(KilledError):
        table(Scenes(200, dies), model, journal=Journal(tmp_path / "j", "m"))
    kept = sorted((tmp_path / "j").glob("*")) if (tmp_path / "j").exists() else []
    assert len(kept) in (stop // 64, max(stop // 64 - 2, 0), max(stop // 64 - 1, 0))
    reader = Scenes(200, two)
    again = table(reader, model, journal=Journal(tmp_path / "j", "m"))
    pd.testing.assert_frame_equal(again, whole)
    assert reader.read_numbers[0] == max(64 * len(kept) - 1, 0)  # only what was not done


@pytest.mark.usefixtures("markers")
def test_a_second_stop_and_a_finished_journal(model: Predictor, tmp_path: Path) -> None:
    whole = table(Scenes(200, two), model, journal=Journal(tmp_path / "j", "m"))
    reader = Scenes(200, two)
    pd.testing.assert_frame_equal(table(reader, model, journal=Journal(tmp_path / "j", "m")), whole)
    assert reader.read_numbers == [199]


@pytest.mark.usefixtures("markers")
def test_rows_come_while_the_video_is_read(model: Predictor) -> None:
    reader = Scenes(1000)
    rows = iter(Analysis(reader, model, Path("markers"), SETTINGS))
    first = next(rows)
    assert first.frame[0] == 0
    assert max(reader.read_numbers) < 400
    rows.close()  # type: ignore[attr-defined]


@pytest.mark.usefixtures("markers")
@pytest.mark.parametrize("name", ["every", "detect_every", "max_side", "crop_size"])
def test_settings_that_make_no_sense_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match=rf"analyze\.{name} is a number of .*, got 0"):
        AnalysisSettings(**{name: 0})


class Sleeper(MarkerDetector):
    """A detector that takes 4 ms without the interpreter's lock, as a network does."""

    def __call__(self, pixels: np.ndarray):
        time.sleep(0.004)
        return super().__call__(pixels)


@pytest.mark.slow
def test_stages_overlap(model: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    """End to end at most 1.5 times the slowest stage, median of five."""
    monkeypatch.setattr(analysis, "FaceDetector", Sleeper)
    monkeypatch.setattr(analysis, "_MAX_DETECTORS", 1)
    real = model.encode

    def encode(crops: np.ndarray) -> np.ndarray:
        time.sleep(0.003 * len(crops))
        return real(crops)

    monkeypatch.setattr(model, "encode", encode)

    def draw(k: int) -> np.ndarray:
        time.sleep(0.003)
        return scene(("red", 60, 80), size=(120, 120))

    ratios = []
    for _ in range(5):
        found = Analysis(Scenes(320, draw), model, Path("markers"), SETTINGS)
        with found.clock.running():
            assert sum(map(len, found)) == 320
        ratios.append(found.clock.total / max(found.clock.seconds.values()))
    assert statistics.median(ratios) < 1.5, ratios


@needs_media
def test_real_clips_and_a_photo(model: Predictor) -> None:
    def real(reader: Reader) -> pd.DataFrame:
        return pd.concat([face_table(rows) for rows in Analysis(reader, model, DETECTOR, SETTINGS)])

    rows = real(VideoFile(ONE_FACE))
    assert rows["frame"].tolist() == list(range(72))
    assert (rows["face_id"] == 0).all()
    assert (rows["success"] == 1).mean() >= 0.95
    rows = real(VideoFile(NO_FACE))
    assert rows["frame"].tolist() == list(range(95))
    assert (rows["success"] == 0).all()
    assert (rows["face_id"] == -1).all()
    assert rows["valence"].isna().all()
    rows = real(ImageFile(FIVE_FACES))
    assert rows["face_id"].tolist() == [0, 1, 2, 3, 4]
    assert (rows["success"] == 1).all()


@needs_media
@pytest.mark.slow
def test_real_stages_overlap(model: Predictor) -> None:
    """On the shared clip: end to end at most 1.5 times the slowest stage, median of five."""
    torch.set_num_threads(1)
    ratios = []
    for _ in range(5):
        found = Analysis(VideoFile(ONE_FACE), model, DETECTOR, SETTINGS)
        with found.clock.running():
            assert sum(map(len, found)) == 72
        seconds = found.clock.seconds | {"detect": found.clock.seconds["detect"] / found.n_threads}
        ratios.append(found.clock.total / max(seconds.values()))
    assert statistics.median(ratios) < 1.5, ratios
