"""Frame sources: pixels from image files, flat or litdata shards. Frames without an image are not visible."""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from abaw.data.cache import fingerprint
from abaw.data.formats.flat_shards import PACK, is_packed, open_packed
from abaw.data.formats.litdata_shards import LitdataStore, segment_frames
from abaw.data.index import Index
from abaw.data.labels import image_name
from abaw.errors import AbawError, UsageError

# The EXIF orientation is ignored, as by other decoders: it would rotate an aligned crop.
_AS_STORED = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
_BEGIN, _END = b"\xff\xd8", b"\xff\xd9"
_CURE = "download it again, or delete it: frames without an image are allowed"
_TRAILER = 64  # bytes that some programs append after the end marker


@dataclass(frozen=True, eq=False)
class Frames:
    """Frames of one video.

    Attributes:
        pixels: uint8 (n, H, W, 3), RGB; zeros where not visible.
        visible: bool (n,), True where the frame has an image.
    """

    pixels: NDArray[np.uint8]
    visible: NDArray[np.bool_]


class BadFrameError(AbawError):
    """An existing but unusable image; the message names the file and the cure.

    Attributes:
        kind: `empty image`, `truncated image`, `unreadable image` or `image size`.
        frames: The requested frames, bad ones not visible; None if only one image was decoded.
        bad: Paths of all bad frames.
    """

    def __init__(
        self,
        message: str,
        *,
        kind: str = "unreadable image",
        frames: Frames | None = None,
        bad: Sequence[str] = (),
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.frames = frames
        self.bad = tuple(bad)


class FrameSource(Protocol):
    """Interface of frame sources."""

    def read(self, video: int, indices: Sequence[int] | NDArray[np.integer]) -> Frames:
        """The frames `indices` (from 0, in any order) of a video.

        Raises:
            BadFrameError: Some frames cannot be read; it contains the others.
        """
        ...


def decode_image(data: bytes | memoryview, size: int, where: str) -> NDArray[np.uint8]:
    """The pixels of an encoded JPEG image, uint8 (size, size, 3), RGB.

    A truncated image raises an error, whereas decoders only warn.

    Args:
        data: Content of the file.
        size: Expected height and width.
        where: Name of the image in messages.

    Raises:
        BadFrameError: It is empty, not a JPEG, truncated, damaged or of another size.
    """
    if not data:
        raise BadFrameError(f"{where}: the file is empty; {_CURE}", kind="empty image")
    if data[:2] != _BEGIN:
        raise BadFrameError(f"{where}: not a JPEG, it begins with {bytes(data[:8])!r}; {_CURE}")
    if _END not in bytes(data[-_TRAILER:]):
        message = f"{where}: the file is cut short after {len(data)} bytes; {_CURE}"
        raise BadFrameError(message, kind="truncated image")
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), _AS_STORED)
    except cv2.error as error:
        raise BadFrameError(f"{where}: cannot be decoded ({error.err}); {_CURE}") from error
    if pixels is None:
        raise BadFrameError(f"{where}: cannot be decoded; {_CURE}")
    if pixels.shape != (size, size, 3):
        is_size = f"{pixels.shape[1]}×{pixels.shape[0]} pixels instead of {size}×{size}"
        cure = "use the cropped_aligned images"
        if pixels.shape[0] == pixels.shape[1]:
            cure += f", or give the size that all images have: --data.loading.frame_size {pixels.shape[0]}"
        raise BadFrameError(f"{where}: {is_size}; {cure}", kind="image size")
    return pixels  # type: ignore[return-value]


@dataclass(eq=False)
class RawFolder:
    """Frame source of image folders with one JPEG file per frame.

    Attributes:
        index: Index of the data set.
        size: Height and width of every image, in pixels.
    """

    index: Index
    size: int = 112

    def read(self, video: int, indices: Sequence[int] | NDArray[np.integer]) -> Frames:
        """The frames `indices` (from 0, in any order) of a video, (n, size, size, 3).

        Raises:
            BadFrameError: Some are unreadable, truncated or of another size; it contains the others.
        """
        numbers = np.asarray(indices, np.int64)
        roots = self.index.source(video)[numbers]
        pixels = np.empty((len(numbers), self.size, self.size, 3), np.uint8)
        visible = roots >= 0
        folders = {root: str(self.index.folder(video, root)) for root in set(roots[visible].tolist())}
        errors: dict[str, BadFrameError] = {}
        for k, (root, number) in enumerate(zip(roots.tolist(), numbers.tolist(), strict=True)):
            if root < 0:
                continue
            path = f"{folders[root]}/{image_name(number + 1)}"
            try:
                pixels[k] = decode_image(self.encoded(folders[root], number + 1), self.size, path)
            except BadFrameError as error:
                visible[k] = False
                errors[path] = error
        pixels[~visible] = 0
        frames = Frames(pixels, visible)
        if errors:
            first = next(iter(errors.values()))
            more = f" ({len(errors) - 1} more in the same clip)" if len(errors) > 1 else ""
            raise BadFrameError(f"{first}{more}", kind=first.kind, frames=frames, bad=list(errors)) from first
        return frames

    def encoded(self, folder: str, number: int) -> bytes | memoryview:
        """The content of an image file; `number` is the number in its name, from 1.

        Raises:
            BadFrameError: It cannot be read.
        """
        path = f"{folder}/{image_name(number)}"
        try:
            with open(path, "rb", buffering=0) as file:  # noqa: PTH123 - pathlib costs a tenth of the read
                content: bytes = file.read()
            return content
        except OSError as error:
            raise BadFrameError(f"{path}: cannot be read ({error.strerror}); {_CURE}") from error


