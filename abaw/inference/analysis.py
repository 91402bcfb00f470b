"""Analysis of a video: frames, faces, identities, crops, features and windows to the rows of a table."""

import math
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from abaw.data.processes import available_cores
from abaw.errors import check_settings
from abaw.evaluation.calibration import Calibration
from abaw.inference.faces import SMOOTHING, TEMPLATE, TEMPLATE_SIZE, FaceAligner, FaceDetector, warp
from abaw.inference.identities import MAX_GAP, IdentityTracker, TrackedFace
from abaw.inference.inputs import ASSUMED_FPS, Reader
from abaw.inference.observations import CHUNK, Journal, Observation, ObservedChunk, Observer, StageClock
from abaw.inference.rows import FaceRows, RowBuilder
from abaw.inference.sequences import FrameModel
from abaw.inference.video import VideoFrame

_MAX_DETECTORS = 4
_CHUNKS_AHEAD = 2  # chunks of crops that wait for the network


@dataclass(frozen=True, kw_only=True)
class AnalysisSettings:
    """Settings of an analysis that affect its result.

    Attributes:
        every: Analyse every N-th frame.
        detect_every: Detect faces in every N-th analysed frame; between, they move at constant velocity.
        max_gap: Seconds after which a face that re-appears is a new identity.
        smoothing: Cutoff frequency in Hz of the smoothing of crops, smaller is smoother; 0: none.
        max_side: Longer side of the frames in which faces are detected, in pixels.
        template: Landmarks in a crop of 112 x 112 pixels.
        crop_size: Side of the crops, in pixels.

    Raises:
        UsageError: A value is invalid.
    """

    every: int = 1
    detect_every: int = 1
    max_gap: float = MAX_GAP
    smoothing: float = SMOOTHING
    max_side: int = 640
    template: tuple[tuple[float, float], ...] = tuple((float(x), float(y)) for x, y in TEMPLATE)
    crop_size: int = TEMPLATE_SIZE

    def __post_init__(self) -> None:
        rules = {
            "every": (self.every >= 1, "a number of frames from 1"),
            "detect_every": (self.detect_every >= 1, "a number of frames from 1"),
            "max_gap": (self.max_gap >= 0, "a number of seconds from 0"),
            "smoothing": (self.smoothing >= 0, "a frequency in Hz from 0"),
            "max_side": (self.max_side >= 32, "a number of pixels from 32"),
            "crop_size": (self.crop_size >= 1, "a number of pixels from 1"),
        }
        check_settings("analyze", self, rules)


@dataclass(frozen=True, eq=False)
class _Followed:
    """An analysed frame without its pixels: its faces, and the identities that may continue."""

    seen: Observation
    faces: list[TrackedFace]
    active: tuple[int, ...]


