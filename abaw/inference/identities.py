"""Identities: which face of a frame is which person, from position, motion and appearance."""

import math
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from abaw.inference.faces import Detections

STRONG = 0.6
"""Score from which a detection may begin an identity; weaker ones only continue one."""
MAX_GAP = 5.0
"""Seconds after which a face that re-appears is a new identity."""

_CUT_SIDE = 160  # longer side of the frames that are compared for cuts, in pixels
_CUT_THRESHOLD = 27.0  # of scenedetect's ContentDetector, its default
_SIZE_GATE = np.log(1.8)  # largest change of size between two detections
_GATE = 0.9  # largest distance from the predicted position, in face sizes
_GATE_GROWTH = 1.0  # face sizes per second without a detection
_MAX_GATE = 2.0
_LOOK_GATE = 0.15  # largest difference of appearance from one frame to the next, of a clear video
_LOOK_GATE_AFTER_GAP = 0.18  # from the mean appearance
_LOOK_CHANGES = 5.0  # largest difference, in mean differences between frames, where the image is noisy
_MOST_LOOK_GATE = 0.45
_OCCLUDED_LOOK_GATE = 2.0  # any: another face may be in front
_HEAD = 1.5  # size of a head, relative to the box of its face
_SHORT_GAP = 0.5  # seconds; after a longer gap only a strong detection continues an identity
_PREDICTED = 1.0  # seconds of constant velocity
_FORBIDDEN = 1e6  # cost of pairs that are not possible
_LOOK_WEIGHT = 2.0  # of the difference of appearance beside the distance in face sizes
_SPEED_WEIGHT = 0.5  # of the latest detection in the moving average of the speed
_LOOK_UPDATE = 0.2  # of the latest detection in the moving averages of the appearance and its changes


class CutDetector:
    """Shot cuts, by the change of colour and brightness between frames (PySceneDetect's ContentDetector)."""

    def __init__(self) -> None:
        from scenedetect import FrameTimecode
        from scenedetect.detectors import ContentDetector

        self._timecode = FrameTimecode
        self._detector = ContentDetector(threshold=_CUT_THRESHOLD, min_scene_len=0)
        self._n = 0

    def __call__(self, pixels: NDArray[np.uint8]) -> bool:
        """Whether a new shot begins with this frame, uint8 (H, W, 3), RGB."""
        scale = _CUT_SIDE / max(pixels.shape[:2])
        size = tuple(max(round(side * scale), 1) for side in pixels.shape[1::-1])
        small = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
        time = self._timecode(self._n, 25.0)
        self._n += 1
        return bool(self._detector.process_frame(time, cv2.cvtColor(small, cv2.COLOR_RGB2BGR)))


@dataclass(frozen=True, eq=False)
class TrackedFace:
    """A face of a frame and its identity.

    Attributes:
        id: Identity, from 0 in the order of appearance.
        box: float32 (4,): left, top, width, height in pixels of the frame.
        landmarks: float32 (5, 2).
        score: Score of the detector; for a predicted face that of its last detection.
        restarts: Whether the identity is new, or appears again after a gap of more than half a second.
        visible: Whether there is a crop of it; False only for a missing aligned crop.
    """

    id: int
    box: NDArray[np.float32]
    landmarks: NDArray[np.float32]
    score: float
    restarts: bool = False
    visible: bool = True


@dataclass(eq=False)
class _Track:
    id: int
    seconds: float  # of the last detection
    box: NDArray[np.float32]
    landmarks: NDArray[np.float32]
    score: float
    look: NDArray[np.float32]  # appearance: mean unit vector
    last_look: NDArray[np.float32]
    change: float = 0.0  # mean difference of appearance between detections
    speed: NDArray[np.float64] = field(default_factory=lambda: np.zeros(2))  # pixels per second
    missed: bool = False  # in the latest frame with a detection

    @property
    def size(self) -> float:
        return _sizes(self.box[None])[0]

    @property
    def look_gate(self) -> float:
        """Largest difference of appearance to the next face, if no other head overlaps it."""
        least = _LOOK_GATE_AFTER_GAP if self.missed else _LOOK_GATE
        return float(np.clip(_LOOK_CHANGES * self.change, least, _MOST_LOOK_GATE))

    def shift(self, seconds: float) -> NDArray[np.float64]:
        """Predicted motion since the last detection, at constant velocity for a second."""
        return self.speed * min(seconds - self.seconds, _PREDICTED)


