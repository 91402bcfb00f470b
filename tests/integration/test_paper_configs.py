"""The configurations of the paper: their values one by one, and a few steps on images and on features."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from abaw.__main__ import main
from tests.support.project import PROJECT

PAPER = PROJECT / "configs" / "paper"
COMMON = {  # Min, Yang, Lim (2024)
    "data.window": 100,
    "data.windows.stride": 100,
    "data.windows.jitter": False,
    "data.loading.augmentation.p_brightness_contrast": 0.3,
    "data.loading.augmentation.brightness_contrast": 0.2,
    "data.loading.augmentation.p_flip": 0.5,
    "data.loading.augmentation.p_blur": 0.3,
    "data.loading.augmentation.blur": [3, 7],
    "data.loading.augmentation.p_sharpen": 0.3,
    "data.loading.augmentation.p_affine": 0.0,
    "data.loading.augmentation.p_boxes": 0.0,
    "data.loading.frame_size": 112,
    "model.backbone.name": "vit_base_patch16_224.orig_in21k",
    "model.backbone.weights": "hub",
    "model.backbone.image_size": 224,
    "model.backbone.frozen": "all",
    "model.temporal.layers": 6,
    "model.temporal.heads": 8,
    "model.temporal.width": 768,
    "model.temporal.feedforward": 2048,
    "model.temporal.dropout": 0.5,
    "model.temporal.positions": "sinusoidal",
    "model.temporal.norm": "post",
    "model.temporal.activation": "relu",
    "model.temporal.mask_token": "zero",
    "model.temporal.attend_masked": True,
    "model.heads.hidden": 768,
    "model.heads.dropout": 0.5,
    "model.masking.ratio": 0.5,
    "model.masking.span": 1,
    "model.masking.start_ratio": None,
    "model.optimizer.weight_decay": 0.01,
    "model.optimizer.warmup": 0.0,
    "model.optimizer.schedule": "constant",
    "trainer.gradient_clip_val": None,
}
FOCAL = {"model.loss.gamma": 2.0, "model.loss.alpha": 0.25}
OWN = {
    "va": {"data.batch_size": 512, "model.optimizer.lr": 1e-4, "model.loss.va": "ccc"},
    "expr": FOCAL
    | {"data.batch_size": 512, "model.optimizer.lr": 1e-4, "model.loss.expr": "focal"}
    | {"model.loss.expr_weights": "complement"},
    "au": FOCAL
    | {"data.batch_size": 268, "model.optimizer.lr": 5e-5, "model.loss.au": "focal"}
    | {"model.loss.au_weights": "complement"},
}


def value(config: Any, name: str) -> Any:
    for key in name.split("."):
        config = config[key]
    return config


@pytest.mark.parametrize("task", OWN)
def test_says_what_the_paper_says(task: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", f"--config={PAPER / task}.yaml", "--data.root=anywhere", "--print_config"]) == 0
    printed = yaml.safe_load(capsys.readouterr().out)
    wanted = COMMON | OWN[task] | {"data.tasks": [task]}
    assert {name: value(printed, name) for name in wanted} == wanted
    (stopping,) = printed["trainer"]["callbacks"]
    assert stopping["class_path"].endswith("EarlyStopping")
    assert (stopping["init_args"]["monitor"], stopping["init_args"]["mode"]) == ("val/score", "max")


@pytest.mark.parametrize(
    "task", [task if task == "va" else pytest.param(task, marks=pytest.mark.slow) for task in OWN]
)
@pytest.mark.parametrize("cached", [False, True], ids=["images", "features"])
def test_trains(task: str, cached: bool, synth_root: Path, tmp_path: Path) -> None:
    small = {
        "--data.root": synth_root,
        "--data.workers": 0,
        "--data.batch_size": 2,
        "--model.backbone.weights": "none",
        "--model.backbone.image_size": 32,
        "--model.backbone.overrides": "{depth: 1}",
        "--trainer.enable_checkpointing": "false",
        "--trainer.accelerator": "cpu",
    }
    words = [f"--config={PAPER / task}.yaml", *(f"{name}={given}" for name, given in small.items())]
    if cached:
        words.append(f"--data.features=[{tmp_path / 'features'}]")
        assert main(["extract", *words, "--data.evaluation.predict_split=all"]) == 0
    assert main(["fit", *words, f"--run={tmp_path / 'run'}", "--trainer.max_steps=3"]) == 0
    scores = json.loads((tmp_path / "run" / "scores.json").read_text())
    assert scores[task]["score"] == pytest.approx(scores["total"])
