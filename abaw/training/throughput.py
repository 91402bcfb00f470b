"""Throughput of training: of its parts, timed separately and in turns, and end to end."""

import multiprocessing
import re
import resource
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, repeat
from pathlib import Path
from typing import Any, cast

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch.utils.flop_counter import FlopCounterMode

from abaw.batch import Batch
from abaw.data.frames import BadFrameError, Frames
from abaw.data.progress import Progress
from abaw.loading.dataset import ClipDataset
from abaw.loading.loaders import TrainLoader
from abaw.loading.masking import RandomFrameMasking
from abaw.loading.sampling import Slot
from abaw.model.network import Network
from abaw.randomness import Purpose, keyed_generator
from abaw.training.loggers import CSVLogger
from abaw.training.losses import TaskLosses
from abaw.training.module import AffectModule

Rates = dict[str, list[float]]
"""Rates per round, by part: in frames per second, of `matmul` in FLOP per second."""

MATMUL = "matmul"
_TOKENS = 197  # of a ViT-B/16 at 224 pixels
_VIT_B = ((768, 2304), (768, 768), (768, 3072), (3072, 768))  # the matrices of a block: in, out


@dataclass(frozen=True, kw_only=True)
class Part:
    """A part of training that is timed separately.

    Attributes:
        step: Runs one step, and returns the number of frames.
        prepare: Called before every round; not timed.
    """

    step: Callable[[], float]
    prepare: Callable[[], object] = lambda: None


def time_parts(parts: Mapping[str, Part], *, seconds: float, rounds: int, device: torch.device) -> Rates:
    """Times parts in alternation, so that other load on the machine affects all of them alike.

    Args:
        parts: Parts by name.
        seconds: Approximate duration of a part per round.
        rounds: Number of rounds, after a warm-up.
        device: Device that is synchronised at the end of a round.
    """
    rates: Rates = {name: [] for name in parts}
    n_steps = {name: _steps_in(part, seconds, device) for name, part in parts.items()}
    for _ in Progress(range(rounds), desc="bench", unit="round"):
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
    """The number of steps in about `seconds`, from the second step: a device runs steps asynchronously."""
    part.prepare()
    part.step()  # warms up
    wait(device)
    start = time.perf_counter()
    part.step()
    wait(device)
    return 1 + int(seconds / (time.perf_counter() - start))


