"""Mending what `windows` cut: overlapping predictions of windows become one track per video."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import Tensor

from abaw.windows import Window

Key = TypeVar("Key", bound=str)


def taper(length: int) -> Tensor:
    """Weights of a window's frames, float32 (T,): a triangle, positive up to both ends.

    A frame in the middle of its window has context on both sides, so its prediction counts more.
    """
    rise = torch.arange(1, length + 1, dtype=torch.float32)
    return torch.minimum(rise, rise.flip(0)) / ((length + 1) // 2)


@dataclass(frozen=True, eq=False)
class Stitched(Generic[Key]):
    """The predictions for all frames of one video.

    Attributes:
        video: Number of the video in the index.
        predictions: Per task float32 (N, K); zeros where `covered` is false.
        seen: bool (N,), a window saw the frame (it was visible there).
        covered: bool (N,), a window held the frame; false only when windows were left out.
    """

    video: int
    predictions: dict[Key, Tensor]
    seen: Tensor
    covered: Tensor


class Stitcher(Generic[Key]):
    """Averages windows into videos, on the device where the predictions are.

    It averages what it is given, so give it VA values and probabilities. Every window is one addition to
    a slice, never a scatter: the same windows in the same order give the same bits. Videos must come one
    after another, in any order within a batch; only those of the latest batch are held.
    """

    def __init__(self, n_frames: Callable[[int], int]) -> None:
        """Takes the function that gives the number of frames (N) of a video."""
        self._n_frames = n_frames
        # per video (N, K + 2): weighted predictions of all tasks, how often visible, sum of weights
        self._sums: dict[int, Tensor] = {}
        self._sizes: dict[Key, int] = {}
        self._latest: set[int] = set()
        self._done: set[int] = set()

    @torch.no_grad()
    def add(self, where: Sequence[Window], predictions: Mapping[Key, Tensor], visible: Tensor) -> None:
        """Takes the predictions of a batch of windows.

        Args:
            where: B windows; `PADDING` is skipped, and so is what stands behind a short window's end.
            predictions: Per task (B, T, K), any floating type.
            visible: bool (B, T), what the network could see.

        Raises:
            ValueError: A window belongs to a video that was already handed out.
        """
        videos = {window.video for window in where if len(window)}
        if returning := sorted(videos & self._done):
            raise ValueError(
                f"videos {returning} were handed out before all their windows had come; "
                "feed the windows video by video"
            )
        if not videos:
            return
        self._sizes = {key: values.shape[-1] for key, values in predictions.items()}
        columns = [values.float() for values in predictions.values()]
        columns += [visible[..., None].float(), torch.ones_like(columns[0][..., :1])]
        weights = taper(visible.shape[1]).to(visible.device)[:, None]  # (T, 1)
        weighted = torch.cat(columns, -1) * weights  # (B, T, K + 2)
        for values, window in zip(weighted, where, strict=True):
            if len(window):
                self._sum_of(window.video, values)[window.start : window.stop : window.step] += values[
                    : len(window)
                ]
        self._latest = videos

    def finished(self) -> list[Stitched[Key]]:
        """The videos whose last window has come: those without a window in the latest batch."""
        return self._hand_out([video for video in self._sums if video not in self._latest])

    def flush(self) -> list[Stitched[Key]]:
        """All videos still held; call it after the last batch."""
        return self._hand_out(list(self._sums))

    def _sum_of(self, video: int, like: Tensor) -> Tensor:
        if video not in self._sums:
            self._sums[video] = like.new_zeros(self._n_frames(video), like.shape[-1])
        return self._sums[video]

    def _hand_out(self, videos: list[int]) -> list[Stitched[Key]]:
        self._done.update(videos)
        return [self._mend(video, self._sums.pop(video)) for video in videos]

    def _mend(self, video: int, sums: Tensor) -> Stitched[Key]:
        n_visible, weight = sums[:, -2], sums[:, -1]
        # weights are at least 1 / T, so the floor only keeps 0 / 0 out
        means = sums[:, :-2] / weight[:, None].clamp(min=1e-6)
        sizes = list(self._sizes.values())
        predictions = zip(self._sizes, torch.split(means, sizes, dim=1), strict=True)
        return Stitched(
            video=video,
            predictions={key: mean.contiguous() for key, mean in predictions},
            seen=n_visible > 0,
            covered=weight > 0,
        )