class Analysis:
    """Analyses one video; iterating gives its rows as soon as they are final, in bounded memory.

    Decoding, detection and network run in threads of their own. After the iteration `clock` has the seconds
    of the stages.

    Args:
        reader: The video, images or aligned crops.
        model: Network with its windows.
        detector: File of the face detector; None only for aligned crops.
        settings: Settings.
        calibration: Calibration of all predictions; null: none. With it, rows come when an identity ends.
        journal: Where unfinished work is kept; null: nowhere.
        progress: Called with the number of frames after each chunk.
    """

    def __init__(
        self,
        reader: Reader,
        model: FrameModel,
        detector: Path | None,
        settings: AnalysisSettings | None = None,
        *,
        calibration: Calibration | None = None,
        journal: Journal | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> None:
        self.reader, self.model = reader, model
        self.settings = settings or AnalysisSettings()
        self.clock = StageClock()
        self._journal, self._progress = journal, progress
        self.n_threads = min(available_cores(), _MAX_DETECTORS)
        detectors: list[Any] = []
        if not reader.aligned:
            assert detector is not None
            detectors = [
                FaceDetector(detector, max_side=self.settings.max_side) for _ in range(self.n_threads)
            ]
        self._observer = Observer(
            reader, detectors, self.settings.every, self.settings.detect_every, self.clock
        )
        self._template = np.array(self.settings.template)
        self._identities = IdentityTracker(max_gap=self.settings.max_gap)
        self._aligners: dict[int, FaceAligner] = {}
        self._rows = RowBuilder(model, calibration)
        self._last: list[VideoFrame] = []  # the last two frames of the journal

    def __iter__(self) -> Iterator[FaceRows]:
        """The rows of all frames, in pieces."""
        n_cv_threads = cv2.getNumThreads()
        cv2.setNumThreads(1)  # detectors run side by side instead
        try:
            yield from self._replay()
            yield from self._analyse()
        finally:
            cv2.setNumThreads(n_cv_threads)
        if (rest := self._rows.finish()) is not None:
            yield rest

    def _replay(self) -> Iterator[FaceRows]:
        """The rows of the chunks in the journal."""
        for chunk in self._journal.read() if self._journal is not None else ():
            followed = [self._follow(each) for each in chunk.observations]
            self._last = (self._last + [each.frame for each in chunk.observations])[-2:]
            yield from self._add(followed, chunk.features)

    def _analyse(self) -> Iterator[FaceRows]:
        """The rows of the other frames; the network works on a chunk while the next one is observed."""
        waiting: deque[Future[list[FaceRows]]] = deque()
        with ThreadPoolExecutor(1, "network") as network:
            for followed, crops in self._chunks():
                waiting.append(network.submit(self._encode, followed, crops))
                while len(waiting) > _CHUNKS_AHEAD:
                    yield from waiting.popleft().result()
            while waiting:
                yield from waiting.popleft().result()

    def _chunks(self) -> Iterator[tuple[list[_Followed], list[NDArray[np.uint8]]]]:
        """Analysed frames and the crops of their faces."""
        followed: list[_Followed] = []
        crops: list[NDArray[np.uint8]] = []
        for seen in self._observer.observe(self._last):
            with self.clock.time("align"):
                followed.append(self._follow(seen, crops))
            if len(followed) == CHUNK:
                yield followed, crops
                followed, crops = [], []
        if followed:
            yield followed, crops

    def _follow(self, seen: Observation, crops: list[NDArray[np.uint8]] | None = None) -> _Followed:
        """Identifies the faces of a frame, and appends their crops to `crops`."""
        frame, active = seen.frame, self._identities.active
        if self.reader.aligned:
            faces, active = [self._aligned_face(frame)], (0,)
            if crops is not None and frame.pixels is not None:
                crops.append(frame.pixels)
        else:
            seconds = frame.timestamp if math.isfinite(frame.timestamp) else frame.number / ASSUMED_FPS
            if seen.detections is None:
                faces = self._identities.predict(seconds)
            else:
                faces = self._identities.update(seconds, seen.detections, cut=seen.cut)
            active = self._identities.active
            self._align(frame, seconds, faces, crops)
        return _Followed(seen.without_pixels(), faces, active)

    def _aligned_face(self, frame: VideoFrame) -> TrackedFace:
        width, height = (0, 0) if frame.pixels is None else frame.pixels.shape[1::-1]
        box = np.array([0, 0, width, height], np.float32)
        return TrackedFace(
            0, box, self._template.astype(np.float32), math.nan, visible=frame.pixels is not None
        )

    def _align(
        self,
        frame: VideoFrame,
        seconds: float,
        faces: list[TrackedFace],
        crops: list[NDArray[np.uint8]] | None,
    ) -> None:
        aligners = self._aligners
        self._aligners = {k: aligners[k] for k in self._identities.active if k in aligners}
        for face in faces:
            if face.restarts or face.id not in self._aligners:
                self._aligners[face.id] = FaceAligner(self._template, smoothing=self.settings.smoothing)
            transform = self._aligners[face.id](seconds, face.landmarks)
            if crops is not None:
                assert frame.pixels is not None
                crops.append(warp(frame.pixels, transform, self.settings.crop_size))

    def _encode(self, followed: list[_Followed], crops: list[NDArray[np.uint8]]) -> list[FaceRows]:
        """Encodes the crops of a chunk, keeps the features, and returns the rows that are final now."""
        with self.clock.time("network"):
            features = np.zeros((0, self.model.dim), np.float32)
            if crops:
                features = self.model.encode(np.stack(crops))
        if self._journal is not None:
            with self.clock.time("write"):
                self._journal.append(ObservedChunk([each.seen for each in followed], features))
        with self.clock.time("network"):
            return list(self._add(followed, features))

    def _add(self, followed: list[_Followed], features: NDArray[np.float32]) -> Iterator[FaceRows]:
        done = 0
        for each in followed:
            n = sum(face.visible for face in each.faces)
            frame = each.seen.frame
            self._rows.add(frame.number, frame.timestamp, each.faces, features[done : done + n], each.active)
            done += n
        if self._progress is not None:
            self._progress(len(followed))
        if (rows := self._rows.pop()) is not None:
            yield rows
