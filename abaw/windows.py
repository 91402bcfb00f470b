"""Windows of videos, and how videos are cut into them. Frames are numbered from 0."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Window:
    """A window of one video: the frames `start, start + step, …` below `stop`.

    Attributes:
        video: Number of the video in the index; -1 in `PADDING`.
        start: First frame.
        stop: End (excluded).
        step: Distance between frames, in frames.
    """

    video: int
    start: int
    stop: int
    step: int = 1

    def __post_init__(self) -> None:
        if self.start < 0 or self.stop < self.start or self.step < 1:
            raise ValueError(f"a window needs 0 <= start <= stop and step >= 1, got {self!r}")

    @property
    def frames(self) -> range:
        """The frame numbers, from 0."""
        return range(self.start, self.stop, self.step)

    def __len__(self) -> int:
        return len(self.frames)


PADDING = Window(video=-1, start=0, stop=0)
"""An empty window, which pads ranks with fewer windows and is not scored."""


def overlap(previous: Window, window: Window) -> int:
    """The number of leading frames of a window that the previous one in the order of `cut` ends with."""
    same_phase = previous.video == window.video and (window.start - previous.start) % window.step == 0
    return len(range(window.start, previous.stop, window.step)) if same_phase else 0


def cut(n_frames: int, length: int, stride: int, step: int = 1) -> list[int]:
    """The starts of windows that cover all frames of a video.

    A video shorter than a window has one short window; otherwise all windows are full, and the last one is
    shifted left instead of padded. With `step > 1`, the windows of each phase follow those of the previous.

    Args:
        n_frames: Number of frames of the video (N).
        length: Number of frames in a window (T).
        stride: Distance between window starts, in frames of the window, at most `length`.
        step: Distance between the frames of a window, in frames of the video.

    Returns:
        Start frames, for `window_at`.
    """
    if min(length, stride, step) < 1 or stride > length:
        raise ValueError(f"need 1 <= stride <= length and step >= 1, got {length=}, {stride=}, {step=}")
    starts: list[int] = []
    for phase in range(min(step, n_frames)):
        n_phase = len(range(phase, n_frames, step))
        last = max(n_phase - length, 0)
        starts += [phase + step * k for k in (*range(0, last, stride), last)]
    return starts


def window_at(video: int, start: int, n_frames: int, length: int, step: int = 1) -> Window:
    """The window of up to `length` frames from `start` of a video with `n_frames` frames."""
    return Window(video, start, min(start + (length - 1) * step + 1, n_frames), step)


@dataclass(frozen=True)
class WindowTable:
    """Many windows, stored in two arrays with 8 bytes per window.

    Attributes:
        video: int32 (n_windows,), number of the video.
        start: int32 (n_windows,), first frame.
        n_frames: int64 (n_videos,), number of frames of every video of the index.
        length: Number of frames in a full window (T).
        step: Distance between frames.
    """

    video: NDArray[np.int32]
    start: NDArray[np.int32]
    n_frames: NDArray[np.int64]
    length: int
    step: int = 1

    def __len__(self) -> int:
        return len(self.start)

    def __getitem__(self, index: int) -> Window:
        video = int(self.video[index])
        return window_at(video, int(self.start[index]), int(self.n_frames[video]), self.length, self.step)

    def select(self, which: NDArray[np.bool_]) -> "WindowTable":
        """The windows where `which`, bool (n_windows,), is true."""
        return WindowTable(self.video[which], self.start[which], self.n_frames, self.length, self.step)


def cut_videos(
    n_frames: NDArray[np.int64], videos: Sequence[int], length: int, stride: int, step: int = 1
) -> WindowTable:
    """Cuts each of `videos` as `cut` does; `n_frames` (n_videos,) covers the whole index."""
    starts = [np.asarray(cut(int(n_frames[v]), length, stride, step), dtype=np.int32) for v in videos]
    return WindowTable(
        video=np.repeat(np.asarray(videos, dtype=np.int32), [len(s) for s in starts]),
        start=np.concatenate([np.empty(0, np.int32), *starts]),
        n_frames=n_frames,
        length=length,
        step=step,
    )


def taper(length: int) -> NDArray[np.float32]:
    """Triangular weights of the frames of a window, float32 (T,), positive at both ends.

    Frames in the middle of a window have context on both sides, so their predictions count more.
    """
    rise = np.arange(1, length + 1, dtype=np.float32)
    return (np.minimum(rise, rise[::-1]) / ((length + 1) // 2)).astype(np.float32)
