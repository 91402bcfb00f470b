"""The OpenMP threads that torch computes with on a CPU: how they wait, and how many there are."""

import os

WEIGHTS_PER_THREAD = 2_000_000
"""Below this a network's operations are too short to be shared between two threads."""


def wait_passively() -> None:
    """Lets OpenMP's threads sleep while they wait, for this process and those it starts.

    By default they spin, which takes the cores from whatever else the machine does. OpenMP reads the
    variable once, when torch is loaded. What the user has set stays.
    """
    if "GOMP_SPINCOUNT" not in os.environ:
        os.environ.setdefault("OMP_WAIT_POLICY", "passive")


def n_threads(n_weights: int, *, cores: int) -> int:
    """How many threads a network is worth: one per `WEIGHTS_PER_THREAD`, at least one, at most the cores.

    The same network on the same machine always has the same number, for on it depends how sums are rounded.

    Args:
        n_weights: Weights of the part of the network that runs.
        cores: Cores that this process may use.
    """
    return max(1, min(cores, n_weights // WEIGHTS_PER_THREAD))
