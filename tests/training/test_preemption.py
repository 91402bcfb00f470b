"""A signal is recorded, not acted on; what is said of it and with which code a process ends."""

import atexit
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch.distributed as dist
from lightning.fabric.plugins.environments import LightningEnvironment

from abaw.model.checkpoints import load_checkpoint
from abaw.training import preemption
from abaw.training.preemption import PREEMPTED, SIGNALS, Preempted, PreemptionFlag, announce
from tests.support.project import PROJECT
from tests.support.tiny_run import tiny_config


@pytest.fixture(autouse=True)
def _handlers(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The handlers of the test process are as before afterwards, and none is registered for its end."""
    monkeypatch.setattr(atexit, "register", lambda _: None)
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def trainer(local_rank: int = 0, environment: Any = None) -> Any:
    strategy = SimpleNamespace(cluster_environment=environment)
    fit_loop = SimpleNamespace(epoch_loop=SimpleNamespace())
    return SimpleNamespace(strategy=strategy, local_rank=local_rank, world_size=1, fit_loop=fit_loop)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_sets_the_flag_and_is_named(number: signal.Signals) -> None:
    flag = PreemptionFlag()
    flag.register_handlers(trainer())
    assert not flag.is_set
    os.kill(os.getpid(), number)
    assert flag.is_set
    with pytest.raises(Preempted, match=rf"by {number.name}$") as raised:
        flag.exit_all_ranks(trainer())
    assert raised.value.code == PREEMPTED == 75


@pytest.mark.parametrize(
    ("local_rank", "environment", "code"),
    [(0, LightningEnvironment(), 75), (1, LightningEnvironment(), 0), (1, None, 75)],
    ids=["starts the others", "started by another", "started by a launcher"],
)
def test_a_process_started_by_another_ends_with_0(local_rank: int, environment: Any, code: int) -> None:
    with pytest.raises(Preempted) as raised:
        PreemptionFlag().exit_all_ranks(trainer(local_rank, environment))
    assert raised.value.code == code


def test_both_signals_are_ignored_while_the_process_ends() -> None:
    preemption.ignore_signals()
    for number in SIGNALS:
        os.kill(os.getpid(), number)
        assert signal.getsignal(number) is signal.SIG_IGN


@pytest.mark.parametrize("flags", [(True,), (False, True), (False, False)])
def test_one_process_asks_nobody(flags: tuple[bool, ...]) -> None:
    assert PreemptionFlag().exchange(trainer(), *flags) == flags


def test_process_groups_are_left_when_the_process_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_exit: list[Any] = []
    monkeypatch.setattr(atexit, "register", at_exit.append)
    alone, several = trainer(), trainer()
    several.world_size = 2
    PreemptionFlag().register_handlers(alone)
    assert not at_exit
    PreemptionFlag().register_handlers(several)
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'meet'}", rank=0, world_size=1)
    for leave in at_exit * 2:  # also where there is none
        leave()
    assert len(at_exit) == 1
    assert not dist.is_initialized()


def train_on_two(folder: Path, root: Path, signal_at: int | None) -> tuple[int, list[list[list[str]]]]:
    """Trains with two gloo processes; returns the exit code, and per rank and step what it waited for."""
    callback = {
        "class_path": "tests.support.collectives.BlockingReads",
        "init_args": {"folder": str(folder), "signal_at": signal_at},
    }
    trainer = {"log_every_n_steps": 5, "max_steps": 23, "limit_val_batches": 0, "callbacks": [callback]}
    config = tiny_config(
        folder, over=None, data={"windows": {"stride": 1}}, trainer=trainer | {"max_epochs": 9}
    )
    words = [*config, f"--data.root={root}", f"--run={folder / 'run'}"]
    more = ["--trainer.devices=2", "--trainer.strategy=ddp"]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*command, "-m", "--", "abaw", "fit", *words, *more],
        env=os.environ | {"PYTHONPATH": str(PROJECT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    files = [folder / f"reads{rank}.json" for rank in range(2)]
    assert all(file.exists() for file in files), done.stderr
    return done.returncode, [json.loads(file.read_text()) for file in files]


@pytest.mark.slow
def test_no_step_that_is_not_logged_waits_for_other_processes(synth_root: Path, tmp_path: Path) -> None:
    code, ranks = train_on_two(tmp_path, synth_root, None)
    assert code == 0
    for steps in ranks:
        assert len(steps) == 23
        for number, reads in enumerate(steps, 1):
            assert not reads or number % 5 == 0, (number, reads)


@pytest.mark.slow
def test_a_signal_to_one_process_ends_all_within_two_steps(synth_root: Path, tmp_path: Path) -> None:
    code, ranks = train_on_two(tmp_path, synth_root, 7)
    assert code != 0
    assert 7 < len(ranks[0]) == len(ranks[1]) <= 9
    assert load_checkpoint(tmp_path / "run/checkpoints/last.ckpt")["global_step"] == len(ranks[0])


@pytest.mark.parametrize(
    ("subcommand", "has_config", "cure"),
    [
        ("fit", True, "continue with: abaw fit --run {run} --ckpt_path last"),
        ("fit", False, "continue with the same command and --ckpt_path last"),
        ("extract", False, "start the same command again"),
        ("predict", True, "start the same command again"),
    ],
)
def test_the_command_that_continues_is_named(
    subcommand: str, has_config: bool, cure: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if has_config:
        (tmp_path / "config.yaml").touch()
    announce(Preempted("preempted by SIGTERM"), subcommand, tmp_path)
    expected = f"abaw: preempted by SIGTERM; {cure.format(run=tmp_path)}\n"
    assert capsys.readouterr().err == expected
