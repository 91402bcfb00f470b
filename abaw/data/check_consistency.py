"""Whether images, annotations, splits and installation fit each other."""

from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from abaw.data.annotations import image_name, subject_free_stem
from abaw.data.check_counts import VideoCounts
from abaw.data.check_images import LITTER
from abaw.data.discovery import AnnotationFile
from abaw.data.findings import Finding
from abaw.data.sources import Sources

_PICTURES = {".jpg", ".jpeg", ".png", ".bmp", ".webp"}
_FEW = 0.5  # share of a video's frames; the official video that lacks most has crops for 91 %


def compare_lengths(video: VideoCounts, numbers: NDArray[np.int64], sources: Sources) -> Iterator[Finding]:
    """What the counts of a video say about it.

    Args:
        video: Counts of its annotations.
        numbers: int64 (n,), the numbers of its images, from 1, in all roots.
        sources: The data set.
    """
    last = int(numbers.max(initial=0))
    rows = {kind: n for kind, n in video.rows.items() if n and kind != "mtl"}  # which lists only some frames
    n_rows = max(rows.values(), default=0)
    paths = [file.path for file in sources.annotations if file.video == video.name]
    if len(set(rows.values())) > 1:
        told = ", ".join(f"{kind.upper()} {n}" for kind, n in rows.items())
        yield Finding("length mismatch", paths[0], f"the annotations differ in rows: {told}")
    if not sources.image_roots:
        return
    folder = next((r / video.name for r, names in sources.image_roots.items() if video.name in names), None)
    if rows and last > n_rows:
        detail = f"the last image is {image_name(last)}, the annotation ends with row {n_rows}"
        yield Finding("length mismatch", folder, detail)
    n_listed, n_lost = video.labelled.get("mtl", 0), video.labelled_without_crop.get("mtl", 0)
    if rows and len(numbers) < _FEW * video.frames:
        detail = f"{len(numbers)} of {video.frames} frames have an image"
        yield Finding("missing images", folder or paths[0], detail)
    elif n_listed and n_listed - n_lost < _FEW * n_listed:
        detail = f"{video.name}: {n_listed - n_lost} of {n_listed} images of the MTL set are there"
        yield Finding("missing images", folder, detail)
    elif len(numbers) < video.frames:
        detail = f"{video.frames - len(numbers)} of {video.frames} frames have no image"
        yield Finding("frames without crop", folder, detail)
    for kind, n in video.labelled_without_crop.items():
        if n:
            detail = f"{n} of {video.labelled[kind]} frames with {kind.upper()} labels have no image"
            yield Finding("labelled frames without crop", folder, detail)


def find_repeated_annotations(files: Sequence[AnnotationFile]) -> Iterator[Finding]:
    """Videos annotated by two files for one task; videos in different splits of different tasks.

    Args:
        files: One entry per video and task; with task None for a video of an MTL file.
    """
    first: dict[tuple[str | None, object], AnnotationFile] = {}
    splits: dict[str, dict[str, AnnotationFile]] = {}
    for file in files:
        before = first.setdefault((file.video, file.task), file)
        if before is not file:
            yield Finding("annotated twice", file.path, f"{file.video} is also in {before.path}")
        if file.video is not None and file.task is not None:
            splits.setdefault(file.video, {}).setdefault(file.split, file)
    for video, of_split in splits.items():
        if len(of_split) > 1:
            told = ", ".join(f"{split} of {str(f.task).upper()}" for split, f in of_split.items())
            yield Finding("video in two splits", next(iter(of_split.values())).path, f"{video} is in {told}")


def find_shared_subjects(files: Sequence[AnnotationFile]) -> Iterator[Finding]:
    """Recordings of which one subject is in one split of a task, and the other in another.

    Args:
        files: One entry per video and task; with task None for a video of an MTL file.
    """
    first: dict[tuple[str, object], AnnotationFile] = {}
    for file in files:
        before = first.setdefault((subject_free_stem(file.video or ""), file.task), file)
        if before.split != file.split and before.video != file.video:
            told = f"{before.video} is in {before.split}, {file.video} in {file.split}"
            yield Finding("subject in two splits", file.path, told)


def find_strays(sources: Sources, root: Path) -> Iterator[Finding]:
    """Files beside the videos' folders and beside the annotations, and folders of videos without an image."""
    if not sources.image_roots:
        stranger = next((path for path in root.rglob("*") if path.suffix.lower() in _PICTURES), None)
        if stranger is None:
            yield Finding("labels alone", root, "no folder <video>/ below it holds images 00001.jpg, …")
        else:
            yield Finding("missing images", root, f"no image <video>/00001.jpg, … below it, but {stranger}")
    of_images = [folder for folder in sources.image_roots if folder != root]  # which may hold anything
    above = {folder for each in sources.image_roots for folder in (each, *each.parents)}
    of_labels = sorted({file.path.parent for file in sources.annotations if file.video is not None})
    for folder in [*of_images, *of_labels]:
        for path in sorted(folder.iterdir()):
            if path.name in LITTER or path.name.startswith("._"):
                yield Finding("litter", path, "left by the operating system")
            elif folder in of_labels and path.suffix != ".txt":
                yield Finding("stray file", path, "not an annotation <video>.txt")
            elif folder in of_images and not path.is_dir():
                yield Finding("stray file", path, "not in the folder of a video")
            elif folder in of_images and path.name not in sources.image_roots[folder] and path not in above:
                yield Finding("missing images", path, _without_images(path))


def _without_images(folder: Path) -> str:
    first = min((path.name for path in folder.iterdir()), default=None)
    return "the folder is empty" if first is None else f"no image 00001.jpg, … in it, but {first}"


def find_opencv_wheels() -> Iterator[Finding]:
    """OpenCV wheels that overwrite each other's files."""
    found = []
    for name in ("opencv-python", "opencv-python-headless", "opencv-contrib-python"):
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    if len(found) > 1:
        detail = f"{' and '.join(found)} are both installed, and share one folder"
        yield Finding("two OpenCV wheels", None, detail)
