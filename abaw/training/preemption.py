"""Being asked to go: a signal is noted, what is under way is finished, and all processes leave together."""

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
"""Exit code of a run that was asked to go and wants to be started again (EX_TEMPFAIL)."""

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)

_GOES_ON = {
    "fit": "the same command with --ckpt_path last goes on from here",
    "extract": "the same command goes on from here",
}


class Preempted(Exception):  # noqa: N818 - no error, an orderly end
    """The run was told by a signal to end; what it had done is saved.

    Attributes:
        code: What this process is to exit with.
    """

    def __init__(self, message: str, code: int = PREEMPTED) -> None:
        super().__init__(message)
        self.code = code


@rank_zero_only
def announce(stop: Preempted, verb: str) -> None:
    """Says that a verb was ended in order, and how it goes on."""
    print(f"abaw: {stop}; {_GOES_ON.get(verb, 'start the same command again')}", file=sys.stderr)


class PreemptionFlag:
    """Notes SIGTERM and SIGUSR1 instead of dying of them."""

    def __init__(self) -> None:
        self._number: int | None = None

    @property
    def noted(self) -> bool:
        """Whether this process was told to end."""
        return self._number is not None

    def listen(self) -> None:
        """Takes the signals over from Lightning, which would broadcast inside the handler and hang.

        Lightning puts the old handlers back when the run ends.
        """
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                signal.signal(number, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        self._number = number

    def leave(self, trainer: Trainer) -> None:
        """Ends the part of this process.

        Raises:
            Preempted: Always.
        """
        atexit.register(ignore_signals)
        by = "" if self._number is None else f" by {signal.Signals(self._number).name}"
        # The process that started the others would take any code but 0 for a crash and kill all, itself too.
        environment = getattr(trainer.strategy, "cluster_environment", None)
        started_by_another = isinstance(environment, LightningEnvironment) and trainer.local_rank > 0
        raise Preempted(f"told to end{by}", 0 if started_by_another else PREEMPTED)


def ignore_signals() -> None:
    """While the interpreter ends, a launcher that misses another process already may repeat the signal."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def agreed(trainer: Trainer, *flags: bool) -> tuple[bool, ...]:
    """Each flag, true where any process raised it. All processes call it together and get the same."""
    if trainer.world_size == 1:
        return flags
    raised = torch.tensor(flags, dtype=torch.int32).to(trainer.strategy.root_device)
    torch.distributed.all_reduce(raised, op=torch.distributed.ReduceOp.MAX)
    return tuple(bool(flag) for flag in raised.tolist())


class EndOnSignal(Callback):
    """Lets an evaluation end between two batches when a signal asks for it, with `Preempted`."""

    def __init__(self) -> None:
        self._request = PreemptionFlag()

    def _listen(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        self._request.listen()

    def _leave(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:  # noqa: ARG002
        if agreed(trainer, self._request.noted)[0]:
            self._request.leave(trainer)

    on_validation_start = on_test_start = on_predict_start = _listen
    on_validation_batch_end = on_test_batch_end = on_predict_batch_end = _leave
