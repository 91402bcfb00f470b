"""Every frame that has a crop, once, video after video: what a backbone is shown to cache its features."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from abaw.data.features import images_mark
from abaw.data.frames import BadFrameError, FrameSource
from abaw.data.index import Index


class Chunk(NamedTuple):
    """Some of the visible frames of one video, in order.

    Attributes:
        video: Its number in the index; -1 in a chunk without frames that fills up a rank.
        places: int64 (m,), which frames, from 0.
        pixels: uint8 (m, H, W, 3), RGB.
        n_bad_frames: Frames that could not be read and are left out.
        images: The mark of the video's images, in its last chunk; else None.
    """

    video: int
    places: NDArray[np.int64]
    pixels: Tensor
    n_bad_frames: int
    images: str | None


class VisibleFrames(Dataset[Chunk]):
    """The visible frames of whole videos in chunks of one size, the last of each video smaller.

    A video without any is one empty chunk.

    Args:
        index: The data set.
        frames: Where its pixels are.
        videos: Which videos.
        size: Frames in a chunk.
        skip_bad_frames: Leave out a frame that cannot be read, instead of raising.

    Attributes:
        video: int32 (n_chunks,), the video of every chunk.
    """

    def __init__(
        self,
        index: Index,
        frames: FrameSource,
        *,
        videos: Sequence[int],
        size: int,
        skip_bad_frames: bool = False,
    ) -> None:
        self.index = index
        self.frames = frames
        self.size = size
        self.skip_bad_frames = skip_bad_frames
        n_chunks = [max(-(-int(index.visible(video).sum()) // size), 1) for video in videos]
        self.video = np.repeat(np.asarray(videos, np.int32), n_chunks)
        self._first = np.concatenate([np.empty(0, np.int64), *(np.arange(n) * size for n in n_chunks)])

    def __len__(self) -> int:
        return len(self.video)

    def __getitem__(self, number: int) -> Chunk:
        """The chunk of that number; that of -1 holds nothing.

        Raises:
            BadFrameError: A frame cannot be read, and is not to be skipped.
        """
        if number < 0:
            return Chunk(-1, np.empty(0, np.int64), torch.from_numpy(self.frames.read(0, []).pixels), 0, None)
        video, first = int(self.video[number]), int(self._first[number])
        all_places = np.flatnonzero(self.index.visible(video))
        places = all_places[first : first + self.size]
        try:
            read = self.frames.read(video, places)
        except BadFrameError as error:
            if not self.skip_bad_frames or error.frames is None:
                raise
            read = error.frames
        good = read.visible
        pixels = read.pixels if good.all() else read.pixels[good]
        is_last = first + self.size >= len(all_places)
        images = images_mark(self.index, self.frames, video) if is_last else None
        return Chunk(video, places[good], torch.from_numpy(pixels), int((~good).sum()), images)
