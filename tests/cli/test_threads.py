"""OpenMP's threads: they wait passively, and a small network has one."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from abaw.__main__ import main
from abaw.cli.threads import WEIGHTS_PER_THREAD, n_threads, wait_passively
from abaw.cli.trainer_commands import AbawCLI
from abaw.data.processes import available_cores
from tests.support.project import PROJECT

NAMES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "OMP_NUM_THREADS")
SLACK = 2


@pytest.mark.parametrize(
    ("millions", "cores", "expected"),
    [(0, 8, 1), (0.7, 8, 1), (3.9, 8, 1), (4, 8, 2), (86, 8, 8), (86, 1, 1), (86, 0, 1)],
)
def test_number_of_threads(millions: float, cores: int, expected: int) -> None:
    assert n_threads(round(millions * WEIGHTS_PER_THREAD / 2), cores=cores) == expected


@pytest.mark.parametrize("set_by_user", [{}, {"OMP_WAIT_POLICY": "active"}, {"GOMP_SPINCOUNT": "1000"}])
def test_waits_passively_unless_the_user_says_otherwise(
    set_by_user: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    for name, value in set_by_user.items():
        monkeypatch.setenv(name, value)
    wait_passively()
    found = {name: os.environ[name] for name in NAMES if name in os.environ}
    assert found == (set_by_user or {"OMP_WAIT_POLICY": "passive"})
    os.environ.pop("OMP_WAIT_POLICY", None)  # monkeypatch undoes only what it did itself


@pytest.mark.parametrize(
    "way", ["import abaw.__main__ as m; m.main(['--version'])", "import abaw; abaw.load"]
)
def test_it_is_said_before_torch_is_loaded(way: str) -> None:
    script = f"""
import os, sys
class Watch:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            print("when torch is loaded:", os.environ.get("OMP_WAIT_POLICY"))
sys.meta_path.insert(0, Watch())
{way}
import torch
"""
    environment = {name: value for name, value in os.environ.items() if name not in NAMES}
    environment["PYTHONPATH"] = str(PROJECT)
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    assert "when torch is loaded: passive" in done.stdout, done.stderr


@pytest.mark.parametrize(
    ("depth", "user", "expected"), [(1, None, "one"), (10, None, "more"), (1, "2", "the user's")]
)
def test_a_training_has_the_threads_its_network_is_worth(
    depth: int,
    user: str | None,
    expected: str,
    synth_root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if user is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", user)
    monkeypatch.setattr("abaw.data.processes.available_cores", lambda: 2)
    seen: list[int] = []
    monkeypatch.setattr(AbawCLI, "_run_subcommand", lambda *_: seen.append(torch.get_num_threads()))
    before = torch.get_num_threads()
    options = {
        "--config": PROJECT / "configs" / "demo.yaml",
        "--run": tmp_path / "run",
        "--data.root": synth_root,
        "--model.backbone.overrides": f"{{embed_dim: 192, depth: {depth}, num_heads: 3}}",
        "--trainer.accelerator": "cpu",
        "--trainer.fast_dev_run": "true",
    }
    torch.set_num_threads(3)
    try:
        assert main(["fit", *(f"{name}={value}" for name, value in options.items())]) == 0
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    assert seen == [{"one": 1, "more": 2, "the user's": 3}[expected]]


STEPS = """
import sys, time
from abaw.__main__ import main
assert main(["--version"]) == 0  # the front door comes before torch
import abaw.cli.trainer_commands
from lightning.pytorch import Callback
seconds = []

class Clock(Callback):
    def on_train_batch_end(self, *args, **kwargs):
        seconds.append(time.process_time())

made = abaw.cli.trainer_commands.AbawCLI._callbacks
abaw.cli.trainer_commands.AbawCLI._callbacks = lambda cli, given: [*made(cli, given), Clock()]
assert main(sys.argv[1:]) == 0
print("seconds per step:", (seconds[-1] - seconds[2]) / (len(seconds) - 3))
"""


@pytest.mark.slow
def test_a_busy_machine_costs_a_step_of_the_demo_little(synth_root: Path, tmp_path: Path) -> None:
    """CPU seconds of this process per step, alone and with one other busy process per core."""
    script = tmp_path / "steps.py"
    script.write_text(STEPS)
    options = ["--trainer.max_steps=20", "--trainer.limit_val_batches=0", "--trainer.accelerator=cpu"]
    config = [f"--config={PROJECT / 'configs' / 'demo.yaml'}", f"--data.root={synth_root}"]
    environment = {name: value for name, value in os.environ.items() if name not in NAMES}
    environment["PYTHONPATH"] = str(PROJECT)

    def seconds_per_step(run: str) -> float:
        words = ["fit", *config, *options, f"--run={tmp_path / run}"]
        done = subprocess.run(
            [sys.executable, str(script), *words], env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return float(done.stdout.rpartition("seconds per step:")[2])

    alone = seconds_per_step("alone")
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(available_cores())]
    try:
        time.sleep(0.5)
        busy = seconds_per_step("busy")
    finally:
        for other in others:
            other.kill()
            other.wait()
    assert busy <= 1.5 * SLACK * alone
