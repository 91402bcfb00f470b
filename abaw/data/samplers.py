"""Which windows a process sees, and in what order: the only sharding there is.

Both samplers are `DistributedSampler`s so that Lightning leaves them alone: it shards any other kind a
second time, and pads validation with duplicates.
"""

import heapq
from collections.abc import Iterator
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray
from torch.utils.data.distributed import DistributedSampler

from abaw.errors import AbawError
from abaw.randomness import Purpose, keyed_generator


class Slot(NamedTuple):
    """A place in an epoch's global order and the window drawn for it; it keys all that is random there.

    Attributes:
        epoch: From 0.
        slot: Place among all windows drawn in the epoch on all ranks, from 0.
        window: Number of the window in its table.
    """

    epoch: int
    slot: int
    window: int


class TrainSampler(DistributedSampler[Slot]):
    """Shuffles windows by seed and epoch alone; all ranks together take the slots in order.

    With B clips per rank on W ranks, batch k is made of the slots from k·B·W, dealt out to the ranks in
    turn. So the same windows meet in a batch however B·W is divided. The windows left over at the end of
    an epoch are dropped: every rank has the same number of full batches.

    Args:
        n_windows: How many windows there are.
        batch_size: Clips per rank and batch (B).
        rank: Number of this process.
        world_size: Number of processes (W).
        seed: From 0.
        weights: float (n_windows,), positive; windows are drawn with replacement in proportion to them.
            None takes every window once per epoch.

    Raises:
        AbawError: There are too few windows for one batch.
    """

    def __init__(
        self,
        *,
        n_windows: int,
        batch_size: int,
        rank: int = 0,
        world_size: int = 1,
        seed: int = 0,
        weights: NDArray[np.float64] | None = None,
    ) -> None:
        super().__init__(cast(Any, range(n_windows)), world_size, rank, shuffle=True, seed=seed)
        self.n_batches = n_windows // (batch_size * world_size)
        if not self.n_batches:
            raise AbawError(
                f"the {n_windows} training windows do not fill one batch of {batch_size} on each of"
                f" {world_size} devices; lower data.batch_size or data.stride"
            )
        self.n_windows = n_windows
        self.batch_size = batch_size
        self.first_batch = 0
        self._weights = weights

    def start_at(self, epoch: int, batch: int) -> None:
        """Lets the next pass begin in the middle of an epoch, at a batch counted from 0."""
        self.epoch, self.first_batch = epoch, batch

    def set_epoch(self, epoch: int) -> None:
        """Chooses the epoch of the next pass; the epoch already chosen keeps its first batch."""
        if epoch != self.epoch:
            self.start_at(epoch, 0)

    def __iter__(self) -> Iterator[Slot]:
        epoch, first, self.first_batch = self.epoch, self.first_batch, 0
        n_global = self.batch_size * self.num_replicas
        order = self._order(epoch)
        for slot in range(first * n_global + self.rank, self.n_batches * n_global, self.num_replicas):
            yield Slot(epoch, slot, int(order[slot]))

    def __len__(self) -> int:
        """Windows of a whole epoch on this rank, wherever a pass begins."""
        return self.n_batches * self.batch_size

    def _order(self, epoch: int) -> NDArray[np.int64]:
        """int64 (n_windows,): the window in every slot."""
        rng = keyed_generator(Purpose.ORDER, self.seed, epoch)
        if self._weights is None:
            return rng.permutation(self.n_windows)
        shares = np.cumsum(self._weights)
        drawn: NDArray[np.int64] = np.searchsorted(shares, rng.random(self.n_windows) * shares[-1], "right")
        return drawn.clip(max=self.n_windows - 1)  # a number next to 1 may round up to the end


class EvalSampler(DistributedSampler[int]):
    """Keeps every video whole on one rank, its windows in order, and every rank at equally many batches.

    Videos go to the ranks largest first, each to the rank with the least so far; one rank takes them all
    in the order of the table. A rank that would have fewer batches than another is filled up with -1,
    which stands for a window without frames.

    Args:
        video: int (n_windows,), the video of every window; the windows of a video stand together.
        batch_size: Windows per rank and batch.
        rank: Number of this process.
        world_size: Number of processes.
    """

    def __init__(
        self, *, video: NDArray[np.int32], batch_size: int, rank: int = 0, world_size: int = 1
    ) -> None:
        super().__init__(cast(Any, range(len(video))), world_size, rank, shuffle=False)
        videos, of_window, n_windows = np.unique(video, return_inverse=True, return_counts=True)
        rank_of = np.empty(len(videos), np.int64)
        loads = [(0, number) for number in range(world_size)]  # a heap: windows so far, rank
        for place in np.argsort(-n_windows, kind="stable"):
            load, least = heapq.heappop(loads)
            rank_of[place] = least
            heapq.heappush(loads, (load + int(n_windows[place]), least))
        mine = np.flatnonzero(rank_of[of_window] == rank)
        n_batches = -(-max(load for load, _ in loads) // batch_size)
        n_short = (n_batches - 1) * batch_size + 1 - len(mine)  # one window opens the last batch
        self._windows = np.pad(mine, (0, max(n_short, 0)), constant_values=-1)

    def __iter__(self) -> Iterator[int]:
        return iter(self._windows.tolist())

    def __len__(self) -> int:
        return len(self._windows)
