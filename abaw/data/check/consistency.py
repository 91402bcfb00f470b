"""Consistency checks of labels against images, of splits against each other, and of counts."""

import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from abaw.data.check.images import LITTER
from abaw.data.check.kinds import DataFinding
from abaw.data.labels import Labels, constant_label, count_labels, image_name, recording
from abaw.data.layout import (
    AnnotationFile,
    DataFiles,
    DataSource,
    images_too_deep,
    is_crops_folder,
    other_picture,
)
from abaw.tasks import AU, EXPR, VA, Task

Images = Mapping[str, NDArray[np.int64]]
"""The numbers of the images of each video, from 1."""


@dataclass
class VideoCounts:
    """Frame and label counts of one video.

    Attributes:
        name: Name of the video.
        images: Number of frames with a crop.
        frames: Number of the last frame with an image or a label row (task files have one extra row), or of
            the last image that a sample submission lists.
        splits: Split per kind of annotation (`va`, `expr`, `au`, `mtl`).
        rows: Number of label rows per kind.
        labelled: Number of frames with at least one label per kind.
        labelled_without_crop: Number of those without a crop, not counting the extra row.
        constant: Per kind except `mtl`, the value of all labels, if they are all equal.
    """

    name: str
    images: int = 0
    frames: int = 0
    splits: dict[str, str] = field(default_factory=dict)
    rows: dict[str, int] = field(default_factory=dict)
    labelled: dict[str, int] = field(default_factory=dict)
    labelled_without_crop: dict[str, int] = field(default_factory=dict)
    constant: dict[str, tuple[float, ...]] = field(default_factory=dict)

    def add(self, task: Task | None, split: str, labels: Labels, numbers: NDArray[np.int64]) -> None:
        """Adds an annotation of a task (None: all tasks); `numbers` (n,) are the image numbers, from 1."""
        kind = "mtl" if task is None else str(task)
        n_rows = len(labels)
        labelled = labels.labelled_rows(labels.by_task)
        seen = np.zeros(n_rows, np.bool_)
        seen[numbers[numbers <= n_rows] - 1] = True
        n_frames = n_rows if task is None else n_rows - 1
        self.frames = max(self.frames, n_frames)
        self.splits[kind] = split
        self.rows[kind] = n_rows
        self.labelled[kind] = int(labelled.sum())
        self.labelled_without_crop[kind] = int((labelled & ~seen)[:n_frames].sum())
        if task is not None and (constant := constant_label([labels[task]])) is not None:
            self.constant[kind] = constant


@dataclass
class Balance:
    """Label counts of one split of one label set.

    Attributes:
        va: int64 (10, 10), frames by valence (rows) and arousal in steps of 0.2 from -1 to 1.
        expr: int64 (8,), frames by class.
        au: int64 (12, 2), frames without and with the action unit.
    """

    va: NDArray[np.int64] = field(default_factory=lambda: np.zeros((10, 10), np.int64))
    expr: NDArray[np.int64] = field(default_factory=lambda: np.zeros(8, np.int64))
    au: NDArray[np.int64] = field(default_factory=lambda: np.zeros((12, 2), np.int64))

    def add(self, labels: Labels) -> None:
        """Adds the labels of a video."""
        for task, (values, valid) in labels.by_task.items():
            if task == VA:
                steps = np.clip(((values[valid] + 1) * 5).astype(np.int64), 0, 9)
                np.add.at(self.va, (steps[:, 0], steps[:, 1]), 1)
            elif task == EXPR:
                self.expr += count_labels(task, labels[task])
            elif task == AU:
                self.au += count_labels(task, labels[task])

    def to_dict(self) -> dict[str, Any]:
        """The counts by name as plain values, and the marginal histograms of valence and arousal."""
        return {
            "va": {
                "frames": int(self.va.sum()),
                "valence": self.va.sum(1).tolist(),
                "arousal": self.va.sum(0).tolist(),
            },
            "expr": dict(zip(EXPR.names, self.expr.tolist(), strict=True)),
            "au": {
                name: {"absent": absent, "present": present}
                for name, (absent, present) in zip(AU.names, self.au.tolist(), strict=True)
            },
        }


_FEW = 0.5  # share of a video's frames; every official video has crops for at least 91 %
_TAIL, _SHARE_OF_TAIL = 30, 0.02  # missing frames at the end that face detection failures do not explain
_MANY = 30  # number of labels above which constant valence and arousal are not plausible


