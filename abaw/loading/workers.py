"""DataLoader workers: their number, start, signals and shared memory."""

import ctypes
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import get_worker_info

from abaw.data.processes import available_cores

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


def start_worker(worker: int) -> None:  # noqa: ARG001 - the signature is the DataLoader's
    """Makes a loader process use one core and leave signals to the trainer, unless the trainer sent them.

    A batch system signals every process of a job; a worker that died of it would take the trainer along
    before a checkpoint is saved. The trainer's own SIGTERM
    still ends a worker, else the trainer could not end. And a worker ends with a killed trainer, else it
    would keep the connections open whose end tells the other ranks.
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
    """Exits when the process `trainer` sends SIGTERM; ignores that of other processes."""
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
def defer_interrupt() -> Iterator[None]:
    """Defers Ctrl-C, because Python loses one that comes during a fork."""
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


PREFETCH = 2
"""Number of batches that a worker prefetches."""


class SharedRing:
    """Allocates the large tensor of a batch, in a worker from reused shared memory.

    Shared memory comes as fresh pages, and to fill those takes a loader process a fifth of its time. So each
    has as many pieces as batches can be under way, and takes them in turn: `PREFETCH`, and the one that the
    trainer is copying, for it copies what it gets before it asks for more (`ClipLoader`). Other processes
    get memory of their own. Pickled and forked copies share nothing.
    """

    def __init__(self) -> None:
        self._pieces: list[Tensor] = []

    def __getstate__(self) -> dict[str, Any]:
        return {"_pieces": []}

    def take(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """A tensor of that shape and type, with anything in it."""
        if get_worker_info() is None:
            like = torch.empty(0, dtype=dtype).numpy().dtype
            return torch.from_numpy(np.empty(shape, like))  # NumPy asks for pages of 2 MB
        if len(self._pieces) > PREFETCH:
            piece = self._pieces.pop(0)
            if piece.dtype == dtype and piece.shape == shape:
                self._pieces.append(piece)
                return piece
        piece = torch.empty(shape, dtype=dtype).share_memory_()  # type: ignore[no-untyped-call]
        self._pieces.append(piece)
        return self._pieces[-1]
