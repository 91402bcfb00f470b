"""Search for image roots and annotation files below the folder that a user names."""

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from abaw.data.formats.features import SUFFIX, features_path, open_features
from abaw.data.formats.flat_shards import PACK, open_packed
from abaw.data.labels import IMAGE_NAME
from abaw.errors import AbawError
from abaw.tasks import Task

SPLITS = ("train", "val", "test")

_DEPTH = 5  # levels of folders below the root that are searched, e.g. Images/batch1/cropped_aligned/<video>

_ALIGNED = "cropped_aligned"

_PICTURES = {".jpg", ".jpeg", ".png", ".bmp", ".webp"}

MTL = "mtl"

_MEANINGS: dict[str, str] = {
    **dict.fromkeys(("va", "valence", "arousal"), Task.VA),
    **dict.fromkeys(("expr", "expression", "expressions"), Task.EXPR),
    **dict.fromkeys(("au", "aus", "action", "actionunit", "actionunits"), Task.AU),
    **dict.fromkeys(("mtl", "multi", "multitask"), MTL),
    **dict.fromkeys(("train", "training", "trainset", "trainingset"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "valset", "validationset", "dev"), "val"),
    **dict.fromkeys(("test", "testing", "testset"), "test"),
}
"""Words in the name of a folder or an MTL file that name the task or the split of its annotations."""

_FILLERS = re.compile(
    "(sub)?set|split|data|(sub)?challenge|sub|track|task|learning|estimation|recognition|classification"
    "|detection|annotations?|labels?|units?|facial|basic|abaw|s|aff|affwild|wild|v|\\d+(st|nd|rd|th)?",
    re.IGNORECASE,
)

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+(?:st|nd|rd|th)?", re.ASCII)


@dataclass(frozen=True)
class AnnotationFile:
    """An annotation file, with the task, split and video that its path names.

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
    """Image roots and annotation files found below a folder.

    Attributes:
        image_roots: Folders whose sub-folders hold numbered images, with those sub-folders' names.
        annotations: Annotation files sorted by path, those reached through symbolic links last.
        other_texts: Other .txt files, whose path does not name a task and a split.
    """

    image_roots: dict[Path, list[str]] = field(default_factory=dict)
    annotations: list[AnnotationFile] = field(default_factory=list)
    other_texts: list[Path] = field(default_factory=list)


@dataclass(frozen=True)
class _Place:
    """A folder to search.

    Attributes:
        folder: Path as reached from the root.
        real: The same path without symbolic links.
        depth: Number of levels of folders below it that are searched.
        task: Task named by the folder or a folder above it; `mtl` for the files of all tasks.
        split: Split named likewise.
    """

    folder: Path
    real: Path
    depth: int
    task: str | None
    split: str | None


def meaning(name: str) -> tuple[str | None, str | None]:
    """Task (or `mtl`) and split in the name of a folder; each None if there is none or more than one.

    Words may be separated by underscores, spaces, hyphens or capital letters. A name with an unknown word
    has neither task nor split.
    """
    met = set()
    for part in re.split(r"[\s_\-.()]+", name):
        pieces = [part] if part.lower() in _MEANINGS or _FILLERS.fullmatch(part) else _WORD.findall(part)
        if "".join(pieces) != part:
            return None, None
        for word in map(str.lower, pieces):
            if word in _MEANINGS:
                met.add(_MEANINGS[word])
            elif not _FILLERS.fullmatch(word):
                return None, None
    tasks, splits = met - set(SPLITS), met & set(SPLITS)
    if len(tasks) > 1 or len(splits) > 1:
        return None, None
    return next(iter(tasks), None), next(iter(splits), None)


def search(root: Path) -> Found:
    """Finds every image root and every annotation file up to five folders below `root`, or `root` itself.

    Hidden folders and those of macOS archives are skipped. A folder is searched once, even if several
    symbolic links point to it.

    Raises:
        AbawError: The folder does not exist or cannot be listed.
    """
    if not root.is_dir():
        raise AbawError(
            f"{root}: no such folder; give the folder that holds cropped_aligned and the annotations"
        )
    found = Found()
    visited: set[Path] = set()
    with _listing():
        links = [_Place(root, root.resolve(), _DEPTH, *meaning(root.name))]
        while links:  # last, so that a folder is found by its own name first
            links += _search(links.pop(0), found, visited)
    return found


@contextmanager
def _listing() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise AbawError(
            f"{error.filename}: cannot be listed ({error.strerror}); check its permissions"
        ) from error


def _search(place: _Place, found: Found, visited: set[Path]) -> list[_Place]:
    """Adds the content of a folder and its subfolders to `found`; returns the symbolic links to folders."""
    if place.real in visited:
        return []
    visited.add(place.real)
    videos, links = [], []
    for path in sorted(place.folder.glob("*.txt")):
        if _is_ordinary(path.name):
            _add_text(path, place, found)
    if not place.depth:
        return []
    for child in subfolders(place.folder):
        if not child.name.lower().startswith(_ALIGNED) and _holds_images(child):
            videos.append(child.name)  # images directly in cropped_aligned are strays
        elif child.suffix != ".txt":
            task, split = meaning(child.name)
            is_link = child.is_symlink()
            real = child.resolve() if is_link else place.real / child.name
            below = _Place(child, real, place.depth - 1, task or place.task, split or place.split)
            links += [below] if is_link else _search(below, found, visited)
    if videos:
        found.image_roots[place.folder] = videos
    return links


def _add_text(path: Path, place: _Place, found: Found) -> None:
    """Adds a .txt file to the annotations or the other texts of `found`, by its path."""
    in_name = meaning(path.stem)
    if place.task is not None and place.task != MTL and place.split is not None:
        found.annotations.append(AnnotationFile(path, place.split, Task(place.task), path.stem))
    elif MTL in (place.task, in_name[0]) and in_name[1] in ("train", "val"):
        found.annotations.append(AnnotationFile(path, in_name[1], None, None))
    else:
        found.other_texts.append(path)


def subfolders(folder: Path) -> list[Path]:
    """Subfolders in natural order (2 before 10), without hidden ones."""
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries if _is_ordinary(entry.name) and _is_folder(entry)]
    return [folder / name for name in sorted(names, key=_natural)]


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether it is a folder or a symbolic link to one; a link to itself is neither."""
    return Path(entry.path).is_dir() if entry.is_symlink() else entry.is_dir()


