"""The notebooks run from top to bottom, twice in the same folder, and on a real video where there is one."""

import os
import re
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.support.project import PROJECT
from tests.support.shared_media import DETECTOR, ONE_FACE, needs_media
from tests.support.video_predictor import video_checkpoint

FOLDER = PROJECT / "docs/notebooks"


def run(name: str, folder: Path, parameters: str | None = None) -> nbformat.NotebookNode:
    """The executed notebook, with fewer epochs; a cell that fails raises.

    `parameters` replaces the first cell of code.
    """
    notebook = nbformat.read(FOLDER / name, as_version=4)
    if parameters is not None:
        next(cell for cell in notebook.cells if cell.cell_type == "code").source = parameters
    for cell in notebook.cells:
        cell.source = re.sub(
            "(abaw fit .*)", r"\1 --trainer.max_epochs 1 --trainer.check_val_every_n_epoch 1", cell.source
        )
    NotebookClient(notebook, timeout=900, resources={"metadata": {"path": str(folder)}}).execute()
    return notebook


def text(notebook: nbformat.NotebookNode) -> str:
    """What all cells printed."""
    return "".join(output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", []))


@pytest.fixture(autouse=True)
def _own_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(PROJECT))
    monkeypatch.setenv("OMP_NUM_THREADS", "2")


@pytest.mark.slow
def test_training_and_a_video_twice(tmp_path: Path) -> None:
    for _ in range(2):
        assert "total" in text(run("train.ipynb", tmp_path))
        run("video.ipynb", tmp_path)
    assert {path.suffix for path in (tmp_path / "analysis").iterdir()} >= {".csv", ".json", ".mp4", ".html"}


@needs_media
@pytest.mark.slow
def test_a_real_video(tmp_path: Path) -> None:
    checkpoint = video_checkpoint(tmp_path / "best.ckpt")
    values = {"checkpoint": str(checkpoint), "video": str(ONE_FACE), "fps": None, "detector": str(DETECTOR)}
    lines = [f"{name} = {value!r}" for name, value in values.items()]
    run("video.ipynb", tmp_path, "\n".join(["from pathlib import Path", *lines]))
    assert (tmp_path / f"analysis/{ONE_FACE.stem}.html").exists()


def test_they_hold_the_output_of_a_run_without_errors() -> None:
    for path in sorted(FOLDER.glob("*.ipynb")):
        notebook = nbformat.read(path, as_version=4)
        nbformat.validate(notebook)
        cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
        assert all(cell.execution_count for cell in cells), path
        assert "http" not in text(notebook)
        assert str(Path.home()) not in path.read_text(encoding="utf-8")
