"""Nothing waits for the device in a training step that is not logged.

The training runs on PyTorch's `meta` device, whose tensors have a shape and no content: whatever would read
one, and so make the host wait for a GPU, raises. Copies to it that would wait are found by their call.
"""

import signal
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.accelerators import CPUAccelerator
from lightning.pytorch.callbacks import EMAWeightAveraging
from lightning.pytorch.strategies import SingleDeviceStrategy
from torch.overrides import TorchFunctionMode

from abaw.batch import Batch
from abaw.loading.datamodule import AffectDataModule
from abaw.loading.masking import RandomFrameMasking
from abaw.model.backbone import BackboneSettings
from abaw.model.temporal import TemporalSettings
from abaw.tasks import VA
from abaw.training.callbacks import EMA
from abaw.training.checkpointing import LastCheckpoint
from abaw.training.loggers import CSVLogger
from abaw.training.losses import LossSettings
from abaw.training.module import AffectModule
from abaw.training.nonfinite import NonFiniteGuard
from abaw.training.progress import ProgressBar


@pytest.fixture(autouse=True)
def _signal_handlers() -> Iterator[None]:
    """Restores the handlers of signals: a training that is stopped midway leaves those of Lightning."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


META = torch.device("meta")
N_STEPS = 3


class MetaAccelerator(CPUAccelerator):
    def setup_device(self, device: torch.device) -> None:
        pass


class MetaStrategy(SingleDeviceStrategy):
    def __init__(self) -> None:
        super().__init__(META, MetaAccelerator())

    def reduce(self, tensor: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        return torch.ones(())  # before the training, Lightning asks whether any loader is empty


class MetaTrainer(Trainer):
    def _teardown(self) -> None:
        """Nothing can come back from there."""


class EnoughError(Exception):
    pass


class Stop(Callback):
    def on_train_batch_start(self, trainer: Trainer, *args: Any) -> None:
        if trainer.global_step == N_STEPS:
            raise EnoughError


class WaitingCopies(TorchFunctionMode):
    """Refuses copies from the host for which it would wait, once training is under way."""

    def __init__(self) -> None:
        super().__init__()
        self.trainer: Trainer | None = None

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        done = func(*args, **kwargs)
        if self.trainer is None or not self.trainer.global_step or getattr(done, "device", None) != META:
            return done
        source = {torch.Tensor.to: 0, torch.Tensor.copy_: 1}.get(func)
        from_host = func is torch.tensor if source is None else args[source].device.type == "cpu"
        if from_host and not kwargs.get("non_blocking", args[2:]):
            raise RuntimeError(f"the host waits until the device has its copy: {func}")
        return done


def train(root: Path, folder: Path, module: AffectModule, *callbacks: Callback, features: Any = None) -> None:
    data = AffectDataModule(root=str(root), features=features, window=8, batch_size=2, workers=0)
    copies = WaitingCopies()
    copies.trainer = MetaTrainer(
        strategy=MetaStrategy(),
        max_epochs=3,
        log_every_n_steps=1000,
        gradient_clip_val=1.0,
        limit_val_batches=0,
        use_distributed_sampler=False,
        enable_model_summary=False,
        logger=CSVLogger(str(folder)),
        default_root_dir=folder,
        callbacks=[*callbacks, Stop()],
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "autocast", lambda *args, **kwargs: nullcontext())  # meta has none
        with copies, pytest.raises(EnoughError):
            copies.trainer.fit(module, data)


def module(**settings: Any) -> AffectModule:
    temporal = TemporalSettings(layers=1, heads=2, width=16, feedforward=16, drop_path=0.1)
    backbone = BackboneSettings(name="test_vit", weights="none", image_size=32, chunk=8, drop_path=0.1)
    return AffectModule(
        **{"tasks": ["va", "expr", "au"], "backbone": backbone, "temporal": temporal} | settings
    )


def obligatory(folder: Path) -> list[Callback]:
    return [
        ProgressBar(refresh_rate=1),
        NonFiniteGuard(str(folder)),
        LastCheckpoint(str(folder)),
        EMA(),
    ]


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"masking": RandomFrameMasking(ratio=0.5, span=2, start_ratio=0.1, ramp_steps=9)},
        {"loss": LossSettings(va="mse", expr="ce", au="bce", task_weights="uncertainty")},
    ],
    ids=["paper", "ramp", "other losses"],
)
def test_a_step_that_is_not_logged_reads_nothing(synth_root: Path, tmp_path: Path, settings: Any) -> None:
    train(synth_root, tmp_path, module(**settings), *obligatory(tmp_path))


def test_a_step_that_skips_bad_gradients_reads_nothing(synth_root: Path, tmp_path: Path) -> None:
    train(synth_root, tmp_path, module(), NonFiniteGuard(str(tmp_path), "skip"))


def logs_to_the_bar(module: AffectModule, batch: Any) -> None:
    module.log("x", batch.labels[VA].values.mean(), prog_bar=True, batch_size=1)


def logs_a_number(module: AffectModule, batch: Any) -> None:
    module.log("x", 0.5, batch_size=1)


def reads(module: AffectModule, batch: Any) -> None:
    float(batch.labels[VA].values.sum())


def counts(module: AffectModule, batch: Any) -> None:
    batch.visible.nonzero()


@pytest.mark.parametrize("waits", [logs_to_the_bar, logs_a_number, reads, counts])
def test_what_waits_is_found(
    synth_root: Path, tmp_path: Path, waits: Callable[[AffectModule, Any], None]
) -> None:
    class Waiting(AffectModule):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            waits(self, batch)
            return super().training_step(batch, batch_idx)

    spoilt = Waiting(tasks=["va"], backbone=module().network.backbone.settings)
    with pytest.raises((RuntimeError, NotImplementedError), match=r"meta|waits"):
        train(synth_root, tmp_path, spoilt)


def test_lightnings_own_average_waits_at_every_step(synth_root: Path, tmp_path: Path) -> None:
    """Why there is `EMA`."""
    with pytest.raises((RuntimeError, NotImplementedError), match="meta"):
        train(synth_root, tmp_path, module(), EMAWeightAveraging())


def test_lightning_does_not_queue_copies_of_a_batch(
    synth_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Why `Batch.to` does."""
    monkeypatch.setattr(Batch, "to", lambda self, *args, **kwargs: self._map(lambda x: x.to(*args, **kwargs)))
    with pytest.raises(RuntimeError, match="waits"):
        train(synth_root, tmp_path, module())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch tells of waits on a GPU alone")
def test_pytorch_sees_no_wait_on_a_gpu(synth_root: Path, tmp_path: Path) -> None:
    class Strict(Callback):
        def on_train_batch_start(self, trainer: Trainer, *args: Any) -> None:
            if trainer.global_step:  # the end of the training may wait
                torch.cuda.set_sync_debug_mode("error" if trainer.global_step < N_STEPS else "default")

    data = AffectDataModule(root=str(synth_root), window=8, batch_size=2, workers=0)
    try:
        with pytest.raises(EnoughError):
            Trainer(
                devices=1,
                precision="bf16-mixed",
                log_every_n_steps=1000,
                gradient_clip_val=1.0,
                limit_val_batches=0,
                use_distributed_sampler=False,
                default_root_dir=tmp_path,
                callbacks=[*obligatory(tmp_path), Strict(), Stop()],
            ).fit(module(), data)
    finally:
        torch.cuda.set_sync_debug_mode("default")
