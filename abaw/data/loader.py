"""Loaders whose place in the data is part of the run: a stateful one for training, options for all."""

import ctypes
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from abaw.batch import Batch
from abaw.data.processes import available_cores
from abaw.data.samplers import TrainSampler
from abaw.data.shared_memory import PREFETCH
from abaw.errors import AbawError

MOST_WORKERS = 8
"""Feeds about 50,000 frames a second, more than a device takes; beyond it workers only cost memory."""

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's mallopt
_PR_SET_PDEATHSIG = 1  # of Linux: the signal that a process gets when its parent has ended


def default_workers(n_processes: int = 1) -> int:
    """How many workers each of `n_processes` training processes of this machine should have.

    An equal share of the cores, at most `MOST_WORKERS`; none where the share is a single core, because
    one worker is slower than no worker.
    """
    share = min(available_cores() // n_processes, MOST_WORKERS)
    return share if share > 1 else 0


def loader_options(*, workers: int, pin_memory: bool) -> dict[str, Any]:
    """Arguments every DataLoader of this package is made with.

    Workers are forked on Linux: they start in milliseconds, share the index and imports with the
    trainer and notice its death; a fork server costs seconds and would keep them alive as orphans.
    """
    return {
        "collate_fn": Batch.cat,
        "num_workers": workers,
        "prefetch_factor": PREFETCH if workers else None,
        "persistent_workers": workers > 0,
        "worker_init_fn": start_worker,
        "multiprocessing_context": "fork" if workers and sys.platform == "linux" else None,
        "pin_memory": pin_memory,
        "generator": torch.Generator(),  # else every pass would draw a number from the global stream
    }


def start_worker(worker: int) -> None:  # noqa: ARG001 - the signature is the DataLoader's
    """Makes a loader process use one core and leave signals to the trainer, unless the trainer sent them.

    A batch system signals every process of a job; a worker that died of it would take the trainer along
    before a checkpoint is saved. But a worker deaf to the trainer's own SIGTERM would keep it
    from ending. And one that outlived a killed trainer would hold the connections open by whose end the
    other ranks notice.
    """
    import cv2

    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    for number in (signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    if sys.platform == "linux":  # where a signal tells its sender
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_end_with_trainer, args=(os.getppid(),), daemon=True).start()
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _end_with_trainer(trainer: int) -> None:
    """Waits until the process `trainer` sends SIGTERM, and passes over those of others."""
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != trainer:
        pass
    os._exit(0)


def keep_freed_memory() -> None:
    """Lets this process keep what one clip needed for the next: pages mapped anew cost as much as a copy.

    So does glibc on its own, but for memory at the end of what it has, which it gives back at once.
    """
    allocator: Any = ctypes.CDLL(None) if sys.platform == "linux" else None
    if hasattr(allocator, "mallopt"):
        allocator.mallopt(_M_MMAP_THRESHOLD, 32 * 2**20)  # as far as glibc would raise it
        allocator.mallopt(_M_TRIM_THRESHOLD, 256 * 2**20)


@contextmanager
def _interrupted_later() -> Iterator[None]:
    """Lets Ctrl-C wait, for Python loses one that comes in the middle of a fork."""
    handler = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(handler):
        yield
        return
    came: list[int] = []
    signal.signal(signal.SIGINT, lambda number, _: came.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
    if came:
        handler(signal.SIGINT, None)


def refuse_other_batches(
    state: Mapping[str, int], *, batch_size: int, world_size: int, windows: int, seed: int
) -> None:
    """Compares what decides which windows a batch is made of, besides its place, with a loader's state.

    Raises:
        AbawError: They differ, so the place in the data would mean something else.
    """
    now = {
        "batch_size": ("data.batch_size", batch_size),
        "world_size": ("trainer.devices, the number of processes of all nodes", world_size),
        "windows": ("data.root, the number of training windows", windows),
        "seed": ("seed_everything", seed),
    }
    changes = [
        f"{what}: the run was trained with {state[name]}, now it is {value}"
        for name, (what, value) in now.items()
        if state[name] != value
    ]
    if changes:
        raise AbawError(
            f"{'; '.join(changes)}.\nA resumed run keeps its place in the data: restore it, or start a new"
            " run from these weights with --init_from CKPT --run NEW"
        )


class ClipLoader(DataLoader[Batch]):
    """A DataLoader that leaves its workers their memory, and in which their errors read like any other.

    What it hands out is a copy, in page-locked memory or in plain one; see `SharedRing`.
    """

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override] # the DataLoader's own is no generator
        keep_freed_memory()
        # and so with what the loader processes share
        recent: deque[Batch] = deque(maxlen=self.num_workers * (PREFETCH + 1))
        try:
            with _interrupted_later():
                batches = super().__iter__()  # forks the loader processes
            for batch in batches:
                recent.append(batch)
                yield batch.copied() if self.num_workers and not self.pin_memory else batch
        except AbawError as error:  # a worker's message is its whole traceback, whose last line it was
            kind = type(error)
            message = str(error).rpartition(f"{kind.__module__}.{kind.__qualname__}: ")[2].strip()
            raise kind(message) from error


class TrainLoader(ClipLoader):
    """Hands out the training batches of one epoch per pass and knows how far it has come.

    Its state counts the batches that were handed out, not those fetched ahead, and does not depend on the
    rank: the state of rank 0 continues all of them. Lightning saves and restores it with the run.

    Args:
        dataset: Gives the clip of a `Slot`.
        sampler: Gives the slots of this rank.
        workers: Loader processes; 0 loads in this one.
        pin_memory: Whether batches are put into page-locked memory; only of use with an accelerator.
        limit: Where the trainer ends an epoch, as its limit_train_batches: a number of batches, or a share.
    """

    def __init__(
        self,
        dataset: Dataset[Batch],
        *,
        sampler: TrainSampler,
        workers: int = 0,
        pin_memory: bool = False,
        limit: int | float = 1.0,
    ) -> None:
        options = loader_options(workers=workers, pin_memory=pin_memory)
        super().__init__(dataset, batch_size=sampler.batch_size, sampler=sampler, **options)
        self._slots = sampler
        n_batches = sampler.n_batches
        self._epoch_batches = min(limit, n_batches) if isinstance(limit, int) else int(limit * n_batches)
        self._epoch = self._n_handed_out = 0

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        # All this happens at the first batch, not before: Lightning makes the iterator, then sets the epoch.
        self._epoch, self._n_handed_out = self._slots.epoch, self._slots.first_batch
        for batch in super().__iter__():
            self._n_handed_out += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """Where the next batch stands: `epoch`, `batches` handed out of it, and what its meaning rests on."""
        over = self._n_handed_out >= self._epoch_batches
        place = (self._epoch + 1, 0) if over else (self._epoch, self._n_handed_out)
        return dict(zip(("epoch", "batches"), place, strict=True)) | self._conditions()

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Lets the next pass go on where the state was taken.

        Raises:
            AbawError: Batches are made differently now, so the place would mean something else.
        """
        refuse_other_batches(state, **self._conditions())
        self._epoch, self._n_handed_out = state["epoch"], state["batches"]
        self._slots.start_at(self._epoch, self._n_handed_out)

    def _conditions(self) -> dict[str, int]:
        """What decides which windows a batch is made of, besides its place."""
        slots = self._slots
        return {
            "batch_size": slots.batch_size,
            "world_size": slots.num_replicas,
            "windows": slots.n_windows,
            "seed": slots.seed,
        }
