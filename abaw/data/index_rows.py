"""Reading a data set once: every video's labels joined with its images, packed into few bytes per frame."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from abaw.data.annotations import Labels, read_mtl_file, read_task_file
from abaw.data.discovery import SPLITS, AnnotationFile, holder, images_in
from abaw.data.sources import Sources
from abaw.errors import AbawError
from abaw.tasks import Task

Parts = dict[str, list[NDArray[Any]]]

NO_SOURCE = -1
_TASKS = list(Task)


def pack(labels: Labels) -> dict[str, NDArray[Any]]:
    """Labels in 21 bytes a row: `va` float32 (R, 2), `expr` int8 (R,), `au` int8 (R, 12); nan or -1: none."""
    return {
        "va": np.where(labels.va_valid[:, None], labels.va, np.float32(np.nan)),
        "expr": np.where(labels.expr_valid, labels.expr, -1).astype(np.int8),
        "au": np.where(labels.au_valid, labels.au, -1).astype(np.int8),
    }


def unpack(packed: Mapping[Task, NDArray[Any]], n_rows: int) -> Labels:
    """The first `n_rows` rows of packed labels; unlabelled where a task is absent or has fewer rows."""
    labels = Labels.unlabelled(n_rows)
    for task, values in packed.items():
        n = min(len(values), n_rows)
        values = values[:n]
        valid = ~np.isnan(values[:, 0]) if task is Task.VA else values >= 0
        labels.valid(task)[:n] = valid
        labels.values(task)[:n] = np.where(valid[:, None] if task is Task.VA else valid, values, 0)
    return labels


def read_rows_of_videos(sources: Sources, progress: bool = False) -> tuple[list[str], Parts]:
    """Reads all annotation files and lists all video folders.

    Returns:
        The videos by name, and per array its parts, one per video: `n_frames` and `n_rows` int64 (1,),
            `split` int8 (1, 3) place in SPLITS by task or -1, `source` int8 (N,), and `pack`ed labels.

    Raises:
        AbawError: An annotation file is wrong, or a video is annotated twice for a task.
    """
    files = _files_by_video(sources)
    sparse = _read_mtl(sources.annotations)
    holders: dict[str, list[int]] = {}
    for number, videos in enumerate(sources.image_roots.values()):
        for video in videos:
            holders.setdefault(video, []).append(number)
    roots = list(sources.image_roots)
    names = sorted({*files, *sparse, *holders})
    parts: Parts = {name: [] for name in ("n_frames", "n_rows", "split", "source", "va", "expr", "au")}
    for video in tqdm(names, desc="index", unit="video", disable=not progress):
        split = np.full((1, len(_TASKS)), -1, np.int8)
        if video in sparse:
            place, labels = sparse[video]
            split[:] = place
            n_frames = len(labels)  # the file lists images, so its last row is a frame
        else:
            labels = Labels.unlabelled(0)
            for task, file in files.get(video, {}).items():
                labels = labels.with_task(task, read_task_file(file.path, task))
                split[0, _TASKS.index(task)] = SPLITS.index(file.split)
            n_frames = max(len(labels) - 1, min(len(labels), 1))  # official files have one line too many
        numbers = {k: images_in(holder(roots[k], video)) for k in holders.get(video, [])}
        source = np.full(
            max([n_frames, *(int(n.max(initial=0)) for n in numbers.values())]), NO_SOURCE, np.int8
        )
        for k in reversed(numbers):  # the first root that holds a frame has the last word
            source[numbers[k] - 1] = k
        row = {"n_frames": np.array([len(source)]), "n_rows": np.array([len(labels)]), "split": split}
        for name, part in (row | {"source": source} | pack(labels)).items():
            parts[name].append(part)
    return names, parts


def _files_by_video(sources: Sources) -> dict[str, dict[Task, AnnotationFile]]:
    files: dict[str, dict[Task, AnnotationFile]] = {}
    for file in sources.annotations:
        if file.video is not None and file.task is not None:
            first = files.setdefault(file.video, {}).setdefault(file.task, file)
            if first is not file:
                raise AbawError(
                    f"{file.path}: {file.video} is annotated for {file.task.upper()} a second time, after "
                    f"{first.path}; remove one of them, or choose one folder with annotations"
                )
    return files


def _read_mtl(files: list[AnnotationFile]) -> dict[str, tuple[int, Labels]]:
    """By video: the place of its split in SPLITS, and its labels."""
    videos: dict[str, tuple[int, Labels]] = {}
    for file in files:
        if file.video is None:
            for video, labels in read_mtl_file(file.path).items():
                if video in videos:
                    raise AbawError(
                        f"{file.path}: {video} is listed in another MTL file too; keep it in one of them"
                    )
                videos[video] = SPLITS.index(file.split), labels
    return videos
