"""What the subcommand `extract` refuses."""

import shutil
from pathlib import Path

import pytest

from abaw.__main__ import main
from tests.support.feature_run import words


@pytest.fixture(scope="module")
def cache(synth_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Features of the generated data, by the command."""
    folder = tmp_path_factory.mktemp("features") / "tiny"
    run = tmp_path_factory.mktemp("runs") / "extract"
    assert main(words("extract", synth_root, folder, f"--run={run}")) == 0
    assert not run.exists()
    return folder


def test_extraction_needs_a_folder(synth_root: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(words("extract", synth_root, None)) == 2
    assert "--data.features '[DIR]'" in capfd.readouterr().err


def test_a_checkpoint_of_another_backbone_is_refused(
    synth_root: Path, cache: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(words("fit", synth_root, cache, f"--run={tmp_path}")) == 0
    other = [f"--ckpt_path={tmp_path / 'checkpoints/best.ckpt'}", "--model.backbone.name=test_vit2"]
    assert main(words("extract", synth_root, tmp_path / "features", *other)) == 1
    assert "holds another backbone" in capfd.readouterr().err


def test_there_must_be_images_to_extract_from(
    synth_root: Path, cache: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    labels = tmp_path / "labels"
    shutil.copytree(synth_root, labels, ignore=shutil.ignore_patterns("cropped_aligned*"))
    shutil.copytree(cache, tmp_path / "cache")
    for folder in ("cache", "new"):
        assert main(words("extract", labels, tmp_path / folder)) == 1
        assert "there are no images to extract features from" in capfd.readouterr().err
    assert not (tmp_path / "new").exists()
