"""Datasets: training and evaluation clips of windows, and the visible frames of whole videos."""

import zlib
from collections.abc import Sequence
from pathlib import Path
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
from abaw.data.labels import Labels
from abaw.loading.sampling import Slot, labelled_frames
from abaw.loading.transforms import ClipAugmentation
from abaw.loading.workers import SharedRing
from abaw.randomness import Purpose, keyed_generator
from abaw.tasks import Task
from abaw.windows import PADDING, Window, WindowTable, window_at


def dropped_frames(video: str, visible: NDArray[np.bool_], *, share: float, seed: int) -> NDArray[np.bool_]:
    """Chooses frames by the video's name and the seed alone; a larger share adds to those of a smaller.

    Args:
        video: Its name.
        visible: bool (N,), the frames that have a crop.
        share: Of these, how many to hide, in [0, 1].
        seed: From 0.

    Returns:
        bool (N,), True for round(share * n) of the n visible frames.
    """
    places = np.flatnonzero(visible)
    rng = keyed_generator(Purpose.HIDING, seed, zlib.crc32(video.encode()))
    order = rng.permutation(places)
    hidden = np.zeros(len(visible), np.bool_)
    hidden[order[: round(share * len(places))]] = True
    return hidden


_ROWS: dict[str, tuple[type, tuple[int, ...]]] = {
    "present": (np.bool_, ()),
    "visible": (np.bool_, ()),
    "va": (np.float32, (2,)),
    "va_valid": (np.bool_, ()),
    "expr": (np.int64, ()),
    "expr_valid": (np.bool_, ()),
    "au": (np.float32, (12,)),
    "au_valid": (np.bool_, (12,)),
}
"""Type and shape of what a batch holds of every frame, besides pixels or features."""


class Draw(NamedTuple):
    """All that is random about a training clip. It is drawn whole, used or not, so that changing one part
    of a configuration leaves the other draws as they were.

    Attributes:
        shift: Uniform in [0, 1), for the start of the window.
        seed: For the augmentation.
        mask_noise: float32 (T,), uniform in [0, 1).
    """

    shift: float
    seed: int
    mask_noise: NDArray[np.float32]

    @classmethod
    def keyed(cls, seed: int, slot: Slot, length: int) -> "Draw":
        """What seed, epoch and slot decide, for T = `length`."""
        rng = keyed_generator(Purpose.CLIP, seed, slot.epoch, slot.slot)
        return cls(rng.random(), int(rng.integers(2**63)), rng.random(length, np.float32))


class _Clip(NamedTuple):
    """What a batch gets of a clip of n frames."""

    window: Window
    labels: Labels
    draw: Draw | None
    values: NDArray[Any]  # pixels or features (n, …)
    visible: NDArray[np.bool_]
    n_bad_frames: int


