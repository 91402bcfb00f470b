"""Selection of the videos of a stage, and subject-disjoint cross-validation folds."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from abaw.data.index import Index
from abaw.data.labels import constant_label, count_labels, recording
from abaw.errors import AbawError, UsageError, did_you_mean
from abaw.files import atomic_path
from abaw.randomness import Purpose, keyed_generator
from abaw.tasks import TASKS, Task, TaskLabels

Stage = Literal["validate", "test", "predict"]
TestSplit = Literal["auto", "train", "val", "test"]
PredictSplit = Literal["auto", "train", "val", "test", "all"]


@dataclass(frozen=True, kw_only=True)
class SplitSelection:
    """Selects the videos of a stage from an index.

    Attributes:
        index: Index of the data set.
        tasks: Tasks whose annotations count.
        test_split: Split that `test` scores; auto: the annotated videos of the test split. If all labels of a
            task are equal there, they are placeholders, and the split counts as not annotated.
        predict_split: Split for `predict`; auto: val, or all videos if val is not annotated; test without
            annotations: the videos without annotation for one of the tasks.
        predict_videos: List of videos, or a sample submission with their images, instead of a split.
    """

    index: Index
    tasks: tuple[Task, ...]
    test_split: TestSplit = "auto"
    predict_split: PredictSplit = "auto"
    predict_videos: Path | None = None

    def split(self, stage: Stage) -> str | None:
        """The split of a stage; None for videos of any split."""
        if stage == "validate":
            return "val"
        if stage == "test":
            return "test" if self.test_split == "auto" else self.test_split
        if self.predict_videos is not None or self.predict_split == "all":
            return None
        if self.predict_split == "auto":
            return "val" if self._annotated("val") else None
        return self.predict_split

    def videos(self, stage: Stage) -> list[int]:
        """The numbers of the videos of a stage, sorted by name.

        Raises:
            AbawError: There are no videos, or a listed one does not exist.
        """
        split = self.split(stage)
        if stage == "predict" and self.predict_videos is not None:
            videos, what = self._listed(self.predict_videos), f"in {self.predict_videos}"
        elif split is None:
            videos, what = self._with_images(), "with images"
        elif stage == "predict" and split == "test" and not self._annotated("test"):
            # the labels of test videos are not published, so they are the videos without annotation; each
            # task has its own, which may be annotated for another task
            videos = [v for v in self._with_images() if set(self.tasks) - self.index.splits(v).keys()]
            what = f"with images and without annotation for one of {', '.join(map(str, self.tasks))}"
        elif stage == "test" and self.test_split == "auto" and not self._test_is_labelled:
            videos, what = [], ""
        else:
            videos, what = (
                self._annotated(split),
                f"annotated for {', '.join(map(str, self.tasks))} in {split}",
            )
        if not videos and stage == "test" and split == "test":
            raise AbawError(
                f"there are no test labels of {', '.join(map(str, self.tasks))} in this data set, or only"
                " placeholders, so nothing to score: `abaw validate` scores the validation videos, as"
                " --data.evaluation.test_split val does;"
                " `abaw predict --data.evaluation.predict_split test` predicts those of the test"
            )
        if not videos:
            choice = f"data.evaluation.{'predict' if stage == 'predict' else 'test'}_split"
            raise AbawError(
                f"there is no video {what} to {stage}; correct data.root, data.source.annotations or the"
                f" choice of videos ({choice}, data.folds)"
            )
        return videos

    @cached_property
    def _test_is_labelled(self) -> bool:
        """Whether a task has labels of the test, which placeholders of one value are not."""
        for task in self.tasks:
            videos = self.index.annotated("test", [task])
            labels = [self.index.labels(video, "test")[task] for video in videos]
            if any(part.valid.any() for part in labels) and constant_label(labels) is None:
                return True
        return False

    def _with_images(self) -> list[int]:
        return [video for video in range(len(self.index)) if self.index.visible(video).any()]

    def _annotated(self, split: str) -> list[int]:
        return self.index.annotated(split, self.tasks)

    def _listed(self, path: Path) -> list[int]:
        try:
            lines = path.read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise AbawError(
                f"{path}: cannot be read ({error}); correct data.evaluation.predict_videos"
            ) from error
        cells = {line.partition(",")[0].strip(' "') for line in lines} - {"", "image", "image_location"}
        names = {cell.partition("/")[0].removesuffix(".txt") for cell in cells}
        if unknown := sorted(names - set(self.index.videos)):
            hint = did_you_mean(unknown[0], self.index.videos)
            raise AbawError(f"{path}: the data set has no video {unknown[0]!r}{hint}; correct the list")
        return [video for video, name in enumerate(self.index.videos) if name in names]


_TRIES = 10
_JITTER = 0.2  # relative noise on the sizes by which recordings are ordered
_WORTHWHILE = 1e-9  # smaller gains are rounding errors
_WEIGHT_OF_LENGTH = 4.0  # relative to the weight of a label


def make_folds(index: Index, k: int, seed: int = 0) -> dict[str, int]:
    """Divides the videos annotated in train or val into `k` folds, grouped by recording and stratified.

    All folds have about the same share of frames, of the labels of each task, of every expression and
    action unit, and of each quadrant of valence and arousal. Recordings are assigned greedily from the
    largest to the smallest, then improved by moves and swaps; the best of several attempts is returned.

    Args:
        index: Index of the data set.
        k: Number of folds.
        seed: Seed, from 0.

    Returns:
        The fold of every video, from 0, by name.

    Raises:
        UsageError: `k` is below 2 or above the number of recordings, or the seed is negative.
    """
    videos = sorted({v for split in ("train", "val") for v in index.annotated(split, TASKS)})
    recordings: dict[str, list[int]] = {}
    for video in videos:
        recordings.setdefault(recording(index.videos[video]), []).append(video)
    if not 2 <= k <= len(recordings):
        raise UsageError(
            f"folds: {k} folds of {len(recordings)} recordings; choose from 2 to {len(recordings)}"
        )
    contents = np.stack([sum(_content(index, v) for v in group) for group in recordings.values()])
    contents = contents[:, contents.any(0)]
    shares = contents / contents.sum(0)  # (recordings, kinds), every kind sums to 1
    shares[:, 0] *= _WEIGHT_OF_LENGTH
    if seed < 0:
        raise UsageError(f"seed: {seed} is too small; give 0 or more")
    rng = keyed_generator(Purpose.FOLDS, seed)
    tries = [_improved(_assigned(shares, k, rng), shares, k) for _ in range(_TRIES)]
    fold_of = min(tries, key=lambda folds: sum((shares[folds == f].sum(0) ** 2).sum() for f in range(k)))
    return {
        index.videos[video]: int(fold)
        for group, fold in zip(recordings.values(), fold_of, strict=True)
        for video in group
    }


def _content(index: Index, video: int) -> NDArray[np.float64]:
    """Counts of a video, float64 (26,): frames, VA by quadrant, expressions, AU rows, present units."""
    train, val = (index.labels(video, split) for split in ("train", "val"))
    counts = [_counts(task, train[task]) + _counts(task, val[task]) for task in TASKS]
    return np.concatenate([[max(index.n_frames[video], 1)], *counts], dtype=np.float64)


def _counts(task: Task, labels: TaskLabels[NDArray[Any]]) -> NDArray[np.int64]:
    """Frames by class; of a binary task those labelled, then those present; of a real one by halves."""
    values, valid = labels
    if task.kind == "class":
        return count_labels(task, labels)
    if task.kind == "binary":
        return np.array([valid.any(1).sum(), *count_labels(task, labels)[:, 1]])
    halves = (values[valid] >= (task.low + task.high) / 2) @ 2 ** np.arange(task.size)
    return np.bincount(halves, minlength=2**task.size)


def _assigned(shares: NDArray[np.float64], k: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """The fold of every recording, assigned greedily from the largest to the smallest."""
    sizes = shares.sum(1) * rng.uniform(1 - _JITTER, 1 + _JITTER, len(shares))
    loads = np.zeros((k, shares.shape[1]))
    fold_of = np.empty(len(shares), np.int64)
    for group in np.argsort(-sizes):
        fold = int((loads @ shares[group]).argmin())  # smallest growth of the sum of squared loads
        loads[fold] += shares[group]
        fold_of[group] = fold
    return fold_of


def _improved(fold_of: NDArray[np.int64], shares: NDArray[np.float64], k: int) -> NDArray[np.int64]:
    """The folds after all moves and swaps of recordings that make the loads more equal."""
    fold_of = fold_of.copy()
    loads = np.stack([shares[fold_of == fold].sum(0) for fold in range(k)])
    partners = np.concatenate([np.zeros((k, shares.shape[1])), shares])  # moves, then swaps
    changed = True
    while changed:
        changed = False
        for group, content in enumerate(shares):
            here, there = fold_of[group], np.concatenate([np.arange(k), fold_of])
            given = content - partners
            growth = ((loads[there] - loads[here] + given) * given).sum(1)  # half the growth of squared loads
            growth[there == here] = 0
            best = int(growth.argmin())
            if growth[best] < -_WORTHWHILE:
                loads[here] -= given[best]
                loads[there[best]] += given[best]
                fold_of[group] = there[best]
                if best >= k:
                    fold_of[best - k] = here
                changed = True
    return fold_of


def write_folds(path: Path, folds: Mapping[str, int]) -> None:
    """Writes folds as JSON, `{"folds": {video: fold}}`."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps({"folds": dict(folds)}, indent=1) + "\n", encoding="utf-8")


def read_folds(path: Path) -> dict[str, int]:
    """The folds in a file of `write_folds`.

    Raises:
        AbawError: The file cannot be read or is not a file of folds.
    """
    try:
        folds = json.loads(Path(path).read_text(encoding="utf-8"))["folds"]
        if not all(type(fold) is int and fold >= 0 for fold in folds.values()):
            raise ValueError("a fold is not a number from 0")
    except OSError as error:
        raise AbawError(f"{path}: cannot be read ({error.strerror}); make it with `abaw folds`") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise AbawError(f"{path}: not a file of folds ({error}); make it again with `abaw folds`") from error
    return dict(folds)
