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
from tests.support.project import PROJECT


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
