"""Masks as a run makes them: those of the loader, and of a whole training."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lightning.pytorch import Trainer

from abaw.batch import Batch
from abaw.data.frames import RawFolder
from abaw.data.index import Index, build_index
from abaw.data.layout import DataSource
from abaw.loading.datamodule import AffectDataModule, EvaluationSettings, LoadingSettings
from abaw.loading.loaders import LoaderFactory
from abaw.loading.masking import RandomFrameMasking
from abaw.loading.sampling import training_windows
from abaw.model.backbone import BackboneSettings
from abaw.model.temporal import TemporalSettings
from abaw.tasks import TASKS
from abaw.training.module import AffectModule
from tests.support.tiny_set import SIZE, labels_of, write_images, write_labels

ALL = TASKS
HALF = RandomFrameMasking(ratio=0.5)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three videos with gaps, the last of them for validation."""
    root = tmp_path_factory.mktemp("set")
    for video, split, n_frames in (("a", "train", 70), ("b", "train", 33), ("c", "val", 41)):
        write_images(root, video, n_frames, missing=range(10, 13))
        write_labels(root, video, split, ALL, labels_of(n_frames + 1))
    return root


@pytest.fixture(scope="module")
def index(root: Path) -> Index:
    return build_index(DataSource(root))


def masks(index: Index, epoch: int, world_size: int = 1, weights: Any = None) -> list[tuple[Any, ...]]:
    """Window and mask of every clip of an epoch, of all ranks together."""
    table = training_windows(index, ALL, length=16, stride=8)
    found = []
    for rank in range(world_size):
        feeding = LoaderFactory(index=index, source=RawFolder(index, SIZE), rank=rank, world_size=world_size)
        weights = None if weights is None else np.asarray(weights[: len(table)])
        settings = {"batch_size": 2, "epoch": epoch, "weights": weights, "masking": HALF}
        for batch in feeding.train_loader(table, ALL, **settings):
            rows = batch.visible.tolist()
            found += [(where, tuple(row)) for where, row in zip(batch.where, rows, strict=True)]
    return found


@pytest.mark.parametrize("world_size", [2, 3])
@pytest.mark.parametrize("epoch", [0, 1])
def test_are_the_same_for_any_number_of_ranks(index: Index, world_size: int, epoch: int) -> None:
    alone, together = masks(index, epoch), masks(index, epoch, world_size)
    assert len(alone) - len(together) < 2 * world_size  # but for the windows that fill no batch
    assert not Counter(together) - Counter(alone)


def test_differ_between_clips_epochs_and_slots(index: Index) -> None:
    first, second = (dict(masks(index, epoch)) for epoch in (0, 1))
    full = [mask for where, mask in first.items() if not {10, 11, 12} & set(where.frames)]
    assert len(set(full)) == len(full) > 3
    both = first.keys() & second.keys()
    assert len(both) > 3
    assert all(first[where] != second[where] for where in both)
    one_window = np.eye(1, 100, 3)[0]  # every slot of the epoch draws the same window, one without gaps
    drawn = masks(index, 0, weights=one_window)
    assert len({where for where, _ in drawn}) == 1
    assert len({mask for _, mask in drawn}) == len(drawn) > 3


class Recorder(AffectModule):
    """Notes what may be seen of every batch, and of what there is."""

    def __init__(self) -> None:
        backbone = BackboneSettings(
            name="vit_tiny_patch16_224",
            weights="none",
            image_size=32,
            overrides={"depth": 1, "embed_dim": 16, "num_heads": 2},
        )
        temporal = TemporalSettings(layers=1, heads=2, width=16, feedforward=16)
        super().__init__(tasks=["va", "expr", "au"], backbone=backbone, temporal=temporal, masking=HALF)
        self.shares: dict[str, list[float]] = {"train": [], "evaluation": []}

    def on_before_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        index = self.trainer.datamodule.index  # type: ignore[attr-defined]
        there = sum(int(index.visible(w.video)[w.frames].sum()) for w in batch.where if len(w))
        batch = super().on_before_batch_transfer(batch, dataloader_idx)
        stage = "train" if self.trainer.training else "evaluation"
        self.shares[stage].append(int(batch.visible.sum()) / max(there, 1))
        return batch


def test_hide_nothing_in_evaluation(root: Path, tmp_path: Path) -> None:
    data = AffectDataModule(
        root=str(root),
        window=16,
        batch_size=2,
        workers=0,
        loading=LoadingSettings(frame_size=SIZE),
        evaluation=EvaluationSettings(test_split="val"),
    )
    module = Recorder()
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=1,
        default_root_dir=tmp_path,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        use_distributed_sampler=False,
    )
    trainer.fit(module, data)
    assert module.shares["train"]
    assert all(share == pytest.approx(0.5, abs=0.05) for share in module.shares["train"])
    assert set(module.shares["evaluation"]) == {1.0}
    for stage in (trainer.validate, trainer.test, trainer.predict):
        module.shares["evaluation"].clear()
        stage(module, datamodule=data)
        assert set(module.shares["evaluation"]) == {1.0}
