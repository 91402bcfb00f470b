"""Reading and writing of videos with the true times of their frames: the only module that imports PyAV."""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from abaw.errors import AbawError
from abaw.files import atomic_path

_COPIED_AUDIO = {"aac", "mp3", "opus", "ac3", "eac3", "flac", "alac"}  # that players accept in an MP4
_LOST_SHARE, _LOST_FRAMES = 0.01, 2  # a video that ends earlier than this is truncated


@dataclass(frozen=True, eq=False)
class VideoFrame:
    """A frame of a video.

    Attributes:
        number: From 0.
        timestamp: Presentation time in seconds; NaN if the frames have none.
        pixels: uint8 (H, W, 3), RGB, upright; None: the frame has no image.
        pts: Presentation time in units of the stream; -1: unknown.
    """

    number: int
    timestamp: float
    pixels: NDArray[np.uint8] | None
    pts: int = -1


class VideoFile:
    """Reader of a video file in any container that FFmpeg reads, in bounded memory.

    Times are the presentation times of the container, also with a variable frame rate; frames are rotated
    as the file says.

    Raises:
        AbawError: PyAV is missing, or the file is empty, damaged or has no video.
    """

    aligned = False

    def __init__(self, path: Path) -> None:
        self.path, self.name, self.problem = path, path.stem, ""
        with self._open() as container:
            stream = _video_stream(path, container)
            rate = stream.average_rate or stream.guessed_rate
            self.fps: float | None = float(rate) if rate else None
            self._n_stated = stream.frames
            self.n_frames: int | None = stream.frames or None
            if self.n_frames is None and self.fps and container.duration:
                self.n_frames = round(container.duration / 1e6 * self.fps)

    def _open(self) -> Any:
        av = import_av()
        if self.path.stat().st_size == 0:
            raise AbawError(f"{self.path}: the file is empty; copy it again")
        try:
            return av.open(str(self.path))
        except (av.FFmpegError, OSError) as error:
            raise AbawError(
                f"{self.path}: cannot be read as a video ({_reason(error)}); give a video, an image, or a"
                " folder of images"
            ) from error

    def read(self, every: int = 1, after: VideoFrame | None = None) -> Iterator[VideoFrame]:
        """Every `every`-th frame, from number 0 or from the first after `after`; see `Reader`."""
        with self._open() as container:
            stream = _video_stream(self.path, container)
            stream.thread_type = "AUTO"
            start = -1
            seeks = after is not None and after.pts >= 0
            if seeks:
                assert after is not None
                start = after.pts
                container.seek(start, stream=stream, backward=True)
            number, end = (after.number + 1 if seeks and after else 0), 0.0
            self._n_broken = self._n_discarded = 0
            for frame in self._decode(container, stream):
                pts = -1 if frame.pts is None else frame.pts
                if seeks and pts <= start:
                    continue
                seconds = math.nan if frame.pts is None else float(frame.pts * stream.time_base)
                end = seconds
                if number % every == 0 and (after is None or number > after.number):
                    yield VideoFrame(number, seconds, _upright(frame), pts)
                number += 1
            self._check_end(container, stream, number, end)

    def _decode(self, container: Any, stream: Any) -> Iterator[Any]:
        """The frames; counts packets that cannot be decoded, and those that an edit list leaves out."""
        av = import_av()
        packets = container.demux(stream)
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                return
            except (av.FFmpegError, OSError):  # the container ends here
                self._n_broken += 1
                return
            self._n_discarded += packet.is_discard
            try:
                yield from packet.decode()
            except av.FFmpegError:
                self._n_broken += 1

    def _check_end(self, container: Any, stream: Any, number: int, end: float) -> None:
        """Sets `problem` if frames are missing."""
        if number == 0:
            raise AbawError(f"{self.path}: no frame of the video can be decoded; copy it again")
        duration, tolerance = _duration(container, stream)
        begins = float(stream.start_time * stream.time_base) if stream.start_time else 0.0
        n_expected = self._n_stated - self._n_discarded  # after a seek, frames before it count as decoded
        if self.fps and n_expected:  # FFmpeg estimates the duration of an AVI from what is there
            duration = max(duration, n_expected / self.fps)
        lost = begins + duration - end - 1 / (self.fps or 25)  # seconds; NaN if a time is unknown
        if lost > max(tolerance, _LOST_SHARE * duration, _LOST_FRAMES / (self.fps or 25)):
            if number < n_expected:
                self.problem = f"is truncated: {number:,} of {n_expected:,} frames are there"
            else:
                self.problem = f"is truncated: it ends after {end:.1f} of {begins + duration:.1f} seconds"
        elif self._n_broken:
            self.problem = f"is damaged: {self._n_broken:,} packets cannot be decoded"


def _duration(container: Any, stream: Any) -> tuple[float, float]:
    """The stated duration of the video in seconds, NaN if unknown, and how much it may be too long."""
    if stream.duration:
        return float(stream.duration * stream.time_base), 0.0
    if stated := re.fullmatch(r"(\d+):(\d+):([\d.]+)", stream.metadata.get("DURATION", "")):
        hours, minutes, seconds = map(float, stated.groups())
        return hours * 3600 + minutes * 60 + seconds, 0.0
    if not container.duration:
        return math.nan, 0.0
    seconds = container.duration / 1e6  # of the longest stream
    return seconds, 1.0 if not container.streams.audio else 1.0 + 0.05 * seconds


