"""Video files for tests: any frame times, rotation and audio; scenes of faces on a plain background."""

import math
import struct
from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np

TIME_BASE = Fraction(1, 1000)


def write_video(
    path: Path,
    frames: Iterable[np.ndarray],
    times: Iterable[float] | None = None,
    *,
    fps: float = 25.0,
    audio: bool = False,
    crf: int = 12,
) -> Path:
    """Writes frames uint8 (H, W, 3), RGB, at times in seconds, default: regular ones, as H.264."""
    container = av.open(str(path), "w")
    base = Fraction(1, round(fps)) if path.suffix == ".avi" else TIME_BASE  # an AVI counts frames
    stream = None
    for number, pixels in enumerate(frames):
        if stream is None:
            stream = container.add_stream("libx264", rate=round(fps))
            stream.height, stream.width = pixels.shape[:2]
            stream.pix_fmt, stream.time_base = "yuv420p", base
            stream.codec_context.time_base = base
            stream.options = {"preset": "ultrafast", "crf": str(crf), "g": "25"}
            sound = container.add_stream("aac", rate=16000) if audio else None
            moments = iter(times) if times is not None else None
        seconds = number / fps if moments is None else next(moments)
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
        frame.pts, frame.time_base = round(seconds / base), base
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))
    if sound is not None:
        n = round((number + 1) / fps * 16000)
        wave = (np.sin(np.arange(n) / 16000 * 2 * math.pi * 440) * 8000).astype(np.int16)
        for first in range(0, n - 1024, 1024):
            piece = av.AudioFrame.from_ndarray(wave[None, first : first + 1024], format="s16", layout="mono")
            piece.sample_rate, piece.pts, piece.time_base = 16000, first, Fraction(1, 16000)
            container.mux(sound.encode(piece))
        container.mux(sound.encode(None))
    container.close()
    return path


def rotate_video(path: Path, degrees: int) -> None:
    """Sets the rotation in an MP4 file, as a phone does: players turn the picture clockwise by `degrees`."""
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4
    matrix = at + 4 + 8 + 4 + 4 + 4 + 8 + 2 + 2 + 2 + 2  # version 0: times, id, duration, layer, volume
    cos, sin = round(math.cos(math.radians(degrees))), round(math.sin(math.radians(degrees)))
    one = 1 << 16
    struct.pack_into(">9i", data, matrix, cos * one, sin * one, 0, -sin * one, cos * one, 0, 0, 0, 1 << 30)
    path.write_bytes(data)


def background(width: int = 640, height: int = 360, tone: int = 110) -> np.ndarray:
    """A plain background with soft shading, uint8 (H, W, 3)."""
    x, y = np.meshgrid(np.linspace(-20, 20, width), np.linspace(-15, 15, height))
    return np.clip(tone + x + y, 0, 255).astype(np.uint8)[..., None].repeat(3, -1)


def cut_faces(pixels: np.ndarray, boxes: np.ndarray, height: int = 130) -> list[np.ndarray]:
    """The heads of a picture, from boxes (n, 4), each resized to a height in pixels."""
    heads = []
    for left, top, width, tall in boxes:
        x0, x1 = round(max(left - width * 0.35, 0)), round(left + width * 1.35)
        y0, y1 = round(max(top - tall * 0.35, 0)), round(top + tall * 1.2)
        head = pixels[y0:y1, x0:x1]
        size = (round(head.shape[1] * height / head.shape[0]), height)
        heads.append(cv2.resize(head, size, interpolation=cv2.INTER_AREA))
    return heads


def place(scene: np.ndarray, head: np.ndarray, x: float, y: float) -> None:
    """Draws a head into a scene, in place, as an ellipse around its centre (x, y)."""
    height, width = head.shape[:2]
    left, top = round(x - width / 2), round(y - height / 2)
    mask = np.zeros((height, width), np.uint8)
    cv2.ellipse(mask, (width // 2, height // 2), (width // 2 - 2, height // 2 - 2), 0, 0, 360, 255, -1)
    x0, y0 = max(left, 0), max(top, 0)
    x1, y1 = min(left + width, scene.shape[1]), min(top + height, scene.shape[0])
    if x0 >= x1 or y0 >= y1:
        return
    inside = (slice(y0 - top, y1 - top), slice(x0 - left, x1 - left))
    view = scene[y0:y1, x0:x1]
    view[mask[inside] > 0] = head[inside][mask[inside] > 0]


def scenes(
    n_frames: int, people: Sequence[tuple[np.ndarray, object]], *, tones: Sequence[int] = (110,)
) -> Iterable[np.ndarray]:
    """Frames with people: pairs of a head and a function from the frame number to (x, y), or None if absent.

    Later people are in front. `tones`: brightness of the background, of equally long shots.
    """
    for number in range(n_frames):
        scene = background(tone=tones[number * len(tones) // n_frames]).copy()
        for head, path in people:
            at = path(number)  # type: ignore[operator]
            if at is not None:
                place(scene, head, *at)
        yield scene
