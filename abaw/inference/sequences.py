"""Predictions for a sequence of unknown length: windows are predicted and stitched when they are complete.

Needs NumPy only, so that a network without PyTorch is stitched by the same arithmetic.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from abaw.tasks import Task
from abaw.windows import cut, taper


class FrameModel(Protocol):
    """A network in two steps, frames to features and windows to predictions, so that frames are encoded once.

    Attributes:
        tasks: The predicted tasks.
        dim: Feature dimension (D).
        window: Number of frames per window (T).
        stride: Distance between the starts of windows, in frames of the window.
        step: Distance between the frames of a window, in frames of the video.
        batch_size: Number of windows per call.
    """

    @property
    def tasks(self) -> tuple[Task, ...]: ...  # noqa: D102

    @property
    def dim(self) -> int: ...  # noqa: D102

    window: int
    stride: int
    step: int
    batch_size: int

    def encode(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The features (M, D) of aligned faces uint8 (M, S, S, 3), RGB."""
        ...

    def predict_windows(
        self,
        features: NDArray[np.float32],
        visible: NDArray[np.bool_],
        present: NDArray[np.bool_],
    ) -> dict[Task, NDArray[np.float32]]:
        """Per task the predictions (B, T, K): VA values and probabilities.

        Args:
            features: (B, T, D); any value where not visible.
            visible: bool (B, T).
            present: bool (B, T), False on padding at the end of a window.
        """
        ...


@dataclass(frozen=True, eq=False)
class Predicted:
    """Final predictions for consecutive frames of a sequence.

    Attributes:
        start: First frame.
        seen: bool (n,), the frame was visible; others are predicted from context.
        values: Per task float32 (n, K): VA values, probabilities.
    """

    start: int
    seen: NDArray[np.bool_]
    values: Mapping[Task, NDArray[np.float32]]

    def __len__(self) -> int:
        return len(self.seen)

    @staticmethod
    def cat(parts: Sequence["Predicted"]) -> "Predicted":
        """Consecutive parts, at least one, as one."""
        values = {
            task: np.concatenate([part.values[task] for part in parts]) for task in parts[0].values
        }  # (n, K)
        return Predicted(parts[0].start, np.concatenate([part.seen for part in parts]), values)


class _Phase:
    """Every `step`-th frame of a sequence, numbered from 0: its windows and their weighted sums.

    Holds the frames from the start of the next window on, so memory does not grow with the sequence.
    """

    def __init__(self, model: FrameModel) -> None:
        self.model = model
        self.n = 0  # frames so far
        self.done = 0  # frames whose predictions are final
        self._next = 0  # start of the next window, a multiple of the stride
        self._first = 0  # number of the first frame held
        self._features = np.empty((0, model.dim), np.float32)
        self._visible = np.empty(0, bool)
        self._sums: NDArray[np.float32] | None = None  # (n_held, K + 1): weighted sums, and the weights

    def push(self, features: NDArray[np.float32], visible: NDArray[np.bool_]) -> list[Predicted]:
        self._features = np.concatenate([self._features, features])
        self._visible = np.concatenate([self._visible, visible])
        self.n += len(visible)
        length, stride = self.model.window, self.model.stride
        starts = []
        while self._next + length <= self.n:
            starts.append(self._next)
            self._next += stride
        # the last window of the sequence, which is shifted left, may begin at n - length
        return self._predict(starts, final=max(min(self._next, self.n - length), 0))

    def finish(self) -> list[Predicted]:
        if not self.n:
            return []
        starts = cut(self.n, self.model.window, self.model.stride)
        left = [start for start in starts if start >= self._next or start % self.model.stride]
        return self._predict(left, final=self.n)

    def _predict(self, starts: list[int], *, final: int) -> list[Predicted]:
        """Predicts windows, and returns the frames below `final`."""
        size = self.model.batch_size
        for first in range(0, len(starts), size):
            self._add(starts[first : first + size])
        return [self._pop(final)] if final > self.done else []

    def _add(self, starts: list[int]) -> None:
        length = self.model.window
        features = np.zeros((len(starts), length, self.model.dim), np.float32)
        visible, present = (np.zeros((len(starts), length), bool) for _ in range(2))
        for k, start in enumerate(starts):
            held = slice(start - self._first, start - self._first + length)
            n = len(self._visible[held])
            features[k, :n], visible[k, :n], present[k, :n] = self._features[held], self._visible[held], True
        predictions = self.model.predict_windows(features, visible, present)
        columns = [np.asarray(predictions[task], np.float32) for task in self.model.tasks]
        columns.append(np.ones((len(starts), length, 1), np.float32))
        weighted = np.concatenate(columns, -1) * taper(length)[:, None]  # (B, T, K + 1)
        self._extend(weighted.shape[-1])
        assert self._sums is not None
        for k, start in enumerate(starts):
            held = slice(start - self._first, start - self._first + length)
            self._sums[held] += weighted[k, : len(self._sums[held])]

    def _extend(self, n_columns: int) -> None:
        sums = np.zeros((len(self._visible), n_columns), np.float32)
        if self._sums is not None:
            sums[: len(self._sums)] = self._sums
        self._sums = sums

    def _pop(self, final: int) -> Predicted:
        """The predictions of the frames from `done` to `final`, which are forgotten."""
        assert self._sums is not None
        which = slice(self.done - self._first, final - self._first)
        means = self._sums[which, :-1] / self._sums[which, -1:]
        ends = np.cumsum([task.size for task in self.model.tasks])[:-1]
        values = dict(zip(self.model.tasks, np.split(means, ends, axis=1), strict=True))
        popped = Predicted(self.done, self._visible[which].copy(), values)
        self.done = final
        keep = final - self._first
        self._features, self._visible = self._features[keep:], self._visible[keep:]
        self._sums, self._first = self._sums[keep:], self._first + keep
        return popped


