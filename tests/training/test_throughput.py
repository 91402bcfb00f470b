"""The parts of a training, timed in turns, and the work that the network does."""

from pathlib import Path

import numpy as np
import pytest
import torch

from abaw.batch import Batch
from abaw.loading.masking import RandomFrameMasking
from abaw.model.backbone import BackboneSettings
from abaw.model.heads import HeadSettings
from abaw.model.network import Network
from abaw.model.temporal import TemporalSettings
from abaw.tasks import VA
from abaw.training.loggers import CSVLogger
from abaw.training.losses import LossSettings, TaskLosses
from abaw.training.module import AffectModule
from abaw.training.throughput import (
    Part,
    TimedLogger,
    TimedModule,
    flop_per_frame,
    matmul_part,
    network_parts,
    time_parts,
)
from tests.support.clips import masked, random_batch

CPU = torch.device("cpu")


TASKS = (VA,)


@pytest.fixture(scope="module")
def network() -> Network:
    return Network(
        tasks=TASKS,
        backbone=BackboneSettings(
            name="vit_tiny_patch16_224", weights="none", image_size=32, overrides={"depth": 2}
        ),
        temporal=TemporalSettings(layers=1, heads=2, width=16, feedforward=16),
        heads=HeadSettings(),
    )


@pytest.fixture(scope="module")
def losses() -> TaskLosses:
    losses = TaskLosses(LossSettings(), TASKS)
    losses.set_label_counts({VA: np.array(100)})
    return losses


class Clock:
    """Time that passes only where work says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def test_parts_take_turns_and_only_their_own_time_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    clock = Clock()
    monkeypatch.setattr("abaw.training.throughput.time", clock)

    def work(name: str, pause: float) -> int:
        order.append(name)
        clock.sleep(pause)
        return 10

    parts = {
        "slow": Part(step=lambda: work("slow", 0.02), prepare=lambda: clock.sleep(0.05)),
        "quick": Part(step=lambda: work("quick", 0.005)),
    }
    rates = time_parts(parts, seconds=0.03, rounds=3, device=CPU)
    turns = [name for k, name in enumerate(order) if k == 0 or order[k - 1] != name]
    assert turns == ["slow", "quick"] * 4
    assert rates["slow"] == pytest.approx([500.0] * 3)
    assert rates["quick"] == pytest.approx([2000.0] * 3)


def test_the_time_of_logging_is_counted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    clock = Clock()
    monkeypatch.setattr("abaw.training.throughput.time", clock)
    for owner, name, seconds in (
        (CSVLogger, "log_metrics", 1),
        (CSVLogger, "save", 2),
        (AffectModule, "log", 4),
    ):
        monkeypatch.setattr(owner, name, lambda *_, seconds=seconds, **__: clock.sleep(seconds))
    logger = TimedLogger(str(tmp_path))
    logger.log_metrics({"a": 1.0}, step=0)
    logger.save()
    assert logger.seconds == 3
    module = TimedModule(tasks=["va"], backbone=None, dim=4)
    module.log_dict({"a": torch.zeros(()), "b": torch.zeros(())})
    assert module.seconds == 8


def masked_by_half(batch: Batch) -> dict[float, Batch]:
    visible = RandomFrameMasking(0.5)(batch.visible, torch.rand(batch.visible.shape))
    return {0.0: batch, 0.5: masked(batch, visible)}


def test_masking_half_of_the_frames_halves_the_work(network: Network, losses: TaskLosses) -> None:
    flop = flop_per_frame(network, losses, masked_by_half(random_batch(1, 16)))
    assert flop["training p=0.5"] == pytest.approx(0.5 * flop["training p=0"], rel=0.05)
    assert flop["training p=0"] == pytest.approx(3 * flop["inference"], rel=0.1)
    n_patches, dim = 5, 192  # a class token and 2 × 2 patches
    backbone = 2 * n_patches * 2 * 12 * dim**2  # FLOP of two blocks' matrices
    assert flop["inference"] == pytest.approx(backbone, rel=0.2)


def test_the_network_is_timed_as_it_trains(network: Network, losses: TaskLosses) -> None:
    batches = masked_by_half(random_batch(2, 8))
    parts = network_parts(network, losses, batches, autocast=lambda: torch.autocast("cpu"))
    before = network.heads.state_dict()
    before = {name: value.clone() for name, value in before.items()}
    for name, training in (("training p=0.5", True), ("inference", False)):
        parts[name].prepare()
        assert network.training is training
        assert parts[name].step() == 16
    assert any((network.heads.state_dict()[name] != value).any() for name, value in before.items())
    assert all(parameter.grad is None for parameter in network.parameters())


def test_the_products_are_done_in_the_precision_of_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = set()
    product = torch.Tensor.__matmul__
    monkeypatch.setattr(torch.Tensor, "__matmul__", lambda a, b: kinds.add(a.dtype) or product(a, b))
    flop = matmul_part(CPU, lambda: torch.autocast("cpu", dtype=torch.bfloat16)).step()
    assert kinds == {torch.bfloat16}
    assert flop == 2 * 4 * 197 * 768 * (2304 + 768 + 2 * 3072)
