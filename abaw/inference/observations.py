"""Observation of a video: decoding, cuts and detected faces in threads, and a journal of them on disk."""

import json
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from abaw.data.formats.arrays import DamagedFileError, open_arrays, write_arrays
from abaw.inference.faces import Detections
from abaw.inference.identities import CutDetector
from abaw.inference.inputs import Reader
from abaw.inference.video import VideoFrame

CHUNK = 64
"""Number of frames that are encoded together and kept together."""
_AHEAD = 2  # decoded frames that wait for detection, per thread; a frame in 4K takes 25 MB

Item = TypeVar("Item")


@dataclass(frozen=True, eq=False)
class Observation:
    """A frame and its faces.

    Attributes:
        frame: The frame; without pixels if it comes from a journal.
        detections: Its faces; None if they were not searched for.
        cut: Whether a new shot begins with it.
    """

    frame: VideoFrame
    detections: Detections | None
    cut: bool

    def without_pixels(self) -> "Observation":
        """The observation with an empty image in place of its image."""
        if self.frame.pixels is None:
            return self
        return replace(self, frame=replace(self.frame, pixels=_NO_PIXELS))


class StageClock:
    """Seconds of each stage, of all its threads together, and of the whole.

    Attributes:
        seconds: By stage.
        total: Seconds from begin to end.
        frames: Number of frames that were observed, without those of a journal.
    """

    def __init__(self) -> None:
        self.total, self.frames = 0.0, 0
        self.seconds: dict[str, float] = dict.fromkeys(("decode", "detect", "align", "network", "write"), 0.0)
        self._lock = threading.Lock()

    @contextmanager
    def time(self, stage: str) -> Iterator[None]:
        """Context whose time is added to a stage."""
        start = time.perf_counter()
        try:
            yield
        finally:
            with self._lock:
                self.seconds[stage] += time.perf_counter() - start

    @contextmanager
    def running(self) -> Iterator[None]:
        """Context of the whole."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.total += time.perf_counter() - start


@dataclass(eq=False)
class Observer:
    """Decodes a video and detects its faces, in threads that run ahead of the caller.

    Attributes:
        reader: The video.
        detectors: One detector per thread; empty if the frames are aligned crops.
        every: Distance between the frames, in frames of the video.
        detect_every: Distance between frames with detection, in frames of the analysis.
        clock: Takes the time.
    """

    reader: Reader
    detectors: list[Callable[[NDArray[np.uint8]], Detections]]
    every: int = 1
    detect_every: int = 1
    clock: StageClock = field(default_factory=StageClock)

    def observe(self, last: list[VideoFrame]) -> Iterator[Observation]:
        """The observations of all frames, or of those after the last of a journal.

        Args:
            last: The last two frames of the journal, or as many as it has.
        """
        with ThreadPoolExecutor(max(len(self.detectors), 1), "detect") as pool:
            pending: deque[tuple[VideoFrame, bool, Future[Detections] | None]] = deque()
            free: queue.SimpleQueue[Any] = queue.SimpleQueue()
            for detector in self.detectors:
                free.put(detector)

            def detect(pixels: NDArray[np.uint8]) -> Detections:
                detector = free.get()
                try:
                    with self.clock.time("detect"):
                        return detector(pixels)
                finally:
                    free.put(detector)

            ahead = _AHEAD * max(len(self.detectors), 1)
            for frame, cut in in_background(self._decoded(last), ahead):
                found = None
                if self.detectors and frame.pixels is not None and (cut or self._has_turn(frame)):
                    found = pool.submit(detect, frame.pixels)
                pending.append((frame, cut, found))
                if len(pending) >= ahead:
                    yield _observed(*pending.popleft())
            while pending:
                yield _observed(*pending.popleft())

    def _has_turn(self, frame: VideoFrame) -> bool:
        return (frame.number // self.every) % self.detect_every == 0

    def _decoded(self, last: list[VideoFrame]) -> Iterator[tuple[VideoFrame, bool]]:
        """The frames, and whether a shot begins; the first is compared with the last of the journal."""
        cuts = CutDetector() if self.detectors else None
        after = last[0] if len(last) == 2 else None
        frames = self.reader.read(self.every, after)
        while True:
            with self.clock.time("decode"):
                frame = next(frames, None)
                if frame is None:
                    return
                cut = cuts is not None and frame.pixels is not None and cuts(frame.pixels)
            if not last or frame.number > last[-1].number:
                self.clock.frames += 1
                yield frame, cut


def _observed(frame: VideoFrame, cut: bool, found: "Future[Detections] | None") -> Observation:
    return Observation(frame, None if found is None else found.result(), cut)


def in_background(items: Iterable[Item], size: int) -> Iterator[Item]:
    """The items of an iterable, computed in a thread that is at most `size` items ahead."""
    buffer: queue.Queue[tuple[str, Any]] = queue.Queue(size)
    stopped = threading.Event()

    def put(kind: str, value: Any) -> None:
        while not stopped.is_set():
            with suppress(queue.Full):
                buffer.put((kind, value), timeout=0.1)
                return

    def produce() -> None:
        try:
            for item in items:
                put("item", item)
                if stopped.is_set():
                    return
            put("end", None)
        except BaseException as error:  # raised again in the thread that reads the items
            put("error", error)

    thread = threading.Thread(target=produce, name="decode", daemon=True)
    thread.start()
    try:
        while True:
            kind, value = buffer.get()
            if kind == "item":
                yield value
            elif kind == "error":
                raise value
            else:
                return
    finally:
        stopped.set()
        thread.join()


@dataclass(frozen=True, eq=False)
class ObservedChunk:
    """Consecutive observations, and the features of all their crops.

    Attributes:
        observations: Up to `CHUNK` of them.
        features: float32 (n_crops, D), in the order in which the faces were cropped.
    """

    observations: list[Observation]
    features: NDArray[np.float32]


class Journal:
    """Chunks of an unfinished analysis on disk, one file each, so that it can continue after a stop.

    Args:
        folder: Folder of the files; it is created with the first one.
        fingerprint: Of input, network and settings; chunks with another one are not used.
    """

    def __init__(self, folder: Path, fingerprint: str) -> None:
        self.folder, self.fingerprint = folder, fingerprint
        self._n = 0

    def read(self) -> Iterator[ObservedChunk]:
        """The complete chunks from the first on; later ones that do not follow on them are ignored."""
        while True:
            try:
                arrays, metadata = open_arrays(self._path(self._n), verify=True)
            except (OSError, DamagedFileError):
                return
            if json.loads(metadata) != self.fingerprint:
                return
            self._n += 1
            yield _chunk_of(arrays)

    def append(self, chunk: ObservedChunk) -> None:
        """Writes the next chunk.

        Raises:
            AbawError: The disk is full, or the folder cannot be written.
        """
        write_arrays(self._path(self._n), _arrays_of(chunk), json.dumps(self.fingerprint))
        self._n += 1

    def remove(self) -> None:
        """Deletes all chunks."""
        for path in self.folder.glob("*.safetensors"):
            path.unlink()
        with suppress(OSError):  # it does not exist, or holds files of others
            self.folder.rmdir()

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:06d}.safetensors"


def _arrays_of(chunk: ObservedChunk) -> dict[str, list[NDArray[Any]]]:
    frames = [each.frame for each in chunk.observations]
    found = [each.detections for each in chunk.observations]
    faces = [Detections.none() if each is None else each for each in found]
    flags = [
        [frame.pixels is not None, each.cut, each.detections is not None]
        for frame, each in zip(frames, chunk.observations, strict=True)
    ]
    return {
        "number": [np.array([frame.number for frame in frames], np.int64)],
        "pts": [np.array([frame.pts for frame in frames], np.int64)],
        "timestamp": [np.array([frame.timestamp for frame in frames]).view(np.int64)],
        "n_faces": [np.array([len(each) for each in faces], np.int64)],
        "flags": [np.array(flags, np.uint8)],
        "boxes": [each.boxes for each in faces],
        "landmarks": [each.landmarks for each in faces],
        "scores": [each.scores for each in faces],
        "thumbnails": [each.thumbnails for each in faces],
        "features": [chunk.features],
    }


def _chunk_of(arrays: dict[str, NDArray[Any]]) -> ObservedChunk:
    ends = np.cumsum(arrays["n_faces"]).tolist()
    observations = []
    for k, (number, seconds, pts) in enumerate(
        zip(arrays["number"], arrays["timestamp"].view(np.float64), arrays["pts"], strict=True)
    ):
        has_image, cut, searched = map(bool, arrays["flags"][k])
        rows = slice(ends[k - 1] if k else 0, ends[k])
        faces = Detections(*(arrays[name][rows] for name in ("boxes", "landmarks", "scores", "thumbnails")))
        frame = VideoFrame(int(number), float(seconds), _NO_PIXELS if has_image else None, int(pts))
        observations.append(Observation(frame, faces if searched else None, cut))
    return ObservedChunk(observations, arrays["features"])


_NO_PIXELS = np.empty((0, 0, 3), np.uint8)  # of a frame whose crops are in the journal as features