class SequencePredictor:
    """Predicts a sequence that is pushed piece by piece; memory is that of a few windows.

    The result equals that of whole-video windows: the windows of `abaw.windows.cut`, averaged with the
    weights of `abaw.windows.taper`.

    Attributes:
        dim: Feature dimension (D).
    """

    def __init__(self, model: FrameModel) -> None:
        self.dim = model.dim
        self._phases = [_Phase(model) for _ in range(model.step)]
        self._ready: list[list[Predicted]] = [[] for _ in self._phases]
        self._n = 0  # frames pushed
        self._done = 0  # frames returned

    def __len__(self) -> int:
        """Number of frames pushed."""
        return self._n

    def push(self, features: NDArray[np.float32], visible: NDArray[np.bool_]) -> list[Predicted]:
        """Adds frames; returns predictions that have become final, in order.

        Args:
            features: (n, D), any value where not visible.
            visible: bool (n,).
        """
        step = len(self._phases)
        for k, phase in enumerate(self._phases):
            first = (k - self._n) % step
            self._ready[k] += phase.push(features[first::step], visible[first::step])
        self._n += len(visible)
        return self._merge()

    def finish(self) -> list[Predicted]:
        """Predictions of the remaining frames, after the last `push`."""
        for k, phase in enumerate(self._phases):
            self._ready[k] += phase.finish()
        return self._merge()

    def _merge(self) -> list[Predicted]:
        """The frames that are final in every phase, in the order of the sequence."""
        step = len(self._phases)
        if step == 1:
            parts, self._ready[0] = self._ready[0], []
            self._done = self._phases[0].done
            return parts
        # frame f of the sequence is frame f // step of phase f % step
        ends = [phase.done * step + k for k, phase in enumerate(self._phases)]
        end = min(min(ends), self._n)
        if end <= self._done:
            return []
        merged = self._take(end)
        return [merged]

    def _take(self, end: int) -> Predicted:
        step, n = len(self._phases), end - self._done
        seen = np.empty(n, bool)
        values: dict[Task, NDArray[np.float32]] = {}
        for k in range(step):
            first = (k - self._done) % step
            count = len(range(first, n, step))
            if not count:
                continue
            part = Predicted.cat(self._ready[k])
            rows = slice(first, None, step)
            seen[rows] = part.seen[:count]
            for task, each in part.values.items():
                values.setdefault(task, np.empty((n, each.shape[1]), np.float32))[rows] = each[:count]
            rest = {task: each[count:] for task, each in part.values.items()}
            self._ready[k] = [Predicted(part.start + count, part.seen[count:], rest)]
        start, self._done = self._done, end
        return Predicted(start, seen, values)
