"""Preemption: a signal sets a flag, the current step is completed, and all processes exit together."""

import atexit
import signal
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Any, cast

import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

PREEMPTED = 75
"""Exit code of a preempted run, which should be started again (EX_TEMPFAIL)."""

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


def how_to_continue(subcommand: str, run: Path | None) -> str:
    """The command that continues a subcommand that was stopped.

    Args:
        subcommand: Its name.
        run: Directory of its run; None: unknown.
    """
    if subcommand != "fit":
        return "start the same command again"
    known = run is not None and (run / "config.yaml").is_file()
    command = f": abaw fit --run {run}" if known else " the same command and"
    return f"continue with{command} --ckpt_path last"


class Preempted(Exception):  # noqa: N818 - not an error
    """A signal ended the run after its progress was saved.

    Attributes:
        code: Exit code of this process.
    """

    def __init__(self, message: str, code: int = PREEMPTED) -> None:
        super().__init__(message)
        self.code = code


@rank_zero_only
def announce(stop: Preempted, subcommand: str, run: Path | None) -> None:
    """Prints that a subcommand was preempted, and how to continue it; see `how_to_continue`."""
    print(f"abaw: {stop}; {how_to_continue(subcommand, run)}", file=sys.stderr)


class PreemptionFlag:
    """Records SIGTERM and SIGUSR1 instead of ending the process, and tells all ranks."""

    def __init__(self) -> None:
        self._number: int | None = None
        self._group: Any = None
        self._sent: tuple[Any, Tensor] | None = None

    @property
    def is_set(self) -> bool:
        """Whether this process got a signal."""
        return self._number is not None

    def register_handlers(self, trainer: Trainer) -> None:
        """Replaces Lightning's signal handlers, which broadcast inside the handler and hang.

        Lightning restores the previous handlers when the run ends. Its broadcast in every training step, of
        whether rank 0 got SIGTERM, is left out: every rank would wait for it (PL#21487).
        """
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                signal.signal(number, self._handle)
        cast(Any, trainer.fit_loop.epoch_loop)._broadcast_sigterm_tensor = lambda: None
        if trainer.world_size > 1:
            atexit.register(leave_process_groups)
        self._group = self._sent = None

    def exchange(self, trainer: Trainer, *flags: bool) -> tuple[bool, ...]:
        """Each flag of the previous call, true if it was true on any rank; a collective call.

        It waits neither for the device nor for ranks that are less than a call behind. False at the first
        call. A single process gets the flags of this call.
        """
        if trainer.world_size == 1:
            return flags
        if self._group is None:
            self._group = torch.distributed.new_group(backend="gloo")  # of the CPU, also beside NCCL
        before, raised = self._sent, torch.tensor(flags, dtype=torch.int32)
        largest = torch.distributed.ReduceOp.MAX
        work = torch.distributed.all_reduce(raised, largest, group=self._group, async_op=True)
        self._sent = work, raised
        if before is None:
            return (False,) * len(flags)
        before[0].wait()
        return tuple(bool(flag) for flag in before[1].tolist())

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self._number = number

    def exit_if_set(self, trainer: Trainer) -> None:
        """Raises `Preempted` if a process got a signal before its previous exchange; a collective call."""
        if self.exchange(trainer, self.is_set, False)[0]:
            self.exit_all_ranks(trainer)

    def exit_all_ranks(self, trainer: Trainer) -> None:
        """Ends this process; every rank calls it.

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


def leave_process_groups() -> None:
    """Destroys the process groups of PyTorch, where there are any.

    Lightning does so for NCCL only; the threads of Gloo, if they still run when the interpreter has ended,
    abort the process in place of its exit code ("terminate called without an active exception").
    """
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


class EndOnSignal(Callback):
    """Ends an evaluation between two batches after a signal, by raising `Preempted`."""

    def __init__(self) -> None:
        self._preemption = PreemptionFlag()

    def _register(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._preemption.register_handlers(trainer)

    def _exit_if_preempted(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        self._preemption.exit_if_set(trainer)

    on_validation_start = on_test_start = on_predict_start = _register
    on_validation_batch_end = on_test_batch_end = on_predict_batch_end = _exit_if_preempted