def compare_videos(
    videos: Collection[VideoCounts],
    images: Images,
    files: DataFiles,
    root: Path,
    asked: Mapping[str, NDArray[np.int64]],
) -> Iterator[DataFinding]:
    """Findings from the counts of each video, and of all videos of a split."""
    folders: dict[str, Path] = {}
    for image_root, names in files.image_roots.items():
        for name in names:
            folders.setdefault(name, image_root / name)
    paths: dict[str, Path] = {}
    for file in files.annotations:
        if file.video is not None:
            paths.setdefault(file.video, file.path)
    for video in videos:
        annotation = paths.get(video.name)
        if annotation is not None:
            yield from find_unequal_rows(video, annotation)
        if files.image_roots:
            numbers = images.get(video.name, np.empty(0, np.int64))
            where = folders.get(video.name, annotation or root)
            yield from compare_lengths(video, numbers, where, asked.get(video.name))
    yield from find_constant_labels(videos, files.annotations)


def compare_lengths(
    video: VideoCounts, numbers: NDArray[np.int64], where: Path, asked: NDArray[np.int64] | None = None
) -> Iterator[DataFinding]:
    """Findings from the lengths of a video's annotations and images.

    Args:
        video: Counts of its annotations.
        numbers: int64 (n,), its image numbers in all roots, from 1.
        where: Its image folder; if there is none, the file or folder that names the video.
        asked: Numbers of the images that a sample submission lists, empty if it only names the video, None
            if it does not.
    """
    last = int(numbers.max(initial=0))
    rows = _rows(video)
    n_rows = max(rows.values(), default=0)
    if rows and last > n_rows:
        detail = f"the last image is {image_name(last)}, the annotation has {n_rows} rows"
        yield DataFinding("length mismatch", where, detail)
    n_listed, n_lost = video.labelled.get("mtl", 0), video.labelled_without_crop.get("mtl", 0)
    n_seen = 0 if asked is None else int(np.isin(asked, numbers).sum())
    if rows and len(numbers) < _FEW * video.frames:
        detail = f"{len(numbers)} of {video.frames} frames have an image"
        yield DataFinding("missing images", where, detail)
    elif n_listed and n_listed - n_lost < _FEW * n_listed:
        detail = f"{video.name}: {n_listed - n_lost} of {n_listed} images of the MTL set exist"
        yield DataFinding("missing images", where, detail)
    elif asked is not None and (not len(numbers) or n_seen < _FEW * len(asked)):
        detail = f"{video.name}: {n_seen} of {len(asked)} images that the sample asks for exist"
        yield DataFinding("missing images", where, detail if len(asked) else f"{video.name}: no image exists")
    elif rows and _is_cut(n_rows - 1 - last, n_rows - 1):
        yield DataFinding("missing tail", where, _end(last, n_rows - 1))
    elif asked is not None and _is_cut(int((asked > last).sum()), len(asked)):
        yield DataFinding("missing tail", where, _end(last, int(asked.max())))
    elif len(numbers) < video.frames:
        detail = f"{video.frames - len(numbers)} of {video.frames} frames have no image"
        yield DataFinding("frames without crop", where, detail)
    for kind, n in video.labelled_without_crop.items():
        if n:
            detail = f"{n} frames with {kind.upper()} labels have no image"
            yield DataFinding("labelled frames without crop", where, detail)


def _rows(video: VideoCounts) -> dict[str, int]:
    """Number of label rows per task, without MTL files, which list only some frames."""
    return {kind: n for kind, n in video.rows.items() if n and kind != "mtl"}


def _is_cut(n_missing: int, n_frames: int) -> bool:
    return n_missing > _TAIL and n_missing > _SHARE_OF_TAIL * n_frames


def _end(last: int, n_frames: int) -> str:
    return f"images end at {last:05d} of {n_frames}: incomplete download?"


def find_unequal_rows(video: VideoCounts, annotation: Path) -> Iterator[DataFinding]:
    """Finding if the annotations of a video's tasks differ in length."""
    rows = _rows(video)
    if len(set(rows.values())) > 1:
        listed = ", ".join(f"{kind.upper()} {n}" for kind, n in rows.items())
        yield DataFinding("length mismatch", annotation, f"the annotations differ in rows: {listed}")


def find_constant_labels(
    videos: Iterable[VideoCounts], files: Sequence[AnnotationFile]
) -> Iterator[DataFinding]:
    """Findings for splits of a task whose labels are all equal, and for single videos with constant VA."""
    path = {(file.video, str(file.task)): file.path for file in files}
    groups: dict[tuple[str, str], list[VideoCounts]] = {}
    for video in videos:
        for kind, split in video.splits.items():
            if kind != "mtl" and video.labelled[kind]:
                groups.setdefault((kind, split), []).append(video)
    for (kind, split), group in groups.items():
        values = {video.constant.get(kind) for video in group}
        value = next(iter(values))
        if len(values) == 1 and value is not None:
            detail = f"all {kind.upper()} labels of {split} ({len(group)} videos) are {_shown(value)}"
            yield DataFinding("constant labels", path[group[0].name, kind].parent, detail)
        elif kind == VA.name:
            for video in group:
                if kind in video.constant and video.labelled[kind] > _MANY:
                    detail = f"all {video.labelled[kind]} VA labels are {_shown(video.constant[kind])}"
                    yield DataFinding("constant labels", path[video.name, kind], detail)


