"""A signal is recorded, not acted on; what is said of it and with which code a process ends."""

import atexit
import os
import signal
from types import SimpleNamespace
from typing import Any

import pytest
from lightning.fabric.plugins.environments import LightningEnvironment

from abaw.training import preemption
from abaw.training.preemption import PREEMPTED, SIGNALS, Preempted, PreemptionFlag, announce, any_rank


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
    return SimpleNamespace(strategy=strategy, local_rank=local_rank, world_size=1)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_sets_the_flag_and_is_named(number: signal.Signals) -> None:
    flag = PreemptionFlag()
    flag.register_handlers()
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
    assert any_rank(trainer(), *flags) == flags


@pytest.mark.parametrize(
    ("subcommand", "cure"),
    [
        ("fit", "--ckpt_path last"),
        ("extract", "the same command"),
        ("predict", "start the same command again"),
    ],
)
def test_how_to_resume_is_said(subcommand: str, cure: str, capsys: pytest.CaptureFixture[str]) -> None:
    announce(Preempted("preempted by SIGTERM"), subcommand)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("abaw: preempted by SIGTERM; ")
    assert cure in line
