"""Layout of a data set on disk: search for image roots and annotation files below the folder a user names."""

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from abaw.data.cache import cache_folder
from abaw.data.formats.features import SUFFIX, features_path
from abaw.data.formats.flat_shards import PACK
from abaw.data.formats.litdata_shards import mirror
from abaw.data.labels import IMAGE_NAME
from abaw.errors import AbawError, UsageError
from abaw.files import listing
from abaw.tasks import TASKS, Task

LabelSet = Literal["challenge", "mtl"]
SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class DataSource:
    """Location of a data set. Paths are made absolute, with `~` expanded."""

    root: Path
    """Folder below which images and annotations are searched."""
    image_roots: Sequence[Path] | None = None
    """Folders, or addresses such as s3://bucket/pack, with one folder of images per video, instead of those
    found below `root`. A frame is read from the first that has it."""
    annotations: Path | None = None
    """Folder with the annotations, instead of those found below `root`."""
    label_set: LabelSet | None = "challenge"
    """`challenge`: one annotation file per video and task; `mtl`: the MTL files; None: both."""
    features: Sequence[Path] = ()
    """Folders of cached features to read instead of images. Where there are no images, the first tells which
    frames are visible."""
    cache_dir: Path | None = None
    """Folder of the index and of what describes image roots in object storage; None takes the environment
    variable ABAW_CACHE, else ~/.cache/abaw."""
    tasks: tuple[Task, ...] = TASKS
    """Tasks whose annotation files are read."""

    def __post_init__(self) -> None:
        roots, annotations = self.image_roots, self.annotations
        values = {
            "root": _absolute(self.root),
            "image_roots": None if roots is None else tuple(map(_absolute, roots)),
            "annotations": None if annotations is None else _absolute(annotations),
            "features": tuple(map(_absolute, self.features)),
            "cache_dir": None if self.cache_dir is None else _absolute(self.cache_dir),
        }
        for name, value in values.items():
            object.__setattr__(self, name, value)

    @property
    def cache(self) -> Path:
        """The folder of caches."""
        return cache_folder(self.cache_dir)


def _address(path: Path) -> str | None:
    """The address in object storage that a path denotes, such as s3://bucket/pack; None for a local path."""
    parts = re.fullmatch(r"(\w\w+):/+(.+)", str(path))  # a path keeps one slash of two
    return None if parts is None else f"{parts[1]}://{parts[2]}"


def _absolute(path: Path) -> Path:
    return path if _address(path) else Path(path).expanduser().resolve()


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
class DataFiles:
    """Image roots and annotation files of a data set.

    Attributes:
        image_roots: Names of the videos by image root, in search order.
        annotations: Annotation files sorted by path, those reached through symbolic links last.
        other_texts: Other .txt files, whose path does not name a task and a split.
    """

    image_roots: dict[Path, list[str]] = field(default_factory=dict)
    annotations: list[AnnotationFile] = field(default_factory=list)
    other_texts: list[Path] = field(default_factory=list)

    def paths(self) -> Iterator[Path]:
        """Yields what the fingerprint of the data set covers: image folders and annotation files."""
        for root, videos in self.image_roots.items():
            yield root
            for video in videos:
                yield root / video if (root / video).is_dir() else features_path(root, video)
        yield from (file.path for file in self.annotations)


def named_root(given: str | Path | None, option: str, *, must_exist: bool = True) -> Path:
    """The folder of a data set: as given, or that of the environment variable ABAW_ROOT.

    Args:
        given: The folder; None or empty: the variable.
        option: The option or argument, for the message.
        must_exist: Whether to check that the folder exists.

    Raises:
        UsageError: Neither is set.
        AbawError: There is no such folder.
    """
    root = given or os.environ.get("ABAW_ROOT")
    if not root:
        raise UsageError(
            "there is no data: name the folder that holds cropped_aligned/ and the annotations with"
            f" {option} or in the environment variable ABAW_ROOT"
        )
    if must_exist and not Path(root).is_dir():
        origin = option.split()[0].lstrip("-") if given else "the environment variable ABAW_ROOT"
        raise AbawError(f"{origin}: {_no_folder(root)}")
    return Path(root)


