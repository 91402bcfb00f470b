"""Layout of a data set on disk: image roots, annotation files, and the images of a video."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from abaw.data.cache import cache_folder
from abaw.data.discovery import (
    AnnotationFile,
    choose_image_roots,
    given_image_roots,
    images_too_deep,
    search,
    video_folder,
)
from abaw.data.formats.litdata_shards import mirror
from abaw.errors import AbawError

LabelSet = Literal["challenge", "mtl"]


@dataclass(frozen=True)
class DataSource:
    """Where a data set lies, as the user names it. Paths are made absolute, with `~` expanded."""

    root: Path
    """Folder below which images and annotations are searched."""

    image_roots: Sequence[Path] | None = None
    """Folders, or addresses such as s3://bucket/pack, with one folder of images per video, instead of those
    found below `root`. They are searched in this order: a frame is taken from the first that holds it."""

    annotations: Path | None = None
    """Folder with the annotations, instead of what is found below `root`."""

    label_set: LabelSet | None = "challenge"
    """`challenge`: one annotation file per video and task; `mtl`: the MTL files; None: both."""

    features: Sequence[Path] = ()
    """Folders of cached features to read instead of images. Where there are no images, the first tells which
    frames are visible."""

    cache_dir: Path | None = None
    """Folder of the index and of what describes image roots in object storage; None takes the environment
    variable ABAW_CACHE, else ~/.cache/abaw."""

    def __post_init__(self) -> None:
        roots, annotations = self.image_roots, self.annotations
        paths = {
            "root": _absolute(self.root),
            "image_roots": None if roots is None else tuple(map(_absolute, roots)),
            "annotations": None if annotations is None else _absolute(annotations),
            "features": tuple(map(_absolute, self.features)),
            "cache_dir": None if self.cache_dir is None else _absolute(self.cache_dir),
        }
        for name, path in paths.items():
            object.__setattr__(self, name, path)

    @property
    def cache(self) -> Path:
        """The folder of caches."""
        return cache_folder(self.cache_dir)


def _address(path: Path) -> str | None:
    """The address in object storage that a path was made of, such as s3://bucket/pack; None: it is a path."""
    parts = re.fullmatch(r"(\w\w+):/+(.+)", str(path))  # a path keeps one slash of two
    return None if parts is None else f"{parts[1]}://{parts[2]}"


def _absolute(path: Path) -> Path:
    return path if _address(path) else Path(path).expanduser().resolve()


@dataclass(frozen=True)
class Sources:
    """The files of a data set, with absolute paths.

    Attributes:
        image_roots: In the order in which they are searched, with the names of their video folders.
        annotations: Annotation files of the label set.
        other_texts: Other .txt files, whose path does not name a task and a split.
    """

    image_roots: dict[Path, list[str]]
    annotations: list[AnnotationFile]
    other_texts: tuple[Path, ...] = ()

    def paths(self) -> Iterator[Path]:
        """Yields what the fingerprint of the data set covers: image folders and annotation files."""
        for root, videos in self.image_roots.items():
            yield root
            yield from (video_folder(root, video) for video in videos)
        yield from (file.path for file in self.annotations)


def find_sources(source: DataSource) -> Sources:
    """Finds the files of a data set; image roots and annotations not given are searched below the root.

    Metadata of an image root in object storage is downloaded to the cache.

    Raises:
        AbawError: A folder does not exist, or does not contain what is needed from it.
    """
    root, annotations, label_set = source.root, source.annotations, source.label_set
    found = search(root)
    if source.image_roots is not None:
        chosen = given_image_roots([_local_folder(folder, source) for folder in source.image_roots])
    else:
        chosen = choose_image_roots(root, found)
        if not chosen and any(folder.is_dir() for folder in source.features[:1]):
            chosen = given_image_roots(source.features[:1])
    labels = found if annotations is None else search(annotations)
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
    return Sources(chosen, wanted, tuple(labels.other_texts))


def _local_folder(image_root: Path, source: DataSource) -> Path:
    """Folder of an image root; for one in object storage, its local mirror."""
    address = _address(image_root)
    return image_root if address is None else mirror(address, source.cache / "packs")
