"""Pixels of chosen frames, from the folder of images as downloaded. A frame without a crop is not visible."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from abaw.data.annotations import image_name
from abaw.data.index import Index
from abaw.errors import AbawError

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
