"""What a packed video folder holds: where, in one run of bytes, each of its images lies."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from abaw.data.formats.arrays import DamagedFileError, open_arrays, write_arrays
from abaw.errors import AbawError

PACK = "images.safetensors"
"""The file that stands for all images of a video, in the folder in which they would lie."""

_FORMAT = "abaw images 1"


@dataclass(frozen=True, eq=False)
class PackedVideo:
    """The images of a video as bytes one after the other, each a JPEG file's unchanged content.

    Attributes:
        start: int64 (N,), where each image begins, -1 where there is none.
        size: int64 (N,), its length in bytes.
        jpeg: uint8, the bytes; empty when they are kept in segments elsewhere.
        about: Plain values that travel along.
    """

    start: NDArray[np.int64]
    size: NDArray[np.int64]
    jpeg: NDArray[np.uint8]
    about: dict[str, Any]

    @cached_property
    def _bytes(self) -> memoryview:
        return self.jpeg.data

    @property
    def numbers(self) -> NDArray[np.int64]:
        """The numbers of the images, from 1."""
        return np.flatnonzero(self.start >= 0) + 1

    def image(self, frame: int) -> memoryview:
        """The content of the image file of a frame that has one, frames from 0."""
        begin = int(self.start[frame])
        return self._bytes[begin : begin + int(self.size[frame])]


def write_packed(folder: Path, sizes: NDArray[np.int64], images: Sequence[bytes], **about: Any) -> None:
    """Writes a video's pack as a whole or not at all, and reads it back.

    Args:
        folder: The video's folder in the pack.
        sizes: int64 (N,), the length of every image in bytes, -1 where there is none.
        images: The content of those there are, in order.
        about: Plain values that travel along.

    Raises:
        AbawError: The disk refused it, or did not keep what was written.
    """
    there = sizes >= 0
    begin = np.cumsum(np.where(there, sizes, 0)) - np.where(there, sizes, 0)
    parts: dict[str, list[NDArray[Any]]] = {
        "start": [np.where(there, begin, -1)],
        "size": [sizes],
        "jpeg": [np.empty(0, np.uint8), *(np.frombuffer(image, np.uint8) for image in images)],
    }
    path = folder / PACK
    write_arrays(path, parts, json.dumps({"format": _FORMAT} | about))
    try:
        open_packed(folder, verify=True)
    except AbawError as error:
        path.unlink(missing_ok=True)
        raise AbawError(f"{path}: the disk did not keep what was written; choose another place") from error


def open_packed(folder: Path, *, verify: bool = False) -> PackedVideo:
    """Maps a video's pack into memory.

    Args:
        folder: The video's folder.
        verify: Read everything once and compare the checksum.

    Raises:
        AbawError: There is none, or it is damaged.
    """
    path = folder / PACK
    try:
        arrays, note = open_arrays(path, verify=verify)
        about = json.loads(note)
        if about.pop("format") != _FORMAT:
            raise DamagedFileError("of another version")
        return PackedVideo(arrays["start"], arrays["size"], arrays["jpeg"], about)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise AbawError(f"{path}: no complete pack ({error}); pack this video again") from error


def packed_videos(root: Path) -> list[str]:
    """The names of the videos packed below `root`, sorted."""
    return sorted(path.parent.name for path in root.glob(f"*/{PACK}"))


def remove_packed(folder: Path) -> None:
    """Removes a video's pack, all its images at once, and the folder where nothing else is in it.

    Raises:
        AbawError: The operating system refuses.
    """
    try:
        (folder / PACK).unlink(missing_ok=True)
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
    except OSError as error:
        raise AbawError(
            f"{folder}: could not be removed ({error.strerror}); check its permissions"
        ) from error


def is_packed(folder: Path) -> bool:
    """Whether a video's folder holds a pack instead of image files."""
    return (folder / PACK).is_file()
