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
from abaw.loading.masking import RandomFrameMasking
from abaw.loading.sampling import Slot
from abaw.loading.transforms import ClipAugmentation
from abaw.loading.workers import SharedRing
from abaw.randomness import Purpose, keyed_generator
from abaw.tasks import Task, TaskLabels
from abaw.windows import PADDING, Window, WindowTable, overlap, window_at


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
    """A clip that was chosen, before its frames are read.

    Attributes:
        window: Its window.
        labels: Labels of the frames of the window.
        draw: Random numbers of a training clip; None otherwise.
        overlap: Number of leading frames that are not read, as the clip before has them.
    """

    window: Window
    labels: Labels
    draw: Draw | None = None
    overlap: int = 0


@dataclass(kw_only=True, eq=False)
class ClipDataset(Dataset[Batch]):
    """Map-style dataset of clips, each a `Batch` of size 1; `Batch.cat` collates them.

    Indexed by a `Slot`, it returns a training clip with jitter, augmentation and a mask that depend on seed,
    epoch and slot only. Indexed by a number, it returns that window unchanged, and for -1 a clip of padding.
    Images are read once: neither those of masked frames, nor in evaluation those of frames that the window
    before has too, see `Batch.overlaps`.

    Attributes:
        index: Index of the data set.
        source: Source of pixels or cached features.
        windows: The windows that can be loaded.
        tasks: Tasks whose labels are loaded; the others are unlabelled.
        split: Split whose labels are loaded; None: all splits.
        seed: Seed of all random numbers, from 0.
        augmentation: Augmentation of training clips; None: no augmentation.
        masking: Random masking of frames in training clips; None: no masking.
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
    masking: RandomFrameMasking | None = None
    jitter: int = 0
    drop_frames: float = 0.0
    on_bad_frame: Literal["raise", "skip"] = "raise"
    bad_frame_log: BadFrameLog | None = None
    memory: SharedRing | None = None

    def __post_init__(self) -> None:
        if self.augmentation is not None:
            self.augmentation.prepare()

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
        clips = [self._choose(each) for each in which]
        shape = len(clips), self.windows.length
        present, visible = np.zeros((2, *shape), np.bool_)
        labels = {task: unlabelled(task, *shape) for task in self.tasks}
        source, features = self.source, []
        if isinstance(source, FeatureStore):
            features = [source.read(max(clip.window.video, 0), clip.window.frames) for clip in clips]
        for row, clip in enumerate(clips):
            n = len(clip.window)
            there = features[row].visible if features else self._has_image(clip.window)
            present[row, :n], visible[row, :n] = True, there & ~self._dropped(clip.window)
            for task in self.tasks:
                for target, array in zip(labels[task], clip.labels[task], strict=True):
                    target[row, :n] = array
        slots = [each for each in which if isinstance(each, Slot)]
        if self.masking is not None and slots:
            noise = np.stack([clip.draw.mask_noise for clip in clips if clip.draw is not None])
            masked = self.masking(torch.from_numpy(visible), torch.from_numpy(noise), slots[0].step)
            visible = masked.numpy()
        batch = Batch(
            **self._images(clips, visible) if not features else self._features(features),
            where=tuple(clip.window for clip in clips),
            present=torch.from_numpy(present),
            visible=torch.from_numpy(visible),
            labels={task: TaskLabels(*map(torch.from_numpy, arrays)) for task, arrays in labels.items()},
        )
        return [batch]

    def _take(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        return torch.empty(shape, dtype=dtype) if self.memory is None else self.memory.take(shape, dtype)

    def _features(self, read: Sequence[Features]) -> dict[str, Any]:
        """The features of all frames as fields of a batch."""
        kind = torch.from_numpy(read[0].values[:0])
        features = self._take((len(read), self.windows.length, kind.shape[1]), kind.dtype)
        for row, of_clip in zip(features.numpy(), read, strict=True):
            n = len(of_clip.values)
            row[:n], row[n:] = of_clip.values, 0
        return {"features": features, "n_bad_frames": torch.zeros(len(read), dtype=torch.long)}

    def _images(self, clips: Sequence[_Clip], visible: NDArray[np.bool_]) -> dict[str, Any]:
        """The images of visible frames (B, T) as fields of a batch; makes bad ones invisible."""
        n_bad_frames, pixels = [], []
        keep = visible.copy()
        for row, clip in enumerate(clips):
            keep[row, : clip.overlap] = False
            read = self._read(clip.window, np.flatnonzero(keep[row]))
            bad = np.flatnonzero(keep[row])[~read.visible]
            keep[row, bad] = visible[row, bad] = False
            n_bad_frames.append(len(bad))
            pixels.append(read.pixels if not len(bad) else read.pixels[read.visible])
        images = self._take((keep.size, *pixels[0].shape[1:]), torch.uint8)[: keep.sum()]
        first = 0
        for clip, of_clip in zip(clips, pixels, strict=True):
            if clip.draw is not None and self.augmentation is not None and len(of_clip):
                of_clip = self.augmentation(of_clip, clip.draw.seed)
            images.numpy()[first : first + len(of_clip)] = of_clip
            first += len(of_clip)
        return {
            "frames": images,
            "keep": torch.from_numpy(np.flatnonzero(keep)),
            "overlaps": tuple(clip.overlap for clip in clips if clip.draw is None),
            "n_bad_frames": torch.tensor(n_bad_frames),
        }

    def _choose(self, which: Slot | int) -> _Clip:
        """The clip of a slot or number."""
        if not isinstance(which, Slot):
            window = self.windows[which] if which >= 0 else PADDING
            shared = overlap(self.windows[which - 1], window) if which > 0 else 0
            return _Clip(window, self._labels(window), overlap=shared)
        draw = Draw.keyed(self.seed, which, self.windows.length)
        window = self.windows[which.window]
        moved = self._moved(window, draw.shift)
        labels = self._labels(moved)
        if moved != window and not self._is_useful(moved, labels):
            moved, labels = window, self._labels(window)
        return _Clip(moved, labels, draw)

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
        return bool(self._has_image(window).any() and labels.labelled_rows(self.tasks).any())

    def _labels(self, window: Window) -> Labels:
        if window.video < 0 or not self.tasks:
            return Labels.unlabelled(len(window), self.tasks)
        labels = self.index.labels(window.video, self.split, window.start, window.stop)
        return labels.rows(0, len(labels), window.step)

    def _has_image(self, window: Window) -> NDArray[np.bool_]:
        return self.index.visible(max(window.video, 0), window.start, window.stop)[:: window.step]

    def _dropped(self, window: Window) -> NDArray[np.bool_]:
        if not self.drop_frames or window.video < 0:
            return np.zeros(len(window), np.bool_)
        name = self.index.videos[window.video]
        visible = self.index.visible(window.video)
        return dropped_frames(name, visible, share=self.drop_frames, seed=self.seed)[window.frames]

    def _read(self, window: Window, places: NDArray[np.int64]) -> Frames:
        """The frames of a window at some places, bad ones not visible."""
        assert not isinstance(self.source, FeatureStore)
        try:
            return self.source.read(max(window.video, 0), window.start + window.step * places)
        except BadFrameError as error:
            if self.on_bad_frame == "raise" or error.frames is None:
                raise
            if self.bad_frame_log is not None:
                self.bad_frame_log.add(error.bad)
            return error.frames


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
