"""Stitching: weighted averages of overlapping windows give one track per video."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from abaw.tasks import Task
from abaw.windows import Window, taper


def fill_overlaps(windows: Tensor, overlaps: Sequence[int], previous: Tensor | None) -> Tensor:
    """Copies values of frames that windows (B, T, ...) share with the one before, in place; returns the last.

    `overlaps` gives the number of leading frames that the window before ends with; `previous`, (T, ...), is
    the window before the first, from the previous batch.
    """
    for window, n in zip(windows, overlaps, strict=True):
        if n:
            assert previous is not None
            window[:n] = previous[len(previous) - n :]
        previous = window
    return windows[-1]


@dataclass(frozen=True, eq=False)
class Stitched:
    """Predictions for all frames of one video.

    Attributes:
        video: Index of the video.
        predictions: Per task float32 (N, K); zeros where `covered` is false.
        seen: bool (N,), the frame was visible in a window.
        covered: bool (N,), the frame was in a window; false only if windows were skipped.
    """

    video: int
    predictions: dict[Task, Tensor]
    seen: Tensor
    covered: Tensor


class Stitcher:
    """Averages the predictions of windows per video, on the device of the predictions.

    Takes VA values and probabilities, not logits. Every window is added to a slice, without scatter, so
    that the result is deterministic. The windows of a video must be consecutive, in any order within a
    batch; only the videos of the latest batch are kept.
    """

    def __init__(self, n_frames: Callable[[int], int]) -> None:
        """`n_frames` returns the number of frames (N) of a video by its index."""
        self._n_frames = n_frames
        # per video (N, K + 2): weighted sums of the predictions, of visibility, and of the weights
        self._sums: dict[int, Tensor] = {}
        self._sizes: dict[Task, int] = {}
        self._latest: set[int] = set()
        self._done: set[int] = set()

    @torch.no_grad()
    def add(self, where: Sequence[Window], predictions: Mapping[Task, Tensor], visible: Tensor) -> None:
        """Adds the predictions of a batch of windows.

        Args:
            where: B windows; `PADDING` and frames after the end of a short window are skipped.
            predictions: Per task (B, T, K), any floating-point dtype.
            visible: bool (B, T).

        Raises:
            ValueError: A window belongs to a video that was already returned.
        """
        videos = {window.video for window in where if len(window)}
        if returning := sorted(videos & self._done):
            raise ValueError(
                f"videos {returning} were returned before all of their windows were added; "
                "add the windows video by video"
            )
        if not videos:
            return
        self._sizes = {task: values.shape[-1] for task, values in predictions.items()}
        columns = [values.float() for values in predictions.values()]
        columns += [visible[..., None].float(), torch.ones_like(columns[0][..., :1])]
        weights = torch.from_numpy(taper(visible.shape[1])).to(visible.device)[:, None]  # (T, 1)
        weighted = torch.cat(columns, -1) * weights  # (B, T, K + 2)
        for values, window in zip(weighted, where, strict=True):
            if len(window):
                self._sum_of(window.video, values)[window.start : window.stop : window.step] += values[
                    : len(window)
                ]
        self._latest = videos

    def finished(self) -> list[Stitched]:
        """The complete videos: those without a window in the latest batch."""
        return self._pop([video for video in self._sums if video not in self._latest])

    def flush(self) -> list[Stitched]:
        """All remaining videos; to be called after the last batch."""
        return self._pop(list(self._sums))

    def _sum_of(self, video: int, like: Tensor) -> Tensor:
        if video not in self._sums:
            self._sums[video] = like.new_zeros(self._n_frames(video), like.shape[-1])
        return self._sums[video]

    def _pop(self, videos: list[int]) -> list[Stitched]:
        self._done.update(videos)
        return [self._average(video, self._sums.pop(video)) for video in videos]

    def _average(self, video: int, sums: Tensor) -> Stitched:
        n_visible, weight = sums[:, -2], sums[:, -1]
        # weights are at least 1 / T, so the floor only avoids 0 / 0
        means = sums[:, :-2] / weight[:, None].clamp(min=1e-6)
        sizes = list(self._sizes.values())
        predictions = zip(self._sizes, torch.split(means, sizes, dim=1), strict=True)
        return Stitched(
            video=video,
            predictions={task: mean.contiguous() for task, mean in predictions},
            seen=n_visible > 0,
            covered=weight > 0,
        )
