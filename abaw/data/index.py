"""Index of a data set: one row per video, labels joined with images, in memory-mapped arrays."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from abaw.data.cache import cache_file, cached, fingerprint
from abaw.data.formats.annotations import read_annotations
from abaw.data.formats.arrays import DamagedFileError, open_arrays
from abaw.data.formats.features import features_path, open_features
from abaw.data.formats.flat_shards import images_in
from abaw.data.labels import Labels, count_labels, unlabelled
from abaw.data.layout import SPLITS, AnnotationFile, DataFiles, DataSource, find_files
from abaw.data.progress import Progress
from abaw.errors import AbawError
from abaw.tasks import TASKS, VA, Task, TaskLabels

Parts = dict[str, list[NDArray[Any]]]
NO_SOURCE = -1


def pack(task: Task, labels: TaskLabels[NDArray[Any]]) -> NDArray[Any]:
    """Labels of a task as an array of their shape: float32, or int8; NaN or -1 where unlabelled."""
    values, valid = labels
    dtype, marker = (np.float32, np.nan) if task.kind == "real" else (np.int8, -1)
    return np.where(valid[:, None] if values.ndim > valid.ndim else valid, values, marker).astype(dtype)


def unpack(packed: Mapping[Task, NDArray[Any]], n_rows: int, tasks: Iterable[Task]) -> Labels:
    """Unpacks the labels of `n_rows` rows; those that are absent are unlabelled.

    The first row of a task with one label per clip is the label of all rows.
    """
    labels = Labels.unlabelled(n_rows, tasks)
    for task, values in packed.items():
        if task.per == "clip":
            values = np.repeat(values[:1], n_rows, axis=0)
        n = len(values)
        valid = ~np.isnan(values).any(1) if task.kind == "real" else values >= 0
        labels[task].valid[:n] = valid
        labels[task].values[:n][valid] = values[valid]
    return labels


def read_rows_of_videos(files: DataFiles, tasks: Sequence[Task], progress: bool = False) -> tuple[Parts, str]:
    """Reads all annotation files and lists all video folders.

    Returns:
        Per array, a list with one part per video: `n_frames` and `n_rows` int64 (1,), `split` int8 (1, 3)
            index in SPLITS by task or -1, `source` int8 (N,), packed labels. And JSON with the names of the
            videos and image roots.

    Raises:
        AbawError: An annotation file is wrong, or a video is annotated twice for a task.
    """
    labelled = _read_labels(files.annotations, progress)
    roots_of: dict[str, dict[int, Path]] = {}
    for number, (root, videos) in enumerate(files.image_roots.items()):
        for video in videos:
            roots_of.setdefault(video, {})[number] = root
    names = sorted({*labelled, *roots_of})
    parts: Parts = {name: [] for name in ("n_frames", "n_rows", "split", "source", *map(str, tasks))}
    for video in Progress(names, desc="images", unit="video", show=progress):
        roots = roots_of.get(video, {})
        row = _row(labelled.pop(video, {}), {k: _numbers(root, video) for k, root in roots.items()}, tasks)
        for name, part in row.items():
            parts[name].append(part)
    return parts, json.dumps({"videos": names, "roots": [str(root) for root in files.image_roots]})


_Annotated = dict[Task | None, tuple[AnnotationFile, dict[Task, NDArray[Any]]]]
"""A video's annotation files by task, None for an MTL file, with the packed labels by task."""


def _read_labels(annotations: Iterable[AnnotationFile], progress: bool) -> dict[str, _Annotated]:
    """The labels of every video."""
    labelled: dict[str, _Annotated] = {}
    for file in Progress(annotations, desc="annotations", unit="file", show=progress):
        for video, labels in read_annotations(file.path, file.task).items():
            packed = {task: pack(task, of_task) for task, of_task in labels.by_task.items()}
            first, _ = labelled.setdefault(video, {}).setdefault(file.task, (file, packed))
            if first is not file:
                kind = "MTL" if file.task is None else file.task.name.upper()
                raise AbawError(
                    f"{file.path}: {video} is annotated for {kind} a second time, after {first.path}; remove"
                    " one of them, or choose one folder with annotations"
                )
    return labelled