class IdentityTracker:
    """Assigns the faces of consecutive frames to identities.

    Strong detections are assigned to the predicted positions of all identities, then weak ones to those still
    without a face (as in Zhang et al., "ByteTrack", ECCV 2022). The cost is the distance in face sizes plus
    the difference of appearance, so that people who cross keep their identities. An identity ends at a cut,
    and `max_gap` seconds after its last detection. A face that appears again before that is the same identity
    only if it is near and looks alike; the frames between are a gap.

    Args:
        max_gap: Seconds after which a face that re-appears is a new identity.
    """

    def __init__(self, *, max_gap: float = MAX_GAP) -> None:
        self.max_gap = max_gap
        self._tracks: list[_Track] = []
        self._n = 0  # identities so far

    @property
    def active(self) -> tuple[int, ...]:
        """Identities that may continue."""
        return tuple(track.id for track in self._tracks)

    def update(self, seconds: float, detections: Detections, *, cut: bool = False) -> list[TrackedFace]:
        """The faces of the next frame, ordered by identity.

        Args:
            seconds: Time of the frame; times must not decrease.
            detections: The faces that were detected in it.
            cut: Whether a new shot begins with the frame, which ends all identities.
        """
        self._tracks = [t for t in self._tracks if not cut and seconds - t.seconds <= self.max_gap]
        looks = _looks(detections.thumbnails)
        boxes = self._predicted_boxes(seconds)
        occluded = _overlapping_heads(boxes)
        costs = self._costs(seconds, detections, looks, boxes, occluded)
        face_of: dict[int, int] = {}  # number of a track -> number of a detection
        strong = detections.scores >= STRONG
        for weak in (False, True):
            faces_left = np.flatnonzero(strong != weak)
            free = np.flatnonzero(
                [
                    k not in face_of and not (weak and seconds - track.seconds > _SHORT_GAP)
                    for k, track in enumerate(self._tracks)
                ]
            )
            for row, column in _assignment(costs[free][:, faces_left]):
                face_of[int(free[row])] = int(faces_left[column])
        faces = [
            self._continue(self._tracks[k], seconds, detections, looks, face, bool(occluded[k]))
            for k, face in face_of.items()
        ]
        for k, track in enumerate(self._tracks):
            track.missed = k not in face_of
        taken = set(face_of.values())
        new = [face for face in np.flatnonzero(strong).tolist() if face not in taken]
        faces += [self._begin(seconds, detections, looks, face) for face in new]
        return sorted(faces, key=lambda face: face.id)

    def predict(self, seconds: float) -> list[TrackedFace]:
        """The faces of a frame without detection, moved at constant velocity from the last detection.

        `seconds` is the time of the frame in seconds.
        """
        return [
            TrackedFace(
                track.id,
                track.box + np.array([*shift, 0, 0], np.float32),
                track.landmarks + shift.astype(np.float32),
                track.score,
            )
            for track in self._tracks
            if not track.missed
            for shift in [track.shift(seconds)]
        ]

    def _costs(
        self,
        seconds: float,
        detections: Detections,
        looks: NDArray[np.float32],
        boxes: NDArray[np.float64],
        occluded: NDArray[np.bool_],
    ) -> NDArray[np.float64]:
        """The cost of each detection as the next face of each track, (tracks, faces); inf: not possible."""
        if not self._tracks or not len(detections):
            return np.empty((len(self._tracks), len(detections)))
        sizes, found = _sizes(boxes), _sizes(detections.boxes)
        scale = np.sqrt(sizes[:, None] * found[None])
        offsets = _centres(boxes)[:, None] - _centres(detections.boxes)[None]
        distance = np.linalg.norm(offsets, axis=-1) / scale
        growth = abs(np.log(sizes[:, None] / found[None]))
        look = 1 - np.stack([t.look if t.missed else t.last_look for t in self._tracks]) @ looks.T
        gaps = np.array([seconds - track.seconds for track in self._tracks])
        gate = np.minimum(_GATE + _GATE_GROWTH * gaps, _MAX_GATE)[:, None]
        look_gate = np.where(occluded, _OCCLUDED_LOOK_GATE, [t.look_gate for t in self._tracks])[:, None]
        possible = (distance <= gate) & (growth <= _SIZE_GATE) & (look <= look_gate)
        return np.where(possible, distance + _LOOK_WEIGHT * look, np.inf)

    def _predicted_boxes(self, seconds: float) -> NDArray[np.float64]:
        boxes = [track.box + np.array([*track.shift(seconds), 0, 0]) for track in self._tracks]
        return np.array(boxes, np.float64).reshape(-1, 4)

    def _continue(
        self,
        track: _Track,
        seconds: float,
        detections: Detections,
        looks: NDArray[np.float32],
        face: int,
        occluded: bool,
    ) -> TrackedFace:
        box, gap = detections.boxes[face], seconds - track.seconds
        if gap > _SHORT_GAP:
            track.speed = np.zeros(2)
        elif gap > 0:
            moved = (_centres(box[None]) - _centres(track.box[None]))[0] / gap
            track.speed = track.speed + _SPEED_WEIGHT * (moved - track.speed)
        if not occluded:
            change = float(1 - track.last_look @ looks[face])
            track.change += _LOOK_UPDATE * (change - track.change)
            track.last_look = looks[face]
            look = track.look + _LOOK_UPDATE * (looks[face] - track.look)
            track.look = look / np.linalg.norm(look)
        track.seconds, track.box, track.landmarks = seconds, box, detections.landmarks[face]
        track.score = float(detections.scores[face])
        return TrackedFace(track.id, box, track.landmarks, track.score, gap > _SHORT_GAP)

    def _begin(
        self, seconds: float, detections: Detections, looks: NDArray[np.float32], face: int
    ) -> TrackedFace:
        track = _Track(
            self._n,
            seconds,
            detections.boxes[face],
            detections.landmarks[face],
            float(detections.scores[face]),
            looks[face],
            looks[face],
        )
        self._n += 1
        self._tracks.append(track)
        return TrackedFace(track.id, track.box, track.landmarks, track.score, True)


