"""Index of a data set: one row per video, labels joined with images, in memory-mapped arrays."""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from abaw.data.cache import cache_file, delete_old_indices, fingerprint, writing_cache
from abaw.data.formats.annotations import read_annotations
from abaw.data.formats.arrays import DamagedFileError, open_arrays, write_arrays
from abaw.data.formats.features import features_path, open_features
from abaw.data.formats.flat_shards import is_packed, open_packed
from abaw.data.labels import IMAGE_NAME, Labels
from abaw.data.layout import SPLITS, AnnotationFile, DataFiles, DataSource, find_files
from abaw.errors import AbawError
from abaw.files import listing
from abaw.tasks import Task

Parts = dict[str, list[NDArray[Any]]]

NO_SOURCE = -1

_TASKS = list(Task)


def pack(labels: Labels) -> dict[str, NDArray[Any]]:
    """Labels as 21 bytes per row: `va` float32 (R, 2), `expr` int8 (R,), `au` int8 (R, 12); NaN, -1: none."""
    return {
        "va": np.where(labels.va_valid[:, None], labels.va, np.float32(np.nan)),
        "expr": np.where(labels.expr_valid, labels.expr, -1).astype(np.int8),
        "au": np.where(labels.au_valid, labels.au, -1).astype(np.int8),
    }


def unpack(packed: Mapping[Task, NDArray[Any]], n_rows: int) -> Labels:
    """Unpacks the first `n_rows` rows; rows and tasks that are absent are unlabelled."""
    labels = Labels.unlabelled(n_rows)
    for task, values in packed.items():
        n = min(len(values), n_rows)
        values = values[:n]
        valid = ~np.isnan(values[:, 0]) if task is Task.VA else values >= 0
        labels.valid(task)[:n] = valid
        labels.values(task)[:n] = np.where(valid[:, None] if task is Task.VA else valid, values, 0)
    return labels


def read_rows_of_videos(files: DataFiles, progress: bool = False) -> tuple[list[str], Parts]:
    """Reads all annotation files and lists all video folders.

    Returns:
        The sorted names of the videos, and per array a list with one part per video: `n_frames` and `n_rows`
            int64 (1,), `split` int8 (1, 3) index in SPLITS by task or -1, `source` int8 (N,), packed labels.

    Raises:
        AbawError: An annotation file is wrong, or a video is annotated twice for a task.
    """
    by_video = _files_by_video(files)
    sparse = _read_mtl(files.annotations)
    roots_of: dict[str, list[int]] = {}
    for number, videos in enumerate(files.image_roots.values()):
        for video in videos:
            roots_of.setdefault(video, []).append(number)
    roots = list(files.image_roots)
    names = sorted({*by_video, *sparse, *roots_of})
    parts: Parts = {name: [] for name in ("n_frames", "n_rows", "split", "source", "va", "expr", "au")}
    for video in tqdm(names, desc="index", unit="video", disable=not progress):
        split = np.full((1, len(_TASKS)), -1, np.int8)
        if video in sparse:
            place, labels = sparse[video]
            split[:] = place
            n_frames = len(labels)  # the file lists images, so its last row is a frame
        else:
            labels = Labels.unlabelled(0)
            for task, file in by_video.get(video, {}).items():
                labels = labels.with_task(task, read_annotations(file.path, task)[video])
                split[0, _TASKS.index(task)] = SPLITS.index(file.split)
            n_frames = max(len(labels) - 1, min(len(labels), 1))  # official files have one line too many
        numbers = {k: images_in(roots[k], video) for k in roots_of.get(video, [])}
        source = np.full(
            max([n_frames, *(int(n.max(initial=0)) for n in numbers.values())]), NO_SOURCE, np.int8
        )
        for k in reversed(numbers):  # the first root that holds a frame overwrites the others
            source[numbers[k] - 1] = k
        row = {"n_frames": np.array([len(source)]), "n_rows": np.array([len(labels)]), "split": split}
        for name, part in (row | {"source": source} | pack(labels)).items():
            parts[name].append(part)
    return names, parts


def _files_by_video(files: DataFiles) -> dict[str, dict[Task, AnnotationFile]]:
    by_video: dict[str, dict[Task, AnnotationFile]] = {}
    for file in files.annotations:
        if file.video is not None and file.task is not None:
            first = by_video.setdefault(file.video, {}).setdefault(file.task, file)
            if first is not file:
                raise AbawError(
                    f"{file.path}: {file.video} is annotated for {file.task.upper()} a second time, after "
                    f"{first.path}; remove one of them, or choose one folder with annotations"
                )
    return by_video


def _read_mtl(files: list[AnnotationFile]) -> dict[str, tuple[int, Labels]]:
    """Per video, the index of its split in SPLITS, and its labels."""
    videos: dict[str, tuple[int, Labels]] = {}
    for file in files:
        if file.video is None:
            for video, labels in read_annotations(file.path, None).items():
                if video in videos:
                    raise AbawError(
                        f"{file.path}: {video} is listed in another MTL file too; keep it in one of them"
                    )
                videos[video] = SPLITS.index(file.split), labels
    return videos


