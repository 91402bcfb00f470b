"""Results on disk: complete, continued after a stop, left alone when finished."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from abaw.errors import AbawError
from abaw.inference import analysis
from abaw.inference.analysis import AnalysisSettings
from abaw.inference.face_tables import read_table
from abaw.inference.predictor import Predictor
from abaw.inference.results import AnalysisJob, ResultFiles
from abaw.inference.video import VideoFile, VideoFrame
from tests.support.marker_faces import MarkerDetector, scene
from tests.support.video_predictor import SIZE, video_predictor
from tests.support.videos import write_video

N = 150


@pytest.fixture(scope="module")
def predictor(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    return video_predictor(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    frames = [scene(("red", 60 + k / 4, 80), ("blue", 180, 80)) for k in range(N)]
    return write_video(tmp_path_factory.mktemp("video") / "clip.mp4", frames)


@pytest.fixture(autouse=True)
def markers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(analysis, "FaceDetector", MarkerDetector)


def job(predictor: Predictor, folder: Path, **settings: int) -> AnalysisJob:
    detector = folder / "detector.onnx"
    detector.write_bytes(b"markers")
    return AnalysisJob(
        predictor=predictor, detector=detector, settings=AnalysisSettings(crop_size=SIZE, **settings)
    )


def test_a_table_and_a_summary(predictor: Predictor, video: Path, tmp_path: Path) -> None:
    files = ResultFiles(tmp_path / "out", "clip")
    done: list[int] = []
    summary = job(predictor, tmp_path).run(VideoFile(video), files, done.append)
    assert sorted(path.name for path in files.folder.iterdir()) == ["clip.csv", "clip.json"]
    assert sum(done) == N
    assert len(read_table(files.table)) == 2 * N
    assert summary == json.loads(files.summary.read_text())
    assert summary["frames"] == N
    assert [face["frames"] for face in summary["faces"]] == [N, N]
    assert summary["checkpoint"].endswith("best.ckpt")
    assert summary["speed"]["frames"] == N
    assert set(summary["speed"]["stage_seconds"]) == {"decode", "detect", "align", "network", "write"}
    assert summary["problem"] == ""


class Stopping(VideoFile):
    """A video whose reading is interrupted; remembers what was read."""

    stop = 10**9

    def read(self, every: int = 1, after: VideoFrame | None = None) -> Iterator[VideoFrame]:
        self.numbers: list[int] = []
        for frame in super().read(every, after):
            if frame.number == self.stop:
                raise KeyboardInterrupt
            self.numbers.append(frame.number)
            yield frame


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_after_ctrl_c_it_continues_and_gives_the_same_table(
    suffix: str, predictor: Predictor, video: Path, tmp_path: Path
) -> None:
    whole = ResultFiles(tmp_path / "whole", "clip", suffix)
    job(predictor, tmp_path).run(VideoFile(video), whole)
    files = ResultFiles(tmp_path / "out", "clip", suffix)
    reader = Stopping(video)
    reader.stop = 140
    with pytest.raises(KeyboardInterrupt):
        job(predictor, tmp_path).run(reader, files)
    assert [path.name for path in files.folder.iterdir()] == [".clip.unfinished"]
    (files.folder / f".clip.{suffix}.123.tmp").write_text("left by a killed process")
    reader = Stopping(video)
    summary = job(predictor, tmp_path).run(reader, files)
    assert reader.numbers[0] >= 63  # not from the start
    assert files.table.read_bytes() == whole.table.read_bytes()
    assert summary["frames"] == N
    assert summary["speed"]["frames"] < N
    assert {path.name for path in files.folder.iterdir()} == {f"clip.{suffix}", "clip.json"}


def test_a_finished_input_is_left_alone(predictor: Predictor, video: Path, tmp_path: Path) -> None:
    files = ResultFiles(tmp_path / "out", "clip")
    first = job(predictor, tmp_path).run(VideoFile(video), files)
    times = {path: path.stat().st_mtime_ns for path in files.folder.iterdir()}
    reader = Stopping(video)
    reader.stop = 0
    assert job(predictor, tmp_path).run(reader, files) == first
    assert {path: path.stat().st_mtime_ns for path in files.folder.iterdir()} == times


def test_results_of_other_settings_are_refused_and_kept(
    predictor: Predictor, video: Path, tmp_path: Path
) -> None:
    files = ResultFiles(tmp_path / "out", "clip")
    job(predictor, tmp_path).run(VideoFile(video), files)
    before = files.table.read_bytes()
    for other in (
        job(predictor, tmp_path, every=2),
        replace(job(predictor, tmp_path), format="openface"),
        replace(job(predictor, tmp_path), predictor=replace(predictor, stride=2)),
    ):
        with pytest.raises(
            AbawError,
            match=r"clip\.json: is the result of .*clip\.mp4 and .*other settings.*give another --out",
        ):
            other.run(VideoFile(video), files)
    assert files.table.read_bytes() == before


def test_unfinished_work_of_other_settings_is_not_used(
    predictor: Predictor, video: Path, tmp_path: Path
) -> None:
    files = ResultFiles(tmp_path / "out", "clip")
    reader = Stopping(video)
    reader.stop = 140
    with pytest.raises(KeyboardInterrupt):
        job(predictor, tmp_path).run(reader, files)
    reader = Stopping(video)
    job(predictor, tmp_path, every=2).run(reader, files)
    assert reader.numbers[0] == 0
    assert read_table(files.table)["frame"].tolist() == [k for k in range(0, N, 2) for _ in range(2)]


def test_a_truncated_video_gives_its_rows_and_the_problem(predictor: Predictor, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 60, (N, 160, 240, 3), dtype=np.uint8)
    for frame in noise:
        frame[40:120, 40:200] = scene(("red", 80, 40), size=(160, 80))
    path = write_video(tmp_path / "cut.mkv", noise)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    files = ResultFiles(tmp_path / "out", "cut")
    summary = job(predictor, tmp_path).run(VideoFile(path), files)
    assert "is truncated" in summary["problem"]
    assert 30 < summary["frames"] < 120
    assert len(read_table(files.table)) == summary["frames"]


def test_a_damaged_summary_is_one_clear_error(predictor: Predictor, video: Path, tmp_path: Path) -> None:
    files = ResultFiles(tmp_path / "out", "clip")
    files.folder.mkdir()
    files.summary.write_text("{")
    with pytest.raises(AbawError, match=r"clip\.json: cannot be read .* remove it to analyse again"):
        job(predictor, tmp_path).run(VideoFile(video), files)
