"""How fast each part of a training run is on this machine, timed alone and in turns."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import cast

import torch
from torch.utils.flop_counter import FlopCounterMode

from abaw.batch import Batch
from abaw.data.dataset import ClipDataset
from abaw.data.frames import BadFrameError, Frames
from abaw.data.loader import TrainLoader
from abaw.losses import TaskLosses
from abaw.masking import RandomFrameMasking
from abaw.model.network import Network
from abaw.randomness import Purpose, keyed_generator

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