def _no_folder(root: str | Path) -> str:
    return f"{root}: no such folder; give the folder that holds cropped_aligned and the annotations"


def find_files(source: DataSource) -> DataFiles:
    """Finds the files of a data set; image roots and annotations not given are searched below the root.

    Metadata of an image root in object storage is downloaded to the cache.

    Raises:
        AbawError: A folder does not exist, or does not contain what is needed from it.
    """
    root, annotations, label_set = source.root, source.annotations, source.label_set
    found = search(root, source.tasks)
    if source.image_roots is not None:
        packs = source.cache / "packs"
        chosen = given_image_roots(
            [mirror(url, packs) if (url := _address(path)) else path for path in source.image_roots]
        )
    else:
        chosen = choose_image_roots(root, found.image_roots)
        if not chosen and any(folder.is_dir() for folder in source.features[:1]):
            chosen = given_image_roots(source.features[:1])
    labels = found if annotations is None else search(annotations, source.tasks)
    wanted = [
        file
        for file in labels.annotations
        if label_set in (None, "mtl" if file.video is None else "challenge")
    ]
    if not wanted and (label_set == "mtl" or (annotations is not None and label_set is not None)):
        kind = (
            "MTL_Challenge/train_set.txt"
            if label_set == "mtl"
            else "VA_Estimation_Challenge/Train_Set/<video>.txt"
        )
        raise AbawError(
            f"{annotations or root}: no annotation such as {kind} below it; correct annotations or label_set"
        )
    if not wanted and not chosen and (label_set is not None or not labels.other_texts):
        deep = images_too_deep(root)
        raise AbawError(
            f"{root}: neither images (cropped_aligned/<video>/00001.jpg) nor annotations "
            "(VA_Estimation_Challenge/Train_Set/<video>.txt) below it; give the folder that holds them"
            + ("" if deep is None else f". The images in {deep} lie too deep: give a folder nearer to them")
        )
    return DataFiles(chosen, wanted, labels.other_texts)


_DEPTH = 5  # levels of folders below the root that are searched, e.g. Images/batch1/cropped_aligned/<video>
_ALIGNED = "cropped_aligned"
_PICTURES = {".jpg", ".jpeg", ".png", ".bmp", ".webp"}
MTL = "mtl"
Meanings = Mapping[str, Task | str]

_MEANINGS: Meanings = {
    **dict.fromkeys(("mtl", "multi", "multitask"), MTL),
    **dict.fromkeys(("train", "training", "trainset", "trainingset"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "valset", "validationset", "dev"), "val"),
    **dict.fromkeys(("test", "testing", "testset"), "test"),
}
"""Words in the name of a folder or an MTL file that name the split of its annotations, or all tasks."""


def meanings(tasks: Iterable[Task]) -> Meanings:
    """The words that name a split or one of some tasks."""
    return {**_MEANINGS, **{word: task for task in tasks for word in (task.name, *task.words)}}


_FILLERS = re.compile(
    "(sub)?set|split|data|(sub)?challenge|sub|track|task|learning|estimation|recognition|classification"
    "|detection|annotations?|labels?|units?|facial|basic|abaw|s|aff|affwild|wild|v|\\d+(st|nd|rd|th)?",
    re.IGNORECASE,
)

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+(?:st|nd|rd|th)?", re.ASCII)


@dataclass(frozen=True)
class _Place:
    """A folder to search, with the task and split that it or a folder above it names."""

    folder: Path  # as reached from the root
    real: Path  # the same without symbolic links
    depth: int  # number of levels of folders below it that are searched
    task: Task | str | None  # `mtl` for the files of all tasks
    split: str | None