def _row(
    annotated: _Annotated, numbers: Mapping[int, NDArray[np.int64]], tasks: Sequence[Task]
) -> dict[str, NDArray[Any]]:
    """The arrays of one video, from its labels and its image numbers in each image root."""
    n_rows = max((len(rows) for _, packed in annotated.values() for rows in packed.values()), default=0)
    n_frames = max(n_rows - 1, min(n_rows, 1))  # official files have one line too many
    if None in annotated:
        annotated = {None: annotated[None]}  # an MTL file takes precedence
        n_frames = n_rows = len(annotated[None][1][VA])  # it lists images: its last row is a frame
    n_frames = max([n_frames, *(int(n.max(initial=0)) for n in numbers.values())])
    split = np.full((1, len(tasks)), -1, np.int8)
    source = np.full(n_frames, NO_SOURCE, np.int8)
    labels = {task: pack(task, unlabelled(task, n_rows)) for task in tasks}
    for file, packed in annotated.values():
        for task, rows in packed.items():
            labels[task][: len(rows)] = rows
            split[0, tasks.index(task)] = SPLITS.index(file.split)
    for k in reversed(list(numbers)):  # the first root that holds a frame overwrites the others
        source[numbers[k] - 1] = k
    lengths = {"n_frames": np.array([n_frames]), "n_rows": np.array([n_rows])}
    return {**lengths, "split": split, "source": source, **{task.name: rows for task, rows in labels.items()}}


def _numbers(root: Path, video: str) -> NDArray[np.int64]:
    """Unsorted image numbers, from 1, of a video in an image root or a folder of cached features."""
    folder = root / video
    if folder.is_dir():
        return images_in(folder)
    return np.flatnonzero(open_features(features_path(root, video)).visible) + 1


LabelCounts = dict[Task, NDArray[np.int64]]
"""Labelled frames per task: a number; of a class task (K,), of a binary one (K, 2), absent and present."""


@dataclass(frozen=True, eq=False)
class Index:
    """Index of the videos of a data set, with their labels. Videos and frames are numbered from 0.

    The arrays are memory-mapped from one cache file: processes share its pages, and a pickled index contains
    the path of the file, not its content.

    Attributes:
        path: The cache file.
        videos: Names, sorted.
        roots: Image roots, in the order in which they are searched.
        n_frames: int64 (V,), N = max(last image number, label rows - 1).
        n_rows: int64 (V,), label rows of the longest annotation, 0 without any.
        split: int8 (V, tasks), place in `SPLITS`, -1 without an annotation.
        arrays: `source` and the packed labels, concatenated over all videos.
        tasks: The tasks whose annotation files were read.
    """

    path: Path
    videos: tuple[str, ...]
    roots: tuple[Path, ...]
    n_frames: NDArray[np.int64]
    n_rows: NDArray[np.int64]
    split: NDArray[np.int8]
    arrays: Mapping[str, NDArray[Any]]
    tasks: tuple[Task, ...] = TASKS
    _frame_starts: list[int] = field(init=False, repr=False)
    _row_starts: list[int] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_frame_starts", [0, *np.cumsum(self.n_frames).tolist()])
        object.__setattr__(self, "_row_starts", [0, *np.cumsum(self.n_rows).tolist()])
        lengths = {task.name: self._row_starts[-1] for task in self.tasks}
        lengths["source"] = self._frame_starts[-1]
        per_video = len(self.videos) == len(self.n_frames) == len(self.n_rows) == len(self.split)
        if not per_video or any(len(self.arrays[name]) != n for name, n in lengths.items()):
            raise DamagedFileError(f"{self.path}: the arrays do not fit each other")

    def __reduce__(self) -> tuple[Any, ...]:
        return open_index, (self.path, self.tasks, np.array(self.split))

    def __len__(self) -> int:
        """Number of videos (V)."""
        return len(self.videos)

    def fingerprint(self) -> str:
        """Hexadecimal digits that change with the videos, their frames with a crop, labels or splits.

        The place of the data set does not count, nor does the content of its images.
        """
        digest = hashlib.sha256(json.dumps([self.videos, [repr(task) for task in self.tasks]]).encode())
        visible = self.arrays["source"] != NO_SOURCE
        labels = (self.arrays[task.name] for task in self.tasks)
        for array in (self.n_frames, self.n_rows, self.split, visible, *labels):
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()[:16]

    def source(self, video: int) -> NDArray[np.int8]:
        """Int8 (N,): per frame, the index of the image root that contains it; -1 without a crop."""
        first, stop = self._frame_starts[video : video + 2]
        return self.arrays["source"][first:stop]

    def visible(self, video: int, start: int = 0, stop: int | None = None) -> NDArray[np.bool_]:
        """Bool (stop - start,): whether each frame has a crop."""
        return self.source(video)[start:stop] != NO_SOURCE

    def folder(self, video: int, root_number: int) -> Path:
        """Folder of a video's images in one image root."""
        return self.roots[root_number] / self.videos[video]

    def splits(self, video: int) -> dict[Task, str]:
        """Per annotated task of a video, its split."""
        of_tasks = zip(self.tasks, self.split[video].tolist(), strict=True)
        return {task: SPLITS[k] for task, k in of_tasks if k >= 0}

    def labels(self, video: int, split: str | None = None, start: int = 0, stop: int | None = None) -> Labels:
        """Labels of frames `start` to `stop` of a video.

        Args:
            video: Number of the video.
            split: Use only tasks annotated in this split; None: all tasks.
            start: First frame.
            stop: End (exclusive); None: all rows, including those beyond `n_frames`.
        """
        first, last = self._row_starts[video], self._row_starts[video + 1]
        n_rows = max((last - first if stop is None else stop) - start, 0)
        begin = min(first + start, last)
        packed = {
            task: self.arrays[task.name][first if task.per == "clip" else begin : last][:n_rows]
            for task, its_split in self.splits(video).items()
            if split is None or its_split == split
        }
        return unpack(packed, n_rows, self.tasks)

    def annotated(self, split: str | None, tasks: Iterable[Task]) -> list[int]:
        """Videos annotated for at least one of `tasks` in a split; None: in any split."""
        asked = set(tasks)
        return [
            video
            for video in range(len(self))
            if any(t in asked and split in (None, its) for t, its in self.splits(video).items())
        ]

    def label_counts(self, split: str | None, tasks: Iterable[Task]) -> LabelCounts:
        """Number of frames per label in a split, including frames without a crop."""
        counts = {task: np.zeros((), np.int64) for task in tasks}
        for video in self.annotated(split, counts):
            labels = self.labels(video, split)
            counts = {task: n + count_labels(task, labels[task]) for task, n in counts.items()}
        return counts

    def with_folds(self, folds: Mapping[str, int], fold: int) -> "Index":
        """Returns the index with train and val divided by folds: `fold` is val, all other folds are train.

        Args:
            folds: Fold of every video annotated in train or val, by name.
            fold: The fold to validate on.

        Raises:
            AbawError: A video has no fold, or `fold` contains no video.
        """
        redivided = (self.split == SPLITS.index("train")) | (self.split == SPLITS.index("val"))
        names = [self.videos[v] for v in np.flatnonzero(redivided.any(1))]
        missing = [name for name in names if name not in folds]
        if missing:
            raise AbawError(
                f"the folds leave out {missing[0]} ({len(missing)} videos); make them again with `abaw folds`"
            )
        if not any(folds[name] == fold for name in names):
            raise AbawError(f"no video is in fold {fold}; the folds are {sorted(set(folds.values()))}")
        validated = np.array([folds.get(name) == fold for name in self.videos])
        place = np.where(validated, SPLITS.index("val"), SPLITS.index("train")).astype(np.int8)
        return replace(self, split=np.where(redivided, place[:, None], self.split))


