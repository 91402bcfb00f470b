"""Feature store: cached features of selected frames from one or more feature caches."""

import warnings
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from abaw.data.formats.features import (
    SUFFIX,
    VideoFeatures,
    differences,
    features_path,
    fingerprint_of,
    open_features,
    read_metadata,
)
from abaw.data.frames import BadFrameError, FrameSource
from abaw.data.index import Index
from abaw.errors import AbawError

_MOST_OPEN = 8192
"""Maximum number of memory-mapped videos per process; each cache takes one of about 65,000 maps a video."""


@dataclass(frozen=True, eq=False)
class Features:
    """Features of frames of one video.

    Attributes:
        values: float16 or float32 (n, D); zeros where not visible.
        visible: bool (n,).
    """

    values: NDArray[np.floating]
    visible: NDArray[np.bool_]


@dataclass(frozen=True)
class _Folder:
    """One feature cache: its folder, and the dimension, dtype and fingerprint of all its files."""

    path: Path
    dim: int
    dtype: np.dtype
    fingerprint: str | None


class FeatureStore:
    """Reads features from one or more folders with a file per video, and concatenates them along D.

    Files are memory-mapped at the first read, once per process; the least recently used are closed. A
    pickled store opens its own. Caches are aligned by frame number. A frame is visible if it is so in all
    caches; frames after the end of a cache are not visible.

    Args:
        folders: Folders written by `abaw extract`, or made elsewhere. The features of the network's own
            backbone come first.
        index: Index of the data set.

    Attributes:
        dim: Total feature dimension of all folders (D).

    Raises:
        AbawError: A folder is missing or contains no features.
    """

    def __init__(self, folders: Sequence[Path | str], index: Index) -> None:
        self.index = index
        self._folders = [_inspect(Path(folder)) for folder in folders]
        self.dim = sum(folder.dim for folder in self._folders)

    @cached_property
    def _caches(self) -> Callable[[str], list[VideoFeatures]]:
        """The features of a video by its name, one per folder."""
        folders = self._folders
        return lru_cache(_MOST_OPEN)(lambda video: [_open_checked(folder, video) for folder in folders])

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_caches"}

    def read(self, video: int, indices: Sequence[int] | NDArray[np.integer]) -> Features:
        """The frames `indices` (from 0, in any order) of a video.

        Raises:
            AbawError: A folder has no file for the video, or one of another dimension, dtype or fingerprint.
        """
        numbers = np.asarray(indices, np.int64)
        visible = np.ones(len(numbers), bool)
        values: list[NDArray[np.floating]] = []
        for cache in self._caches(self.index.videos[video]):
            last = len(cache.visible) - 1
            inside = np.minimum(numbers, last)
            visible &= (numbers <= last) & cache.visible[inside]
            values.append(cache.features[inside])  # (n, D of this cache), a copy
        joined = values[0] if len(values) == 1 else np.concatenate(values, axis=1)
        joined[~visible] = 0
        return Features(joined, visible)

    def check(self, videos: Iterable[int], frames: FrameSource | None = None) -> None:
        """Checks the caches before a run; warns if a cache ends before a video does.

        Args:
            videos: Videos that will be read.
            frames: Frame source, to detect features of other images; None skips that.

        Raises:
            AbawError: As for `read`, or the images have changed since the extraction.
        """
        short: dict[Path, list[str]] = {}
        for video in (video for video in videos if self.index.n_frames[video]):
            name, n_frames = self.index.videos[video], int(self.index.n_frames[video])
            fingerprint = None
            if frames is not None and has_images(self.index, video):
                fingerprint = images_fingerprint(self.index, frames, video)
            for folder, cache in zip(self._folders, self._caches(name), strict=True):
                if len(cache.visible) < n_frames:
                    short.setdefault(folder.path, []).append(f"{name} ({len(cache.visible)} of {n_frames})")
                if folder.fingerprint and fingerprint not in (None, cache.metadata["images"]):
                    raise AbawError(
                        f"{features_path(folder.path, name)}: stale features, the images of {name} have"
                        f" changed since; {rebuild(folder.path)}"
                    )
        for path, names in short.items():
            warnings.warn(
                f"{path}: {len(names)} videos have fewer frames there than in the data set, such as"
                f" {names[0]}; frames after the end count as not visible",
                stacklevel=2,
            )

    def check_metadata(self, expected: Mapping[str, Any]) -> None:
        """Checks the metadata of the first folder, if `abaw extract` wrote it.

        The other folders are of other backbones, or made elsewhere.

        Args:
            expected: Expected values of some keys of `store.json`.

        Raises:
            AbawError: A value differs.
        """
        folder = self._folders[0].path
        cached = read_metadata(folder)
        found = [] if cached is None else differences(cached, expected)
        if found:
            raise AbawError(f"{folder}: stale features, made with {'; '.join(found)}; {rebuild(folder)}")


def has_images(index: Index, video: int) -> bool:
    """Whether a video has images, rather than cached features only."""
    sources = index.source(video)
    seen = np.flatnonzero(sources >= 0)[:1]
    return bool(len(seen)) and index.folder(video, int(sources[seen[0]])).is_dir()


def images_fingerprint(index: Index, frames: FrameSource, video: int) -> str:
    """Fingerprint of a video's images: which frames have an image, and the pixels of the first.

    It does not depend on their folder or storage format.
    """
    places = np.flatnonzero(index.visible(video))
    try:
        first = frames.read(video, places[:1]).pixels.tobytes()
    except BadFrameError:
        first = b""  # bad frames are handled where the frame is read
    return f"{zlib.crc32(first, zlib.crc32(places.astype('<i4').tobytes())):08x}"


def rebuild(folder: Path) -> str:
    """The cure for stale features, for a message."""
    return (
        f"delete {folder} and run {_extract(folder)} (a checkpoint's backbone: with --ckpt_path),"
        " or name another folder"
    )


def _extract(folder: Path) -> str:
    return f"`abaw extract --config FILE --data.features '[{folder}]'`"


def _inspect(folder: Path) -> _Folder:
    """The properties of a folder, from its first file."""
    first = min(folder.glob(f"*{SUFFIX}"), default=None) if folder.is_dir() else None
    if first is None:
        what = "holds no features" if folder.is_dir() else "does not exist"
        raise AbawError(f"data.features: {folder} {what}; make them with {_extract(folder)}")
    features, metadata = open_features(first).features, read_metadata(folder)
    return _Folder(
        folder, features.shape[1], features.dtype, None if metadata is None else fingerprint_of(metadata)
    )


def _open_checked(folder: _Folder, video: str) -> VideoFeatures:
    """A video's features, checked against the properties of the folder."""
    path = features_path(folder.path, video)
    found = open_features(path)
    if folder.fingerprint is not None and found.metadata.get("key") != folder.fingerprint:
        raise AbawError(
            f"{path}: not made with what store.json beside it describes; delete the file and run"
            f" {_extract(folder.path)}, which makes what is missing"
        )
    dim, dtype = found.features.shape[1], found.features.dtype
    if (dim, dtype) != (folder.dim, folder.dtype):
        raise AbawError(
            f"{path}: {dim} values per frame in {dtype}, other files of {folder.path} have {folder.dim} in"
            f" {folder.dtype}; one folder holds one kind of features, make this one again"
        )
    return found
