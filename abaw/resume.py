"""Losing nothing: checkpoints that are whole or absent, signals answered in time, and the way back.

What is promised: a run that is killed at any moment and continued with `--ckpt_path last` ends with the
weights it would have had. Checkpoints are therefore taken between two steps, never between the last step
of an epoch and the validation that belongs to it.
"""

import io
import math
import os
import signal
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO

from abaw.files import atomic_path

PREEMPTED = 75
"""Exit code of a run that was asked to go, saved itself and wants to be started again (EX_TEMPFAIL)."""


class Preempted(Exception):  # noqa: N818 - no error, an orderly end
    """The run was told by a signal to end; what it had done is saved."""


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside the target and renames, so a checkpoint is the old one or the new one."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:  # noqa: ARG002
        """Saves plain values and tensors.

        Raises:
            AbawError: The disk refused.
        """
        buffer = io.BytesIO()  # so that a full disk shows as the OSError it is
        torch.save(checkpoint, buffer)
        with atomic_path(path) as temporary:
            temporary.write_bytes(buffer.getbuffer())


class LastCheckpoint(Checkpoint):
    """Saves by steps and minutes, and at once when a signal asks the run to end.

    The newest checkpoint is `last.ckpt`; it and the ones before it also stand under their step's name.
    SIGTERM and SIGUSR1 only set a flag; the ranks agree on it after every step, save, and raise `Preempted`.

    Args:
        folder: Where the checkpoints go.
        every_n_steps: Save after this many optimizer steps; null leaves it to the clock.
        every_n_minutes: Save after this many minutes.
        keep: How many to keep.
    """

    SIGNALS = (signal.SIGTERM, signal.SIGUSR1)

    def __init__(
        self, folder: str, every_n_steps: int | None = None, every_n_minutes: float = 10.0, keep: int = 2
    ) -> None:
        self.folder = Path(folder)
        self.every_n_steps = every_n_steps
        self.seconds = 60 * every_n_minutes
        self.keep = keep
        self._signal: int | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """Takes the signals over from Lightning, which would broadcast inside the handler and hang."""
        self._saved_step = trainer.global_step
        self._saved_time = time.monotonic()
        if threading.current_thread() is threading.main_thread():
            for number in self.SIGNALS:  # Lightning puts the old handlers back when the run ends
                signal.signal(number, self._note)
        if trainer.is_global_zero:
            for leftover in self.folder.glob(".*.tmp"):
                leftover.unlink(missing_ok=True)

    def _note(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        self._signal = number

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,  # noqa: ARG002
        outputs: Any,  # noqa: ARG002
        batch: Any,  # noqa: ARG002
        batch_idx: int,
    ) -> None:
        """Saves when it is time. After an epoch's last step its validation comes first."""
        if (batch_idx + 1) % trainer.accumulate_grad_batches and not trainer.is_last_batch:
            return  # between the micro-batches of a step there is nothing whole to save
        validation_next = batch_idx + 2 == trainer.num_training_batches
        told, due = self._agree(trainer, self.seconds / 10 if validation_next else self.seconds)
        if self.every_n_steps is not None:
            due = due or trainer.global_step - self._saved_step >= self.every_n_steps
        if (told or due) and not trainer.is_last_batch:
            self.save(trainer)
        self._leave(told)

    def on_validation_batch_end(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:  # noqa: ARG002
        """A signal in mid-validation ends the run; it goes on from the newest checkpoint."""
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._leave(self._agree(trainer)[0])

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """Saves what validation has just judged."""
        self.save(trainer)
        self._leave(self._agree(trainer)[0])

    def save(self, trainer: Trainer) -> None:
        """Writes a checkpoint, names it the last one and removes those too old to keep. All ranks call it."""
        path = self.folder / f"step-{trainer.global_step:09d}.ckpt"
        trainer.save_checkpoint(path, weights_only=False)  # the optimizer too
        if trainer.is_global_zero:
            with atomic_path(self.folder / "last.ckpt") as temporary:
                _same_file(path, temporary)
            for old in sorted(self.folder.glob("step-*.ckpt"), reverse=True)[self.keep :]:
                old.unlink()
        self._saved_step, self._saved_time = trainer.global_step, time.monotonic()

    def _agree(self, trainer: Trainer, seconds: float = math.inf) -> tuple[bool, bool]:
        """Whether any rank was told to go, and whether rank 0 saved `seconds` ago; the same everywhere."""
        mine = (self._signal is not None, time.monotonic() - self._saved_time >= seconds)
        if trainer.world_size == 1:
            return mine
        flags = torch.tensor([mine[0], mine[1] and trainer.is_global_zero], dtype=torch.int32)
        flags = flags.to(trainer.strategy.root_device)
        torch.distributed.all_reduce(flags, op=torch.distributed.ReduceOp.MAX)
        told, due = flags.tolist()
        return bool(told), bool(due)

    def _leave(self, told: bool) -> None:
        if told:
            raise Preempted(
                f"told to end by {signal.Signals(self._signal).name}" if self._signal else "told to end"
            )


def _same_file(source: Path, target: Path) -> None:
    """Gives a file a second name, or a copy where the file system has no links."""
    try:
        os.link(source, target)
    except OSError:
        target.write_bytes(source.read_bytes())