class ClipDataset(Dataset[Batch]):
    """Gives one clip as a `Batch` of size 1; `Batch.cat` joins clips.

    A `Slot` asks for a training clip: its start may be moved, its pixels are augmented, and it carries
    mask noise, all decided by seed, epoch and slot alone. A number asks for that window as it is, and -1
    for a clip in which nothing is present.

    Args:
        index: The data set.
        source: Where pixels, or cached features, come from.
        windows: What the numbers mean.
        tasks: Whose labels are given; the others stay masked.
        split: Only labels of this split; None: of all.
        seed: From 0; keys all that is random.
        augmentation: None leaves pixels as they are.
        jitter: A training window begins up to half of this many frames earlier or later.
        hide: Share of each video's visible frames that is made invisible, see `dropped_frames`.
        on_bad_frame: `raise` stops at a frame that cannot be read, `skip` makes it invisible and counts it.
        bad_frame_log: File to which the path of each skipped frame is appended, once.
        memory: What loader processes put batches in; only for a `ClipLoader`. None: new memory each time.
    """

    def __init__(
        self,
        *,
        index: Index,
        source: FrameSource | FeatureStore,
        windows: WindowTable,
        tasks: Sequence[Task],
        split: str | None = None,
        seed: int = 0,
        augmentation: ClipAugmentation | None = None,
        jitter: int = 0,
        hide: float = 0.0,
        on_bad_frame: Literal["raise", "skip"] = "raise",
        bad_frame_log: Path | None = None,
        memory: SharedRing | None = None,
    ) -> None:
        self.index = index
        self.source = source
        self.windows = windows
        self.tasks = tuple(tasks)
        self.split = split
        self.seed = seed
        self.augmentation = augmentation
        self.jitter = jitter
        self.hide = hide
        self.on_bad_frame = on_bad_frame
        self.bad_frame_log = None if bad_frame_log is None else BadFrameLog(bad_frame_log)
        self.memory = memory

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, which: Slot | int) -> Batch:
        """The clip of a training slot, or of a window.

        Raises:
            BadFrameError: A frame cannot be read, and is not to be skipped.
        """
        return self.__getitems__([which])[0]

    def __getitems__(self, which: Sequence[Slot | int]) -> list[Batch]:
        """The clips of a batch, put together here: each is written to its place, and never copied again.

        Args:
            which: Training slots, or numbers of windows.

        Returns:
            A single batch.

        Raises:
            BadFrameError: As for a single clip.
        """
        # one kind of work for all clips, then the next: that keeps a processor's caches
        chosen = [self._choose(each) for each in which]
        clips = [self._clip(*each) for each in chosen]
        shape = len(clips), self.windows.length
        rows: dict[str, NDArray[Any]] = {
            name: np.zeros((*shape, *more), kind) for name, (kind, more) in _ROWS.items()
        }
        kind = torch.from_numpy(clips[0].values[:0])
        large = self._take((*shape, *kind.shape[1:]), kind.dtype)
        pixels = large.numpy()
        for row, clip in enumerate(clips):
            n = len(clip.window)
            pixels[row, :n], pixels[row, n:] = self._augmented(clip), 0
            rows["present"][row, :n], rows["visible"][row, :n] = True, clip.visible
            for task in self.tasks:
                rows[task][row, :n] = clip.labels.values(task)
                rows[f"{task}_valid"][row, :n] = clip.labels.valid(task)
        noise = [clip.draw.mask_noise for clip in clips if clip.draw is not None]
        batch = Batch(
            frames=large if large.dtype == torch.uint8 else None,
            features=None if large.dtype == torch.uint8 else large,
            where=tuple(clip.window for clip in clips),
            mask_noise=torch.from_numpy(np.stack(noise)) if noise else None,
            n_bad_frames=torch.tensor([clip.n_bad_frames for clip in clips]),
            **{name: torch.from_numpy(values) for name, values in rows.items()},
        )
        return [batch]

    def _take(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        return torch.empty(shape, dtype=dtype) if self.memory is None else self.memory.take(shape, dtype)

    def _clip(self, window: Window, labels: Labels, draw: Draw | None) -> _Clip:
        read, n_bad_frames = self._read(window)
        values: NDArray[Any] = read.values if isinstance(read, Features) else read.pixels
        return _Clip(window, labels, draw, values, read.visible & ~self._hidden(window), n_bad_frames)

    def _augmented(self, clip: _Clip) -> NDArray[Any]:
        if clip.draw is None or self.augmentation is None or clip.values.dtype != np.uint8:
            return clip.values
        return self.augmentation(clip.values, clip.draw.seed)

    def _choose(self, which: Slot | int) -> tuple[Window, Labels, Draw | None]:
        """The window of a slot or number with its labels, and what is random about it."""
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
        """The window with its start moved within the video; `shift` is uniform in [0, 1)."""
        length, step = self.windows.length, self.windows.step
        n_frames = int(self.index.n_frames[window.video])
        last = n_frames - (length - 1) * step - 1  # where the last full window begins
        if self.jitter < 2 or last <= 0:
            return window
        start = window.start + int(shift * self.jitter) - self.jitter // 2
        return window_at(window.video, min(max(start, 0), last), n_frames, length, step)

    def _is_useful(self, window: Window, labels: Labels) -> bool:
        """Whether a window holds what training windows are chosen for."""
        visible = self.index.visible(window.video, window.start, window.stop)[:: window.step]
        return bool(visible.any() and labelled_frames(labels, self.tasks).any())

    def _labels(self, window: Window) -> Labels:
        if window.video < 0 or not self.tasks:
            return Labels.unlabelled(len(window))
        labels = self.index.labels(window.video, self.split, window.start, window.stop)
        if window.step == 1:
            return labels
        return Labels(**{name: values[:: window.step] for name, values in vars(labels).items()})

    def _hidden(self, window: Window) -> NDArray[np.bool_]:
        if not self.hide or window.video < 0:
            return np.zeros(len(window), np.bool_)
        name = self.index.videos[window.video]
        hidden = dropped_frames(name, self.index.visible(window.video), share=self.hide, seed=self.seed)
        return hidden[window.frames]

    def _read(self, window: Window) -> tuple[Frames | Features, int]:
        """What there is to see in a window, and how many of its frames could not be read."""
        try:
            return self.source.read(max(window.video, 0), window.frames), 0
        except BadFrameError as error:
            if self.on_bad_frame == "raise" or error.frames is None:
                raise
            if self.bad_frame_log is not None:
                self.bad_frame_log.add(error.bad)
            return error.frames, len(error.bad)


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
        images = images_fingerprint(self.index, self.frames, video) if is_last else None
        return Chunk(video, places[good], torch.from_numpy(pixels), int((~good).sum()), images)
