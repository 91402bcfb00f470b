"""Samplers for training and evaluation, selection of windows, and class weights.

Both samplers subclass `DistributedSampler` because Lightning wraps any other sampler in one, which shards
a second time and pads validation with duplicates.
"""

import heapq
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray
from torch.utils.data.distributed import DistributedSampler

from abaw.data.index import Index
from abaw.data.layout import other_picture
from abaw.errors import AbawError
from abaw.randomness import Purpose, keyed_generator
from abaw.tasks import Task
from abaw.windows import WindowTable, cut_videos


class Slot(NamedTuple):
    """A position in the global order of an epoch, with its window; it seeds the random numbers of the clip.

    Attributes:
        epoch: Number of the epoch, from 0.
        slot: Position among all windows of the epoch on all ranks, from 0.
        window: Number of the window in its table.
        step: Optimizer step for which the clip is used, from 0; the ratio of masking may depend on it.
    """

    epoch: int
    slot: int
    window: int
    step: int = 0


class TrainSampler(DistributedSampler[Slot]):
    """Training sampler whose order depends on seed and epoch only, not on the number of ranks.

    With B clips per rank on W ranks, global batch k consists of the slots from k·B·W, assigned to the ranks
    in turn, so it does not depend on how B·W is divided. Remaining windows at the end of an epoch are
    dropped: every rank has the same number of full batches.

    Args:
        n_windows: Number of windows.
        batch_size: Clips per rank and batch (B).
        rank: Rank of this process.
        world_size: Number of processes (W).
        seed: Seed, from 0.
        weights: float (n_windows,), positive; windows are drawn with replacement in proportion to them.
            None draws every window once per epoch.
        limit: `limit_train_batches` of the trainer: a number of batches, or a share of the epoch.
        accumulate: `accumulate_grad_batches` of the trainer.

    Attributes:
        n_batches: Number of batches of an epoch per rank.
        n_used: The same, limited by `limit`.

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
        limit: int | float = 1.0,
        accumulate: int = 1,
    ) -> None:
        super().__init__(cast(Any, range(n_windows)), world_size, rank, shuffle=True, seed=seed)
        self.n_batches = n_windows // (batch_size * world_size)
        if not self.n_batches:
            raise AbawError(
                f"the {n_windows} training windows do not fill one batch of {batch_size} on each of"
                f" {world_size} devices; lower data.batch_size or data.windows.stride"
            )
        self.n_used = min(limit, self.n_batches) if isinstance(limit, int) else int(limit * self.n_batches)
        self.n_windows = n_windows
        self.batch_size = batch_size
        self.accumulate = accumulate
        self.first_batch = 0
        self._weights = weights

    def start_at(self, epoch: int, batch: int) -> None:
        """Starts the next iteration at a batch (from 0) of an epoch."""
        self.epoch, self.first_batch = epoch, batch

    def set_epoch(self, epoch: int) -> None:
        """Sets the epoch of the next iteration; the current epoch keeps its first batch."""
        if epoch != self.epoch:
            self.start_at(epoch, 0)

    def __iter__(self) -> Iterator[Slot]:
        epoch, first, self.first_batch = self.epoch, self.first_batch, 0
        n_global = self.batch_size * self.num_replicas
        order = self._order(epoch)
        first_step = epoch * -(-self.n_used // self.accumulate)
        for slot in range(first * n_global + self.rank, self.n_batches * n_global, self.num_replicas):
            yield Slot(epoch, slot, int(order[slot]), first_step + slot // n_global // self.accumulate)

    def __len__(self) -> int:
        """Number of windows of a whole epoch on this rank."""
        return self.n_batches * self.batch_size

    def _order(self, epoch: int) -> NDArray[np.int64]:
        """int64 (n_windows,): the window in every slot."""
        rng = keyed_generator(Purpose.ORDER, self.seed, epoch)
        if self._weights is None:
            return rng.permutation(self.n_windows)
        shares = np.cumsum(self._weights)
        drawn: NDArray[np.int64] = np.searchsorted(shares, rng.random(self.n_windows) * shares[-1], "right")
        return drawn.clip(max=self.n_windows - 1)  # rounding may reach the end


class EvalSampler(DistributedSampler[int]):
    """Evaluation sampler that keeps every video on one rank, in order, with equally many batches per rank.

    Videos are assigned from the largest to the smallest, each to the rank with the fewest windows so far.
    Ranks with fewer batches are padded with -1, an empty window.

    Args:
        video: int (n_windows,), the video of every window; the windows of a video are contiguous.
        batch_size: Windows per rank and batch.
        rank: Rank of this process.
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
        n_short = (n_batches - 1) * batch_size + 1 - len(mine)  # one window suffices for the last batch
        self._windows = np.pad(mine, (0, max(n_short, 0)), constant_values=-1)

    def __iter__(self) -> Iterator[int]:
        return iter(self._windows.tolist())

    def __len__(self) -> int:
        return len(self._windows)


_SHOWN = 3  # number of videos that a warning names


def training_windows(
    index: Index, tasks: Sequence[Task], *, length: int, stride: int, step: int = 1, split: str = "train"
) -> WindowTable:
    """The windows of a split with at least one label of `tasks` and at least one visible frame.

    Args:
        index: Index of the data set.
        tasks: Tasks whose labels count.
        length: Frames in a window (T).
        stride: Distance between window starts, in frames of the window.
        step: Distance between the frames of a window, in frames of the video.
        split: Name of the split.
    """
    table = cut_videos(index.n_frames, index.annotated(split, tasks), length, stride, step)
    useful = np.zeros(len(table), np.bool_)
    for video, windows in _by_video(table):
        n_frames = int(index.n_frames[video])
        labelled = index.labels(video, split, 0, n_frames).labelled_rows(tasks)
        visible = index.visible(video)
        starts = table.start[windows]
        useful[windows] = (sum_windows(labelled, starts, length, step) > 0) & (
            sum_windows(visible, starts, length, step) > 0
        )
    return table.select(useful)


