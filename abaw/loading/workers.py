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
"""Reads about 50,000 frames a second, more than a device can use; more workers only take memory."""

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's mallopt
_PR_SET_PDEATHSIG = 1  # of Linux: the signal that a process gets when its parent has ended


def default_workers(n_processes: int = 1) -> int:
    """Default number of workers of each of `n_processes` training processes on this machine.

    An equal share of the cores, at most `MOST_WORKERS`; 0 for a single core, as one worker is slower than
    none.
    """
    share = min(available_cores() // n_processes, MOST_WORKERS)
    return share if share > 1 else 0


def start_worker(worker: int) -> None:  # noqa: ARG001 - signature of worker_init_fn
    """Initialises a worker: one thread, and signals are ignored unless the trainer sends them.

    A batch system signals every process of a job; a worker that ended would fail the trainer before it saves
    a checkpoint. SIGTERM from the trainer still ends a worker. A worker also ends when the trainer is killed,
    as it would keep the connections open by whose end the other ranks notice.
    """
    import cv2

    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    for number in (signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    if sys.platform == "linux":  # where sigwaitinfo returns the sender
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_end_with_trainer, args=(os.getppid(),), daemon=True).start()
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _end_with_trainer(trainer: int) -> None:
    """Exits when the process `trainer` sends SIGTERM; ignores that of other processes."""
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != trainer:
        pass
    os._exit(0)


def keep_freed_memory() -> None:
    """Makes glibc keep freed memory for the next clip: page faults of new memory take as long as a copy.

    By default it returns free memory at the end of the heap to the system.
    """
    allocator: Any = ctypes.CDLL(None) if sys.platform == "linux" else None
    if hasattr(allocator, "mallopt"):
        allocator.mallopt(_M_MMAP_THRESHOLD, 32 * 2**20)  # the largest that glibc would choose itself
        allocator.mallopt(_M_TRIM_THRESHOLD, 256 * 2**20)


@contextmanager
def defer_interrupt() -> Iterator[None]:
    """Defers Ctrl-C, which Python loses during a fork."""
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

    Page faults of new shared memory take a fifth of a worker's time. So each worker reuses as many tensors
    in turn as batches can be in flight: `PREFETCH`, and one that the trainer is copying, as it copies a batch
    before it requests the next (`ClipLoader`). Other processes allocate ordinary memory. Pickled and forked
    copies share nothing.
    """

    def __init__(self) -> None:
        self._pieces: list[Tensor] = []

    def __getstate__(self) -> dict[str, Any]:
        return {"_pieces": []}

    def take(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """An uninitialised tensor of that shape."""
        if get_worker_info() is None:
            like = torch.empty(0, dtype=dtype).numpy().dtype
            return torch.from_numpy(np.empty(shape, like))  # NumPy requests pages of 2 MB
        piece = self._pieces.pop(0) if len(self._pieces) > PREFETCH else None
        if piece is None or piece.dtype != dtype or piece.shape != shape:
            piece = torch.empty(shape, dtype=dtype).share_memory_()  # type: ignore[no-untyped-call]
        self._pieces.append(piece)
        return self._pieces[-1]
