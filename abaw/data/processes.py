"""Process pool for commands; worker processes leave Ctrl-C to their parent."""

import os
import signal
import sys
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import active_children, get_context
from multiprocessing.process import BaseProcess
from typing import Any, Literal, TypeVar

from abaw.errors import AbawError

Result = TypeVar("Result")


def available_cores() -> int:
    """The number of cores available to this process, which a batch system may restrict."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_processes(
    function: Callable[..., Result],
    tasks: Sequence[tuple[Any, ...]],
    *,
    jobs: int,
    method: Literal["fork", "spawn"],
    initializer: Callable[[], None],
) -> Generator[Result, None, None]:
    """Yields the result of every task, in the order of the tasks.

    When the iteration ends early, by an error or Ctrl-C, the worker processes are terminated after the
    `finally` blocks of their tasks.

    Args:
        function: A module-level function.
        tasks: Arguments of the function, one tuple per task.
        jobs: Number of processes, at least 1.
        method: Start method of the processes.
        initializer: Called once in every process.

    Raises:
        AbawError: A process was killed.
    """
    # creating the pool also starts the resource tracker, which unblocks the signal
    pool = ProcessPoolExecutor(
        min(jobs, len(tasks)), get_context(method), _start_process, initargs=(initializer,)
    )
    others = active_children()
    workers: list[BaseProcess] = []
    try:
        with _interrupt_blocked():  # submitting starts the processes, which inherit the mask
            futures = [pool.submit(_run, function, task) for task in tasks]
            workers += [child for child in active_children() if child not in others]
        for future in futures:
            yield future.result()
    except BrokenProcessPool as error:
        raise AbawError("a worker process was killed, perhaps out of memory; try --jobs 1") from error
    except BaseException:
        for worker in workers:
            worker.terminate()
        raise
    finally:
        pool.shutdown()


@contextmanager
def _interrupt_blocked() -> Iterator[None]:
    """Blocks SIGINT until the end of the block."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start_process(initializer: Callable[[], None]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    initializer()


def _run(function: Callable[..., Result], task: tuple[Any, ...]) -> Result:
    """Runs a task in a worker process, with clean-up on SIGTERM."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        return function(*task)
    except SystemExit:  # the pool would store it as the result and continue with the next task
        os._exit(1)
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
