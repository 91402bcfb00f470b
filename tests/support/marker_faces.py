"""Coloured squares as faces, and a detector that finds them, without a model file."""

from pathlib import Path

import cv2
import numpy as np

from abaw.inference.faces import TEMPLATE, Detections, _thumbnail

SIDE = 40
COLOURS = {"red": (220, 40, 40), "green": (40, 200, 60), "blue": (50, 70, 230), "yellow": (220, 210, 30)}


def draw(scene: np.ndarray, name: str, x: float, y: float, side: int = SIDE) -> None:
    """Draws a square face with its centre at (x, y), in place: a pattern of its own in its colour."""
    pattern = np.random.default_rng(sorted(COLOURS).index(name)).uniform(0.6, 1, (4, 4, 1))
    block = cv2.resize(pattern, (side, side), interpolation=cv2.INTER_NEAREST)[..., None] * COLOURS[name]
    left, top = round(x - side / 2), round(y - side / 2)
    x0, y0, x1, y1 = (
        max(left, 0),
        max(top, 0),
        min(left + side, scene.shape[1]),
        min(top + side, scene.shape[0]),
    )
    if x0 < x1 and y0 < y1:
        scene[y0:y1, x0:x1] = block[y0 - top : y1 - top, x0 - left : x1 - left]


def scene(*faces: tuple[str, float, float], size: tuple[int, int] = (240, 160), tone: int = 90) -> np.ndarray:
    """A grey picture (width, height) with faces (name, x, y)."""
    picture = np.full((size[1], size[0], 3), tone, np.uint8)
    for face in faces:
        draw(picture, *face)
    return picture


class MarkerDetector:
    """Finds the squares of `draw`; takes the place of `FaceDetector`."""

    def __init__(self, path: Path, *, max_side: int = 640) -> None:
        pass

    def __call__(self, pixels: np.ndarray) -> Detections:
        hues = pixels / np.maximum(np.linalg.norm(pixels, axis=-1, keepdims=True), 1)
        boxes = []
        for colour in COLOURS.values():  # each by itself, so that neighbours stay apart
            mask = hues @ (np.array(colour) / np.linalg.norm(colour)) > 0.97
            n, _, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
            largest = max(range(1, n), key=lambda k: stats[k, 4], default=0)
            if largest and stats[largest, 4] > 100:
                boxes.append(stats[largest, :4])
        boxes = np.array(boxes, np.float32).reshape(-1, 4)
        if not len(boxes):
            return Detections.none()
        landmarks = boxes[:, None, :2] + TEMPLATE / 112 * boxes[:, None, 2:]
        thumbnails = np.stack([_thumbnail(pixels, box) for box in boxes])
        return Detections(
            boxes, landmarks.astype(np.float32), np.full(len(boxes), 0.9, np.float32), thumbnails
        )
