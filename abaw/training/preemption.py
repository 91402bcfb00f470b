"""Preemption: a signal sets a flag, the current step is completed, and all processes exit together."""

import atexit
import signal
import sys
import threading
from types import FrameType
from typing import Any

import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_only

PREEMPTED = 75
"""Exit code of a preempted run, which should be started again (EX_TEMPFAIL)."""

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)

_HOW_TO_RESUME = {
    "fit": "resume with the same command and --ckpt_path last",
    "extract": "resume with the same command",
}


class Preempted(Exception):  # noqa: N818 - not an error
    """A signal ended the run after its progress was saved.

    Attributes:
        code: Exit code of this process.
    """

    def __init__(self, message: str, code: int = PREEMPTED) -> None:
        super().__init__(message)
        self.code = code


@rank_zero_only
def announce(stop: Preempted, subcommand: str) -> None:
    """Prints that a subcommand was preempted, and how to resume it."""
    print(f"abaw: {stop}; {_HOW_TO_RESUME.get(subcommand, 'start the same command again')}", file=sys.stderr)


class PreemptionFlag:
    """Records SIGTERM and SIGUSR1 instead of ending the process."""

    def __init__(self) -> None:
        self._number: int | None = None

    @property
    def is_set(self) -> bool:
        """Whether this process got a signal."""
        return self._number is not None

    def register_handlers(self) -> None:
        """Replaces Lightning's signal handlers, which broadcast inside the handler and hang.

        Lightning restores the previous handlers when the run ends.
        """
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                signal.signal(number, self._handle)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self._number = number

    def exit_all_ranks(self, trainer: Trainer) -> None:
        """Ends this process; every rank calls it after `any_rank`.

        Raises:
            Preempted: Always.
        """
        atexit.register(ignore_signals)
        by = "" if self._number is None else f" by {signal.Signals(self._number).name}"
        # Lightning's launcher treats any other code than 0 as a crash and kills all processes.
        environment = getattr(trainer.strategy, "cluster_environment", None)
        started_by_another = isinstance(environment, LightningEnvironment) and trainer.local_rank > 0
        raise Preempted(f"preempted{by}", 0 if started_by_another else PREEMPTED)


def ignore_signals() -> None:
    """Ignores both signals: a launcher may repeat them while the interpreter shuts down."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def any_rank(trainer: Trainer, *flags: bool) -> tuple[bool, ...]:
    """Each flag, true if it is true on any rank; a collective call."""
    if trainer.world_size == 1:
        return flags
    raised = torch.tensor(flags, dtype=torch.int32).to(trainer.strategy.root_device)
    torch.distributed.all_reduce(raised, op=torch.distributed.ReduceOp.MAX)
    return tuple(bool(flag) for flag in raised.tolist())


class EndOnSignal(Callback):
    """Ends an evaluation between two batches after a signal, by raising `Preempted`."""

    def __init__(self) -> None:
        self._preemption = PreemptionFlag()

    def _register(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._preemption.register_handlers()

    def _exit_if_preempted(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        if any_rank(trainer, self._preemption.is_set)[0]:
            self._preemption.exit_all_ranks(trainer)

    on_validation_start = on_test_start = on_predict_start = _register
    on_validation_batch_end = on_test_batch_end = on_predict_batch_end = _exit_if_preempted
