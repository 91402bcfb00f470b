"""From a window to a clip the network can eat: pixels, labels, masks, and all that is random in training."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from abaw.batch import Batch
from abaw.data.annotations import Labels
from abaw.data.bad_frames import BadFrameLog
from abaw.data.features import Features, FeatureStore
from abaw.data.frames import BadFrameError, Frames, FrameSource
from abaw.data.hiding import hidden_frames
from abaw.data.index import Index
from abaw.data.samplers import Slot
from abaw.data.selection import labelled_frames
from abaw.data.transforms import ClipAugmentation
from abaw.tasks import Task
from abaw.windows import PADDING, Window, WindowTable, window_at


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
        rng = np.random.default_rng([seed, slot.epoch, slot.slot])
        return cls(rng.random(), int(rng.integers(2**63)), rng.random(length, np.float32))


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
        hide: Share of each video's visible frames that is made invisible, see `hidden_frames`.
        on_bad_frame: `raise` stops at a frame that cannot be read, `skip` makes it invisible and counts it.
        bad_frame_log: File to which the path of each skipped frame is appended, once.
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

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, which: Slot | int) -> Batch:
        """The clip of a training slot, or of a window.

        Raises:
            BadFrameError: A frame cannot be read, and is not to be skipped.
        """
        if not isinstance(which, Slot):
            window = self.windows[which] if which >= 0 else PADDING
            return self._clip(window, self._labels(window))
        draw = Draw.keyed(self.seed, which, self.windows.length)
        window = self.windows[which.window]
        moved = self._moved(window, draw.shift)
        labels = self._labels(moved)
        if moved != window and not self._is_useful(moved, labels):
            moved, labels = window, self._labels(window)
        return self._clip(moved, labels, draw)

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

    def _clip(self, window: Window, labels: Labels, draw: Draw | None = None) -> Batch:
        n, length = len(window), self.windows.length
        read, n_bad_frames = self._read(window)
        values = read.values if isinstance(read, Features) else read.pixels
        if draw is not None and self.augmentation is not None and isinstance(read, Frames):
            values = self.augmentation(read.pixels, draw.seed)
        asked = {task: labels.valid(task) & (task in self.tasks) for task in Task}
        return Batch(
            frames=_padded(values, length) if isinstance(read, Frames) else None,
            features=_padded(values, length) if isinstance(read, Features) else None,
            present=_padded(np.ones(n, np.bool_), length),
            visible=_padded(read.visible & ~self._hidden(window), length),
            va=_padded(labels.va, length),
            va_valid=_padded(asked[Task.VA], length),
            expr=_padded(labels.expr, length),
            expr_valid=_padded(asked[Task.EXPR], length),
            au=_padded(labels.au, length),
            au_valid=_padded(asked[Task.AU], length),
            where=(window,),
            mask_noise=None if draw is None else _padded(draw.mask_noise, length),
            n_bad_frames=torch.from_numpy(np.array([n_bad_frames])),
        )

    def _hidden(self, window: Window) -> NDArray[np.bool_]:
        if not self.hide or window.video < 0:
            return np.zeros(len(window), np.bool_)
        name = self.index.videos[window.video]
        hidden = hidden_frames(name, self.index.visible(window.video), share=self.hide, seed=self.seed)
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


def _padded(values: NDArray[np.generic], length: int) -> Tensor:
    """Values (n, …) as a tensor (1, length, …), zeros behind the n-th."""
    if len(values) == length and values.flags.writeable and values.flags.c_contiguous:
        return torch.from_numpy(values)[None]
    padded = np.zeros((1, length, *values.shape[1:]), values.dtype)
    padded[0, : len(values)] = values
    return torch.from_numpy(padded)
