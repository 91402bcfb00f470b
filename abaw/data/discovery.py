"""What lies below the folder a user names: image roots, annotation files, and the images of a video."""

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from abaw.data.annotations import IMAGE_NAME
from abaw.data.feature_files import SUFFIX, features_path, open_features
from abaw.data.packs import PACK, open_packed
from abaw.errors import AbawError
from abaw.tasks import Task

SPLITS = ("train", "val", "test")

_DEPTH = 4  # levels of folders below the root that are searched, e.g. Images/batch1/cropped_aligned/<video>
_TASK_FOLDER = re.compile(r"(va|expr|au|mtl)_(set|(\w+_)?challenge)", re.IGNORECASE)
_SPLIT_FOLDER = re.compile(r"(train|val|test)(ing|idation)?(_set)?", re.IGNORECASE)
_MTL_FILE = re.compile(r"(train|val)(ing|idation)?_set(_annotations)?\.txt", re.IGNORECASE)
_ALIGNED = "cropped_aligned"


@dataclass(frozen=True)
class AnnotationFile:
    """An annotation file and what its place says about it.

    Attributes:
        path: The file.
        split: One of `SPLITS`.
        task: Its task; None for an MTL file, which holds all three.
        video: The video; None for an MTL file, which holds many.
    """

    path: Path
    split: str
    task: Task | None
    video: str | None


@dataclass
class Found:
    """What a search met.

    Attributes:
        image_roots: Folders whose sub-folders hold numbered images, with those sub-folders' names.
        annotations: Annotation files in the order of their paths.
    """

    image_roots: dict[Path, list[str]] = field(default_factory=dict)
    annotations: list[AnnotationFile] = field(default_factory=list)


def search(root: Path) -> Found:
    """Finds every image root and every annotation file up to four folders below `root`, or `root` itself.

    Hidden folders and those of macOS archives are passed over.

    Raises:
        AbawError: There is no such folder, or it cannot be listed.
    """
    if not root.is_dir():
        raise AbawError(
            f"{root}: no such folder; give the folder that holds cropped_aligned and the annotations"
        )
    found = Found()
    with _listing():
        if _TASK_FOLDER.fullmatch(root.name):
            found.annotations += _annotation_files(root)
        else:
            _search(root, _DEPTH, found)
    return found


@contextmanager
def _listing() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise AbawError(
            f"{error.filename}: cannot be listed ({error.strerror}); check its permissions"
        ) from error


def _search(folder: Path, depth: int, found: Found) -> None:
    videos = []
    for child in subfolders(folder):
        if _TASK_FOLDER.fullmatch(child.name):
            found.annotations += _annotation_files(child)
        elif not child.name.lower().startswith(_ALIGNED) and _holds_images(child):
            videos.append(child.name)  # images directly in cropped_aligned are strays, and it no video
        elif depth > 1:
            _search(child, depth - 1, found)
    if videos:
        found.image_roots[folder] = videos


def subfolders(folder: Path) -> list[Path]:
    """The folders in a folder, hidden ones left out, 2 before 10."""
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries if _is_ordinary(entry.name) and entry.is_dir()]
    return [folder / name for name in sorted(names, key=_natural)]


def _is_ordinary(name: str) -> bool:
    return not name.startswith((".", "__MACOSX"))


def _natural(name: str) -> list[tuple[int, str]]:
    """A sort key under which batch2 comes before batch10."""
    return [
        (int(part), "") if part.isdecimal() else (-1, part)
        for part in re.split(r"(\d+)", name, flags=re.ASCII)
    ]


def _holds_images(folder: Path) -> bool:
    with os.scandir(folder) as entries:
        return any(IMAGE_NAME.fullmatch(entry.name) or entry.name == PACK for entry in entries)


def _annotation_files(task_folder: Path) -> Iterator[AnnotationFile]:
    """The annotation files of a task folder such as `VA_Estimation_Challenge` or `MTL_Challenge`."""
    match = _TASK_FOLDER.fullmatch(task_folder.name)
    name = match[1].lower() if match else ""
    if name == "mtl":
        for path in sorted(task_folder.iterdir()):
            if (split := _MTL_FILE.fullmatch(path.name)) is not None:
                yield AnnotationFile(path, split[1].lower(), None, None)
        return
    for folder in subfolders(task_folder):
        if (split := _SPLIT_FOLDER.fullmatch(folder.name)) is not None:
            for path in sorted(folder.iterdir()):
                if path.suffix == ".txt" and _is_ordinary(path.name):
                    yield AnnotationFile(path, split[1].lower(), Task(name), path.stem)


