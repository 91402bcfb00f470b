"""Faults met in published code of this kind: each test is named after one and fails where it is made."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch import Trainer
from torch import Tensor

from abaw.__main__ import main
from abaw.batch import Batch
from abaw.data.formats.features import open_features
from abaw.data.frames import RawFolder
from abaw.data.index import build_index
from abaw.data.layout import DataSource
from abaw.loading.datamodule import AffectDataModule, LoadingSettings, WindowSettings
from abaw.loading.masking import RandomFrameMasking
from abaw.model.backbone import Backbone, BackboneSettings
from abaw.model.heads import HeadSettings
from abaw.model.network import Network
from abaw.model.temporal import TemporalSettings
from abaw.tasks import AU, EXPR, TASKS, VA, Task
from abaw.training.extraction import Extractor, FeatureWriter
from abaw.training.losses import LossSettings, TaskLosses
from abaw.training.module import AffectModule, OptimizerSettings
from tests.support.clips import images_of, masked, random_batch, relabelled, touched
from tests.support.project import PROJECT
from tests.support.tiny_run import tiny_config
from tests.support.tiny_set import SIZE, brightness, labels_of, write_images, write_labels, write_tiny_set

PLAIN = LossSettings(expr="ce", au="bce", expr_weights="none", au_weights="none")
TEMPORAL = TemporalSettings(layers=1, heads=2, width=16, feedforward=16, dropout=0.0)
QUIET: dict[str, Any] = {
    "accelerator": "cpu",
    "logger": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}


def network(dim: int = 12) -> Network:
    torch.manual_seed(0)
    return Network(
        tasks=TASKS, backbone=None, temporal=TEMPORAL, heads=HeadSettings(), dim=dim, pretrained=False
    ).eval()


def loss_of(outputs: dict[Task, Tensor], batch: Batch, settings: LossSettings = PLAIN) -> dict[Task, Tensor]:
    return TaskLosses(settings, TASKS).eval()(outputs, batch)[1]


def some_outputs(b: int = 2, t: int = 6) -> dict[Task, Tensor]:
    g = torch.Generator().manual_seed(7)
    return {task: torch.randn(b, t, task.size, generator=g).requires_grad_() for task in TASKS}


def training_clips(root: Path, **settings: Any) -> tuple[AffectDataModule, list[Batch]]:
    """All training clips of a data set, unmoved and unchanged, and what made them."""
    options = {"window": 8, "batch_size": 1, "workers": 0, "windows": WindowSettings(jitter=False)}
    options |= {"loading": LoadingSettings(frame_size=SIZE, augmentation=None)}
    data = AffectDataModule(root=str(root), **options | settings)
    data.prepare_data()
    data.setup("fit")
    return data, list(data.train_dataloader())


# -- losses and outputs


def test_cross_entropy_on_already_softmaxed_outputs() -> None:
    batch, outputs = random_batch(), network()(random_batch(dim=12))
    right = 30 * F.one_hot(batch.labels[EXPR].values, 8).float()
    assert loss_of({**outputs, EXPR: right}, batch)[EXPR] < 1e-6  # a second softmax ends at 1.27
    assert (outputs[EXPR] < 0).any()  # the network itself gives no probabilities


@pytest.mark.parametrize("kind", ["focal", "bce"])
def test_action_units_trained_by_a_softmax_across_them(kind: Any) -> None:
    batch = random_batch()
    batch = relabelled(batch, AU, values=torch.ones_like(batch.labels[AU].values))
    everything = torch.full((2, 6, 12), 30.0)  # a softmax gives each at most a twelfth
    loss = loss_of({**some_outputs(), AU: everything}, batch, replace(PLAIN, au=kind))
    assert loss[AU] < 1e-6
    assert network().predictions({AU: everything})[AU].min() > 0.99


def test_a_softmax_over_the_time_axis() -> None:
    batch, outputs = random_batch(), some_outputs()
    meant = network().predictions(outputs)
    for k in range(6):  # a frame's meaning is its own
        alone = network().predictions({task: values[:, k : k + 1] for task, values in outputs.items()})
        for task in TASKS:
            torch.testing.assert_close(alone[task][:, 0], meant[task][:, k])
    torch.testing.assert_close(meant[EXPR].sum(-1), torch.ones(2, 6))
    loss = loss_of(outputs, batch)
    raised = outputs[EXPR] + torch.arange(6.0)[:, None]  # the same number for all classes of a frame
    torch.testing.assert_close(loss_of({**outputs, EXPR: raised}, batch)[EXPR], loss[EXPR])


def test_a_sigmoid_applied_twice() -> None:
    logits = torch.full((1, 1, 12), -30.0)
    assert network().predictions({AU: logits})[AU].max() < 1e-6  # twice: never below one half
    batch = random_batch(1, 1)
    batch = relabelled(batch, AU, values=torch.zeros_like(batch.labels[AU].values))
    assert loss_of({**some_outputs(1, 1), AU: logits}, batch)[AU] < 1e-6
    wide, net = random_batch(dim=12), network()
    with torch.no_grad():
        net.heads.heads["au"][-1].weight.mul_(100)
    assert net(wide)[AU].abs().max() > 1  # no sigmoid in the network either


def test_only_the_last_frame_of_a_window_supervised() -> None:
    outputs = some_outputs()
    sum(loss_of(outputs, random_batch()).values()).backward()  # type: ignore[union-attr]
    for task, values in outputs.items():
        assert values.grad is not None
        assert touched(values.grad.abs().sum(-1)).all(), task


# -- masking


def test_a_mask_that_zeroes_feature_elements() -> None:
    batch = random_batch(2, 8, dim=12)
    visible = RandomFrameMasking(0.5)(batch.visible, torch.rand(2, 8))
    assert visible.shape == (2, 8)
    assert visible.sum(1).tolist() == [4, 4]
    assert batch.features is not None
    features = batch.features.clone().requires_grad_()
    outputs = network()(masked(replace(batch, features=features), visible))
    torch.cat([*outputs.values()], -1).square().sum().backward()
    assert features.grad is not None
    used = touched(features.grad)
    assert not used[~visible].any()  # a hidden frame is hidden whole,
    assert used[visible].all()  # and a visible one is seen whole


def test_one_mask_for_the_whole_batch(synth_root: Path) -> None:
    _, batches = training_clips(synth_root, batch_size=4, loading=LoadingSettings(augmentation=None))
    assert len(batches[0].visible.unique(dim=0)) > 1


# -- labels and frames


@pytest.fixture
def numbered(tmp_path: Path) -> Path:
    """One video whose pixels and labels say which frame they are of; images 4 to 6 and 11 are missing."""
    write_images(tmp_path, "video", 20)
    for number in (4, 5, 6, 11):
        (tmp_path / f"cropped_aligned/video/{number:05d}.jpg").unlink()
    write_labels(tmp_path, "video", "train", TASKS, labels_of(21, unlabelled=[7, 8]))
    return tmp_path


def frames_of(batch: Batch) -> Iterator[tuple[int, int]]:
    """The place in the clip, and the frame of the video, of all that is no padding; for B = 1."""
    return ((k, frame) for k, frame in enumerate(batch.where[0].frames) if batch.present[0, k])


def test_labels_shifted_by_one_frame(numbered: Path) -> None:
    path = numbered / "VA_Estimation_Challenge/Train_Set/video.txt"
    rows = path.read_text().split()  # written by hand, so that no writer can shift back what a reader shifts
    assert rows[0] == "valence,arousal"
    assert [float(value) for value in rows[1 + 13].split(",")] == [0.13, -0.13]
    _, batches = training_clips(numbered)
    assert {frame for batch in batches for _, frame in frames_of(batch)} == set(range(20))
    for batch in batches:
        images = images_of(batch)
        for k, frame in frames_of(batch):
            if batch.visible[0, k]:
                pixel = images[0, k].float().mean().item()
                assert pixel == pytest.approx(brightness(frame), abs=1)
            if batch.labels[VA].valid[0, k]:
                assert batch.labels[VA].values[0, k].tolist() == pytest.approx([frame / 100, -frame / 100])
                assert batch.labels[EXPR].values[0, k] == frame % 8


def test_gaps_silently_bridged(numbered: Path) -> None:
    data, batches = training_clips(numbered)
    assert data.n_frames(0) == 20
    missing = {3, 4, 5, 10}
    assert any(missing & set(batch.where[0].frames) for batch in batches)
    for batch in batches:
        images = images_of(batch)
        for k, frame in frames_of(batch):
            assert batch.visible[0, k] == (frame not in missing)
            assert (images[0, k] == 0).all() == (frame in missing)
            assert batch.labels[VA].valid[0, k] == (
                frame not in (7, 8)
            )  # a missing image has its label still


def test_a_whole_window_thrown_away_for_one_unlabelled_row(numbered: Path) -> None:
    _, batches = training_clips(numbered)
    holding = [batch for batch in batches if {7, 8} & set(batch.where[0].frames)]
    assert holding
    assert all(batch.labels[EXPR].valid.any() for batch in holding)
    batch, outputs = random_batch(), some_outputs()
    valid = batch.labels[EXPR].valid.clone()
    valid[0, 2] = False
    loss_of(outputs, relabelled(batch, EXPR, valid=valid))[EXPR].backward()
    assert outputs[EXPR].grad is not None
    assert torch.equal(touched(outputs[EXPR].grad).any(-1), valid)


def test_validation_on_surviving_windows_only(tmp_path: Path) -> None:
    root = write_tiny_set(tmp_path)  # c_val misses two crops, d_val is shorter than a window
    data = AffectDataModule(
        root=str(root), window=8, batch_size=2, workers=0, loading=LoadingSettings(frame_size=SIZE)
    )
    tiny = BackboneSettings(
        name="vit_tiny_patch16_224",
        weights="none",
        image_size=SIZE,
        overrides={"embed_dim": 16, "depth": 1, "num_heads": 2},
    )
    module = AffectModule(tasks=["va", "expr", "au"], backbone=tiny, temporal=TEMPORAL)
    Trainer(**QUIET, use_distributed_sampler=False).validate(module, data, verbose=False)
    assert module.scores["va"]["frames"] == 22 + 6  # all rows, the last of which has no image
    assert module.scores["expr"]["frames"] == 22


# -- the run


def test_optimizer_settings_silently_ignored(
    synth_root: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    module = AffectModule(
        tasks=["va"],
        backbone=None,
        dim=12,
        temporal=TEMPORAL,
        optimizer=OptimizerSettings(lr=0.125, weight_decay=0.25, betas=(0.5, 0.75), warmup=0.0),
    )
    module.trainer = SimpleNamespace(estimated_stepping_batches=10)  # type: ignore[assignment]
    optimizer = module.configure_optimizers()["optimizer"]  # type: ignore[index,call-overload]
    assert isinstance(optimizer, torch.optim.AdamW)
    assert {group["lr"] for group in optimizer.param_groups} == {0.125}
    assert {group["betas"] for group in optimizer.param_groups} == {(0.5, 0.75)}
    for group in optimizer.param_groups:
        assert {p.ndim >= 2 for p in group["params"]} == {group["weight_decay"] == 0.25}
    held = {p for group in optimizer.param_groups for p in group["params"]}
    assert held == set(module.parameters())
    words = ["fit", f"--config={PROJECT / 'configs/demo.yaml'}", f"--data.root={synth_root}"]
    assert main([*words, f"--run={tmp_path / 'run'}", "--model.optimizer.name=sgd"]) == 2
    assert "model.optimizer.name" in capfd.readouterr().err


def test_no_checkpoint_saved(synth_root: Path, tmp_path: Path) -> None:
    words = ["fit", *tiny_config(tmp_path, trainer={"limit_train_batches": 1})]
    assert main([*words, f"--data.root={synth_root}", f"--run={tmp_path / 'run'}"]) == 0
    for name in ("best", "last"):
        saved = torch.load(tmp_path / f"run/checkpoints/{name}.ckpt", weights_only=True)
        assert any(key.startswith("network.") for key in saved["state_dict"])


def test_features_extracted_one_image_at_a_time_into_one_file_per_frame(tmp_path: Path) -> None:
    class Counting(Backbone):
        def forward(self, frames: Tensor) -> Tensor:
            shown.append(len(frames))
            return super().forward(frames)

    shown: list[int] = []
    rng = np.random.default_rng(0)
    for video, n_frames in (("one", 11), ("two", 5)):
        folder = tmp_path / "faces/cropped_aligned" / video
        folder.mkdir(parents=True)
        for number in range(1, n_frames + 1):
            cv2.imwrite(str(folder / f"{number:05d}.jpg"), rng.integers(0, 255, (112, 112, 3), np.uint8))
    index = build_index(DataSource(tmp_path / "faces"))
    settings = BackboneSettings(name="test_vit", weights="none", image_size=32, chunk=8, frozen="all")
    extractor = Extractor(
        Counting(settings).eval(), index=index, frames=RawFolder(index), folder=tmp_path / "features"
    )
    trainer = Trainer(**QUIET, callbacks=[FeatureWriter()], use_distributed_sampler=False)
    trainer.predict(extractor, return_predictions=False)
    assert shown == [8, 3, 5]
    files = sorted((tmp_path / "features").glob("*.safetensors"))
    assert [len(open_features(path).visible) for path in files] == [11, 5]
