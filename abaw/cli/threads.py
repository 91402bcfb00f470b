"""Wait policy and number of the OpenMP threads of PyTorch on a CPU."""

import os

WEIGHTS_PER_THREAD = 2_000_000
"""Number of weights per thread; below, operations are too short to be parallelised."""


def wait_passively() -> None:
    """Sets a passive wait policy for OpenMP threads, in this process and its children.

    By default idle threads spin, which occupies cores that other processes could use. OpenMP reads the
    variable when torch is loaded. Values set by the user are kept.
    """
    if "GOMP_SPINCOUNT" not in os.environ:
        os.environ.setdefault("OMP_WAIT_POLICY", "passive")


def n_threads(n_weights: int, *, cores: int) -> int:
    """The number of threads for a network: one per `WEIGHTS_PER_THREAD`, between 1 and the number of cores.

    It is always the same for a network and a machine, because the rounding of sums depends on it.

    Args:
        n_weights: Number of weights of the executed part of the network.
        cores: Number of available cores.
    """
    return max(1, min(cores, n_weights // WEIGHTS_PER_THREAD))
