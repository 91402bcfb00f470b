"""Frames: the pixels of chosen frames, from image files or packs. A frame without a crop is not visible."""

import hashlib
import os
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from abaw.data.cache import fingerprint
from abaw.data.formats.flat_shards import PACK, PackedVideo, is_packed, open_packed
from abaw.data.formats.litdata_shards import SegmentStore, segment_frames
from abaw.data.index import Index
from abaw.data.labels import image_name
from abaw.errors import AbawError, UsageError

# Pixels as they are stored: an orientation flag would turn an aligned crop, and other decoders ignore it.
_AS_STORED = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION

_BEGIN, _END = b"\xff\xd8", b"\xff\xd9"

_CURE = "fetch it again, or delete it: a frame without a file is legal"

_TRAILER = 64  # bytes some programs append behind the end marker


@dataclass(frozen=True, eq=False)
class Frames:
    """Frames of one video.

    Attributes:
        pixels: uint8 (n, H, W, 3), RGB; zeros where not visible.
        visible: bool (n,).
    """

    pixels: NDArray[np.uint8]
    visible: NDArray[np.bool_]


class BadFrameError(AbawError):
    """An image that is there but cannot be used; names the file and the cure.

    Attributes:
        kind: `empty image`, `truncated image`, `unreadable image` or `image size`.
        frames: What could be read, the bad frames not visible; None where nothing was asked beside.
        bad: The paths of all bad frames.
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
    """Where pixels come from."""

    def read(self, video: int, indices: Sequence[int] | NDArray[np.integer]) -> Frames:
        """The frames `indices` (from 0, in any order) of a video.

        Raises:
            BadFrameError: Some cannot be read; it carries the others.
        """
        ...


def decode_image(data: bytes | memoryview, size: int, where: str) -> NDArray[np.uint8]:
    """The pixels of a JPEG file's content, uint8 (size, size, 3), RGB.

    A file cut short is refused, which decoders only warn about.

    Args:
        data: The content.
        size: Height and width it must have.
        where: How a message names it.

    Raises:
        BadFrameError: It is empty, no JPEG, cut short, damaged or of another size.
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
            cure += f", or give the size that all images have: --data.frame_size {pixels.shape[0]}"
        raise BadFrameError(f"{where}: {is_size}; {cure}", kind="image size")
    image: NDArray[np.uint8] = pixels  # type: ignore[assignment]
    return image


class RawFolder:
    """The images as downloaded, one JPEG file per frame.

    Args:
        index: Says which folder holds which frame.
        size: Height and width of every image.
    """

    def __init__(self, index: Index, size: int = 112) -> None:
        self.index = index
        self.size = size

    def read(self, video: int, indices: Sequence[int] | NDArray[np.integer]) -> Frames:
        """The frames `indices` (from 0, in any order) of a video, (n, size, size, 3).

        Raises:
            BadFrameError: Some are unreadable, cut short or of another size; it carries the others.
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
        """The content of an image file as it is stored; `number` is that in its name, from 1.

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
"""The file's name, in the directory of a run."""


class BadFrameLog:
    """A file with a line for every frame that could not be read, each once, written by many processes.

    Args:
        path: The file; it is made when it is first needed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._known: set[bytes] = set()
        self._end = 0  # how far the file has been read

    def add(self, paths: Sequence[str]) -> None:
        """Appends those paths that are not there yet.

        Raises:
            AbawError: The operating system refuses.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a+b", buffering=0) as file:  # appends are whole, whoever else is writing
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
    """How many frames the file names; two processes that met one at the same instant may both have."""
    return len(set(path.read_bytes().splitlines())) if path.exists() else 0


_MOST_OPEN = 128
"""Videos kept open per process: each takes a file descriptor, of which a process has about a thousand."""


def open_frames(index: Index, *, size: int = 112, span: int = 1) -> "PackedFrames":
    """Where the frames of a data set come from: image files, packs, or both.

    Args:
        index: Says which folder holds which frame.
        size: Height and width of every image.
        span: Frames from the first to the last of a window, both counted.

    Raises:
        UsageError: A window is longer than a segment of a pack.
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
    """Frames from packs of both kinds, and from plain image files where a video is not packed.

    Files are mapped into memory when first read, once per process; pickling takes none of them along.

    Args:
        index: Says which folder holds which frame.
        size: Height and width of every image.
    """

    def __init__(self, index: Index, size: int = 112) -> None:
        super().__init__(index, size)
        self._segments = SegmentStore()
        self._open: OrderedDict[str, PackedVideo | None] = OrderedDict()  # least recently used first

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_open": OrderedDict()}

    def encoded(self, folder: str, number: int) -> bytes | memoryview:
        """The content of an image file as it was packed; `number` is that in its name, from 1.

        Raises:
            AbawError: The pack is damaged or cannot be reached.
        """
        packed = self._packed(folder)
        if packed is None:
            return super().encoded(folder, number)
        if "first_segment" not in packed.about:
            return packed.image(number - 1)
        length = packed.about["segment_frames"]
        place = (number - 1) // length
        starts = packed.start[place * length : number]
        begin = int(starts[-1] - starts[starts >= 0][0])
        content = self._segments.fetch(Path(folder).parent, packed.about["first_segment"] + place)
        return content[begin : begin + int(packed.size[number - 1])]

    def _packed(self, folder: str) -> PackedVideo | None:
        """The pack of a video's folder; None where its images are files."""
        if folder not in self._open:
            self._open[folder] = open_packed(Path(folder)) if is_packed(Path(folder)) else None
            if len(self._open) > _MOST_OPEN:
                self._open.popitem(last=False)
        self._open.move_to_end(folder)
        return self._open[folder]


def read_images(frames: RawFolder, video: int, places: range) -> tuple[NDArray[np.int64], list[bytes]]:
    """The image files of some frames of a video.

    Returns:
        int64 (n,) their lengths in bytes, -1 where there is none, and the content of those there are.
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
