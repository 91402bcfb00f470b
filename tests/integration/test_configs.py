"""Every shipped configuration is parsed and built: the whole ones alone, overlays on top of the demo."""

from functools import reduce
from pathlib import Path
from typing import Any

import pytest
import yaml
from lightning.pytorch import Trainer

from abaw.__main__ import main
from abaw.cli.trainer_commands import AbawCLI
from abaw.training.module import AffectModule
from tests.support.project import PROJECT

CONFIGS = sorted((PROJECT / "configs").rglob("*.yaml"))
OVERLAYS = {"wandb", "tensorboard", "ddp", "slurm"}
DEMO = next(path for path in CONFIGS if path.stem == "demo")

FINE_TUNING = {  # a whole ViT-B: what its recipe stands on
    "model.backbone.name": "vit_base_patch16_224.augreg_in21k",
    "model.backbone.image_size": 224,
    "model.backbone.drop_path": 0.1,
    "model.optimizer.lr": 1e-4,
    "model.optimizer.layer_decay": 0.75,
    "model.optimizer.weight_decay": 0.05,
    "model.optimizer.warmup": 0.05,
    "trainer.max_epochs": 20,
    "trainer.gradient_clip_val": 1.0,
    "trainer.callbacks": {
        "EMA": {"decay": 0.999},
        "EarlyStopping": {
            "monitor": "val/score",
            "mode": "max",
            "patience": 5,
            "check_on_train_epoch_end": False,
        },
    },
}
CLIPS = {"data.window": 64, "data.batch_size": 4, "model.masking": {"ratio": 0.5}}
RECIPES: dict[str, dict[str, Any]] = {
    "va": FINE_TUNING | CLIPS,
    "expr": FINE_TUNING | CLIPS,
    "au": FINE_TUNING | CLIPS | {"model.optimizer.lr": 5e-5},
    "mtl": FINE_TUNING | CLIPS,
    "mtl_static": FINE_TUNING | {"data.window": 1, "data.batch_size": 128, "model.masking": None},
    "features": {
        "model.backbone.frozen": "all",
        "model.optimizer.lr": 1e-3,
        "model.optimizer.weight_decay": 0.05,
        "model.optimizer.warmup": 0.05,
        "model.masking": {"ratio": 0.5},
        "trainer.gradient_clip_val": 1.0,
    },
    "demo": {
        "model.masking": {"ratio": 0.75},
        "model.optimizer.lr": 1e-3,
        "model.optimizer.warmup": 0.1,
        "trainer.gradient_clip_val": 1.0,
        "trainer.callbacks": {"EMA": {"decay": 0.98}},
    },
}


@pytest.mark.parametrize("name", RECIPES)
def test_the_recipe_is_the_one_that_was_measured(name: str) -> None:
    said = yaml.safe_load((DEMO.parent / f"{name}.yaml").read_text())
    said["trainer"]["callbacks"] = {
        given["class_path"].rsplit(".", 1)[1]: given["init_args"]
        for given in said["trainer"].get("callbacks", [])
    }

    def value(name: str) -> Any:
        return reduce(lambda part, key: part.get(key, "not there"), name.split("."), said)

    assert {name: value(name) for name in RECIPES[name]} == RECIPES[name]


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
    if "vit_base" in path.read_text():  # all of its layers take seconds to fill with random numbers
        options["--model.backbone.overrides"] = "{depth: 1}"
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
    if "gradient_clip_val" in said["trainer"]:
        assert trainer.gradient_clip_val == said["trainer"]["gradient_clip_val"]
    for given in said["trainer"].get("callbacks", []):  # what the file asks for is there, beside our own
        name = given["class_path"].rsplit(".", 1)[1]
        (callback,) = [callback for callback in trainer.callbacks if type(callback).__name__ == name]
        for key, value in given.get("init_args", {}).items():
            assert getattr(callback, key, getattr(callback, f"_{key}", None)) == value


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