def images_in(root: Path, video: str) -> NDArray[np.int64]:
    """Unsorted image numbers, from 1, of a video in an image root or a folder of cached features.

    Raises:
        AbawError: The folder cannot be listed, or the flat shard or the features are damaged.
    """
    folder = root / video
    if not folder.is_dir():
        return np.flatnonzero(open_features(features_path(root, video)).visible) + 1
    if is_packed(folder):
        return open_packed(folder).numbers
    with listing():
        return image_numbers(os.listdir(folder))  # noqa: PTH208 - ten times faster than Path.iterdir


def image_numbers(names: Sequence[str]) -> NDArray[np.int64]:
    """Image numbers, from 1, in the order of the file names; names of other files are skipped."""
    usual = [name for name in names if len(name) == len("00001.jpg")]
    cells = np.frombuffer("".join(usual).encode("ascii", "replace"), np.uint8).reshape(-1, 9)
    digits = cells[:, :5] - np.uint8(ord("0"))  # wraps around below "0"
    good = (digits < 10).all(1) & (cells[:, 5:] == np.frombuffer(b".jpg", np.uint8)).all(1)
    numbers = digits[good].astype(np.int64) @ np.array([10_000, 1000, 100, 10, 1])
    matches = (IMAGE_NAME.fullmatch(name) for name in names if len(name) > len("00001.jpg"))
    longer = np.array([int(match[1]) for match in matches if match], np.int64)
    return np.concatenate([numbers[numbers > 0], longer])


class LabelCounts(TypedDict, total=False):
    """Labelled frames per task asked for."""

    va: int
    expr: NDArray[np.int64]  # (8,) by class
    au: NDArray[np.int64]  # (12, 2): without and with the action unit


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
        split: int8 (V, 3), by task (VA, EXPR, AU): place in `SPLITS`, -1 without an annotation.
        arrays: `source` and the packed labels, concatenated over all videos.
    """

    path: Path
    videos: tuple[str, ...]
    roots: tuple[Path, ...]
    n_frames: NDArray[np.int64]
    n_rows: NDArray[np.int64]
    split: NDArray[np.int8]
    arrays: Mapping[str, NDArray[Any]]
    _frame_starts: list[int] = field(init=False, repr=False)
    _row_starts: list[int] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_frame_starts", [0, *np.cumsum(self.n_frames).tolist()])
        object.__setattr__(self, "_row_starts", [0, *np.cumsum(self.n_rows).tolist()])
        lengths = {"source": self._frame_starts[-1], **{str(task): self._row_starts[-1] for task in Task}}
        per_video = len(self.videos) == len(self.n_frames) == len(self.n_rows) == len(self.split)
        if not per_video or any(len(self.arrays[name]) != n for name, n in lengths.items()):
            raise DamagedFileError(f"{self.path}: the arrays do not fit each other")

    def __reduce__(self) -> tuple[Any, ...]:
        return open_index, (self.path, np.array(self.split))

    def __len__(self) -> int:
        """Number of videos (V)."""
        return len(self.videos)

    def source(self, video: int) -> NDArray[np.int8]:
        """Int8 (N,): per frame, the index of the image root that contains it; -1 without a crop."""
        source: NDArray[np.int8] = self.arrays["source"][
            self._frame_starts[video] : self._frame_starts[video + 1]
        ]
        return source

    def visible(self, video: int, start: int = 0, stop: int | None = None) -> NDArray[np.bool_]:
        """Bool (stop - start,): whether each frame has a crop."""
        visible: NDArray[np.bool_] = self.source(video)[start:stop] != NO_SOURCE
        return visible

    def folder(self, video: int, root_number: int) -> Path:
        """Folder of a video's images in one image root."""
        return self.roots[root_number] / self.videos[video]

    def splits(self, video: int) -> dict[Task, str]:
        """Per annotated task of a video, its split."""
        return {task: SPLITS[k] for task, k in zip(Task, self.split[video].tolist(), strict=True) if k >= 0}

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
            task: self.arrays[task][begin : min(begin + n_rows, last)]
            for task, its_split in self.splits(video).items()
            if split is None or its_split == split
        }
        return unpack(packed, n_rows)

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
        asked = set(tasks)
        n_va, expr, au = 0, np.zeros(8, np.int64), np.zeros((12, 2), np.int64)
        for video in self.annotated(split, asked):
            labels = self.labels(video, split)
            n_va += int(labels.va_valid.sum())
            expr += np.bincount(labels.expr[labels.expr_valid], minlength=8)
            present = (labels.au == 1).sum(0)
            au += np.stack([labels.au_valid.sum(0) - present, present], axis=1)
        counts: LabelCounts = {}
        if Task.VA in asked:
            counts["va"] = n_va
        if Task.EXPR in asked:
            counts["expr"] = expr
        if Task.AU in asked:
            counts["au"] = au
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


def open_index(path: Path, split: NDArray[np.int8] | None = None, *, verify: bool = False) -> Index:
    """Opens an index as memory-mapped arrays.

    Args:
        path: File written by `build_index`.
        split: Replaces the split stored in the file.
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
    roots = [str(folder) for folder in files.image_roots]
    options = [str(source.root), roots, source.label_set]
    path = cache_file(source.cache, options, fingerprint(files.paths()))
    try:
        return open_index(path, verify=True)
    except (OSError, DamagedFileError):
        videos, parts = read_rows_of_videos(files, progress)
        with writing_cache():
            write_arrays(path, parts, json.dumps({"videos": videos, "roots": roots}))
        delete_old_indices(path)
        return open_index(path)
