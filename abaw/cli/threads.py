"""Wait policy and number of the OpenMP threads of PyTorch on a CPU."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

WEIGHTS_PER_THREAD = 2_000_000
"""Number of weights per thread; below, operations are too short to be parallelised."""


def wait_passively() -> None:
    """Sets a passive wait policy for OpenMP threads, in this process and its children.

    By default idle threads spin, which occupies cores that other processes could use. OpenMP reads the
    variable when torch is loaded. Values set by the user are kept.
    """
    if "GOMP_SPINCOUNT" not in os.environ:
        os.environ.setdefault("OMP_WAIT_POLICY", "passive")


def set_threads(n_weights: int, *, n_processes: int = 1) -> None:
    """Sets PyTorch's number of threads by the size of the network, unless OMP_NUM_THREADS is set.

    Args:
        n_weights: Number of weights of the executed part of the network.
        n_processes: Number of processes on this machine, which share its cores.
    """
    import torch

    from abaw.data.processes import available_cores

    if "OMP_NUM_THREADS" in os.environ:
        return
    n = n_threads(n_weights, cores=available_cores() // n_processes)
    torch.set_num_threads(n)
    if n_processes > 1:  # in processes that Lightning starts
        os.environ["OMP_NUM_THREADS"] = str(n)


@contextmanager
def threads_of(n_weights: int) -> Iterator[None]:
    """Context with the number of threads that `set_threads` sets."""
    import torch

    before = torch.get_num_threads()
    set_threads(n_weights)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def n_threads(n_weights: int, *, cores: int) -> int:
    """The number of threads for a network: one per `WEIGHTS_PER_THREAD`, between 1 and the number of cores.

    It is always the same for a network and a machine, because the rounding of sums depends on it.

    Args:
        n_weights: Number of weights of the executed part of the network.
        cores: Number of available cores.
    """
    return max(1, min(cores, n_weights // WEIGHTS_PER_THREAD))
