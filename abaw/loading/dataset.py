"""Datasets of clips for training and evaluation, and of the visible frames of whole videos."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from abaw.batch import Batch
from abaw.data.features import Features, FeatureStore, images_fingerprint
from abaw.data.frames import BadFrameError, BadFrameLog, Frames, FrameSource
from abaw.data.index import Index
from abaw.data.labels import Labels, unlabelled
from abaw.loading.sampling import Slot
from abaw.loading.transforms import ClipAugmentation
from abaw.loading.workers import SharedRing
from abaw.randomness import Purpose, keyed_generator
from abaw.tasks import Task, TaskLabels
from abaw.windows import PADDING, Window, WindowTable, window_at


def dropped_frames(video: str, visible: NDArray[np.bool_], *, share: float, seed: int) -> NDArray[np.bool_]:
    """Random frames to drop; they depend on name and seed only, and a larger share includes a smaller one.

    Args:
        video: Name of the video.
        visible: bool (N,), the visible frames.
        share: Share of the visible frames to drop, in [0, 1].
        seed: Seed, from 0.

    Returns:
        bool (N,), True for round(share * n) of the n visible frames.
    """
    places = np.flatnonzero(visible)
    rng = keyed_generator(Purpose.DROPPED_FRAMES, seed, zlib.crc32(video.encode()))
    order = rng.permutation(places)
    dropped = np.zeros(len(visible), np.bool_)
    dropped[order[: round(share * len(places))]] = True
    return dropped


class Draw(NamedTuple):
    """The random numbers of a training clip. All are drawn, used or not, so that changing one setting does
    not change the random numbers of the others.

    Attributes:
        shift: Uniform in [0, 1), for the jitter of the window.
        seed: Seed of the augmentation.
        mask_noise: float32 (T,), uniform in [0, 1), for frame masking.
    """

    shift: float
    seed: int
    mask_noise: NDArray[np.float32]

    @classmethod
    def keyed(cls, seed: int, slot: Slot, length: int) -> "Draw":
        """The draw of a seed, epoch and slot, for T = `length`."""
        rng = keyed_generator(Purpose.CLIP, seed, slot.epoch, slot.slot)
        return cls(rng.random(), int(rng.integers(2**63)), rng.random(length, np.float32))


class _Clip(NamedTuple):
    """A loaded clip of n frames, before it is collated."""

    window: Window
    labels: Labels
    draw: Draw | None
    values: NDArray[Any]  # pixels or features (n, …)
    visible: NDArray[np.bool_]
    n_bad_frames: int


@dataclass(kw_only=True, eq=False)
class ClipDataset(Dataset[Batch]):
    """Map-style dataset of clips, each a `Batch` of size 1; `Batch.cat` collates them.

    Indexed by a `Slot`, it returns a training clip with jitter, augmentation and mask noise that depend on
    seed, epoch and slot only. Indexed by a number, it returns that window unchanged, and for -1 a clip of
    padding.

    Attributes:
        index: Index of the data set.
        source: Source of pixels or cached features.
        windows: The windows that can be loaded.
        tasks: Tasks whose labels are loaded; the others are unlabelled.
        split: Split whose labels are loaded; None: all splits.
        seed: Seed of all random numbers, from 0.
        augmentation: Augmentation of training clips; None: no augmentation.
        jitter: Range in frames, centred at 0, by which the start of a training window is moved.
        drop_frames: Share of the visible frames of each video that is dropped, see `dropped_frames`.
        on_bad_frame: Whether to `raise` at an unreadable frame, or `skip`: make it invisible and count it.
        bad_frame_log: Log of the skipped frames; None: they are not logged.
        memory: Shared memory for batches of worker processes; only for a `ClipLoader`. None: new memory.
    """

    index: Index
    source: FrameSource | FeatureStore
    windows: WindowTable
    tasks: Sequence[Task]
    split: str | None = None
    seed: int = 0
    augmentation: ClipAugmentation | None = None
    jitter: int = 0
    drop_frames: float = 0.0
    on_bad_frame: Literal["raise", "skip"] = "raise"
    bad_frame_log: BadFrameLog | None = None
    memory: SharedRing | None = None

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, which: Slot | int) -> Batch:
        """The clip of a training slot, or of a window.

        Raises:
            BadFrameError: A frame cannot be read, and bad frames are not skipped.
        """
        return self.__getitems__([which])[0]

    def __getitems__(self, which: Sequence[Slot | int]) -> list[Batch]:
        """A collated batch: each clip is written to its position, without a further copy.

        Args:
            which: Training slots, or window numbers.

        Returns:
            A list with a single batch.

        Raises:
            BadFrameError: As for a single clip.
        """
        # one step for all clips, then the next, as this makes better use of the CPU caches
        chosen = [self._choose(each) for each in which]
        clips = [self._clip(*each) for each in chosen]
        shape = len(clips), self.windows.length
        present, visible = np.zeros((2, *shape), np.bool_)
        labels = {task: unlabelled(task, *shape) for task in self.tasks}
        kind = torch.from_numpy(clips[0].values[:0])
        large = self._take((*shape, *kind.shape[1:]), kind.dtype)
        pixels = large.numpy()
        for row, clip in enumerate(clips):
            n = len(clip.window)
            pixels[row, :n], pixels[row, n:] = self._augmented(clip), 0
            present[row, :n], visible[row, :n] = True, clip.visible
            for task in self.tasks:
                for target, array in zip(labels[task], clip.labels[task], strict=True):
                    target[row, :n] = array
        noise = [clip.draw.mask_noise for clip in clips if clip.draw is not None]
        batch = Batch(
            frames=large if large.dtype == torch.uint8 else None,
            features=None if large.dtype == torch.uint8 else large,
            where=tuple(clip.window for clip in clips),
            mask_noise=torch.from_numpy(np.stack(noise)) if noise else None,
            n_bad_frames=torch.tensor([clip.n_bad_frames for clip in clips]),
            present=torch.from_numpy(present),
            visible=torch.from_numpy(visible),
            labels={task: TaskLabels(*map(torch.from_numpy, arrays)) for task, arrays in labels.items()},
        )
        return [batch]

    def _take(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        return torch.empty(shape, dtype=dtype) if self.memory is None else self.memory.take(shape, dtype)

    def _clip(self, window: Window, labels: Labels, draw: Draw | None) -> _Clip:
        read, n_bad_frames = self._read(window)
        values: NDArray[Any] = read.values if isinstance(read, Features) else read.pixels
        return _Clip(window, labels, draw, values, read.visible & ~self._dropped(window), n_bad_frames)

    def _augmented(self, clip: _Clip) -> NDArray[Any]:
        if clip.draw is None or self.augmentation is None or clip.values.dtype != np.uint8:
            return clip.values
        return self.augmentation(clip.values, clip.draw.seed)

    def _choose(self, which: Slot | int) -> tuple[Window, Labels, Draw | None]:
        """The window of a slot or number, its labels, and its draw if it is a training clip."""
        if not isinstance(which, Slot):
            window = self.windows[which] if which >= 0 else PADDING
            return window, self._labels(window), None
        draw = Draw.keyed(self.seed, which, self.windows.length)
        window = self.windows[which.window]
        moved = self._moved(window, draw.shift)
        labels = self._labels(moved)
        if moved != window and not self._is_useful(moved, labels):
            moved, labels = window, self._labels(window)
        return moved, labels, draw

    def _moved(self, window: Window, shift: float) -> Window:
        """The window with its start jittered within the video; `shift` is uniform in [0, 1)."""
        length, step = self.windows.length, self.windows.step
        n_frames = int(self.index.n_frames[window.video])
        last = n_frames - (length - 1) * step - 1  # start of the last full window
        if self.jitter < 2 or last <= 0:
            return window
        start = window.start + int(shift * self.jitter) - self.jitter // 2
        return window_at(window.video, min(max(start, 0), last), n_frames, length, step)

    def _is_useful(self, window: Window, labels: Labels) -> bool:
        """Whether a window contains a visible frame and a labelled frame."""
        visible = self.index.visible(window.video, window.start, window.stop)[:: window.step]
        return bool(visible.any() and labels.labelled_rows(self.tasks).any())

    def _labels(self, window: Window) -> Labels:
        if window.video < 0 or not self.tasks:
            return Labels.unlabelled(len(window), self.tasks)
        labels = self.index.labels(window.video, self.split, window.start, window.stop)
        return labels.rows(0, len(labels), window.step)

    def _dropped(self, window: Window) -> NDArray[np.bool_]:
        if not self.drop_frames or window.video < 0:
            return np.zeros(len(window), np.bool_)
        name = self.index.videos[window.video]
        visible = self.index.visible(window.video)
        return dropped_frames(name, visible, share=self.drop_frames, seed=self.seed)[window.frames]

    def _read(self, window: Window) -> tuple[Frames | Features, int]:
        """The frames or features of a window, and the number of its bad frames."""
        try:
            return self.source.read(max(window.video, 0), window.frames), 0
        except BadFrameError as error:
            if self.on_bad_frame == "raise" or error.frames is None:
                raise
            if self.bad_frame_log is not None:
                self.bad_frame_log.add(error.bad)
            return error.frames, len(error.bad)


class Chunk(NamedTuple):
    """A run of visible frames of one video.

    Attributes:
        video: Number of the video in the index; -1 in an empty chunk that pads a rank.
        places: int64 (m,), frame numbers, from 0.
        pixels: uint8 (m, H, W, 3), RGB.
        n_bad_frames: Number of skipped frames that could not be read.
        images: Fingerprint of the video's images in its last chunk; None in others.
    """

    video: int
    places: NDArray[np.int64]
    pixels: Tensor
    n_bad_frames: int
    images: str | None


class VisibleFrames(Dataset[Chunk]):
    """Dataset of the visible frames of whole videos in chunks, the last of a video may be smaller.

    A video without visible frames is one empty chunk.

    Args:
        index: Index of the data set.
        frames: Frame source.
        videos: Numbers of the videos.
        size: Number of frames per chunk.
        skip_bad_frames: Whether to skip frames that cannot be read, instead of raising.

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
        """A chunk by its number; -1 gives an empty chunk.

        Raises:
            BadFrameError: A frame cannot be read, and bad frames are not skipped.
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
        images = images_fingerprint(self.index, self.frames, video) if is_last else None
        return Chunk(video, places[good], torch.from_numpy(pixels), int((~good).sum()), images)