BAD_FRAMES = "bad_frames.txt"
"""Name of the log of bad frames in the run directory."""


class BadFrameLog:
    """A log file of frames that could not be read, one line each, shared by several processes.

    Args:
        path: The log file, created on the first entry.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._known: set[bytes] = set()
        self._end = 0  # offset up to which the file has been read

    def add(self, paths: Sequence[str]) -> None:
        """Appends the paths that are not in the file yet.

        Raises:
            AbawError: The file cannot be written.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a+b", buffering=0) as file:  # appends are atomic
                file.seek(self._end)
                lines = file.read()
                self._end += len(lines)
                self._known.update(lines.splitlines())
                new = [path for path in dict.fromkeys(map(os.fsencode, paths)) if path not in self._known]
                file.write(b"".join(path + b"\n" for path in new))
        except OSError as error:
            raise AbawError(
                f"{self.path}: cannot take the names of bad frames ({error.strerror}); free the disk, or"
                " choose another directory with --run"
            ) from error


def count_bad_frames(path: Path) -> int:
    """The number of frames in a log; duplicates by concurrent processes count once."""
    return len(set(path.read_bytes().splitlines())) if path.exists() else 0


_MOST_OPEN = 128
"""Maximum number of open videos per process; each takes one of about 1000 file descriptors."""


def open_frames(index: Index, *, size: int = 112, span: int = 1) -> "PackedFrames":
    """The frame source of a data set of image files, shards, or both.

    Args:
        index: Index of the data set.
        size: Height and width of every image, in pixels.
        span: Number of frames from the first to the last of a window, inclusive.

    Raises:
        UsageError: A window is longer than a segment of litdata shards.
    """
    for root in index.roots:
        length = segment_frames(root)
        if length is not None and span > length:
            raise UsageError(
                f"data.window: a window spans {span} frames, but {root} is packed in segments of {length}:"
                f" every clip would fetch several; pack again with --segment {span} or more or with --format"
                " flat, or make the window shorter"
            )
    return PackedFrames(index, size)


class PackedFrames(RawFolder):
    """Frame source of flat shards, litdata shards and image files.

    Shards are memory-mapped at the first read, once per process; pickled copies open their own.

    Args:
        index: Index of the data set.
        size: Height and width of every image, in pixels.
    """

    def __init__(self, index: Index, size: int = 112) -> None:
        super().__init__(index, size)
        self._segments = LitdataStore()
        # of a video folder; None if its images are files
        self._shard = lru_cache(_MOST_OPEN)(lambda folder: open_packed(folder) if is_packed(folder) else None)

    def __reduce__(self) -> tuple[Any, ...]:
        return PackedFrames, (self.index, self.size)

    def encoded(self, folder: str, number: int) -> bytes | memoryview:
        """The content of a packed image file; `number` is the number in its name, from 1.

        Raises:
            AbawError: The shard is damaged or cannot be reached.
        """
        packed = self._shard(Path(folder))
        if packed is None:
            return super().encoded(folder, number)
        if "first_segment" not in packed.metadata:
            return packed.image(number - 1)
        length = packed.metadata["segment_frames"]
        place = (number - 1) // length
        starts = packed.start[place * length : number]
        begin = int(starts[-1] - starts[starts >= 0][0])
        content = self._segments.fetch(Path(folder).parent, packed.metadata["first_segment"] + place)
        return content[begin : begin + int(packed.size[number - 1])]


def read_images(frames: RawFolder, video: int, places: range) -> tuple[NDArray[np.int64], list[bytes]]:
    """The image files of some frames of a video.

    Returns:
        int64 (n,), their lengths in bytes, -1 for frames without an image, and the contents of the others.
    """
    index = frames.index
    sizes = np.full(len(places), -1, np.int64)
    images = []
    for k, (frame, root) in enumerate(zip(places, index.source(video)[places].tolist(), strict=True)):
        if root >= 0:
            images.append(bytes(frames.encoded(str(index.folder(video, root)), frame + 1)))
            sizes[k] = len(images[-1])
    return sizes, images


def frames_fingerprint(frames: RawFolder, video: int) -> str:
    """Fingerprint of the images of a video: a hash of their names, sizes and modification times."""
    index = frames.index
    source = index.source(video)
    paths: list[Path] = []
    for root in range(len(index.roots)):
        places = np.flatnonzero(source == root).tolist()
        folder = index.folder(video, root)
        if places:
            paths += [folder / PACK] if is_packed(folder) else [folder / image_name(k + 1) for k in places]
    return hashlib.sha256(fingerprint(paths).encode()).hexdigest()
