"""Training on cached features is training on images: same losses, same scores, in a fraction of the time."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from lightning.pytorch import Callback, Trainer
from safetensors.numpy import load_file, save_file
from torch import Tensor

from abaw.__main__ import main
from abaw.loading.datamodule import AffectDataModule, LoadingSettings
from abaw.model.backbone import Backbone, BackboneSettings
from abaw.model.temporal import TemporalSettings
from abaw.training.module import AffectModule
from benchmarks.network import QUIET
from tests.support.feature_run import BACKBONE, words


@pytest.fixture(scope="module")
def cache(synth_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Features of the generated data, by the command."""
    folder = tmp_path_factory.mktemp("features") / "tiny"
    run = tmp_path_factory.mktemp("runs") / "extract"
    assert main(words("extract", synth_root, folder, f"--run={run}")) == 0
    assert not run.exists()
    return folder


def scores(run: Path, *more: str) -> dict[str, Any]:
    assert main(["validate", f"--run={run}", *more]) == 0
    found: dict[str, Any] = json.loads((run / "scores-val.json").read_text())
    return found


def tracks(run: Path, *more: str) -> dict[str, np.ndarray]:
    assert main(["predict", f"--run={run}", *more]) == 0
    columns = ["frame", "seen"]
    return {
        path.stem: pd.read_parquet(path).drop(columns=columns).to_numpy()
        for path in (run / "tracks").glob("*.parquet")
    }


def assert_equal(run: Path, one: list[str], other: list[str]) -> None:
    """Tracks that change from frame to frame, and scores, are the same to 1e-3."""
    with_one, with_other = tracks(run, *one), tracks(run, *other)
    assert max(track.std(0).max() for track in with_one.values()) > 0.03
    for video, track in with_one.items():
        np.testing.assert_allclose(track, with_other[video], atol=1e-3)
    first, second = scores(run, *one), scores(run, *other)
    for task in ("va", "expr", "au"):
        assert first[task]["score"] == pytest.approx(second[task]["score"], abs=1e-3)


PER_FRAME = ["--model.temporal.layers=0", "--trainer.max_epochs=4"]  # so that outputs soon differ


def test_a_run_on_the_cache_is_the_same_on_images(synth_root: Path, cache: Path, tmp_path: Path) -> None:
    assert main(words("fit", synth_root, cache, f"--run={tmp_path}", *PER_FRAME)) == 0
    assert_equal(tmp_path, [], ["--data.features=null"])


def test_a_run_on_images_is_the_same_on_its_cache(synth_root: Path, tmp_path: Path) -> None:
    run, folder = tmp_path / "run", tmp_path / "features"
    assert main(words("fit", synth_root, None, f"--run={run}", "--model.backbone.frozen=0", *PER_FRAME)) == 0
    cached = [f"--data.features=[{folder}]"]
    assert main(["extract", f"--run={run}", "--ckpt_path=best", *cached]) == 0
    assert_equal(run, [], cached)


def test_features_of_other_weights_are_refused(
    synth_root: Path, cache: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(words("fit", synth_root, cache, "--seed_everything=1", f"--run={tmp_path}")) == 1
    assert "stale features, made with weights" in capfd.readouterr().err


def test_a_backbone_cannot_be_trained_on_features(
    synth_root: Path, cache: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(words("fit", synth_root, cache, "--model.backbone.frozen=0", f"--run={tmp_path}")) == 2
    assert "model.backbone.frozen" in capfd.readouterr().err


def test_two_caches_feed_a_network_without_backbone(synth_root: Path, cache: Path, tmp_path: Path) -> None:
    sound = tmp_path / "sound"
    sound.mkdir()
    for path in cache.glob("*.safetensors"):
        tensors = load_file(path)
        save_file(tensors | {"features": tensors["features"][:, :5].copy()}, sound / path.name)
    data = AffectDataModule(
        root=str(synth_root), features=[str(cache), str(sound)], window=8, batch_size=2, workers=0
    )
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    assert batch.frames is None
    assert batch.features is not None
    assert batch.features.shape == (2, 8, 64 + 5)
    torch.testing.assert_close(batch.features[..., 64:], batch.features[..., :5])
    assert not batch.features[~batch.visible].any()


def test_the_images_may_be_gone(synth_root: Path, cache: Path, tmp_path: Path) -> None:
    """Annotations and cache alone train the same weights and give the same tracks."""
    labels = tmp_path / "labels"
    shutil.copytree(synth_root, labels, ignore=shutil.ignore_patterns("cropped_aligned*"))
    runs = {root: tmp_path / f"run_{root.name}" for root in (synth_root, labels)}
    for root, run in runs.items():
        assert main(words("fit", root, cache, f"--run={run}", *PER_FRAME)) == 0
    with_images, without = (tracks(run, "--data.evaluation.predict_split=all") for run in runs.values())
    assert with_images.keys() == without.keys() == {path.stem for path in cache.glob("*.safetensors")}
    for video, track in with_images.items():
        np.testing.assert_array_equal(track, without[video])


class Losses(Callback):
    """Notes the loss of every step."""

    def __init__(self) -> None:
        self.values: list[float] = []

    def on_train_batch_end(self, trainer: Trainer, module: Any, outputs: Any, *args: Any) -> None:
        self.values.append(float(outputs["loss"]))


def train(
    root: Path,
    folder: Path,
    features: Path | None,
    *,
    steps: int,
    log_every: int = 50,
    max_epochs: int = -1,
    **backbone: Any,
) -> Losses:
    torch.manual_seed(0)  # `abaw extract` seeds with 0 as well, so it is the same random backbone
    module = AffectModule(
        tasks=["va", "expr", "au"],
        backbone=BackboneSettings(**BACKBONE | {"frozen": "all"} | backbone),
        temporal=TemporalSettings(layers=2, width=64, feedforward=64),
    )
    data = AffectDataModule(
        root=str(root),
        features=None if features is None else [str(features)],
        window=16,
        batch_size=2,
        workers=0,
        loading=LoadingSettings(augmentation=None),
    )
    losses = Losses()
    Trainer(
        max_steps=steps,
        max_epochs=max_epochs,
        log_every_n_steps=log_every,
        default_root_dir=folder,
        limit_val_batches=0,
        callbacks=[losses],
        **QUIET,
    ).fit(module, data)
    return losses


def test_training_on_rounded_images_has_the_losses_of_the_cache(
    synth_root: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_cache = train(synth_root, tmp_path, cache, steps=20)
    forward = Backbone.forward

    def rounded(self: Backbone, frames: Tensor) -> Tensor:
        return forward(self, frames).half().float()

    monkeypatch.setattr(Backbone, "forward", rounded)
    on_images = train(synth_root, tmp_path, None, steps=20)
    assert len(on_cache.values) == 20
    assert on_cache.values == pytest.approx(on_images.values, abs=1e-5)


@pytest.mark.parametrize("log_every", [0, 1, 4])
def test_steps_whose_values_nobody_sees_cost_no_logging(
    log_every: int, synth_root: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, steps = AffectModule.log, []

    def counted(self: AffectModule, name: str, *args: Any, **kwargs: Any) -> None:
        if name == "train/loss":
            steps.append(self.global_step + 1)
        log(self, name, *args, **kwargs)

    monkeypatch.setattr(AffectModule, "log", counted)
    n_steps = len(train(synth_root, tmp_path, cache, steps=100, log_every=log_every, max_epochs=1).values)
    assert n_steps > 4
    assert steps == [k for k in range(1, n_steps + 1) if k == n_steps or (log_every and k % log_every == 0)]
