"""Which windows a stage uses, and how often training should draw each; cumulative sums, no lists of paths."""

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from abaw.data.annotations import Labels
from abaw.data.discovery import other_picture
from abaw.data.index import Index
from abaw.tasks import Task
from abaw.windows import WindowTable, cut_videos

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


def holding_labels(table: WindowTable, index: Index, tasks: Sequence[Task], split: str | None) -> WindowTable:
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
