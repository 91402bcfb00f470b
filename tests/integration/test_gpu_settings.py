"""What only a GPU chooses, taken on the CPU: its fused optimizer, its precision and clipping."""

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.plugins import MixedPrecision
from torch import Tensor
from torch.utils.data import DataLoader

from abaw.__main__ import main
from abaw.training.module import AffectModule
from tests.support.project import PROJECT
from tests.support.tiny_set import SIZE, write_tiny_mtl_set

CONFIGS = PROJECT / "configs"
TRAINS = sorted(
    str(path.relative_to(CONFIGS).with_suffix(""))
    for path in CONFIGS.rglob("*.yaml")
    if "data" in yaml.safe_load(path.read_text())  # an overlay has none
)
SMALL = {
    "data.workers": 0,
    "data.batch_size": 2,
    "data.window": 4,
    "data.windows.stride": 4,
    "data.windows.step": 1,
    "model.backbone.name": "vit_tiny_patch16_224",
    "model.backbone.weights": "none",
    "model.backbone.image_size": 32,
    "model.backbone.overrides": "{embed_dim: 32, depth: 1, num_heads: 2}",
    "model.temporal.layers": 1,
    "model.temporal.width": 32,
    "model.temporal.heads": 2,
    "trainer.accelerator": "cpu",
    "trainer.devices": 1,
    "trainer.max_steps": 1,
    "trainer.limit_val_batches": 0,
    "trainer.num_sanity_val_steps": 0,
}
SCALED = (  # a CPU refuses 16-mixed by name
    '{"class_path": "lightning.pytorch.plugins.MixedPrecision",'
    ' "init_args": {"precision": "16-mixed", "device": "cpu"}}'
)


@pytest.fixture
def optimizers(monkeypatch: pytest.MonkeyPatch) -> list[torch.optim.Optimizer]:
    """Makes every AdamW fused, as on a GPU, and collects those made."""
    made: list[torch.optim.Optimizer] = []
    plain = torch.optim.AdamW

    def fused(*args: Any, **kwargs: Any) -> torch.optim.Optimizer:
        made.append(plain(*args, **kwargs | {"fused": True}))
        return made[-1]

    monkeypatch.setattr(torch.optim, "AdamW", fused)
    return made


@pytest.mark.parametrize(
    ("config", "precision"),
    [*((name, "bf16-mixed") for name in TRAINS), ("demo", "16-mixed"), ("paper/va", "16-mixed")],
)
def test_every_configuration_takes_a_step(
    config: str,
    precision: str,
    optimizers: list[torch.optim.Optimizer],
    synth_root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = CONFIGS / f"{config}.yaml"
    said = yaml.safe_load(path.read_text())
    static = said["data"].get("source") == {"label_set": "mtl"}
    root = write_tiny_mtl_set(tmp_path / "mtl") if static else synth_root
    options = SMALL | {"data.root": root, "run": tmp_path / "run"}
    if static:
        options["data.loading.frame_size"] = SIZE
        for name in ("data.window", "data.windows.stride", "model.temporal.layers", "model.temporal.width"):
            del options[name]
    scaled = {"trainer.plugins": SCALED, "trainer.precision": "auto"}  # the plugin decides
    options |= scaled if precision == "16-mixed" else {"trainer.precision": precision}
    words = [f"--config={path}", *(f"--{name}={value}" for name, value in options.items())]
    if said["data"].get("features"):
        words.append(f"--data.features=[{tmp_path / 'features'}]")
        assert (
            main(["extract", *words, "--trainer.precision=32-true", "--data.evaluation.predict_split=all"])
            == 0
        )
    losses: list[Tensor] = []
    step = AffectModule.training_step

    def noted(module: AffectModule, *args: Any) -> Any:
        result = step(module, *args)
        losses.append(result["loss"].detach())
        return result

    monkeypatch.setattr(AffectModule, "training_step", noted)
    assert main(["fit", *words]) == 0
    (optimizer,) = optimizers
    assert optimizer.defaults["fused"]
    assert len(losses) == 1
    assert math.isfinite(losses[0])


class Line(LightningModule):
    """One weight per input, learnt with a fused optimizer."""

    def __init__(self, *, offers_unscaling: bool, fused: bool = True) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(4, 1)
        self.offers_unscaling = offers_unscaling
        self.fused = fused

    def training_step(self, batch: Tensor) -> Tensor:
        return self.layer(batch).square().mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        optimizer = torch.optim.AdamW(self.parameters(), lr=0.1, eps=1.0, fused=self.fused)
        if not self.offers_unscaling:
            optimizer._step_supports_amp_scaling = False  # type: ignore[attr-defined]
        return optimizer


def fit(module: Line, precision: str, tmp_path: Path) -> dict[str, Tensor]:
    quiet = {"enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = Trainer(
        accelerator="cpu",
        plugins=[MixedPrecision(precision, "cpu")],  # type: ignore[arg-type]
        max_steps=3,
        gradient_clip_val=0.01,
        logger=False,
        default_root_dir=tmp_path,
        **quiet,  # type: ignore[arg-type]
    )
    data = torch.linspace(-1, 1, 24).reshape(6, 4)
    trainer.fit(module, DataLoader(data, batch_size=2))  # type: ignore[arg-type]
    return module.state_dict()


def test_lightning_still_refuses_to_clip_a_fused_optimizer(tmp_path: Path) -> None:
    """When this fails, `AffectModule.configure_optimizers` no longer needs to withdraw the offer."""
    with pytest.raises((MisconfigurationException, RuntimeError), match="gradient clipping"):
        fit(Line(offers_unscaling=True), "bf16-mixed", tmp_path)


@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed"])
def test_a_fused_optimizer_is_clipped_like_any_other(precision: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    plain = Line(offers_unscaling=False, fused=False)
    fused = copy.deepcopy(plain)
    fused.fused = True
    start = copy.deepcopy(plain.state_dict())
    ends = [fit(module, precision, tmp_path) for module in (plain, fused)]
    assert not torch.equal(ends[0]["layer.weight"], start["layer.weight"])
    torch.testing.assert_close(ends[0], ends[1])
