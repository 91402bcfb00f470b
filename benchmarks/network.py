"""Cost of extraction, of training on the cache, and of the network relative to bare matrix products."""

import json
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from torch import Tensor

from abaw.cli.precision import best_precision
from abaw.data.frames import RawFolder
from abaw.data.index import build_index
from abaw.data.layout import DataSource
from abaw.data.synth.writer import write_dataset
from abaw.loading.datamodule import AffectDataModule
from abaw.loading.dataset import ClipDataset
from abaw.loading.loaders import ClipLoader, loader_options
from abaw.model.backbone import Backbone, BackboneSettings
from abaw.model.temporal import TemporalSettings
from abaw.training.extraction import Extractor, FeatureWriter
from abaw.training.module import AffectModule
from benchmarks.rows import Row, in_turns, ratio

QUIET: dict[str, Any] = {
    "accelerator": "cpu",
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "use_distributed_sampler": False,
}


VIT_B = BackboneSettings(weights="none", chunk=16)
VIT_S = BackboneSettings(name="vit_small_patch16_224", weights="none", image_size=112, frozen="all")
SMALL = TemporalSettings(layers=2, heads=4, width=128, feedforward=128)


class Timed(Backbone):
    """Backbone that records the time of its forward passes."""

    seconds = 0.0

    def forward(self, frames: Tensor) -> Tensor:
        """Forward pass of the backbone."""
        start = time.perf_counter()
        features = super().forward(frames)
        self.seconds += time.perf_counter() - start
        return features


class Clock(Callback):
    """Callback that records the seconds of prediction, or of each training epoch."""

    def __init__(self) -> None:
        self.epochs: list[float] = []

    def on_predict_start(self, *args: Any) -> None:  # noqa: ARG002
        """Starts the clock."""
        self.start = time.perf_counter()

    def on_predict_end(self, *args: Any) -> None:  # noqa: ARG002
        """Stops the clock."""
        self.seconds = time.perf_counter() - self.start

    def on_train_epoch_start(self, *args: Any) -> None:  # noqa: ARG002
        """Starts the clock."""
        self.start = time.perf_counter()

    def on_train_epoch_end(self, *args: Any) -> None:  # noqa: ARG002
        """Stops the clock."""
        self.epochs.append(time.perf_counter() - self.start)


