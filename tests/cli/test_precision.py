"""The precision `auto`: what it is on which machine, what a run records, what a resumed run keeps."""

import os
import platform
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml

from abaw.__main__ import main
from abaw.cli import precision, trainer_commands
from abaw.cli.trainer_commands import AbawCLI
from abaw.model.checkpoints import load_checkpoint
from tests.support.project import PROJECT
from tests.support.tiny_run import tiny_config


class Machine:
    """What the machine has, as `abaw.cli.precision` asks for it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.patch = monkeypatch
        self.has(cpu=None)

    def has(self, *, cpu: float | None, gpu: bool | None = None, mps: bool = False) -> None:
        """Speed of bf16 on the CPU, None without its instructions; whether a GPU has them; Apple's GPU."""
        self.patch.setattr(precision, "cpu_has_bf16", lambda: cpu is not None)
        self.patch.setattr(precision, "bf16_speed", lambda: cpu)
        self.patch.setattr(torch.cuda, "is_available", lambda: gpu is not None)
        self.patch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: bool(gpu))
        self.patch.setattr(torch.backends.mps, "is_available", lambda: mps)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(monkeypatch)


CASES = {
    "cpu without": ({"cpu": None}, "auto", "32-true", "no bf16"),
    "cpu where it is fast": ({"cpu": 4.0}, "auto", "bf16-mixed", "4.0 times"),
    "cpu where it is slow": ({"cpu": 0.5}, "cpu", "32-true", "0.5 times"),
    "gpu": ({"cpu": None, "gpu": True}, "auto", "bf16-mixed", "this GPU has bf16"),
    "gpu by name": ({"cpu": None, "gpu": True}, "cuda", "bf16-mixed", "GPU"),
    "old gpu": ({"cpu": 4.0, "gpu": False}, "gpu", "32-true", "this GPU has no bf16"),
    "cpu beside a gpu": ({"cpu": None, "gpu": True}, "cpu", "32-true", "CPU"),
    "apple": ({"cpu": 4.0, "mps": True}, "auto", "32-true", "mps"),
    "apple's cpu": ({"cpu": None, "mps": True}, "cpu", "32-true", "CPU"),
    "another": ({"cpu": 4.0}, "tpu", "32-true", "tpu"),
    "a class": ({"cpu": None, "gpu": True}, "a.b.CUDAAccelerator", "bf16-mixed", "GPU"),
}


@pytest.mark.parametrize(("has", "accelerator", "expected", "reason"), CASES.values(), ids=CASES)
def test_the_rule(machine: Machine, has: dict, accelerator: str, expected: str, reason: str) -> None:
    machine.has(**has)
    given = SimpleNamespace(class_path=accelerator) if "." in accelerator else accelerator
    choice = precision.best_precision(given)
    assert choice.precision == expected
    assert reason in choice.reason


@pytest.mark.skipif(platform.machine() != "x86_64", reason="simulates another x86 processor")
def test_kernels_count_rather_than_the_processor() -> None:
    script = "from abaw.cli.precision import best_precision; print(best_precision('cpu').precision)"
    other = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"}
    environment = os.environ | other | {"PYTHONPATH": str(PROJECT)}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    assert done.stdout.strip() == "32-true", done.stderr


def test_the_speed_is_measured_on_one_core_and_leaves_the_threads_alone() -> None:
    before = torch.get_num_threads()
    precision.bf16_speed.cache_clear()
    assert precision.bf16_speed() > 0
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("recorded", ["bf16-mixed", "32-true"])
def test_a_run_records_and_keeps_its_precision(
    recorded: str,
    machine: Machine,
    synth_root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    used: list[str] = []
    runs = AbawCLI._run_subcommand

    def noted(cli: AbawCLI, name: str) -> None:
        used.append(str(cli.trainer.precision))
        runs(cli, name)

    monkeypatch.setattr(AbawCLI, "_run_subcommand", noted)

    def does(subcommand: str, *more: str) -> tuple[str, str]:
        """The precision that was used, and what was said about it."""
        assert main([subcommand, f"--run={run}", *more]) == 0
        said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("precision: ")]
        return used.pop(), "\n".join(said)

    run = tmp_path / "run"
    limits = {"limit_train_batches": 2, "limit_val_batches": 1, "limit_predict_batches": 1}
    trainer = limits | {"precision": ..., "num_sanity_val_steps": 0}
    configs = tiny_config(tmp_path, over=None, data={"windows": {"stride": 8}}, trainer=trainer)
    whole = [*configs, f"--data.root={synth_root}"]
    here, other = (4.0, None) if recorded == "bf16-mixed" else (None, 4.0)
    chosen_elsewhere = "32-true" if recorded == "bf16-mixed" else "bf16-mixed"
    kept = f"precision: {recorded} (as recorded; this machine would choose {chosen_elsewhere})"

    machine.has(cpu=here)
    precision_used, said = does("fit", *whole)
    assert precision_used == recorded
    assert said.startswith(f"precision: {recorded} (this CPU")
    assert yaml.safe_load((run / "config.yaml").read_text())["trainer"]["precision"] == recorded

    machine.has(cpu=other)
    resume = ["--ckpt_path=last", "--trainer.max_epochs"]
    assert does("fit", *whole, *resume, "2") == (recorded, kept)
    assert does("fit", *resume, "3") == (recorded, kept)  # by the run's own config.yaml
    assert yaml.safe_load((run / "config.yaml").read_text())["trainer"]["precision"] == recorded
    assert load_checkpoint(run / "checkpoints" / "last.ckpt")["epoch"] == 2

    precision_used, said = does("validate", *whole)
    assert precision_used == chosen_elsewhere
    assert said.startswith(f"precision: {chosen_elsewhere} (this CPU")
    # by the run's own config.yaml: what may be slow here is replaced, float32 is not
    assert does("validate")[0] == "32-true"
    assert does("validate", "--trainer.precision=bf16-mixed") == ("bf16-mixed", "")


@pytest.mark.parametrize(("gpu", "expected"), [(True, "medium"), (None, "highest")])
def test_products_in_float32_are_set_where_there_is_a_gpu(
    machine: Machine, gpu: bool | None, expected: str
) -> None:
    before = torch.get_float32_matmul_precision()
    machine.has(cpu=None, gpu=gpu)
    torch.set_float32_matmul_precision("highest")
    try:
        precision.set_matmul_precision("medium")
        assert torch.get_float32_matmul_precision() == expected
    finally:
        torch.set_float32_matmul_precision(before)


def test_the_precision_of_products_is_an_option_and_high_by_default(
    synth_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(trainer_commands, "set_matmul_precision", asked.append)
    words = ["fit", *tiny_config(tmp_path), f"--data.root={synth_root}", "--trainer.fast_dev_run=1"]
    assert main(words) == 0
    assert main([*words, "--float32_matmul_precision=highest"]) == 0
    assert asked == ["high", "highest"]
    assert main([*words, "--float32_matmul_precision=fast"]) == 2


def test_another_word_is_refused_and_auto_offered(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", f"--run={tmp_path}", "--trainer.precision=automatic"]) == 2
    assert "auto" in capsys.readouterr().err.partition("got")[0]