def _shown(value: Iterable[float]) -> str:
    return ",".join(f"{number:g}" for number in value)


def find_missing_annotations(files: DataFiles, source: DataSource) -> Iterator[DataFinding]:
    """Finding if there are no annotations."""
    if files.annotations:
        return
    if source.annotations is None and is_crops_folder(source.root, files.image_roots):
        above = source.root.parent
        detail = f"this folder holds the crops; give the one that holds the annotations too: {above}"
    else:
        detail = "no annotations found below this folder"
    yield DataFinding("no annotations", source.annotations or source.root, detail)


def find_repeated_annotations(files: Sequence[AnnotationFile]) -> Iterator[DataFinding]:
    """Findings for videos with two files for one task, or in different splits of different tasks.

    Args:
        files: One entry per video and task; with task None for a video of an MTL file.
    """
    first: dict[tuple[str | None, object], AnnotationFile] = {}
    splits: dict[str, dict[str, AnnotationFile]] = {}
    for file in files:
        before = first.setdefault((file.video, file.task), file)
        if before is not file:
            yield DataFinding("annotated twice", file.path, f"{file.video} is also in {before.path}")
        if file.video is not None and file.task is not None:
            splits.setdefault(file.video, {}).setdefault(file.split, file)
    for video, of_split in splits.items():
        if len(of_split) > 1:
            listed = ", ".join(f"{split} of {str(f.task).upper()}" for split, f in of_split.items())
            path = next(iter(of_split.values())).path
            yield DataFinding("video in two splits", path, f"{video} is in {listed}")


def find_shared_subjects(files: Sequence[AnnotationFile]) -> Iterator[DataFinding]:
    """Findings for recordings whose subjects or parts are in different splits of a task.

    Args:
        files: One entry per video and task; with task None for a video of an MTL file.
    """
    first: dict[tuple[str, object], AnnotationFile] = {}
    for file in files:
        before = first.setdefault((recording(file.video or ""), file.task), file)
        if before.split != file.split and before.video != file.video:
            listed = f"{before.video} is in {before.split}, {file.video} in {file.split}"
            yield DataFinding("subject in two splits", file.path, listed)


def find_strays(files: DataFiles, root: Path) -> Iterator[DataFinding]:
    """Findings for stray files beside videos and annotations, and for video folders without images."""
    if not files.image_roots:
        yield _no_images(root)
    of_images = {folder: set(videos) for folder, videos in files.image_roots.items()}
    of_images.pop(root, None)  # which may contain other files
    above = {str(folder.resolve()) for each in files.image_roots for folder in (each, *each.parents)}
    of_labels = sorted({file.path.parent for file in files.annotations if file.video is not None})
    for folder in [*of_images, *of_labels]:
        is_label_folder, videos = folder in of_labels, of_images.get(folder, set())
        for name in sorted(os.listdir(folder)):  # noqa: PTH208 - a Path per entry takes most of the time
            if name in videos or (is_label_folder and name.endswith(".txt") and not name.startswith("._")):
                continue
            path = folder / name
            if name in LITTER or name.startswith("._"):
                yield DataFinding("litter", path, "left by the operating system")
            elif is_label_folder:
                yield DataFinding("stray file", path, "not an annotation file <video>.txt")
            elif not path.is_dir():
                yield DataFinding("stray file", path, "not in a video folder")
            elif str(path.resolve()) not in above:
                yield DataFinding("missing images", path, _without_images(path))


def _no_images(root: Path) -> DataFinding:
    """Finding that explains why no image was found."""
    if (deep := images_too_deep(root)) is not None:
        return DataFinding(
            "missing images", root, f"the images in {deep} lie too deep; give --image_roots {deep}"
        )
    if (stranger := other_picture(root)) is None:
        return DataFinding("labels alone", root, "no folder <video>/ below it contains images 00001.jpg, …")
    return DataFinding("missing images", root, f"no image <video>/00001.jpg, … below it, but {stranger}")


def _without_images(folder: Path) -> str:
    first = min((path.name for path in folder.iterdir()), default=None)
    return "the folder is empty" if first is None else f"no image 00001.jpg, … in it, but {first}"


def find_opencv_wheels() -> Iterator[DataFinding]:
    """Finding if OpenCV wheels that overwrite each other's files are installed."""
    found = []
    for name in ("opencv-python", "opencv-python-headless", "opencv-contrib-python"):
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    if len(found) > 1:
        detail = f"{' and '.join(found)} are both installed, and share one folder"
        yield DataFinding("two OpenCV wheels", None, detail)
