"""Throughput of the parts of a training run, each timed alone, in turns, and end to end."""

import functools
import multiprocessing
import re
import resource
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch.utils.flop_counter import FlopCounterMode

from abaw.batch import Batch
from abaw.data.frames import BadFrameError, Frames
from abaw.loading.dataset import ClipDataset
from abaw.loading.loaders import TrainLoader
from abaw.loading.masking import RandomFrameMasking
from abaw.model.network import Network
from abaw.randomness import Purpose, keyed_generator
from abaw.training.losses import TaskLosses

Rates = dict[str, list[float]]
"""Per part its rate in every round: frames per second, FLOP per second of `matmul`."""

MATMUL = "matmul"

_TOKENS = 197  # of a ViT-B/16 at 224 pixels

_VIT_B = ((768, 2304), (768, 768), (768, 3072), (3072, 768))  # the matrices of a block: in, out


@dataclass(frozen=True, kw_only=True)
class Part:
    """Work that is timed alone.

    Attributes:
        step: Does some of it; gives how much, in frames.
        prepare: Called before every round, outside the time.
    """

    step: Callable[[], float]
    prepare: Callable[[], object] = lambda: None


def time_parts(parts: Mapping[str, Part], *, seconds: float, rounds: int, device: torch.device) -> Rates:
    """Does every part for a while, again and again in turns, so that a disturbance hits all alike.

    Args:
        parts: By name.
        seconds: About how long each takes in a round.
        rounds: How often; one more warms up.
        device: What is waited for at the end of a round.
    """
    rates: Rates = {name: [] for name in parts}
    n_steps = {name: _steps_in(part, seconds, device) for name, part in parts.items()}
    for _ in range(rounds):
        for name, part in parts.items():
            part.prepare()
            wait(device)
            start, done = time.perf_counter(), 0.0
            for _ in range(n_steps[name]):
                done += part.step()
                if time.perf_counter() - start > seconds:
                    break
            wait(device)
            rates[name].append(done / (time.perf_counter() - start))
    return rates


def _steps_in(part: Part, seconds: float, device: torch.device) -> int:
    """How many steps take about so long: on a device they are only queued, and a clock would see too few."""
    part.prepare()
    part.step()  # warms up
    wait(device)
    start = time.perf_counter()
    part.step()
    wait(device)
    return 1 + int(seconds / (time.perf_counter() - start))


def wait(device: torch.device) -> None:
    """Returns when the device has done all it was given."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def loader_parts(loader: TrainLoader) -> dict[str, Part]:
    """The loader with its workers, and one process decoding and augmenting without it."""
    data = cast(ClipDataset, loader.dataset)
    batches = _endless(loader)
    ahead = loader.num_workers * (loader.prefetch_factor or 0)
    windows = iter(_shuffled(len(data.windows)))
    clips: list[Frames] = []

    def decode() -> int:
        window = data.windows[next(windows)]
        try:
            read = data.source.read(window.video, window.frames)
        except BadFrameError as error:
            if error.frames is None or data.on_bad_frame == "raise":
                raise
            read = error.frames
        if isinstance(read, Frames):
            clips[:] = [*clips[-7:], read]
        return len(window)

    def augment() -> int:
        clip = clips[next(windows) % len(clips)].pixels
        assert data.augmentation is not None
        data.augmentation(clip, next(windows))
        return len(clip)

    def prefetched() -> None:
        for _ in range(ahead):
            next(batches)

    parts = {
        "loader": Part(step=lambda: int(next(batches).present.sum()), prepare=prefetched),
        "decode": Part(step=decode),
    }
    if data.augmentation is not None and isinstance(data.source.read(0, []), Frames):
        parts["augment"] = Part(step=augment, prepare=decode)
    return parts


def network_parts(
    network: Network,
    losses: TaskLosses,
    batch: Batch,
    *,
    ratios: tuple[float, ...],
    autocast: Callable[[], AbstractContextManager],
) -> dict[str, Part]:
    """Inference, and training steps at several ratios of masked frames, on one batch.

    Args:
        network: On its device.
        losses: Likewise.
        batch: On the host, with mask noise.
        ratios: Shares of the visible frames that are masked.
        autocast: The precision of the run.
    """
    device = next(network.parameters()).device
    groups = network.param_groups(lr=1e-6, weight_decay=0.0)
    optimizer = torch.optim.AdamW(groups, fused=device.type == "cuda") if groups else None
    n_frames = int(batch.present.sum())

    def infer(batch: Batch) -> int:
        with torch.inference_mode(), autocast():
            network(batch)
        return n_frames

    def train(batch: Batch) -> int:
        with autocast():
            total, _ = losses(network(batch), batch)
        total.backward()
        if optimizer is not None:
            optimizer.step()
        network.zero_grad()
        return n_frames

    everything = masked(batch, 0.0).to(device)
    parts = {"inference": Part(step=partial(infer, everything), prepare=network.eval)}
    for ratio in ratios:
        step = partial(train, masked(batch, ratio).to(device))
        parts[f"training p={ratio:g}"] = Part(step=step, prepare=network.train)
    return parts


def masked(batch: Batch, ratio: float) -> Batch:
    """The batch as training masks it."""
    assert batch.mask_noise is not None
    return batch.with_visible(RandomFrameMasking(ratio=ratio)(batch.visible, batch.mask_noise))


def matmul_part(device: torch.device, autocast: Callable[[], AbstractContextManager]) -> Part:
    """Products of a ViT-B's own matrices and nothing else, in the precision of the run; counts FLOP."""
    with autocast():
        low = torch.is_autocast_enabled(device.type)
    dtype = torch.get_autocast_dtype(device.type) if low else torch.float32
    rows = _TOKENS * (64 if device.type == "cuda" else 4)
    pairs = [
        (torch.randn(rows, n, device=device, dtype=dtype), torch.randn(n, m, device=device, dtype=dtype))
        for n, m in _VIT_B
    ]
    flop = sum(2.0 * rows * n * m for n, m in _VIT_B)

    def multiply() -> float:
        for a, b in pairs:
            a @ b
        return flop

    return Part(step=multiply)