def _is_ordinary(name: str) -> bool:
    return not name.startswith((".", "__MACOSX"))


def _natural(name: str) -> list[tuple[int, str]]:
    """Sort key for natural order: batch2 before batch10."""
    return [
        (int(part), "") if part.isdecimal() else (-1, part)
        for part in re.split(r"(\d+)", name, flags=re.ASCII)
    ]


def _holds_images(folder: Path) -> bool:
    with os.scandir(folder) as entries:
        return any(IMAGE_NAME.fullmatch(entry.name) or entry.name == PACK for entry in entries)


def is_crops_folder(root: Path, found: Iterable[Path]) -> bool:
    """Whether a data root is an image root itself, so that probably its parent was meant."""
    return root in found or root.name.lower().startswith(_ALIGNED)


def other_picture(folder: Path) -> Path | None:
    """First picture below a folder with an unexpected name, such as 00001.JPG or 00001.png; None: none."""
    pictures = (path for path in folder.rglob("*") if path.suffix.lower() in _PICTURES)
    return next((path for path in pictures if not IMAGE_NAME.fullmatch(path.name)), None)


def images_too_deep(root: Path) -> Path | None:
    """First image root deeper than `search` descends; None: none."""
    for folder, _, names in os.walk(root):
        deep = len(Path(folder).relative_to(root).parts) > _DEPTH
        if deep and any(IMAGE_NAME.fullmatch(name) for name in names):
            return Path(folder).parent
    return None


def choose_image_roots(root: Path, found: Found) -> dict[Path, list[str]]:
    """Image roots to use, in search order, with the videos of each.

    If any folder is named cropped_aligned*, only those are used.

    Raises:
        AbawError: Two roots not named cropped_aligned* contain the same video.
    """
    below = {folder: folder.relative_to(root).parts or (folder.name,) for folder in found.image_roots}
    aligned = [f for f, parts in below.items() if any(part.lower().startswith(_ALIGNED) for part in parts)]
    if aligned:
        # sorted by what follows the root, so that cropped_aligned comes before cropped_aligned_new_50_vids
        return {
            f: found.image_roots[f] for f in sorted(aligned, key=lambda f: [_natural(p) for p in below[f]])
        }
    root_of: dict[str, Path] = {}
    for folder, videos in found.image_roots.items():
        for video in videos:
            if root_of.setdefault(video, folder) != folder:
                raise AbawError(
                    f"{root}: both {root_of[video]} and {folder} hold images of {video}, and neither is named"
                    f" {_ALIGNED}; choose with image_roots"
                )
    return found.image_roots


def given_image_roots(folders: Sequence[Path]) -> dict[Path, list[str]]:
    """Videos of the given image roots, in that order.

    A folder of cached features may take the place of an image root: it tells which frames are visible.

    Raises:
        AbawError: A folder does not exist or contains no video.
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


def video_folder(root: Path, video: str) -> Path:
    """Folder of a video's images in an image root; in a folder of cached features, the video's file."""
    folder = root / video
    return folder if folder.is_dir() else features_path(root, video)


def images_in(folder: Path) -> NDArray[np.int64]:
    """Unsorted image numbers, from 1, of a video's folder, pack or file of cached features.

    Raises:
        AbawError: The folder cannot be listed, or the pack or the features are damaged.
    """
    if folder.suffix == SUFFIX:
        return np.flatnonzero(open_features(folder).visible) + 1
    with _listing():
        names = os.listdir(folder)  # noqa: PTH208 - ten times faster than Path.iterdir
    return open_packed(folder).numbers if PACK in names else image_numbers(names)


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