def meaning(name: str, words: Meanings) -> tuple[Task | str | None, str | None]:
    """Task (or `mtl`) and split in the name of a folder; each None if there is none or more than one.

    Words may be separated by underscores, spaces, hyphens or capital letters. A name with an unknown word
    has neither task nor split.
    """
    met: set[Task | str] = set()
    for part in re.split(r"[\s_\-.()]+", name):
        pieces = [part] if part.lower() in words or _FILLERS.fullmatch(part) else _WORD.findall(part)
        if "".join(pieces) != part:
            return None, None
        for word in map(str.lower, pieces):
            if word in words:
                met.add(words[word])
            elif not _FILLERS.fullmatch(word):
                return None, None
    tasks, splits = met - set(SPLITS), met & set(SPLITS)
    if len(tasks) > 1 or len(splits) > 1:
        return None, None
    return next(iter(tasks), None), next((split for split in SPLITS if split in splits), None)


def search(root: Path, tasks: Iterable[Task] = TASKS) -> DataFiles:
    """Finds every image root and every annotation file up to five folders below `root`, or `root` itself.

    Hidden folders and those of macOS archives are skipped. A folder is searched once, even if several
    symbolic links point to it.

    Raises:
        AbawError: The folder does not exist or cannot be listed.
    """
    if not root.is_dir():
        raise AbawError(_no_folder(root))
    found = DataFiles()
    visited: set[Path] = set()
    words = meanings(tasks)
    with listing():
        links = [_Place(root, root.resolve(), _DEPTH, *meaning(root.name, words))]
        while links:  # last, so that a folder is found by its own name first
            links += _search(links.pop(0), found, visited, words)
    return found


def _search(place: _Place, found: DataFiles, visited: set[Path], words: Meanings) -> list[_Place]:
    """Adds the content of a folder and its subfolders to `found`; returns the symbolic links to folders."""
    if place.real in visited:
        return []
    visited.add(place.real)
    videos, links = [], []
    for path in sorted(place.folder.glob("*.txt")):
        if _is_ordinary(path.name):
            _add_text(path, place, found, words)
    if not place.depth:
        return []
    for child in subfolders(place.folder):
        if not child.name.lower().startswith(_ALIGNED) and _holds_images(child):
            videos.append(child.name)  # images directly in cropped_aligned are strays
        elif child.suffix != ".txt":
            task, split = meaning(child.name, words)
            is_link = child.is_symlink()
            real = child.resolve() if is_link else place.real / child.name
            below = _Place(child, real, place.depth - 1, task or place.task, split or place.split)
            links += [below] if is_link else _search(below, found, visited, words)
    if videos:
        found.image_roots[place.folder] = videos
    return links


def _add_text(path: Path, place: _Place, found: DataFiles, words: Meanings) -> None:
    """Adds a .txt file to the annotations or the other texts of `found`, by its path."""
    in_name = meaning(path.stem, words)
    if isinstance(place.task, Task) and place.split is not None:
        found.annotations.append(AnnotationFile(path, place.split, place.task, path.stem))
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


def choose_image_roots(root: Path, found: dict[Path, list[str]]) -> dict[Path, list[str]]:
    """Image roots to use, in search order, with the videos of each.

    If any folder is named cropped_aligned*, only those are used.

    Raises:
        AbawError: Two roots not named cropped_aligned* contain the same video.
    """
    below = {folder: folder.relative_to(root).parts or (folder.name,) for folder in found}
    aligned = [f for f, parts in below.items() if any(part.lower().startswith(_ALIGNED) for part in parts)]
    if aligned:
        # sorted by what follows the root, so that cropped_aligned comes before cropped_aligned_new_50_vids
        return {f: found[f] for f in sorted(aligned, key=lambda f: [_natural(p) for p in below[f]])}
    root_of: dict[str, Path] = {}
    for folder, videos in found.items():
        for video in videos:
            if root_of.setdefault(video, folder) != folder:
                raise AbawError(
                    f"{root}: both {root_of[video]} and {folder} hold images of {video}, and neither is named"
                    f" {_ALIGNED}; choose with image_roots"
                )
    return found


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
        with listing():
            videos = [child.name for child in subfolders(folder) if _holds_images(child)]
            roots[folder] = videos or sorted(path.stem for path in folder.glob(f"*{SUFFIX}"))
        if not roots[folder]:
            raise AbawError(f"{folder}: no folder in it holds images named 00001.jpg, …; correct image_roots")
    return roots
