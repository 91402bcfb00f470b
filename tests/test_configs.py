"""Every shipped configuration is parsed and built: the whole ones alone, overlays on top of the demo."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from lightning.pytorch import Trainer

from abaw.__main__ import main
from abaw.cli import AbawCLI
from abaw.module import AffectModule

CONFIGS = sorted((Path(__file__).parents[1] / "configs").rglob("*.yaml"))
OVERLAYS = {"wandb", "ddp", "slurm"}
DEMO = next(path for path in CONFIGS if path.stem == "demo")


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_is_parsed_and_built(
    path: Path, synth_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built: list[tuple[Any, Trainer]] = []
    monkeypatch.setattr(AbawCLI, "_run_subcommand", lambda cli, _: built.append((cli.model, cli.trainer)))
    configs = [DEMO, path] if path.stem in OVERLAYS else [path]
    options = {
        "--run": tmp_path / "run",
        "--data.root": synth_root,
        "--model.backbone.weights": "none",
        "--model.backbone.image_size": 64,
        "--trainer.accelerator": "cpu",
    }
    words = [f"--config={config}" for config in configs] + [
        f"{key}={value}" for key, value in options.items()
    ]
    assert main(["fit", *words]) == 0
    ((model, trainer),) = built
    assert isinstance(model, AffectModule)
    said = yaml.safe_load(configs[-1].read_text())
    wanted = said.get("data", {}).get("tasks", ["va", "expr", "au"])
    assert [str(task) for task in model.tasks] == wanted
    assert trainer.default_root_dir == str(tmp_path / "run")
    for given in said["trainer"].get("callbacks", []):  # what the file asks for is there, beside our own
        name = given["class_path"].rsplit(".", 1)[1]
        assert any(type(callback).__name__ == name for callback in trainer.callbacks)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_is_short_flat_and_says_what_for(path: Path) -> None:
    lines = path.read_text().splitlines()
    assert lines[0].startswith("# ")
    assert len(lines) <= 40
    assert all(len(line) <= 110 for line in lines)
    said = yaml.safe_load(path.read_text())
    if path.stem in OVERLAYS:
        assert "callbacks" not in said["trainer"], "a list would replace the other file's: use callbacks+"
    if path != DEMO:
        assert "root" not in said.get("data", {}), "paths are the user's"
