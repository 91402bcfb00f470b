"""Samplers: which windows a process draws, in what order, and with what class weights.

Both samplers are `DistributedSampler`s so that Lightning leaves them alone: it shards any other kind a
second time, and pads validation with duplicates.
"""

import heapq
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray
from torch.utils.data.distributed import DistributedSampler

from abaw.data.discovery import other_picture
from abaw.data.index import Index
from abaw.data.labels import Labels
from abaw.errors import AbawError
from abaw.randomness import Purpose, keyed_generator
from abaw.tasks import Task
from abaw.windows import WindowTable, cut_videos


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


_SHOWN = 3  # videos that a warning names


def labelled_frames(labels: Labels, tasks: Sequence[Task]) -> NDArray[np.bool_]:
    """Bool (R,): frames with a valid label of at least one of `tasks`."""
    labelled = np.zeros(len(labels), np.bool_)
    for task in tasks:
        labelled |= labels.valid(task).reshape(len(labels), -1).any(1)
    return labelled


def training_windows(
    index: Index, tasks: Sequence[Task], *, length: int, stride: int, step: int = 1, split: str = "train"
) -> WindowTable:
    """The windows of a split that hold at least one label of `tasks` and at least one visible frame.

    Args:
        index: The data set.
        tasks: Whose labels count.
        length: Frames in a window (T).
        stride: Frames of the window from one start to the next.
        step: Distance between the frames of a window, in frames of the video.
        split: Which one.
    """
    table = cut_videos(index.n_frames, index.annotated(split, tasks), length, stride, step)
    useful = np.zeros(len(table), np.bool_)
    for video, windows in _by_video(table):
        n_frames = int(index.n_frames[video])
        labelled = labelled_frames(index.labels(video, split, 0, n_frames), tasks)
        visible = index.visible(video)
        starts = table.start[windows]
        useful[windows] = (sum_windows(labelled, starts, length, step) > 0) & (
            sum_windows(visible, starts, length, step) > 0
        )
    return table.select(useful)


def describe_split(index: Index, split: str, tasks: Sequence[Task], windows: WindowTable) -> str:
    """One line: videos, windows, labelled rows of each task and visible frames of a split."""
    videos = index.annotated(split, tasks)
    n_labelled = dict.fromkeys(tasks, 0)
    for video in videos:
        labels = index.labels(video, split)
        for task in tasks:
            n_labelled[task] += int(labelled_frames(labels, [task]).sum())
    counts = ", ".join(f"{task} {n:,}" for task, n in n_labelled.items())
    n_visible = sum(int(index.visible(video).sum()) for video in videos)
    n_frames = int(index.n_frames[videos].sum())
    return (
        f"{split}: {len(videos):,} videos, {len(windows):,} windows, labelled rows: {counts};"
        f" {n_visible:,} of {n_frames:,} frames are visible"
    )


def warn_of_unseen(index: Index, split: str, tasks: Sequence[Task]) -> str | None:
    """A warning of the labelled videos of a split that have no image; None where there is none."""
    videos = index.annotated(split, tasks)
    unseen = [video for video in videos if not index.visible(video).any()]
    if not unseen:
        return None
    folders = [index.folder(video, root) for video in unseen for root in range(len(index.roots))]
    picture = next((found for folder in folders if (found := other_picture(folder)) is not None), None)
    names = ", ".join(index.videos[video] for video in unseen[:_SHOWN])
    return (
        f"warning: {len(unseen):,} of {len(videos):,} labelled videos of {split} have no image 00001.jpg, …:"
        f" {names}{', …' if len(unseen) > _SHOWN else ''}"
        f"{'' if picture is None else f'; met {picture}'}; `abaw check` names them all"
    )


