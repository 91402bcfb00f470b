"""The moving average of the weights: the formula, what is left alone, and a run that goes on."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader

from abaw.training.callbacks import EMA
from benchmarks.network import QUIET

DECAY = 0.7


class Net(LightningModule):
    """A trained layer, a frozen one, and a norm with statistics."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.trained, self.frozen, self.norm = nn.Linear(3, 3), nn.Linear(3, 3), nn.BatchNorm1d(3)
        self.frozen.requires_grad_(False)

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        return self.norm(self.frozen(self.trained(batch))).square().mean() + self.trained(batch).mean()

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD([p for p in self.parameters() if p.requires_grad], lr=0.1)


class Weights(Callback):
    """Notes the weights after every step."""

    def __init__(self) -> None:
        self.after: dict[int, Tensor] = {}

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *args: Any) -> None:
        if trainer.global_step:
            self.after[trainer.global_step] = pl_module.trained.weight.detach().clone()


class Save(Callback):
    def on_train_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        trainer.save_checkpoint(Path(trainer.default_root_dir) / f"epoch{trainer.current_epoch}.ckpt")


def train(
    folder: Path, epochs: int, accumulate: int = 1, ckpt_path: Path | None = None
) -> tuple[Net, Weights]:
    """Six batches an epoch."""
    net, weights = Net(), Weights()
    data = torch.randn(24, 3, generator=torch.Generator().manual_seed(1))
    Trainer(
        max_epochs=epochs,
        accumulate_grad_batches=accumulate,
        default_root_dir=folder,
        callbacks=[weights, EMA(DECAY), Save()],
        **QUIET,
    ).fit(net, DataLoader(data, batch_size=4), ckpt_path=ckpt_path, weights_only=True)
    return net, weights


@pytest.mark.parametrize("accumulate", [1, 2])
def test_the_average_follows_the_formula(tmp_path: Path, accumulate: int) -> None:
    net, weights = train(tmp_path, 1, accumulate)
    average = weights.after.pop(1)
    assert list(weights.after) == list(range(2, 6 // accumulate + 1))
    for weight in weights.after.values():
        average = DECAY * average + (1 - DECAY) * weight
    torch.testing.assert_close(net.trained.weight.detach(), average)


def test_frozen_weights_stay_to_the_bit_and_statistics_are_the_newest(tmp_path: Path) -> None:
    net, _ = train(tmp_path, 1)
    assert torch.equal(net.frozen.weight, Net().frozen.weight)
    assert int(net.norm.num_batches_tracked) == 6
    assert net.norm.running_var is not None
    assert not torch.equal(net.norm.running_var, torch.ones(3))


def test_a_run_that_goes_on_averages_on(tmp_path: Path) -> None:
    whole, _ = train(tmp_path / "whole", 2)
    train(tmp_path / "parts", 1)
    resumed, _ = train(tmp_path / "parts", 2, ckpt_path=tmp_path / "parts" / "epoch0.ckpt")
    torch.testing.assert_close(resumed.trained.weight, whole.trained.weight)
