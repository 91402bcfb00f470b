"""Cached features of chosen frames: what `frames` is for pixels, several caches side by side."""

import warnings
import zlib
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
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
    read_parts,
)
from abaw.data.frames import BadFrameError, FrameSource
from abaw.data.index import Index
from abaw.errors import AbawError

_MOST_OPEN = 8192
"""Videos kept mapped per process: of maps it may have about 65,000, and each cache takes one a video."""


@dataclass(frozen=True, eq=False)
class Features:
    """Features of frames of one video.

    Attributes:
        values: float16 (n, D), float32 where a cache has it; zeros where not visible.
        visible: bool (n,).
    """

    values: NDArray[np.floating]
    visible: NDArray[np.bool_]


@dataclass(frozen=True)
class _Folder:
    """One cache: its place, what all its files have in common, and the key they must carry."""

    path: Path
    dim: int
    dtype: np.dtype
    key: str | None


class FeatureStore:
    """Reads features from one or more folders with a file per video, and joins them along D.

    Files are mapped into memory when first read and stay so as long as a few thousand others, once per
    process: a pickled store opens its own. Caches are aligned by frame number. A frame is visible where all
    caches have it; frames behind the end of a cache are not.

    Args:
        folders: As left by `abaw extract`, or made elsewhere. The features of the network's own backbone
            come first.
        index: Gives the names of the videos.

    Attributes:
        dim: Length of a feature vector, all folders together (D).

    Raises:
        AbawError: A folder is missing or holds no features.
    """

    def __init__(self, folders: Sequence[Path | str], index: Index) -> None:
        self.index = index
        self._folders = [_look_into(Path(folder)) for folder in folders]
        self._open: OrderedDict[int, list[VideoFeatures]] = OrderedDict()  # least recently used first
        self.dim = sum(folder.dim for folder in self._folders)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_open": OrderedDict()}

    def read(self, video: int, indices: Sequence[int] | NDArray[np.integer]) -> Features:
        """The frames `indices` (from 0, in any order) of a video.

        Raises:
            AbawError: A folder has no file for the video, or one that does not belong there.
        """
        numbers = np.asarray(indices, np.int64)
        visible = np.ones(len(numbers), bool)
        values: list[NDArray[np.floating]] = []
        for cache in self._caches(video):
            last = len(cache.visible) - 1
            inside = np.minimum(numbers, last)
            visible &= (numbers <= last) & cache.visible[inside]
            values.append(cache.features[inside])  # (n, D of this cache), a copy
        joined = values[0] if len(values) == 1 else np.concatenate(values, axis=1)
        joined[~visible] = 0
        return Features(joined, visible)

    def check(self, videos: Iterable[int], frames: FrameSource | None = None) -> None:
        """Refuses, before a run begins, what reading would stumble over or never notice.

        Args:
            videos: Those that will be read. Where a cache ends before the video, a warning says so.
            frames: The images: where they are at hand, features that were made from other ones are refused.

        Raises:
            AbawError: As for `read`, or the images have changed since.
        """
        short: dict[Path, list[str]] = {}
        for video in (video for video in videos if self.index.n_frames[video]):
            name, n_frames = self.index.videos[video], int(self.index.n_frames[video])
            mark = None
            if frames is not None and has_images(self.index, video):
                mark = images_fingerprint(self.index, frames, video)
            for folder, cache in zip(self._folders, self._caches(video), strict=True):
                if len(cache.visible) < n_frames:
                    short.setdefault(folder.path, []).append(f"{name} ({len(cache.visible)} of {n_frames})")
                if folder.key and mark not in (None, cache.about["images"]):
                    raise AbawError(
                        f"{features_path(folder.path, name)}: stale features, the images of {name} have"
                        f" changed since; {rebuild(folder.path)}"
                    )
        for path, names in short.items():
            warnings.warn(
                f"{path}: {len(names)} videos have fewer frames there than in the data set, such as"
                f" {names[0]}; frames behind the end count as not visible",
                stacklevel=2,
            )

    def check_key(self, expected: Mapping[str, Any]) -> None:
        """Refuses features that were not made with what `expected` describes.

        Only the first folder is compared, and only if `abaw extract` made it: the others are of other
        backbones, or made elsewhere.

        Args:
            expected: Those parts of `store.json` that matter here.

        Raises:
            AbawError: A part differs.
        """
        folder = self._folders[0].path
        cached = read_parts(folder)
        found = [] if cached is None else differences(cached, expected)
        if found:
            raise AbawError(f"{folder}: stale features, made with {'; '.join(found)}; {rebuild(folder)}")

    def _caches(self, video: int) -> list[VideoFeatures]:
        if video not in self._open:
            name = self.index.videos[video]
            self._open[video] = [_open_checked(folder, name) for folder in self._folders]
            if len(self._open) > _MOST_OPEN:
                self._open.popitem(last=False)
        self._open.move_to_end(video)
        return self._open[video]


def has_images(index: Index, video: int) -> bool:
    """Whether a video has images; a cache of features may stand in for them."""
    sources = index.source(video)
    seen = np.flatnonzero(sources >= 0)[:1]
    return bool(len(seen)) and index.folder(video, int(sources[seen[0]])).is_dir()


def images_fingerprint(index: Index, frames: FrameSource, video: int) -> str:
    """What tells a video's images from others: which frames have a crop, and the pixels of the first.

    It is the same wherever the images lie and however they are packed.
    """
    places = np.flatnonzero(index.visible(video))
    try:
        first = frames.read(video, places[:1]).pixels.tobytes()
    except BadFrameError:
        first = b""  # whoever wants to see that frame decides what to do about it
    return f"{zlib.crc32(first, zlib.crc32(places.astype('<i4').tobytes())):08x}"


def rebuild(folder: Path) -> str:
    """What to do about features that do not fit, for a message."""
    return (
        f"delete {folder} and run {_extract(folder)} (a checkpoint's backbone: with --ckpt_path),"
        " or name another folder"
    )


def _extract(folder: Path) -> str:
    return f"`abaw extract --config FILE --data.features '[{folder}]'`"


def _look_into(folder: Path) -> _Folder:
    """A folder as its first file shows it."""
    first = min(folder.glob(f"*{SUFFIX}"), default=None) if folder.is_dir() else None
    if first is None:
        what = "holds no features" if folder.is_dir() else "does not exist"
        raise AbawError(f"data.features: {folder} {what}; make them with {_extract(folder)}")
    features, parts = open_features(first).features, read_parts(folder)
    return _Folder(
        folder, features.shape[1], features.dtype, None if parts is None else fingerprint_of(parts)
    )


def _open_checked(folder: _Folder, video: str) -> VideoFeatures:
    """A video's features, of the kind all others of the folder are."""
    path = features_path(folder.path, video)
    found = open_features(path)
    if folder.key is not None and found.about.get("key") != folder.key:
        raise AbawError(
            f"{path}: not made with what store.json beside it describes; delete the file and run"
            f" {_extract(folder.path)}, which makes what is missing"
        )
    dim, dtype = found.features.shape[1], found.features.dtype
    if (dim, dtype) != (folder.dim, folder.dtype):
        raise AbawError(
            f"{path}: {dim} values per frame in {dtype}, other files of {folder.path} have {folder.dim} in"
            f" {folder.dtype}; one folder holds one kind of features, make this one anew"
        )
    return found
