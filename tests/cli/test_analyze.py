"""`abaw analyze`: from any video to a table, a summary, an overlay and a page."""

import builtins
import json
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from abaw.__main__ import main
from abaw.inference import analysis
from tests.support.marker_faces import MarkerDetector, scene
from tests.support.video_predictor import video_checkpoint
from tests.support.videos import write_video


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return video_checkpoint(tmp_path_factory.mktemp("model") / "best.ckpt")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(analysis, "FaceDetector", MarkerDetector)
    (tmp_path / "detector.onnx").write_bytes(b"markers")


def clip(name: str = "clip.mp4", n: int = 30) -> str:
    write_video(Path(name), [scene(("red", 60 + k, 80), ("blue", 180, 80)) for k in range(n)], audio=True)
    return name


def analyze(checkpoint: Path, *args: str) -> int:
    return main(["analyze", f"--ckpt={checkpoint}", "--detector=detector.onnx", "--device=cpu", *args])


def test_all_outputs_of_a_video(checkpoint: Path, capsys: pytest.CaptureFixture) -> None:
    assert analyze(checkpoint, clip()) == 0
    names = {path.name for path in Path("analysis").iterdir()}
    assert names == {"clip.csv", "clip.json", "clip.overlay.mp4", "clip.html"}
    rows = pd.read_csv("analysis/clip.csv")
    assert rows["frame"].tolist() == [k for k in range(30) for _ in range(2)]
    out = capsys.readouterr()
    assert "clip.mp4: 30 frames, 2 faces, 0.0% of the rows from context" in out.out
    assert " frames/s; ms per frame, in parallel: decode " in out.out
    assert all(stage in out.out for stage in ("detect", "align", "network", "write"))
    assert out.err.startswith("precision: ")


def test_a_second_start_leaves_everything_alone(checkpoint: Path, capsys: pytest.CaptureFixture) -> None:
    analyze(checkpoint, clip())
    times = {path: path.stat().st_mtime_ns for path in Path("analysis").iterdir()}
    assert analyze(checkpoint, "clip.mp4") == 0
    assert {path: path.stat().st_mtime_ns for path in Path("analysis").iterdir()} == times
    assert "(analysed before)" in capsys.readouterr().out
    Path("analysis/clip.html").unlink()
    assert analyze(checkpoint, "clip.mp4") == 0  # only what is missing
    assert {path: path.stat().st_mtime_ns for path in times if path.suffix != ".html"} == {
        path: time for path, time in times.items() if path.suffix != ".html"
    }
    assert Path("analysis/clip.html").exists()


def test_options_reach_the_analysis(checkpoint: Path) -> None:
    options = ["--every=3", "--out=o", "--format=openface", "--table=parquet", "--no_overlay", "--no-page"]
    assert analyze(checkpoint, clip(), *options) == 0
    assert {path.name for path in Path("o").iterdir()} == {"clip.parquet", "clip.json"}
    rows = pd.read_parquet("o/clip.parquet")
    assert rows["frame"].unique().tolist() == list(range(1, 31, 3))
    assert "AU01_c" in rows
    settings = json.loads(Path("o/clip.json").read_text())["settings"]
    assert (settings["every"], settings["crop_size"]) == (3, 32)


def test_json_lists_the_summaries(checkpoint: Path, capsys: pytest.CaptureFixture) -> None:
    assert analyze(checkpoint, clip(), "--json", "--no_overlay", "--no_page") == 0
    (summary,) = json.loads(capsys.readouterr().out)
    assert summary["input"] == "clip.mp4"
    assert [face["face_id"] for face in summary["faces"]] == [0, 1]


def test_no_face_is_said_plainly(checkpoint: Path, capsys: pytest.CaptureFixture) -> None:
    write_video(Path("wall.mp4"), [scene()] * 12)
    assert analyze(checkpoint, "wall.mp4") == 0
    assert "wall.mp4: 12 frames, no face found" in capsys.readouterr().out
    rows = pd.read_csv("analysis/wall.csv")
    assert rows["success"].tolist() == [0] * 12
    assert "No face was found" in Path("analysis/wall.html").read_text(encoding="utf-8")