def labelled_windows(
    table: WindowTable, index: Index, tasks: Sequence[Task], split: str | None
) -> WindowTable:
    """Those windows of a table that are needed to score every labelled frame.

    A label beyond a video's last frame is scored by the prediction of that frame, so it counts as labelled.
    """
    needed = np.zeros(len(table), np.bool_)
    for video, windows in _by_video(table):
        n_frames = int(index.n_frames[video])
        labelled = labelled_frames(index.labels(video, split), tasks)
        inside = np.zeros(n_frames, np.bool_)
        inside[: len(labelled)] = labelled[:n_frames]
        inside[-1] |= labelled[n_frames:].any()
        needed[windows] = sum_windows(inside, table.start[windows], table.length, table.step) > 0
    return table.select(needed)


def class_weights(
    index: Index, table: WindowTable, tasks: Sequence[Task], *, strength: float, split: str = "train"
) -> NDArray[np.float64]:
    """How often each window should be drawn, by how rare the labels it holds are; float64 (n_windows,).

    A label is as rare as its share among the labels of its kind is small: expression classes, or presence
    and absence of one action unit. A window counts with the mean rarity of its labels, averaged over EXPR
    and AU; 1 is the mean rarity of all labels, and stands where a task has none.

    Args:
        index: The data set.
        table: Windows of `split`.
        tasks: Those trained; VA has no classes and is passed over.
        strength: 0 treats all labels alike, 1 weighs them by the inverse of their share.
        split: Where the labels are.
    """
    counts = index.label_counts(split, tasks)
    rarity = {}
    if "expr" in counts:
        rarity[Task.EXPR] = _rarity(counts["expr"], strength)
    if "au" in counts:
        rarity[Task.AU] = _rarity(counts["au"], strength)
    weights = np.ones((len(rarity), len(table)))
    for video, windows in _by_video(table):
        labels = index.labels(video, split, 0, int(index.n_frames[video]))
        for row, (task, of_label) in zip(weights, rarity.items(), strict=True):
            values = labels.values(task).astype(np.int64).reshape(len(labels), -1)
            valid = labels.valid(task).reshape(len(labels), -1)  # (N, 1) or (N, 12)
            of_label = of_label.reshape(values.shape[1], -1)  # (kinds, classes)
            total = of_label[np.arange(values.shape[1]), values] * valid
            starts = table.start[windows]
            n_labels = sum_windows(valid.sum(1), starts, table.length, table.step)
            rare = sum_windows(total.sum(1), starts, table.length, table.step)
            row[windows] = np.where(n_labels > 0, rare / n_labels.clip(min=1), 1)
    return weights.mean(0) if rarity else np.ones(len(table))


def _rarity(counts: NDArray[np.int64], strength: float) -> NDArray[np.float64]:
    """Rarity of each class, shape of `counts` (..., K), with mean 1 over the labels counted."""
    shares = counts / counts.sum(-1, keepdims=True).clip(min=1)
    rarity: NDArray[np.float64] = np.where(counts > 0, shares.clip(min=1e-12) ** -strength, 0)
    rarity /= (shares * rarity).sum(-1, keepdims=True).clip(min=1e-12)
    return rarity


def _by_video(table: WindowTable) -> Iterator[tuple[int, slice]]:
    """Each video of a table and where its windows stand there; they stand together."""
    bounds = np.flatnonzero(np.diff(table.video, prepend=-1, append=-1)).tolist()
    for first, last in pairwise(bounds):
        yield int(table.video[first]), slice(first, last)


def sum_windows(
    values: NDArray[np.generic], starts: NDArray[np.int32], length: int, step: int
) -> NDArray[np.float64]:
    """The sum over each window of a video.

    Args:
        values: Numbers or truths (N,), one per frame.
        starts: int (n_windows,), where they begin.
        length: Frames in a full window.
        step: Distance between its frames; frames beyond N add nothing.

    Returns:
        float64 (n_windows,).
    """
    n_rows = -(-len(values) // step)
    phases = np.zeros((n_rows + 1, step))  # row q, column p: the sum of the frames p, p + step, … before q
    phases[1:].flat[: len(values)] = values
    np.cumsum(phases, axis=0, out=phases)
    row, phase = np.divmod(starts, step)
    total: NDArray[np.float64] = phases[np.minimum(row + length, n_rows), phase] - phases[row, phase]
    return total