def describe_split(index: Index, split: str, tasks: Sequence[Task], windows: WindowTable) -> str:
    """A line with the numbers of videos, windows, labelled rows per task and visible frames of a split."""
    videos = index.annotated(split, tasks)
    n_labelled = dict.fromkeys(tasks, 0)
    for video in videos:
        labels = index.labels(video, split)
        for task in tasks:
            n_labelled[task] += int(labels.labelled_rows([task]).sum())
    counts = ", ".join(f"{task} {n:,}" for task, n in n_labelled.items())
    n_visible = sum(int(index.visible(video).sum()) for video in videos)
    n_frames = int(index.n_frames[videos].sum())
    return (
        f"{split}: {len(videos):,} videos, {len(windows):,} windows, labelled rows: {counts};"
        f" {n_visible:,} of {n_frames:,} frames visible"
    )


def warn_of_unseen(index: Index, split: str, tasks: Sequence[Task]) -> str | None:
    """A warning about labelled videos of a split that have no images; None if all have."""
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
    """The windows of a table that are needed to score all labelled frames.

    A label after the last frame of a video is scored with the prediction of that frame.
    """
    needed = np.zeros(len(table), np.bool_)
    for video, windows in _by_video(table):
        n_frames = int(index.n_frames[video])
        labelled = index.labels(video, split).labelled_rows(tasks)
        inside = np.zeros(n_frames, np.bool_)
        inside[: len(labelled)] = labelled[:n_frames]
        inside[-1] |= labelled[n_frames:].any()
        needed[windows] = sum_windows(inside, table.start[windows], table.length, table.step) > 0
    return table.select(needed)


def class_weights(
    index: Index, table: WindowTable, tasks: Sequence[Task], *, strength: float, split: str = "train"
) -> NDArray[np.float64]:
    """Sampling weights of windows by the inverse frequency of their labels; float64 (n_windows,).

    The weight of a label is its share to the power of -strength, normalised to mean 1 over all labels of an
    expression or action unit. The weight of a window is the mean over its labels, averaged over the tasks
    with classes; a window without labels of a task has weight 1.

    Args:
        index: Index of the data set.
        table: Windows of `split`.
        tasks: Trained tasks; those of real numbers have no classes and are ignored.
        strength: 0 weights all labels equally, 1 by the inverse of their share.
        split: Split of the labels.
    """
    counts = index.label_counts(split, tasks)
    rarity = {task: _rarity(n, strength) for task, n in counts.items() if task.kind != "real"}
    weights = np.ones((len(rarity), len(table)))
    for video, windows in _by_video(table):
        labels = index.labels(video, split, 0, int(index.n_frames[video]))
        for row, (task, of_label) in zip(weights, rarity.items(), strict=True):
            values, valid = (np.atleast_2d(array.T).T for array in labels[task])  # (N, 1) or (N, K)
            of_label = of_label.reshape(values.shape[1], -1)  # (kinds, classes)
            total = of_label[np.arange(values.shape[1]), values.astype(np.int64)] * valid
            starts = table.start[windows]
            n_labels = sum_windows(valid.sum(1), starts, table.length, table.step)
            rare = sum_windows(total.sum(1), starts, table.length, table.step)
            row[windows] = np.where(n_labels > 0, rare / n_labels.clip(min=1), 1)
    return weights.mean(0) if rarity else np.ones(len(table))


def _rarity(counts: NDArray[np.int64], strength: float) -> NDArray[np.float64]:
    """Weight of each class, shape of `counts` (..., K), with mean 1 over all labels."""
    shares = counts / counts.sum(-1, keepdims=True).clip(min=1)
    rarity: NDArray[np.float64] = np.where(counts > 0, shares.clip(min=1e-12) ** -strength, 0)
    rarity /= (shares * rarity).sum(-1, keepdims=True).clip(min=1e-12)
    return rarity


def _by_video(table: WindowTable) -> Iterator[tuple[int, slice]]:
    """Each video of a table with the slice of its windows, which are contiguous."""
    bounds = np.flatnonzero(np.diff(table.video, prepend=-1, append=-1)).tolist()
    for first, last in pairwise(bounds):
        yield int(table.video[first]), slice(first, last)


def sum_windows(
    values: NDArray[np.generic], starts: NDArray[np.int32], length: int, step: int
) -> NDArray[np.float64]:
    """The sum of per-frame values over each window of a video.

    Args:
        values: Numeric or bool (N,).
        starts: int (n_windows,), first frames of the windows.
        length: Frames in a full window.
        step: Distance between its frames; frames after N are ignored.

    Returns:
        float64 (n_windows,).
    """
    n_rows = -(-len(values) // step)
    phases = np.zeros((n_rows + 1, step))  # row q, column p: the sum of the frames p, p + step, … before q
    phases[1:].flat[: len(values)] = values
    np.cumsum(phases, axis=0, out=phases)
    row, phase = np.divmod(starts, step)
    return phases[np.minimum(row + length, n_rows), phase] - phases[row, phase]