def open_index(
    path: Path,
    tasks: tuple[Task, ...] = TASKS,
    split: NDArray[np.int8] | None = None,
    *,
    verify: bool = False,
) -> Index:
    """Opens an index as memory-mapped arrays.

    Args:
        path: File written by `build_index`.
        tasks: The tasks that it was written for.
        split: int8 (V, tasks), replaces the split stored in the file.
        verify: Whether to verify the checksum of the whole content.

    Raises:
        DamagedFileError: The file is not a complete index.
        OSError: The file cannot be opened.
    """
    arrays, metadata = open_arrays(path, verify=verify)
    try:
        described = json.loads(metadata)
        return Index(
            path=path,
            videos=tuple(described["videos"]),
            roots=tuple(Path(folder) for folder in described["roots"]),
            n_frames=arrays["n_frames"],
            n_rows=arrays["n_rows"],
            split=arrays["split"] if split is None else split,
            arrays=arrays,
            tasks=tasks,
        )
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise DamagedFileError(f"{path}: not an index ({error})") from error


def build_index(source: DataSource, *, progress: bool = False) -> Index:
    """Returns the index of a data set; it is read from the cache unless a file has changed.

    A damaged cache is replaced. Videos may lack images or annotations.

    Args:
        source: Location of the data set.
        progress: Whether to show a progress bar.

    Raises:
        AbawError: A folder is missing, an annotation is invalid, or the cache cannot be written.
    """
    files = find_files(source)
    paths, roots = files.paths(), [str(folder) for folder in files.image_roots]
    options = [str(source.root), roots, source.label_set]
    options += [repr(task) for task in source.tasks if task not in TASKS]
    path = cache_file(source.cache, options, fingerprint(paths))
    open_file = partial(open_index, tasks=source.tasks)
    return cached(path, open_file, lambda: read_rows_of_videos(files, source.tasks, progress))