def wait(device: torch.device) -> None:
    """Waits until the device has completed all queued work."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def loader_parts(loader: TrainLoader) -> dict[str, Part]:
    """The loader with its workers; decoding and augmentation in this process."""
    data = cast(ClipDataset, loader.dataset)
    batches = chain.from_iterable(repeat(loader))  # epoch after epoch
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


def masked_batch(data: ClipDataset, size: int, ratio: float) -> Batch:
    """The first `size` training clips of a dataset, a number, with a share of their frames masked."""
    clips = replace(data, masking=RandomFrameMasking(ratio=ratio))
    return clips.__getitems__([Slot(0, k, k) for k in range(size)])[0]


def network_parts(
    network: Network,
    losses: TaskLosses,
    batches: Mapping[float, Batch],
    *,
    autocast: Callable[[], AbstractContextManager],
) -> dict[str, Part]:
    """Inference, and training steps at several masking ratios.

    Args:
        network: Network on its device.
        losses: Losses on the same device.
        batches: The same clips on the CPU by masking ratio, also 0.
        autocast: Context of the run's precision.
    """
    device = next(network.parameters()).device
    groups = network.param_groups(lr=1e-6, weight_decay=0.0)
    optimizer = torch.optim.AdamW(groups, fused=device.type == "cuda") if groups else None
    n_frames = int(batches[0].present.sum())

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

    parts = {"inference": Part(step=partial(infer, batches[0].to(device)), prepare=network.eval)}
    for ratio, batch in batches.items():
        step = partial(train, batch.to(device))
        parts[f"training p={ratio:g}"] = Part(step=step, prepare=network.train)
    return parts


def matmul_part(device: torch.device, autocast: Callable[[], AbstractContextManager]) -> Part:
    """Products of the matrices of a ViT-B in the precision of the run, in FLOP instead of frames."""
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


def flop_per_frame(network: Network, losses: TaskLosses, clips: Mapping[float, Batch]) -> dict[str, float]:
    """FLOP per frame of the parts of the network, as counted by PyTorch.

    Args:
        network: Network on its device.
        losses: Losses on the same device.
        clips: One clip on the CPU by masking ratio, also 0.
    """
    twin = Network.from_description(network.describe())  # uncompiled: compiled code is not counted
    twin.to(next(network.parameters()).device)
    counted = {}
    for name, part in network_parts(twin, losses, clips, autocast=nullcontext).items():
        part.prepare()
        with FlopCounterMode(display=False) as counter:
            frames = part.step()
        counted[name] = counter.get_total_flops() / frames
    return counted


def _shuffled(n: int) -> Iterator[int]:
    rng = keyed_generator(Purpose.ORDER, 0, 0)
    while True:
        yield from rng.permutation(n).tolist()


def _timed(parent: type, name: str) -> Callable[..., None]:
    """A method of a parent class whose seconds are added to `seconds`."""

    def method(self: Any, *args: Any, **kwargs: Any) -> None:
        start = time.perf_counter()
        getattr(parent, name)(self, *args, **kwargs)
        self.seconds += time.perf_counter() - start

    return method


class TimedModule(AffectModule):
    """An `AffectModule` that counts the seconds spent in `log`."""

    seconds = 0.0
    log = _timed(AffectModule, "log")


class TimedLogger(CSVLogger):
    """A `CSVLogger` that counts the seconds spent in writing metrics."""

    seconds = 0.0
    log_metrics = _timed(CSVLogger, "log_metrics")
    save = _timed(CSVLogger, "save")


class Clock(Callback):
    """Times the training of a `TimedModule` with a `TimedLogger` in rounds, and stops it after the last one.

    Args:
        seconds: Duration of a round.
        rounds: Number of rounds, after two for warm-up: only these synchronise the device at every step, and
            the second one sets the number of steps of a round.

    Attributes:
        rates: Frames per second of all devices together, per round.
        logging: Share of the time that this process spent on logging, per round.
        memory: Peak memory in bytes, by location.
    """

    def __init__(self, seconds: float, rounds: int) -> None:
        self.rates: list[float] = []
        self.logging: list[float] = []
        self.memory: dict[str, int] = {}
        self._seconds = seconds
        self._left, self._rounds = rounds + 2, rounds
        self._frames = self._steps = self._steps_of_round = 0
        self._start = self._logging_start = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts the first round."""
        self._logging_start = _logging_seconds(trainer, pl_module)
        self._start = time.perf_counter()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Counts frames; at the end of a round records its rates."""
        self._frames, self._steps = self._frames + batch.present.numel(), self._steps + 1
        if self._steps_of_round:
            over = self._steps == self._steps_of_round
        else:
            late = time.perf_counter() - self._start >= self._seconds
            over = trainer.strategy.reduce_boolean_decision(late, all=False)
        if not over:
            return
        wait(pl_module.device)
        now, logging = time.perf_counter(), _logging_seconds(trainer, pl_module)
        self.rates.append(self._frames * trainer.world_size / (now - self._start))
        self.logging.append((logging - self._logging_start) / (now - self._start))
        self._start, self._logging_start, self._left = now, logging, self._left - 1
        if self._left == self._rounds:
            self._steps_of_round = self._steps
        self._frames = self._steps = 0
        if not self._left:
            self.rates, self.logging = self.rates[2:], self.logging[2:]
            self.memory = _memory(pl_module.device)
            trainer.should_stop = True


def _logging_seconds(trainer: Trainer, module: LightningModule) -> float:
    return sum(cast(TimedModule | TimedLogger, timed).seconds for timed in (module, *trainer.loggers))


def _memory(device: torch.device) -> dict[str, int]:
    """Bytes: peak of this process and of tensors on the device, and private memory of the workers."""
    unit = 1 if sys.platform == "darwin" else 1024
    memory = {"process": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit}
    if device.type == "cuda":
        memory["device"] = torch.cuda.max_memory_allocated(device)
    workers = [Path(f"/proc/{child.pid}/smaps_rollup") for child in multiprocessing.active_children()]
    if workers and all(path.exists() for path in workers):
        private = [re.findall(r"Private_\w+:\s+(\d+) kB", path.read_text()) for path in workers]
        memory["workers"] = sum(1024 * int(size) for sizes in private for size in sizes)
    return memory
