"""Rows of a table: the predictions of every identity, frame by frame, as soon as they are final."""

import math
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from abaw.evaluation.calibration import Calibration
from abaw.evaluation.tracks import Track
from abaw.inference.identities import TrackedFace
from abaw.inference.sequences import FrameModel, Predicted, SequencePredictor
from abaw.tasks import Task

NO_FACE = -1
"""Identity in the row of a frame without any face."""


@dataclass(frozen=True, eq=False)
class FaceRows:
    """Final rows of consecutive frames, ordered by frame and identity.

    Attributes:
        frame: int64 (n,), number of the frame in the video, from 0.
        timestamp: float64 (n,), seconds; NaN if the frames have no times.
        face_id: int64 (n,), identity; -1 for a frame without any face.
        success: bool (n,), the face was there; others are predicted from context, or have no face.
        boxes: float32 (n, 4): left, top, width, height in pixels; NaN where the face was not found.
        scores: float32 (n,), of the detector; NaN where the face was not found.
        values: Per task float32 (n, K): VA values, probabilities; NaN for a frame without any face.
    """

    frame: NDArray[np.int64]
    timestamp: NDArray[np.float64]
    face_id: NDArray[np.int64]
    success: NDArray[np.bool_]
    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    values: Mapping[Task, NDArray[np.float32]]

    def __len__(self) -> int:
        return len(self.frame)


@dataclass(eq=False)
class _Identity:
    """One identity; indices count the analysed frames, and lists begin at its first frame not returned."""

    id: int
    start: int  # index of its first frame
    sequence: SequencePredictor
    features: list[NDArray[np.float32]] = field(default_factory=list)  # to be pushed
    visible: list[bool] = field(default_factory=list)  # of the same frames
    boxes: list[NDArray[np.float32]] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    predicted: list[Predicted] = field(default_factory=list)  # final predictions
    first: int = 0  # index of the first frame not returned
    final: int = 0  # index after the last frame with a final prediction
    ended: bool = False

    def __post_init__(self) -> None:
        self.first = self.final = self.start

    @property
    def stop(self) -> int:
        """Index after the last frame so far."""
        return self.first + len(self.boxes)

    def add(self, box: NDArray[np.float32], score: float, feature: NDArray[np.float32] | None) -> None:
        """Adds the next frame; without a feature the face is not visible in it."""
        self.features.append(_zeros(self.sequence.dim) if feature is None else feature)
        self.visible.append(feature is not None)
        self.boxes.append(box)
        self.scores.append(score)

    def predict(self, calibration: Calibration | None) -> None:
        """Predicts what is complete; with a calibration, only when the identity has ended."""
        if self.features:
            self.predicted += self.sequence.push(np.stack(self.features), np.array(self.visible))
            self.features, self.visible = [], []
        if self.ended:
            self.predicted += self.sequence.finish()
        if calibration is not None:
            if not self.ended:
                return
            whole = Predicted.cat(self.predicted)
            values = calibration.apply(Track(video="", seen=whole.seen, values=whole.values)).values
            self.predicted = [Predicted(0, whole.seen, values)]
        self.final = self.first + sum(map(len, self.predicted))

    def take(self, stop: int) -> Predicted:
        """The predictions of the frames below an index, which are forgotten."""
        n, whole = stop - self.first, Predicted.cat(self.predicted)
        rest = {task: values[n:] for task, values in whole.values.items()}
        self.predicted = [Predicted(0, whole.seen[n:], rest)]
        self.first = stop
        del self.boxes[:n], self.scores[:n]
        return Predicted(0, whole.seen[:n], {task: values[:n] for task, values in whole.values.items()})


