import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from abaw.__main__ import main
from abaw.cli.bench import END_TO_END, Report, Setting, scaling_table
from abaw.model.backbone import BackboneSettings
from abaw.model.heads import HeadSettings
from abaw.model.network import Network
from abaw.model.temporal import TemporalSettings
from abaw.tasks import Task
from abaw.training.losses import LossSettings, TaskLosses
from abaw.training.throughput import Part, flop_per_frame, masked, matmul_part, network_parts, time_parts
from tests.support.clips import random_batch
from tests.support.tiny_run import tiny_config

CPU = torch.device("cpu")
TASKS = (Task.VA,)


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
    losses.set_label_counts({"va": 100})
    return losses


def report(**changes: float | int) -> Report:
    """One GPU on a large machine, where nothing waits, but for the changes."""
    rates = {
        "loader": 30_000.0,
        "decode": 15_000.0,
        "augment": 12_000.0,
        "training p=0.5": 10_000.0,
        END_TO_END: 9_500.0,
        "matmul": 5e14,
    }
    setting = Setting(
        device="A GPU",
        accelerated=True,
        devices=1,
        precision="bf16-mixed",
        cores=16,
        workers=2,
        clips=8,
        frames=64,
        ratio=0.5,
        network="vit_base_patch16_224",
    )
    facts = {name: value for name, value in changes.items() if hasattr(setting, name)}
    rates |= {name: value for name, value in changes.items() if name not in facts}
    return Report(
        setting=replace(setting, **facts),
        rates={part: [rate * 0.9, rate, rate * 5] for part, rate in rates.items()},
        flop={"training p=0.5": 2.5e10},
        logging=[0.001, 0.004, 0.9],
        memory={"process": 2**31},
    )


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


def test_masking_half_of_the_frames_halves_the_work(network: Network, losses: TaskLosses) -> None:
    clip = replace(random_batch(1, 16), mask_noise=torch.rand(1, 16))
    flop = flop_per_frame(network, losses, clip, (0.0, 0.5))
    assert flop["training p=0.5"] == pytest.approx(0.5 * flop["training p=0"], rel=0.05)
    assert flop["training p=0"] == pytest.approx(3 * flop["inference"], rel=0.1)
    n_patches, dim = 5, 192  # a class token and 2 × 2 patches
    backbone = 2 * n_patches * 2 * 12 * dim**2  # FLOP of two blocks' matrices
    assert flop["inference"] == pytest.approx(backbone, rel=0.2)


def test_the_network_is_timed_as_it_trains(network: Network, losses: TaskLosses) -> None:
    batch = replace(random_batch(2, 8), mask_noise=torch.rand(2, 8))
    assert int(masked(batch, 0.5).visible.sum()) == 8
    parts = network_parts(network, losses, batch, ratios=(0.5,), autocast=lambda: torch.autocast("cpu"))
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


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, r"^network-bound: the loader gives 30,000 frames/s, 3\.0 times what training takes \(10,000\)$"),
        (
            {"loader": 5000.0, END_TO_END: 4900.0},
            r"^loader-bound: .* 5,000 .* 10,000; 4 workers would feed this device \(now 2\)$",
        ),
        (
            {"loader": 5000.0, "training p=0.5": 39_000.0, "cores": 4, END_TO_END: 4900.0},
            r"16 workers would feed this device \(now 2\), but this machine has 4 cores: .*`abaw extract`$",
        ),
        ({"loader": 9000.0, "workers": 0}, r"2 workers would feed this device \(now 0\)$"),
        ({END_TO_END: 5000.0}, r"end to end reaches 5,000 of 10,000 possible"),
        ({END_TO_END: 7400.0, "accelerated": False}, r"\(10,000\)$"),  # 7,500 is possible on shared cores
        ({END_TO_END: 7400.0, "workers": 0}, r"\(10,000\)$"),
        ({END_TO_END: 9900.0, "devices": 2}, r"reaches 9,900 of 20,000 possible"),
    ],
)
def test_the_verdict_names_what_the_rest_waits_for(changes: dict, said: str) -> None:
    assert re.search(said, report(**changes).verdict)


def test_the_report_gives_medians_and_shares() -> None:
    figures = json.loads(report().to_json())
    assert figures["frames_per_second"]["loader"] == {"median": 30_000, "min": 27_000, "max": 150_000}
    assert figures["share_of_matmul"] == {"training p=0.5": 0.5}
    assert figures["share_of_logging"] == 0.004
    table = report().table()
    assert table.splitlines()[-1] == figures["verdict"]
    assert "50%" in table
    assert "500.00 TFLOP/s" in table
    assert "2.00 GiB" in table
    assert "0.40% of the time" in table


def test_scaling_is_told_against_one_device() -> None:
    reports = {
        n: json.loads(report(**{END_TO_END: 9_500.0 * rate}).to_json()) for n, rate in ((1, 1), (4, 3))
    }
    lines = scaling_table(reports).splitlines()
    assert lines[1].split() == ["1", "9,500", "9,500", "100%"]
    assert lines[2].split() == ["4", "28,500", "7,125", "75%"]
    assert lines[-1].startswith("4: network-bound")


def words(root: Path, folder: Path, *more: str) -> list[str]:
    ends = [
        {"class_path": f"lightning.pytorch.callbacks.{name}", "init_args": {"monitor": "val/score"}}
        for name in ("EarlyStopping", "ModelCheckpoint")
    ]
    trainer = {
        "precision": "bf16-mixed",
        "limit_train_batches": 2,  # epochs end, though none is validated
        "max_epochs": ...,
        "check_val_every_n_epoch": ...,
        "callbacks+": ends,
    }
    configs = tiny_config(folder, model={"masking": {"ratio": 0.5}}, trainer=trainer)
    return [*configs, f"--run={folder / 'run'}", f"--data.root={root}", "--seconds=0.05", "--rounds=2", *more]


def test_a_configuration_is_timed_and_nothing_is_left_behind(
    synth_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["bench", *words(synth_root, tmp_path, "--json")]) == 0
    figures = json.loads(capsys.readouterr().out)
    parts = {
        "loader", "decode", "augment", "inference", "training p=0", "training p=0.5", END_TO_END,
    }  # fmt: skip
    assert set(figures["frames_per_second"]) == parts
    assert all(rate["min"] > 0 for rate in figures["frames_per_second"].values())
    assert set(figures["share_of_matmul"]) == {"inference", "training p=0", "training p=0.5"}
    assert figures["setting"]["precision"] == "bf16-mixed"
    assert 0 < figures["share_of_logging"] < 0.5
    assert figures["memory_bytes"]["process"] > 2**27
    assert {path.name for path in tmp_path.iterdir()} == {"tiny.yaml"}


@pytest.mark.parametrize("option", ["--seconds=0", "--rounds=0"])
def test_there_must_be_time_to_measure(
    option: str, synth_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", *words(synth_root, tmp_path, option)]) == 2
    assert "--seconds must be positive and --rounds at least 1" in capsys.readouterr().err


def test_devices_are_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--config=none.yaml", "--devices=all"]) == 2
    assert "--devices takes numbers such as 1,2,4, got 'all'" in capsys.readouterr().err


@pytest.mark.slow
def test_one_and_two_devices_are_compared(
    synth_root: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", *words(synth_root, tmp_path, "--devices=1,2", "--json")]) == 0
    reports = json.loads(capfd.readouterr().out)
    assert [reports[n]["setting"]["devices"] for n in "12"] == [1, 2]
    assert all(report["frames_per_second"][END_TO_END]["min"] > 0 for report in reports.values())
