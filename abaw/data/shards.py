"""Packed frames: one file per video instead of thousands, or segments streamed from object storage."""

import hashlib
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from abaw.data.annotations import image_name
from abaw.data.frames import RawFolder
from abaw.data.index import Index
from abaw.data.index_cache import stamp
from abaw.data.packs import PACK, PackedVideo, is_packed, open_packed, write_packed
from abaw.data.segments import SegmentStore, segment_frames
from abaw.errors import AbawError, UsageError

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


def write_flat(frames: RawFolder, video: int, out: Path) -> int:
    """Packs the images of a video into `out/<video>`, byte for byte, damaged ones too.

    Args:
        frames: Where the images are.
        video: Its number.
        out: The pack.

    Returns:
        The number of images packed now: 0 when an earlier pack of the same images is there.

    Raises:
        AbawError: An image cannot be read, or the pack cannot be written.
    """
    state = images_state(frames, video)
    folder = out / frames.index.videos[video]
    if is_packed(folder):
        try:
            if open_packed(folder).about.get("state") == state:
                return 0
        except AbawError:
            pass  # cut short: written anew
    sizes, images = read_images(frames, video, range(int(frames.index.n_frames[video])))
    write_packed(folder, sizes, images, state=state)
    return len(images)


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


def images_state(frames: RawFolder, video: int) -> str:
    """What changes when an image of the video does: a digest of names, sizes and times of change."""
    index = frames.index
    source = index.source(video)
    paths: list[Path] = []
    for root in range(len(index.roots)):
        places = np.flatnonzero(source == root).tolist()
        folder = index.folder(video, root)
        if places:
            paths += [folder / PACK] if is_packed(folder) else [folder / image_name(k + 1) for k in places]
    return hashlib.sha256(stamp(paths).encode()).hexdigest()
