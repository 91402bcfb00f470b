"""A callback for trainings on several processes: which results of collective calls a step waits for."""

import functools
import json
import os
import signal
from pathlib import Path
from typing import Any

import torch.distributed
from lightning.pytorch import Callback, Trainer
from torch import Tensor

COLLECTIVES = ("all_reduce", "all_gather", "all_gather_into_tensor", "broadcast", "reduce", "gather")
WAITING = ("barrier", "monitored_barrier", "all_gather_object", "broadcast_object_list", "gather_object")
READS = ("item", "tolist", "numpy", "__bool__", "__int__", "__float__")


class BlockingReads(Callback):
    """Writes for every step what the host waited for: tensors that it reads right after a collective call.

    On a GPU the collective calls alone are queued, and wait for nothing.

    Args:
        folder: Takes a file per rank: a list with the reads of every step.
        signal_at: Step after which rank 1 gets SIGTERM; None: it gets none.
    """

    def __init__(self, folder: str, signal_at: int | None = None) -> None:
        self.folder = Path(folder)
        self.signal_at = signal_at
        self.steps: list[list[str]] = []
        self.reads: list[str] = []
        self.written: list[Tensor] = []

    def setup(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        for name in COLLECTIVES + WAITING:
            setattr(torch.distributed, name, self._collective(name, getattr(torch.distributed, name)))
        for name in READS:
            setattr(Tensor, name, self._read(name, getattr(Tensor, name)))

    def _collective(self, name: str, call: Any) -> Any:
        @functools.wraps(call)
        def noted(*args: Any, **kwargs: Any) -> Any:
            if name in WAITING:
                self.reads.append(name)
            elif not kwargs.get("async_op"):
                self.written += [each for each in args if isinstance(each, Tensor)]
            return call(*args, **kwargs)

        return noted

    def _read(self, name: str, call: Any) -> Any:
        @functools.wraps(call)
        def noted(tensor: Tensor, *args: Any, **kwargs: Any) -> Any:
            if any(tensor is each for each in self.written):
                self.reads.append(name)
            return call(tensor, *args, **kwargs)

        return noted

    def on_train_start(self, *args: Any) -> None:
        self.reads, self.written = [], []

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        self.steps.append(self.reads)
        self.reads, self.written = [], []
        path = self.folder / f"reads{trainer.global_rank}.json"
        path.write_text(json.dumps(self.steps))
        if trainer.global_step == self.signal_at and trainer.global_rank == 1:
            os.kill(os.getpid(), signal.SIGTERM)