def find_annotations(root: Path) -> list[AnnotationFile]:
    """Every annotation file below `root`: task folders of all editions, all splits, the MTL files.

    Raises:
        AbawError: There is no such folder.
    """
    return search(root).annotations


def choose_image_roots(root: Path, found: Found) -> dict[Path, list[str]]:
    """The image roots to use, in order, with the videos of each.

    Where folders are named cropped_aligned*, only they count. Others may not disagree about a video.

    Raises:
        AbawError: Two roots that are not cropped_aligned* both hold a video.
    """
    below = {folder: folder.relative_to(root).parts or (folder.name,) for folder in found.image_roots}
    aligned = [f for f, parts in below.items() if any(part.lower().startswith(_ALIGNED) for part in parts)]
    if aligned:
        # sorted by what follows the root, so that cropped_aligned comes before cropped_aligned_new_50_vids
        return {
            f: found.image_roots[f] for f in sorted(aligned, key=lambda f: [_natural(p) for p in below[f]])
        }
    holder: dict[str, Path] = {}
    for folder, videos in found.image_roots.items():
        for video in videos:
            if holder.setdefault(video, folder) != folder:
                raise AbawError(
                    f"{root}: both {holder[video]} and {folder} hold images of {video}, and neither is named "
                    f"{_ALIGNED}; choose with image_roots"
                )
    return found.image_roots


def given_image_roots(folders: Sequence[Path]) -> dict[Path, list[str]]:
    """The videos of image roots that the user named, in that order.

    A folder of cached features stands in for the images that they were made from: it tells which frames
    can be seen.

    Raises:
        AbawError: One of them does not exist, or holds no video.
    """
    roots: dict[Path, list[str]] = {}
    for folder in folders:
        if not folder.is_dir():
            raise AbawError(
                f"{folder}: no such folder; image_roots names folders of the form <root>/<video>/00001.jpg"
            )
        with _listing():
            videos = [child.name for child in subfolders(folder) if _holds_images(child)]
            roots[folder] = videos or sorted(path.stem for path in folder.glob(f"*{SUFFIX}"))
        if not roots[folder]:
            raise AbawError(f"{folder}: no folder in it holds images named 00001.jpg, …; correct image_roots")
    return roots


def holder(root: Path, video: str) -> Path:
    """Where an image root has the frames of a video: a folder, or a file of cached features."""
    folder = root / video
    return folder if folder.is_dir() else features_path(root, video)


def images_in(folder: Path) -> NDArray[np.int64]:
    """The numbers of the images in a video's folder or pack, or behind cached features, from 1, in no order.

    Raises:
        AbawError: The folder cannot be listed, or its pack or the features are damaged.
    """
    if folder.suffix == SUFFIX:
        return np.flatnonzero(open_features(folder).visible) + 1
    with _listing():
        names = os.listdir(folder)  # noqa: PTH208 - ten times faster than Path.iterdir
    return open_packed(folder).numbers if PACK in names else image_numbers(names)


def image_numbers(names: Sequence[str]) -> NDArray[np.int64]:
    """The numbers of the images among file names, from 1, in the order met; other names are passed over."""
    usual = [name for name in names if len(name) == len("00001.jpg")]
    cells = np.frombuffer("".join(usual).encode("ascii", "replace"), np.uint8).reshape(-1, 9)
    digits = cells[:, :5] - np.uint8(ord("0"))  # wraps around below "0"
    good = (digits < 10).all(1) & (cells[:, 5:] == np.frombuffer(b".jpg", np.uint8)).all(1)
    numbers = digits[good].astype(np.int64) @ np.array([10_000, 1000, 100, 10, 1])
    matches = (IMAGE_NAME.fullmatch(name) for name in names if len(name) > len("00001.jpg"))
    longer = np.array([int(match[1]) for match in matches if match], np.int64)
    return np.concatenate([numbers[numbers > 0], longer])
