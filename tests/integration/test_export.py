"""`abaw export` of a trained run: a folder and a slim checkpoint serve in place of it."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import abaw
from abaw.__main__ import main
from tests.support.tiny_run import tiny_config


@pytest.fixture(scope="module")
def run(synth_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export")
    words = [*tiny_config(folder), f"--data.root={synth_root}", f"--run={folder / 'run'}"]
    assert main(["fit", *words]) == 0
    return folder / "run"


def test_a_model_folder_from_a_run(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "model"
    assert main(["export", str(run), str(out), "--data", "generated", "--license", "mit"]) == 0
    assert f"{out}: " in capsys.readouterr().out
    card = (out / "README.md").read_text(encoding="utf-8")
    for part in ('license: "mit"', "generated", "fingerprint", "## Limits", "| VA | CCC |"):
        assert part in card
    size = abaw.load(out).frame_size or 112
    crops = np.random.default_rng(0).integers(0, 256, (9, size, size, 3), dtype=np.uint8)
    tables = [abaw.load(path, device="cpu").predict_frames(crops) for path in (run, out)]
    pd.testing.assert_frame_equal(*tables, check_exact=True)
    assert main(["export", str(run), str(out)]) == 2
    assert "already exists" in capsys.readouterr().err
    assert main(["export", str(out), str(tmp_path / "again"), "--data", "d", "--license", "mit"]) == 0
    assert (tmp_path / "again/model.safetensors").read_bytes() == (out / "model.safetensors").read_bytes()


def test_a_slim_checkpoint_predicts_scores_and_starts_but_does_not_resume(
    run: Path, synth_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    best, slim = run / "checkpoints/best.ckpt", tmp_path / "slim.ckpt"
    assert main(["export", str(best), str(slim)]) == 0
    assert slim.stat().st_size < 0.4 * best.stat().st_size
    words = [f"--config={run / 'config.yaml'}", f"--data.root={synth_root}"]
    for subcommand in ("validate", "predict"):
        where = [f"--run={tmp_path / subcommand}", f"--ckpt_path={slim}"]
        assert main([subcommand, *words, *where]) == 0
    assert main(["fit", *words, f"--run={tmp_path / 'new'}", f"--init_from={slim}"]) == 0
    capsys.readouterr()
    assert main(["fit", *words, f"--run={tmp_path / 'resumed'}", f"--ckpt_path={slim}"]) == 2
    assert f"{slim}: holds weights only" in capsys.readouterr().err
    assert not (tmp_path / "resumed").exists()
    assert main(["export", str(best), str(slim)]) == 2


@pytest.mark.slow
def test_with_onnx(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "model"
    assert main(["export", str(run), str(out), "--onnx", "--data", "d", "--license", "mit"]) == 0
    assert "model.onnx: predictions differ by at most" in capsys.readouterr().out
    assert {path.name for path in out.iterdir()} == {
        *("README.md", "config.json", "model.onnx", "model.safetensors")
    }
    assert main(["export", str(run), str(tmp_path / "slim.ckpt"), "--onnx"]) == 2
    assert "leave out --onnx" in capsys.readouterr().err


def test_a_damaged_checkpoint_is_not_exported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "best.ckpt").write_bytes(b"nothing")
    assert main(["export", str(tmp_path / "best.ckpt"), str(tmp_path / "out")]) == 1
    assert "damaged" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