def extraction(folder: Path, *, frames: int = 96, settings: BackboneSettings = VIT_B) -> list[Row]:
    """Extraction with ViT-B/16 on the CPU, in both precisions."""
    write_dataset(folder / "faces", videos=2, frames=frames // 2, jobs=2, progress=False)
    index = build_index(DataSource(folder / "faces", cache_dir=folder / "cache"))
    best = best_precision("cpu").precision
    nets = {precision: Timed(settings) for precision in ("32-true", best)}
    outside, rates = {}, {}
    for precision, net in nets.items():
        clock = Clock()
        trainer = Trainer(precision=precision, callbacks=[FeatureWriter(), clock], **QUIET)  # type: ignore[arg-type]
        extractor = Extractor(net, index=index, frames=RawFolder(index), folder=folder / precision, workers=2)
        trainer.predict(extractor, return_predictions=False)
        outside[precision] = 1 - net.seconds / clock.seconds
        n_visible = sum(int(index.visible(video).sum()) for video in range(len(index)))
        rates[precision] = n_visible / clock.seconds
    on = f"{settings.name.partition('.')[0]} at {settings.image_size}, CPU, {frames} frames"
    return [
        Row(
            what="Extraction: time outside the network",
            value=outside[best],
            at_most=0.05,
            unit="%",
            how=f"{on}, {best}",
            rates={"total": rates[best]},
        ),
        Row(
            what="The precision that extraction chooses on this machine, against float32",
            value=rates[best] / rates["32-true"],
            at_least=1.0,
            how=f"{on}, {best}",
            rates={"chosen": rates[best], "float32": rates["32-true"]},
        ),
    ]


def cached_epoch(
    folder: Path, *, frames: int = 40, epochs: int = 2, settings: BackboneSettings = VIT_S
) -> list[Row]:
    """An epoch on cached features relative to one on images, both with a frozen backbone."""
    root, cache = folder / "faces", folder / "features"
    write_dataset(root, videos=12, frames=frames, jobs=2, progress=False)
    index = build_index(DataSource(root, cache_dir=folder))
    extractor = Extractor(Backbone(settings), index=index, frames=RawFolder(index), folder=cache)
    Trainer(callbacks=[FeatureWriter()], **QUIET).predict(extractor, return_predictions=False)
    seconds = {}
    for name, features in (("cache", [str(cache)]), ("images", None)):
        seconds[name] = median(
            epoch_seconds(
                AffectModule(tasks=["va", "expr", "au"], backbone=settings, temporal=SMALL),
                AffectDataModule(
                    root=str(root),
                    features=features,
                    window=16,
                    batch_size=4,
                    workers=0,
                    cache_dir=str(folder),
                ),
                epochs=epochs,
            )
        )
    return [
        Row(
            what="An epoch on cached features against the same epoch on images",
            value=seconds["cache"] / seconds["images"],
            at_most=0.1,
            unit="%",
            how=f"{settings.name} at {settings.image_size}, frozen, CPU: {seconds['cache']:.2f} and"
            f" {seconds['images']:.2f} s",
        )
    ]


class WholeWindows(ClipDataset):
    """Clips that hold all of their images, also those that the clip before holds."""

    def _choose(self, which: Any) -> Any:
        return super()._choose(which)._replace(overlap=0)


class RepeatingDataModule(AffectDataModule):
    """Data module whose evaluation decodes and encodes the frames that windows share in each of them."""

    def val_dataloader(self) -> ClipLoader:
        """As in the parent class, with whole windows."""
        loader = super().val_dataloader()
        clips = WholeWindows(**vars(loader.dataset))
        options = loader_options(workers=0, pin_memory=False)
        return ClipLoader(clips, batch_size=loader.batch_size, sampler=loader.sampler, **options)


def evaluation(
    folder: Path, *, frames: int = 150, rounds: int = 3, settings: BackboneSettings = VIT_S
) -> list[Row]:
    """Validation that encodes every frame once, against one that encodes every window."""
    root = folder / "faces"
    write_dataset(root, videos=12, frames=frames, jobs=2, progress=False)
    module = AffectModule(tasks=["va", "expr", "au"], backbone=settings, temporal=SMALL)
    totals: dict[str, float] = {}

    def validate(name: str, kind: type[AffectDataModule]) -> None:
        data = kind(root=str(root), window=32, batch_size=4, workers=0, cache_dir=str(folder))
        Trainer(**QUIET).validate(module, data, verbose=False)
        totals[name] = module.scores["total"]

    once, repeating = in_turns(
        rounds,
        lambda _: validate("once", AffectDataModule),
        lambda _: validate("whole windows", RepeatingDataModule),
    )
    assert abs(totals["once"] - totals["whole windows"]) < 1e-6, totals
    return [
        Row(
            what="Validation on images with each frame encoded once, against whole windows; equal scores",
            value=ratio(repeating, once),
            at_least=1.8,
            how=f"{settings.name} at {settings.image_size}, CPU, windows of 32 at every 16th frame:"
            f" {median(once):.2f} and {median(repeating):.2f} s",
        )
    ]


def epoch_seconds(module: AffectModule, data: AffectDataModule, *, epochs: int) -> list[float]:
    """Seconds of each epoch of a training, without the first."""
    clock = Clock()
    trainer = Trainer(max_epochs=epochs + 1, limit_val_batches=0, callbacks=[clock], **QUIET)
    trainer.fit(module, data)
    return clock.epochs[1:]


def step(folder: Path, **changes: Any) -> list[Row]:
    """The training step on the CPU, measured by `abaw bench`."""
    found = _bench(folder, "configs/demo.yaml", {"trainer.accelerator": "cpu"} | changes)
    return _of_step(found)


def gpu(folder: Path, *, there: bool | None = None, **changes: Any) -> list[Row]:
    """ViT-B/16 at 224 on one GPU in bfloat16, compiled, measured by `abaw bench`; empty without a GPU."""
    there = torch.cuda.is_available() if there is None else there
    options = {"trainer.devices": 1, "model.backbone.compile": True} | changes
    found = _bench(folder, "configs/mtl.yaml", options) if there else None
    parts = {"inference": ("Extraction", 0.55), "training p=0": ("Training step", 0.45)}
    rows = [
        Row(
            what=f"{what}, of the rate of bare products of a ViT-B's own matrices",
            value=None if found is None else found["share_of_matmul"][part],
            at_least=limit,
            unit="%",
            how="" if found is None else f"{_on(found)}, products {_teraflops(found):.0f} TFLOP/s",
            rates={} if found is None else {part: found["frames_per_second"][part]["median"]},
        )
        for part, (what, limit) in parts.items()
    ]
    return [*rows, *_of_step(found)]


def _of_step(found: dict[str, Any] | None) -> list[Row]:
    names = ("training p=0.5", "training p=0", "end to end")
    rates = {} if found is None else {part: found["frames_per_second"][part]["median"] for part in names}
    on = "" if found is None else _on(found)
    return [
        Row(
            what="Training with half of the frames masked against none, frames/s",
            value=rates["training p=0.5"] / rates["training p=0"] if rates else None,
            at_least=1.7,
            how=on,
            rates=rates,
        ),
        Row(
            what="Metrics and logging, of the time of training end to end",
            value=None if found is None else found["share_of_logging"],
            at_most=0.01,
            unit="%",
            how=on,
        ),
    ]


def _bench(folder: Path, config: str, options: dict[str, Any]) -> dict[str, Any]:
    write_dataset(folder / "faces", videos=16, frames=100, jobs=2, progress=False)
    options = {"data.root": folder / "faces", "run": folder / "run"} | options
    words = [f"--{name}={value}" for name, value in options.items()]
    command = [sys.executable, "-m", "abaw", "bench", f"--config={config}", "--json", *words]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _on(found: dict[str, Any]) -> str:
    setting = found["setting"]
    return f"{setting['network'].partition('.')[0]}, {setting['device']}, {setting['precision']}"


def _teraflops(found: dict[str, Any]) -> float:
    return float(found["matmul_flop_per_second"]["median"]) / 1e12
