"""Detection, alignment to the template, and smoothing."""

import hashlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from abaw.errors import AbawError, UsageError
from abaw.inference import faces
from abaw.inference.faces import (
    HUB_REPOSITORY,
    TEMPLATE,
    FaceAligner,
    FaceDetector,
    OneEuro,
    Similarity,
    find_detector,
    similarity,
    warp,
)
from abaw.inference.inputs import read_image
from abaw.inference.video import VideoFile
from tests.support.networks import unreachable
from tests.support.shared_media import DETECTOR, FIVE_FACES, NO_FACE, ONE_FACE, needs_media


def transform(scale: float, degrees: float, x: float, y: float) -> Similarity:
    return Similarity(scale, np.radians(degrees), (x, y))


def applied(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    return points @ matrix[:, :2].T + matrix[:, 2]


@pytest.mark.parametrize("degrees", [0, 17, -40, 95, 180])
@pytest.mark.parametrize("scale", [0.2, 1.0, 3.0])
def test_a_known_similarity_is_found(degrees: float, scale: float) -> None:
    known = transform(scale, degrees, 30, -12)
    landmarks = applied(np.linalg.inv(np.vstack([known.matrix, [0, 0, 1]]))[:2], TEMPLATE)
    found = similarity(landmarks)
    np.testing.assert_allclose(found.matrix, known.matrix, atol=1e-9)
    np.testing.assert_allclose(applied(found.matrix, landmarks), TEMPLATE, atol=1e-9)


def test_it_is_the_best_in_the_least_squares_sense() -> None:
    landmarks = TEMPLATE + np.random.default_rng(0).normal(0, 4, TEMPLATE.shape)
    found = similarity(landmarks)

    def error(matrix: np.ndarray) -> float:
        return float(((applied(matrix, landmarks) - TEMPLATE) ** 2).sum())

    for change in ((1.01, 0, 0, 0), (0.99, 0, 0, 0), (1, 0.5, 0, 0), (1, 0, 0.3, 0), (1, 0, 0, -0.3)):
        scale, degrees, x, y = change
        other = Similarity(
            found.scale * scale, found.angle + np.radians(degrees), (found.shift[0] + x, found.shift[1] + y)
        )
        assert error(other.matrix) > error(found.matrix)
    with pytest.raises(ValueError, match="same point"):
        similarity(np.ones((5, 2)))


def picture(size: int = 200) -> np.ndarray:
    """A smooth picture with structure everywhere."""
    x, y = np.meshgrid(np.arange(size), np.arange(size))
    waves = [np.sin(x / 9 + k) + np.cos(y / (7 + k)) for k in range(3)]
    return np.clip(128 + 50 * np.stack(waves, -1), 0, 255).astype(np.uint8)


def test_a_crop_of_another_size_shows_the_same(tmp_path: Path) -> None:
    small, large = (warp(picture(), transform(1.0, 10, -40, -50), size) for size in (112, 224))
    reduced = cv2.resize(large, (112, 112), interpolation=cv2.INTER_AREA)
    assert np.abs(small.astype(int) - reduced)[2:-2, 2:-2].mean() < 2


def test_a_large_face_is_reduced_without_aliasing() -> None:
    fine = np.tile(np.array([[0, 255], [255, 0]], np.uint8), (400, 400))[..., None].repeat(3, -1)  # 800 x 800
    crop = warp(fine, transform(0.14, 0, 0, 0), 112)
    assert crop.std() < 20  # grey, not stripes


@pytest.mark.parametrize("degrees", [0, 25])
@pytest.mark.parametrize("scale", [0.6, 1.0, 2.5])
def test_crops_of_a_frame_and_of_its_similarity_agree(degrees: float, scale: float) -> None:
    original = picture(300)
    landmarks = TEMPLATE * 0.9 + 90
    moved = cv2.getRotationMatrix2D((150, 150), degrees, scale)
    size = round(300 * max(scale, 1))
    moved[:, 2] += size / 2 - 150
    other = cv2.warpAffine(original, moved, (size, size), flags=cv2.INTER_AREA)
    one = warp(original, similarity(landmarks), 112)
    two = warp(other, similarity(applied(moved, landmarks)), 112)
    shift, _ = cv2.phaseCorrelate(*(np.float32(crop.mean(-1)) for crop in (one, two)))
    assert np.hypot(*shift) < 1  # pixel
    assert np.abs(one.astype(int) - two).mean() < 6


def test_one_euro_smooths_rest_and_follows_motion() -> None:
    noise = np.random.default_rng(0).normal(0, 1, 200)
    still = OneEuro(1.0, 0.01)
    smooth = np.array([still(k / 30, np.array([x])) for k, x in enumerate(noise)])[:, 0]
    assert np.diff(smooth[50:]).std() < 0.25 * np.diff(noise[50:]).std()
    moving = OneEuro(1.0, 1.0)
    path = [float(moving(k / 30, np.array([k * 5.0]))[0]) for k in range(60)]
    assert abs(path[-1] - 59 * 5) < 5  # less than a frame late
    assert OneEuro(1.0, 0.0)(0.0, np.array([3.0]))[0] == 3.0


def noisy(n: int, seed: int = 0) -> np.ndarray:
    """Landmarks (n, 5, 2) of a face at rest, as a detector reports them."""
    return TEMPLATE * 1.5 + 60 + np.random.default_rng(seed).normal(0, 0.8, (n, 5, 2))


def corners(transforms: list[Similarity]) -> np.ndarray:
    """The corners of the crops in the frame, (n, 4, 2)."""
    square = np.array([(0, 0), (111, 0), (111, 111), (0, 111)], float)
    inverse = [np.linalg.inv(np.vstack([t.matrix, [0, 0, 1]]))[:2] for t in transforms]
    return np.stack([applied(matrix, square) for matrix in inverse])


def jitter(transforms: list[Similarity]) -> float:
    """Mean second difference of the corners, in pixels of the crop."""
    scale = np.mean([t.scale for t in transforms])
    return float(np.linalg.norm(np.diff(corners(transforms), 2, axis=0), axis=-1).mean() * scale)


def test_smoothing_takes_the_jitter_of_a_face_at_rest() -> None:
    raw, smooth = (
        [aligner(k / 30, points) for k, points in enumerate(noisy(90))]
        for aligner in (FaceAligner(smoothing=0), FaceAligner())
    )
    assert jitter(smooth) < 0.3 * jitter(raw)
    assert np.abs(corners(smooth)[30:].mean(0) - corners(raw)[30:].mean(0)).max() < 0.5


def test_a_head_that_turns_around_is_followed_past_180_degrees() -> None:
    aligner = FaceAligner()
    for k in range(60):
        angle = np.radians(150 + 2 * k)
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        points = (TEMPLATE - 56) @ turn.T + 200
        found = aligner(k / 30, points)
    late = np.angle(np.exp(1j * (found.angle - similarity(points).angle)))
    assert abs(np.degrees(late)) < 8


@needs_media
def test_the_faces_of_a_photo_and_of_clips() -> None:
    detector = FaceDetector(DETECTOR)
    photo = read_image(FIVE_FACES)
    found = detector(photo)
    assert len(found) == 5
    assert found.boxes.shape == (5, 4)
    assert found.landmarks.shape == (5, 5, 2)
    assert found.thumbnails.shape == (5, 16, 16, 3)
    assert (found.scores > 0.9).all()
    half = FaceDetector(DETECTOR, max_side=500)(photo)  # in pixels of the photo, whatever the size searched
    order, other = (each.boxes[:, 0].argsort() for each in (found, half))
    np.testing.assert_allclose(half.boxes[other], found.boxes[order], atol=12)
    for box, points in zip(found.boxes, found.landmarks, strict=True):
        assert (points > box[:2]).all()
        assert (points < box[:2] + box[2:]).all()
        assert points[0, 0] < points[1, 0]  # the left eye in the image first
    assert all((detector(frame.pixels).scores < 0.6).all() for frame in VideoFile(NO_FACE).read(10))
    assert len(detector(np.zeros((100, 100, 3), np.uint8))) == 0


@needs_media
def test_smoothing_takes_the_jitter_of_a_real_clip() -> None:
    detector = FaceDetector(DETECTOR)
    frames = list(VideoFile(ONE_FACE).read())
    points = [found.landmarks[found.scores.argmax()] for found in (detector(f.pixels) for f in frames)]
    raw, smooth = (
        [aligner(frame.timestamp, each) for frame, each in zip(frames, points, strict=True)]
        for aligner in (FaceAligner(smoothing=0), FaceAligner())
    )
    assert jitter(smooth) < 0.4 * jitter(raw)
    distance = np.linalg.norm(corners(smooth) - corners(raw), axis=-1).mean() * np.mean(
        [t.scale for t in raw]
    )
    assert distance < 2  # pixels of the crop


@needs_media
def test_a_real_face_through_a_known_similarity_gives_the_same_crop() -> None:
    detector = FaceDetector(DETECTOR)
    pixels = next(VideoFile(ONE_FACE).read()).pixels
    points = detector(pixels).landmarks[0]
    moved = cv2.getRotationMatrix2D((320, 180), 12, 1.2)
    other = cv2.warpAffine(pixels, moved, (640, 360))
    one, two = warp(pixels, similarity(points), 112), warp(other, similarity(applied(moved, points)), 112)
    shift, _ = cv2.phaseCorrelate(*(np.float32(crop.mean(-1)) for crop in (one, two)))
    assert np.hypot(*shift) < 1


def test_a_file_that_is_no_detector_is_refused(tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(b"no network")
    with pytest.raises(UsageError, match=r"--detector .*net\.onnx: cannot be used as a YuNet"):
        FaceDetector(tmp_path / "net.onnx")
    with pytest.raises(UsageError, match=r"--detector .*none\.onnx: there is no such file"):
        find_detector(tmp_path / "none.onnx")


def test_a_missing_detector_names_the_option_and_the_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", unreachable)
    with pytest.raises(AbawError) as refused:
        find_detector(None)
    message = str(refused.value)
    assert "--detector PATH" in message
    assert HUB_REPOSITORY in message
    assert "Name or service not known" in message
    assert len(message.splitlines()) == 1


def test_the_detector_of_the_hub_is_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "net.onnx"
    file.write_bytes(b"as published")
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda **place: str(file))
    with pytest.raises(AbawError, match=r"has SHA-256 .* and was deleted; try again, or .*--detector"):
        find_detector(None)
    assert not file.exists()
    file.write_bytes(b"as published")
    monkeypatch.setattr(faces, "SHA256", hashlib.sha256(b"as published").hexdigest())
    assert find_detector(None) == file