def test_bad_inputs_are_named_and_the_others_still_run(
    checkpoint: Path, capsys: pytest.CaptureFixture
) -> None:
    clip("good.mp4")
    Path("text.txt").write_text("no video")
    Path("empty.mp4").write_bytes(b"")
    broken = Path(clip("broken.mp4"))
    broken.write_bytes(broken.read_bytes()[:400])
    Path("folder").mkdir()
    write_video(Path("cut.mkv"), np.random.default_rng(0).integers(0, 60, (80, 64, 64, 3), np.uint8))
    Path("cut.mkv").write_bytes(Path("cut.mkv").read_bytes()[: Path("cut.mkv").stat().st_size // 2])
    inputs = ["text.txt", "empty.mp4", "broken.mp4", "none.mp4", "folder", "cut.mkv", "good.mp4"]
    assert analyze(checkpoint, *inputs, "--no_overlay", "--no_page") == 1
    out = capsys.readouterr()
    errors = [line for line in out.err.splitlines() if line.startswith("abaw: ")]
    assert len(errors) == 6
    for name, line in zip(inputs, errors, strict=False):
        assert name in line
    assert "is truncated" in errors[-1]
    assert pd.read_csv("analysis/cut.csv")["frame"].tolist() == list(
        range(len(pd.read_csv("analysis/cut.csv")))
    )
    assert len(pd.read_csv("analysis/good.csv")) == 60


def test_a_photo_and_patterns(checkpoint: Path) -> None:
    Path("photos").mkdir()
    for name in ("a", "b"):
        cv2.imwrite(f"photos/{name}.png", scene(("red", 60, 80), ("green", 150, 90))[..., ::-1])
    assert analyze(checkpoint, "photos/*.png") == 0
    assert len(pd.read_csv("analysis/a.csv")) == len(pd.read_csv("analysis/b.csv")) == 2
    assert Path("analysis/a.overlay.jpg").exists()
    assert not Path("analysis/a.html").exists()


@pytest.mark.parametrize(
    ("args", "message", "code"),
    [
        (["--device=cuda:7"], "device: 'cuda:7' cannot be used", 2),
        (["--every=0"], "analyze.every is a number of frames from 1, got 0", 2),
        (["--detector=none.onnx"], "--detector none.onnx: there is no such file", 2),
        (["--ckpt=none.ckpt"], "none.ckpt: there is no such checkpoint", 1),
        (["--form=x"], "no such option", 2),
    ],
)
def test_what_is_wrong_is_one_clear_error(
    args: list[str], message: str, code: int, checkpoint: Path, capsys: pytest.CaptureFixture
) -> None:
    assert analyze(checkpoint, clip(n=3), *args) == code
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("abaw: ")]
    assert len(errors) == 1
    assert message in errors[0]


def test_a_missing_detector_is_said_once(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, tmp_path: Path
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    videos = [clip("a.mp4", 3), clip("b.mp4", 3)]
    assert main(["analyze", *videos, f"--ckpt={checkpoint}", "--device=cpu"]) == 1
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("abaw: ")]
    assert len(errors) == 1
    assert "opencv/face_detection_yunet" in errors[0]
    assert "--detector PATH" in errors[0]


def test_without_pyav_the_error_is_one_line(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    real = builtins.__import__

    def hidden(name: str, *args, **kwargs):
        if name == "av":
            raise ModuleNotFoundError("No module named 'av'")
        return real(name, *args, **kwargs)

    name = clip(n=3)
    monkeypatch.setattr(builtins, "__import__", hidden)
    assert analyze(checkpoint, name) == 1
    err = capsys.readouterr().err
    assert "PyAV, which reads videos, cannot be imported (No module named 'av'); pip install av" in err
    assert len(err.splitlines()) == 1


def test_a_network_on_cached_features_cannot_see_videos(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    import torch

    from abaw.model.checkpoints import FORMAT
    from tests.support.networks import small_network
    from tests.support.video_predictor import WINDOWS

    network = small_network(backbone=None, dim=12)
    weights = {f"network.{name}": weight for name, weight in network.state_dict().items()}
    torch.save(
        {
            "abaw": {"format": FORMAT, "network": network.describe(), "windows": WINDOWS},
            "state_dict": weights,
        },
        "features.ckpt",
    )
    assert analyze(Path("features.ckpt"), clip(n=3)) == 1
    assert "was trained on cached features" in capsys.readouterr().err