class RowBuilder:
    """Predicts the identities of a video and arranges the predictions by frame.

    Args:
        model: Network with its windows.
        calibration: Calibration of all predictions; null: none. With it, the rows of an identity are final
            when it has ended, because smoothing needs all of them.
    """

    def __init__(self, model: FrameModel, calibration: Calibration | None = None) -> None:
        self._model, self._calibration = model, calibration
        self._identities: dict[int, _Identity] = {}
        self._frames: deque[tuple[int, float]] = deque()  # number and time of frames that were not returned
        self._first = 0  # index of the first of them

    def add(
        self,
        number: int,
        timestamp: float,
        faces: Sequence[TrackedFace],
        features: NDArray[np.float32],
        active: Collection[int],
    ) -> None:
        """Adds a frame.

        Args:
            number: Number of the frame in the video, from 0.
            timestamp: Time in seconds; NaN: none.
            faces: Its faces.
            features: (n, D), of the faces that are visible.
            active: Identities that may continue; others have ended.
        """
        index = self._first + len(self._frames)
        self._frames.append((number, timestamp))
        for identity in self._identities.values():
            identity.ended = identity.ended or identity.id not in active
        rows = iter(features)
        for face in faces:
            if face.id not in self._identities:
                self._identities[face.id] = _Identity(face.id, index, SequencePredictor(self._model))
            identity = self._identities[face.id]
            for _ in range(index - identity.stop):  # frames in which it was lost
                identity.add(_NO_BOX, math.nan, None)
            feature = next(rows) if face.visible else None
            identity.add(face.box if face.visible else _NO_BOX, face.score, feature)

    def pop(self) -> FaceRows | None:
        """The rows that are final by now; None if there are none."""
        for identity in self._identities.values():
            identity.predict(self._calibration)
        index = self._first + len(self._frames)
        final = min((each.final for each in self._identities.values() if not each.ended), default=index)
        return self._rows(final) if final > self._first else None

    def finish(self) -> FaceRows | None:
        """The remaining rows, after the last frame; None if there are none."""
        for identity in self._identities.values():
            identity.ended = True
        return self.pop()

    def _rows(self, stop: int) -> FaceRows:
        """The rows of the frames below an index, which are forgotten."""
        index: list[NDArray[np.int64]] = []
        ids: list[NDArray[np.int64]] = []
        boxes: list[NDArray[np.float32]] = []
        scores: list[float] = []
        predicted: list[Predicted] = []
        for identity in self._identities.values():
            last = min(stop, identity.stop)
            if last <= identity.first:
                continue
            n = last - identity.first
            index.append(np.arange(identity.first, last))
            ids.append(np.full(n, identity.id))
            boxes += identity.boxes[:n]
            scores += identity.scores[:n]
            predicted.append(identity.take(last))
        self._identities = {k: v for k, v in self._identities.items() if not v.ended or v.boxes}
        with_face = np.concatenate([np.empty(0, np.int64), *index])
        without = np.setdiff1d(np.arange(self._first, stop), with_face)
        m = len(without)
        everywhere = np.concatenate([with_face, without])
        face_id = np.concatenate([np.empty(0, np.int64), *ids, np.full(m, NO_FACE)])
        order = np.lexsort((face_id, everywhere))
        seen = np.concatenate([np.empty(0, bool), *(part.seen for part in predicted), np.zeros(m, bool)])
        values = {
            task: np.concatenate(
                [*(part.values[task] for part in predicted), np.full((m, task.size), np.nan, np.float32)]
            )[order]
            for task in self._model.tasks
        }
        frames = [self._frames.popleft() for _ in range(stop - self._first)]
        place = everywhere[order] - self._first
        self._first = stop
        return FaceRows(
            frame=np.array([number for number, _ in frames], np.int64)[place],
            timestamp=np.array([seconds for _, seconds in frames])[place],
            face_id=face_id[order],
            success=seen[order],
            boxes=np.array([*boxes, *[_NO_BOX] * m], np.float32).reshape(-1, 4)[order],
            scores=np.array([*scores, *[math.nan] * m], np.float32)[order],
            values=values,
        )


_NO_BOX = np.full(4, np.nan, np.float32)


def _zeros(n: int) -> NDArray[np.float32]:
    return np.zeros(n, np.float32)
