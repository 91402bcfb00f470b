"""What a training does at every step: the learning rate, the frames it hides, what dropout draws."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer

from abaw.batch import Batch
from abaw.loading.datamodule import AffectDataModule, LoadingSettings, WindowSettings
from abaw.loading.masking import RandomFrameMasking
from abaw.model.backbone import BackboneSettings
from abaw.model.temporal import TemporalSettings
from abaw.tasks import TASKS
from abaw.training.module import AffectModule, OptimizerSettings
from tests.support.tiny_set import SIZE, labels_of, write_images, write_labels

BACKBONE = BackboneSettings(
    name="vit_tiny_patch16_224",
    weights="none",
    image_size=32,
    overrides={"depth": 1, "embed_dim": 16, "num_heads": 2},
)
TEMPORAL = TemporalSettings(layers=1, heads=2, width=16, feedforward=16)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video to train on and one to validate on, with an image for every frame."""
    root = tmp_path_factory.mktemp("set")
    for video, split, n_frames in (("a", "train", 160), ("b", "val", 20)):
        write_images(root, video, n_frames)
        write_labels(root, video, split, TASKS, labels_of(n_frames + 1))
    return root


class Module(AffectModule):
    """Notes the numbers that every training step would draw."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(tasks=["va"], backbone=BACKBONE, temporal=TEMPORAL, **settings)
        self.drawn: list[float] = []

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        with torch.random.fork_rng():
            self.drawn.append(torch.rand(()).item())
        return super().training_step(batch, batch_idx)


class Watch(Callback):
    """Notes the learning rates of every optimizer step and the share of frames hidden in every batch."""

    def __init__(self) -> None:
        self.rates: list[set[float]] = []
        self.hidden: list[float] = []

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: Any, optimizer: Any) -> None:
        self.rates.append({group["lr"] for group in optimizer.param_groups})

    def on_train_batch_start(self, trainer: Trainer, pl_module: Any, batch: Batch, batch_idx: int) -> None:
        self.hidden.append(1 - batch.visible.sum().item() / batch.present.sum().item())


def train(root: Path, module: AffectModule, **settings: Any) -> Watch:
    watch = Watch()
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=2,
        callbacks=[watch],
        limit_val_batches=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        **settings,
    )
    data = AffectDataModule(
        root=str(root),
        tasks=["va"],
        window=8,
        batch_size=2,
        workers=0,
        windows=WindowSettings(stride=8),
        loading=LoadingSettings(frame_size=SIZE),
    )
    trainer.fit(module, data)
    return watch


@pytest.mark.parametrize("schedule", ["cosine", "constant"])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_the_learning_rate_follows_the_schedule_at_every_optimizer_step(
    schedule: Any, accumulate: int, root: Path
) -> None:
    optimizer = OptimizerSettings(lr=0.01, warmup=0.4, schedule=schedule, final_lr=0.1)
    batches = 5 * accumulate
    watch = train(
        root,
        Module(optimizer=optimizer),
        limit_train_batches=batches,
        accumulate_grad_batches=accumulate,
    )
    rise = [0.25, 0.5, 0.75, 1.0]  # in 4 of the 10 steps of both epochs
    rest = [
        0.1 + 0.9 * (1 + math.cos(math.pi * k / 6)) / 2 if schedule == "cosine" else 1.0 for k in range(6)
    ]
    assert all(len(rates) == 1 for rates in watch.rates)
    assert [100 * rates.pop() for rates in watch.rates] == pytest.approx(rise + rest)


def test_the_hidden_share_rises_with_every_optimizer_step(root: Path) -> None:
    masking = RandomFrameMasking(ratio=0.75, start_ratio=0.0, ramp_steps=6)
    watch = train(root, Module(masking=masking), limit_train_batches=4)
    assert watch.hidden == [k / 8 for k in (0, 1, 2, 3, 4, 5, 6, 6)]
    watch = train(root, Module(masking=masking), limit_train_batches=5, accumulate_grad_batches=2)
    assert watch.hidden == [k / 8 for k in (0, 0, 1, 1, 2, 3, 3, 4, 4, 5)]  # the last batch is a step alone


def test_dropout_differs_between_steps_and_ranks_and_not_between_runs(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One process plays both ranks in turn; the loaders of each have half of the batches."""
    monkeypatch.setattr(Trainer, "world_size", property(lambda trainer: 2))
    drawn: dict[int, list[float]] = {}
    for rank in (0, 1, 0):
        monkeypatch.setattr(Trainer, "global_rank", property(lambda trainer, rank=rank: rank))
        train(root, module := Module(), limit_train_batches=2)
        assert drawn.setdefault(rank, module.drawn) == module.drawn
    everything = drawn[0] + drawn[1]
    assert len(set(everything)) == len(everything) == 8