def _assignment(costs: NDArray[np.float64]) -> list[tuple[int, int]]:
    """Rows and columns of the pairs with the smallest total cost, without those of infinite cost."""
    pairs = zip(*linear_sum_assignment(np.where(np.isfinite(costs), costs, _FORBIDDEN)), strict=True)
    return [(row, column) for row, column in pairs if np.isfinite(costs[row, column])]


def _overlapping_heads(boxes: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Per box (n, 4) of a face whether its head overlaps another one."""
    centres, reach = _centres(boxes), _HEAD * boxes[:, 2:] / 2
    near = abs(centres[:, None] - centres[None]) < reach[:, None] + reach[None]
    return np.any(near[..., 0] & near[..., 1] & ~np.eye(len(boxes), dtype=bool), axis=1)


def _centres(boxes: NDArray) -> NDArray[np.float64]:
    return boxes[:, :2].astype(np.float64) + boxes[:, 2:] / 2


def _sizes(boxes: NDArray) -> NDArray[np.float64]:
    return np.sqrt(np.maximum(boxes[:, 2:].astype(np.float64).prod(1), 1.0))


def _looks(thumbnails: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Unit vectors (n, 768) whose scalar product is the correlation of thumbnails (n, 16, 16, 3).

    In clips of six people it differed from 1 by at most .09 from frame to frame and .12 within a clip,
    between two similar women by .21, between others by .59 and more.
    """
    flat = thumbnails.reshape(len(thumbnails), math.prod(thumbnails.shape[1:])).astype(np.float32)
    flat = flat - flat.mean(1, keepdims=True) if len(flat) else flat
    return flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-6)