def _video_stream(path: Path, container: Any) -> Any:
    covers = import_av().stream.Disposition.attached_pic
    streams = [stream for stream in container.streams.video if not stream.disposition & covers]
    if not streams:
        raise AbawError(f"{path}: has no video, only {_kinds(container)}; give a video or images")
    return streams[0]


def _kinds(container: Any) -> str:
    return " and ".join(sorted({stream.type for stream in container.streams})) or "unknown data"


def _upright(frame: Any) -> NDArray[np.uint8]:
    """The pixels uint8 (H, W, 3), RGB, rotated as the file says."""
    pixels = frame.to_ndarray(format="rgb24")
    quarters = round(frame.rotation / 90) % 4
    return np.ascontiguousarray(np.rot90(pixels, quarters)) if quarters else pixels


def import_av() -> Any:
    """PyAV.

    Raises:
        AbawError: It cannot be imported.
    """
    try:
        import av
    except ImportError as error:
        raise AbawError(f"PyAV, which reads videos, cannot be imported ({error}); pip install av") from error
    return av


def _reason(error: BaseException) -> str:
    text = getattr(error, "strerror", None) or str(error)
    return text.partition("\n")[0][:120]


class VideoWriter:
    """Writer of an H.264 video with the times of its frames, and the audio of another file.

    The video begins at time 0. Use it as a context: the file appears when it is complete.

    Args:
        path: The MP4 file.
        size: Width and height in pixels, even.
        audio_from: File whose audio is copied, or encoded as AAC if an MP4 cannot hold it; None: no audio.
        begins: Time in seconds that becomes 0.
    """

    _TIME_BASE = Fraction(1, 90_000)

    def __init__(
        self, path: Path, size: tuple[int, int], *, audio_from: Path | None = None, begins: float = 0.0
    ) -> None:
        self._atomic = atomic_path(path)
        self._size, self._audio_from, self._begins = size, audio_from, begins
        self._last = -1

    def __enter__(self) -> "VideoWriter":
        av = import_av()
        self._container = av.open(str(self._atomic.__enter__()), "w", format="mp4")
        self._video = self._container.add_stream("libx264", rate=30)
        self._video.width, self._video.height = self._size
        self._video.pix_fmt, self._video.time_base = "yuv420p", self._TIME_BASE
        self._video.codec_context.time_base = self._TIME_BASE
        self._video.options = {"preset": "veryfast", "crf": "21"}
        self._source: Any = None
        self._audio: Any = None
        self._encoder: Any = None
        if self._audio_from is not None:
            self._open_audio(av)
        return self

    def _open_audio(self, av: Any) -> None:
        source = av.open(str(self._audio_from))
        if not source.streams.audio:
            source.close()
            return
        stream = source.streams.audio[0]
        self._source, self._packets = source, source.demux(stream)
        if stream.codec_context.name in _COPIED_AUDIO:
            self._audio = self._container.add_stream_from_template(stream)
        else:
            self._encoder = self._container.add_stream("aac", rate=stream.rate)
        self._pending: Any = None

    def write(self, seconds: float, pixels: NDArray[np.uint8]) -> None:
        """Adds a frame uint8 (H, W, 3), RGB; its time in seconds is moved after the last one's if needed."""
        frame = import_av().VideoFrame.from_ndarray(pixels, format="rgb24")
        self._last = max(round((seconds - self._begins) / self._TIME_BASE), self._last + 1)
        frame.pts, frame.time_base = self._last, self._TIME_BASE
        self._container.mux(self._video.encode(frame))
        self._copy_audio(seconds - self._begins)

    def _copy_audio(self, until: float) -> None:
        """Adds the audio up to a time of the new video, so that the file is interleaved."""
        while self._source is not None:
            packet = self._pending if self._pending is not None else next(self._packets, None)
            self._pending = None
            if packet is None or packet.dts is None:
                self._close_audio()
                return
            if float(packet.dts * packet.time_base) - self._begins > until:
                self._pending = packet
                return
            self._add_audio(packet)

    def _add_audio(self, packet: Any) -> None:
        offset = round(self._begins / packet.time_base)
        if self._audio is not None:
            packet.pts, packet.dts = packet.pts - offset, packet.dts - offset
            if offset == 0 or packet.pts >= 0:
                packet.stream = self._audio
                self._container.mux(packet)
            return
        for frame in packet.decode():
            frame.pts = None if frame.pts is None else max(frame.pts - offset, 0)
            self._container.mux(self._encoder.encode(frame))

    def _close_audio(self) -> None:
        if self._encoder is not None:
            self._container.mux(self._encoder.encode(None))
        self._source.close()
        self._source = None

    def __exit__(self, *error: Any) -> None:
        try:
            if error[0] is None:
                self._copy_audio(math.inf)
                self._container.mux(self._video.encode(None))
        finally:
            if self._source is not None:
                self._source.close()
            self._container.close()
        self._atomic.__exit__(*error)