def flop_per_frame(
    network: Network, losses: TaskLosses, clip: Batch, ratios: tuple[float, ...]
) -> dict[str, float]:
    """FLOP that the network spends on a frame of a clip, by part, as far as PyTorch counts them.

    Args:
        network: On its device.
        losses: Likewise.
        clip: One clip, on the host, with mask noise.
        ratios: As for `network_parts`.
    """
    twin = Network.from_description(network.describe())  # uncompiled: compiled code is not counted
    twin.to(next(network.parameters()).device)
    counted = {}
    for name, part in network_parts(twin, losses, clip, ratios=ratios, autocast=nullcontext).items():
        part.prepare()
        with FlopCounterMode(display=False) as counter:
            frames = part.step()
        counted[name] = counter.get_total_flops() / frames
    return counted


def _endless(loader: TrainLoader) -> Iterator[Batch]:
    while True:
        yield from loader


def _shuffled(n: int) -> Iterator[int]:
    rng = keyed_generator(Purpose.ORDER, 0, 0)
    while True:
        yield from rng.permutation(n).tolist()


class Clock(Callback):
    """Times training as it is, in rounds, and ends it.

    Args:
        seconds: Length of a round.
        rounds: How many; one more comes before, while everything warms up.

    Attributes:
        rates: Of every round, frames per second of all devices together.
        logging: Of every round, the share of the time that this process spent on metrics and logging.
        memory: Bytes at the highest, by where.
    """

    def __init__(self, seconds: float, rounds: int) -> None:
        self.rates: list[float] = []
        self.logging: list[float] = []
        self.memory: dict[str, int] = {}
        self._seconds = seconds
        self._left = rounds + 1
        self._frames = 0
        self._start = self._spent = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts the first round."""
        self._watch(pl_module, "log")
        self._watch(trainer._logger_connector, "on_batch_end")
        for logger in trainer.loggers:
            self._watch(logger, "log_metrics")
            self._watch(logger, "save")
        self._start = time.perf_counter()

    def _watch(self, owner: Any, name: str) -> None:
        """Adds up the time that a method takes."""
        method = getattr(owner, name)

        @functools.wraps(method)
        def timed(*args: Any, **kwargs: Any) -> None:
            start = time.perf_counter()
            method(*args, **kwargs)
            self._spent += time.perf_counter() - start

        setattr(owner, name, timed)

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,  # noqa: ARG002
        batch: Batch,
        batch_idx: int,  # noqa: ARG002
    ) -> None:
        """Counts frames; at the end of a round notes the rate of all devices together."""
        self._frames += batch.present.numel()
        over = time.perf_counter() - self._start >= self._seconds
        if not trainer.strategy.reduce_boolean_decision(over, all=False):
            return
        wait(pl_module.device)
        now = time.perf_counter()
        self.rates.append(self._frames * trainer.world_size / (now - self._start))
        self.logging.append(self._spent / (now - self._start))
        self._frames, self._start, self._spent, self._left = 0, now, 0.0, self._left - 1
        if not self._left:
            self.rates, self.logging = self.rates[1:], self.logging[1:]
            self.memory = _memory(pl_module.device)
            trainer.should_stop = True


def _memory(device: torch.device) -> dict[str, int]:
    """Bytes: the most that tensors held on the device, the most this process held, and the workers' own."""
    unit = 1 if sys.platform == "darwin" else 1024
    memory = {"process": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit}
    if device.type == "cuda":
        memory["device"] = torch.cuda.max_memory_allocated(device)
    workers = [Path(f"/proc/{child.pid}/smaps_rollup") for child in multiprocessing.active_children()]
    if workers and all(path.exists() for path in workers):
        private = [re.findall(r"Private_\w+:\s+(\d+) kB", path.read_text()) for path in workers]
        memory["workers"] = sum(1024 * int(size) for sizes in private for size in sizes)
    return memory
