"""What the README promises is run as it stands there."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from abaw.data.synth.writer import write_dataset
from tests.support.marker_faces import MarkerDetector, scene
from tests.support.project import PROJECT
from tests.support.video_predictor import video_checkpoint
from tests.support.videos import write_video


def commands(heading: str) -> str:
    """The bash block of a section of the README."""
    text = (PROJECT / "README.md").read_text(encoding="utf-8")
    section = re.split(r"^## ", text, flags=re.MULTILINE)
    (wanted,) = (part for part in section if part.startswith(f"{heading}\n"))
    (block,) = re.findall(r"^```bash\n(.*?)^```$", wanted, flags=re.MULTILINE | re.DOTALL)
    return str(block)


@pytest.mark.slow
def test_from_download_to_submission_word_for_word(tmp_path: Path) -> None:
    """On generated data with the demo's configuration, which its variables name; nothing else is changed."""
    root = tmp_path / "data"
    write_dataset(root, videos=16, frames=30, seed=0, progress=False)
    (tmp_path / "configs").symlink_to(PROJECT / "configs")
    environment = os.environ | {
        "ABAW_ROOT": str(root),
        "CONFIG": "configs/demo.yaml",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    done = subprocess.run(
        ["bash", "-euxo", "pipefail", "-c", commands("From download to submission")],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=1200,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "on new videos" in done.stdout
    assert "better than runs/2/tracks by" in done.stdout
    assert done.stdout.splitlines()[-1] == "va.txt: valid"

    asked = (root / "test_set/VA_sample.txt").read_text().splitlines()[1:]
    filled = pd.read_csv(tmp_path / "va.txt")
    assert list(filled) == ["image_location", "valence", "arousal"]
    assert filled["image_location"].tolist() == [row.removesuffix(",") for row in asked]
    values = filled[["valence", "arousal"]].to_numpy()
    assert np.isfinite(values).all()
    assert np.abs(values).max() <= 1
    assert values.std(0).min() > 0


def python_blocks(page: str) -> str:
    text = (PROJECT / page).read_text(encoding="utf-8")
    return "\n".join(re.findall(r"^```python\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL))


@pytest.mark.parametrize(("page", "run"), [("README.md", "demo"), ("docs/video.md", "mtl")])
def test_the_python_of_a_page_runs(
    page: str, run: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("abaw.inference.analysis.FaceDetector", MarkerDetector)
    monkeypatch.setattr("abaw.inference.predictor.find_detector", lambda path: tmp_path)
    video_checkpoint(tmp_path / f"runs/{run}/checkpoints/best.ckpt")
    for name in ("interview.mp4", "long.mp4"):
        write_video(tmp_path / name, [scene(("red", 60 + k, 80)) for k in range(30)])
    crops = np.full((20, 32, 32, 3), 90, np.uint8)
    names: dict[str, object] = {"frames": crops, "crops": crops}
    exec(python_blocks(page), names)
    table = names["table"]
    assert isinstance(table, pd.DataFrame)
    assert len(table) == 20  # of predict_frames, the last one
    if page == "docs/video.md":
        assert "valence" in capsys.readouterr().out
        assert len(names["model"].predict_video("interview.mp4")) == 30  # type: ignore[attr-defined]
