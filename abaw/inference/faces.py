"""Face detection with five landmarks, and alignment to the template of the training crops."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from abaw.errors import AbawError, UsageError
from abaw.files import delete_unless, from_hub

HUB_REPOSITORY = "opencv/face_detection_yunet"
HUB_FILE = "face_detection_yunet_2023mar.onnx"
SHA256 = "8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4"
TEMPLATE_SIZE = 112
TEMPLATE = np.array(
    [(38.2946, 51.6963), (73.5318, 51.5014), (56.0252, 71.7366), (41.5493, 92.3655), (70.7299, 92.2041)],
    np.float64,
)
"""Landmarks (5, 2) in a crop of 112 x 112 pixels, as in the `cropped_aligned` images of Aff-Wild2 (inferred):
the left and the right eye in the image, the nose, the left and the right corner of the mouth."""
THUMBNAIL = 16
"""Side of the thumbnails by which faces are compared, in pixels."""

SMOOTHING = 1.0
"""Cutoff frequency in Hz of the smoothing of a face at rest."""

_BETA = 3.0  # Hz per face size (or radian, or factor of e) per second
_WEAKEST = 0.3  # score of the weakest detections that are reported
_THUMBNAIL_MARGIN = 1.33  # side of the region, relative to the size of the box
_THUMBNAIL_WARP = 64  # thumbnails are reduced from this size, without aliasing


class NoDetectorError(AbawError):
    """The file of the face detector is missing, and could not be downloaded."""


@dataclass(frozen=True, eq=False)
class Detections:
    """The faces of one frame, in the order of the detector.

    Attributes:
        boxes: float32 (n, 4): left, top, width, height in pixels of the frame.
        landmarks: float32 (n, 5, 2), in the order of `TEMPLATE`.
        scores: float32 (n,), in [0, 1].
        thumbnails: uint8 (n, 16, 16, 3), RGB, squares around the boxes.
    """

    boxes: NDArray[np.float32]
    landmarks: NDArray[np.float32]
    scores: NDArray[np.float32]
    thumbnails: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.scores)

    @classmethod
    def none(cls) -> "Detections":
        """No face."""
        f = np.float32
        side = THUMBNAIL
        return cls(
            np.empty((0, 4), f),
            np.empty((0, 5, 2), f),
            np.empty(0, f),
            np.empty((0, side, side, 3), np.uint8),
        )


def find_detector(path: Path | None) -> Path:
    """The file of the face detector YuNet: as given, or from the Hugging Face hub, checked and cached.

    Args:
        path: The file; None: that of the local cache, downloaded if it is not there.

    Raises:
        UsageError: There is no such file.
        NoDetectorError: The hub cannot be reached, or the file has another hash than the published one.
    """
    if path is not None:
        if not path.is_file():
            raise UsageError(f"--detector {path}: there is no such file; give {HUB_FILE} of {HUB_REPOSITORY}")
        return path
    try:
        found, _ = from_hub(HUB_REPOSITORY, HUB_FILE)
    except ConnectionError as error:
        reason = str(error).splitlines()[0][:120]
        raise NoDetectorError(
            f"the face detector {HUB_FILE} is not in the local cache, and {HUB_REPOSITORY} could not be"
            f" downloaded from the Hugging Face hub ({reason}); download it where there is a network, and"
            " give the file with --detector PATH"
        ) from error
    if (other := delete_unless(found, SHA256)) is not None:
        raise NoDetectorError(
            f"{found}: has SHA-256 {other[:12]}… instead of {SHA256[:12]}… as published by {HUB_REPOSITORY},"
            " and was deleted; try again, or give the file with --detector PATH"
        )
    return found


class FaceDetector:
    """OpenCV's YuNet: boxes, five landmarks and scores of all faces of a frame.

    An object is for one thread. Frames are reduced to `max_side` before detection, which finds faces from
    about 10 pixels there.

    Args:
        path: The ONNX file.
        max_side: Longer side of the reduced frame, in pixels.

    Raises:
        UsageError: The file is not a YuNet model.
    """

    def __init__(self, path: Path, *, max_side: int = 640) -> None:
        self.max_side = max_side
        level = cv2.utils.logging.getLogLevel()  # type: ignore[attr-defined]
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)  # type: ignore[attr-defined]
        try:  # OpenCV 5 warns about targets that are not used
            self._net = cv2.FaceDetectorYN.create(str(path), "", (320, 320), score_threshold=_WEAKEST)
            self._net.detect(np.zeros((320, 320, 3), np.uint8))
        except (cv2.error, SystemError) as error:
            raise UsageError(
                f"--detector {path}: cannot be used as a YuNet face detector; give {HUB_FILE} of"
                f" {HUB_REPOSITORY}"
            ) from error
        finally:
            cv2.utils.logging.setLogLevel(level)  # type: ignore[attr-defined]

    def __call__(self, pixels: NDArray[np.uint8]) -> Detections:
        """The faces of a frame uint8 (H, W, 3), RGB."""
        height, width = pixels.shape[:2]
        scale = min(self.max_side / max(height, width), 1.0)
        size = (max(round(width * scale), 1), max(round(height * scale), 1))
        small = pixels if scale == 1 else cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
        self._net.setInputSize(size)
        found = self._net.detect(cv2.cvtColor(small, cv2.COLOR_RGB2BGR))[1]
        if found is None:
            return Detections.none()
        factor = np.array([width / size[0], height / size[1]], np.float32)  # per axis: sizes are rounded
        boxes = (found[:, :4].reshape(-1, 2, 2) * factor).reshape(-1, 4).astype(np.float32)
        # YuNet names the person's right eye first, which is the left one in the image
        landmarks = (found[:, 4:14].reshape(-1, 5, 2) * factor).astype(np.float32)
        thumbnails = np.stack([_thumbnail(pixels, each) for each in boxes])
        return Detections(boxes, landmarks, np.clip(found[:, 14], 0, 1).astype(np.float32), thumbnails)


def _thumbnail(pixels: NDArray[np.uint8], box: NDArray[np.float32]) -> NDArray[np.uint8]:
    """The face with some hair, upright: the box is steadier than the landmarks."""
    side = _THUMBNAIL_MARGIN * max(math.sqrt(box[2] * box[3]), 1.0)
    scale = TEMPLATE_SIZE / side
    left, top = box[:2] + box[2:] / 2 - side / 2
    region = warp(pixels, Similarity(scale, 0.0, (-scale * left, -scale * top)), _THUMBNAIL_WARP)
    return cv2.resize(region, (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA)  # type: ignore[return-value]


@dataclass(frozen=True)
class Similarity:
    """Similarity transform from a frame to the template: `x -> scale * R(angle) @ x + shift`.

    Attributes:
        scale: Pixels of the template per pixel of the frame.
        angle: Rotation in radians.
        shift: Translation (x, y) in pixels of the template.
    """

    scale: float
    angle: float
    shift: tuple[float, float]

    @property
    def matrix(self) -> NDArray[np.float64]:
        """The transform as an affine matrix, (2, 3)."""
        cos, sin = self.scale * np.cos(self.angle), self.scale * np.sin(self.angle)
        return np.array([[cos, -sin, self.shift[0]], [sin, cos, self.shift[1]]])


def similarity(landmarks: NDArray[Any], template: NDArray[Any] = TEMPLATE) -> Similarity:
    """The similarity that maps landmarks to the template with the least squared error, without reflection.

    Source: Umeyama, "Least-squares estimation of transformation parameters between two point patterns",
    PAMI 1991.

    Args:
        landmarks: (n, 2), n >= 2, in pixels of the frame.
        template: (n, 2), in pixels of the crop.

    Raises:
        ValueError: All landmarks are the same point.
    """
    points, target = (np.asarray(p, np.float64) for p in (landmarks, template))
    a, b = ((p - p.mean(0)) @ np.array([1, 1j]) for p in (points, target))  # as complex numbers
    power = float((abs(a) ** 2).sum())
    if power == 0:
        raise ValueError("all landmarks are the same point")
    factor = complex((a.conj() * b).sum() / power)  # scale and rotation
    scale, angle = abs(factor), float(np.angle(factor))
    rotated = Similarity(scale, angle, (0.0, 0.0)).matrix[:, :2] @ points.mean(0)
    x, y = target.mean(0) - rotated
    return Similarity(scale, angle, (float(x), float(y)))


def warp(pixels: NDArray[np.uint8], transform: Similarity, size: int) -> NDArray[np.uint8]:
    """The aligned crop of a face, uint8 (size, size, 3).

    Args:
        pixels: The frame, uint8 (H, W, 3).
        transform: Similarity from the frame to the template of 112 x 112 pixels.
        size: Side of the crop, in pixels.
    """
    ratio = size / TEMPLATE_SIZE
    # centres of pixels: coordinate x of the template is (x + .5) * ratio - .5 in a crop of another size
    matrix = transform.matrix * ratio
    matrix[:, 2] += 0.5 * ratio - 0.5
    reduction = int(1 / max(transform.scale * ratio, 1e-6))
    if reduction >= 2:  # bilinear interpolation would skip pixels of a large face
        height, width = pixels.shape[0] // reduction, pixels.shape[1] // reduction
        if min(height, width):
            whole = pixels[: height * reduction, : width * reduction]
            pixels = cv2.resize(whole, (width, height), interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
            matrix[:, 2] += matrix[:, :2] @ np.full(2, 0.5 * reduction - 0.5)
            matrix[:, :2] *= reduction
    return cv2.warpAffine(pixels, matrix, (size, size), flags=cv2.INTER_LINEAR)  # type: ignore[return-value]


class OneEuro:
    """One-Euro filter: smooth while a signal is still, quick to follow while it moves.

    Source: Casiez, Roussel, Vogel, "1€ Filter" (CHI 2012).

    Args:
        min_cutoff: Cutoff frequency in Hz of a signal at rest.
        beta: Increase of the cutoff in Hz per unit per second of speed.
    """

    def __init__(self, min_cutoff: float, beta: float) -> None:
        self.min_cutoff, self.beta = min_cutoff, beta
        self._last: tuple[float, NDArray[np.float64], NDArray[np.float64]] | None = None

    def __call__(self, seconds: float, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """The smoothed values (n,) at a time; times must not decrease."""
        if self._last is None:
            self._last = seconds, values, np.zeros_like(values)
            return values
        before, smooth, speed = self._last
        dt = max(seconds - before, 1e-3)
        speed = speed + _weight(1.0, dt) * ((values - smooth) / dt - speed)
        weights = _weight(self.min_cutoff + self.beta * abs(speed), dt)
        smooth = smooth + weights * (values - smooth)
        self._last = seconds, smooth, speed
        return smooth


def _weight(cutoff: Any, dt: float) -> Any:
    """Weight of a new value in an exponential moving average with a cutoff frequency in Hz."""
    rate = 2 * np.pi * cutoff * dt
    return rate / (rate + 1)


class FaceAligner:
    """Similarity transforms of one face over time, smoothed by a One-Euro filter.

    Smoothed are the centre of the face and the logarithm of its size, relative to its size, and its angle.

    Args:
        template: Landmarks in the crop of 112 x 112 pixels, (5, 2).
        smoothing: Cutoff frequency in Hz for a face at rest, smaller is smoother; 0: no smoothing.
    """

    def __init__(self, template: NDArray[Any] = TEMPLATE, *, smoothing: float = SMOOTHING) -> None:
        self.template = template
        self._filter = OneEuro(smoothing, _BETA) if smoothing > 0 else None
        self._unit = 1.0  # size of the first face in pixels
        self._angle: float | None = None

    def __call__(self, seconds: float, landmarks: NDArray[Any]) -> Similarity:
        """The transform at a time, from landmarks (5, 2) in pixels of the frame."""
        found = similarity(landmarks, self.template)
        if self._filter is None:
            return found
        middle = np.asarray(self.template, np.float64).mean(0)
        linear = found.matrix[:, :2]
        centre = np.linalg.solve(linear, middle - found.shift)  # of the face, in the frame
        if self._angle is None:
            self._unit, self._angle = TEMPLATE_SIZE / found.scale, found.angle
        # unwrapped: an angle near pi may jump to -pi
        self._angle += float(np.angle(np.exp(1j * (found.angle - self._angle))))
        state = np.array([*(centre / self._unit), np.log(found.scale), self._angle])
        x, y, log_scale, angle = self._filter(seconds, state)
        smooth = Similarity(float(np.exp(log_scale)), float(angle), (0.0, 0.0))
        shift = middle - smooth.matrix[:, :2] @ (np.array([x, y]) * self._unit)
        return Similarity(smooth.scale, smooth.angle, (float(shift[0]), float(shift[1])))
