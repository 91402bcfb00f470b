"""Drawing primitives: canvas coordinates, splines, colours, and a float canvas with alpha masks."""

from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

SIZE = 112
"""Side of an aligned crop in pixels, as in `cropped_aligned`."""

SCALE = 2
"""Supersampling factor: canvas pixels per crop pixel."""

MARGIN = 10
"""Margin of the canvas around the crop in crop pixels, so that pose changes never show its edge."""

MIDDLE = 56.0
"""Crop column of the face's symmetry axis in the landmark template of `cropped_aligned`."""

AXIS = np.array([MIDDLE, 0.0])
"""Offset from coordinates relative to the symmetry axis to crop coordinates."""

Image = NDArray[np.uint8]
Points = NDArray[np.float64]
Mask = NDArray[np.float32]
Colour = tuple[float, float, float]


@cache
def spline(n: int, closed: bool = False, steps: int = 6) -> Points:
    """Returns the (m, n) matrix that maps n control points to m points of a Catmull-Rom spline."""
    t = np.arange(steps) / steps
    weights = 0.5 * np.stack(
        [-t + 2 * t**2 - t**3, 2 - 5 * t**2 + 3 * t**3, t + 4 * t**2 - 3 * t**3, -(t**2) + t**3], axis=1
    )
    segments = n if closed else n - 1
    matrix = np.zeros((segments * steps + (not closed), n))
    for segment in range(segments):
        for offset in range(4):
            at = segment + offset - 1
            column = at % n if closed else min(max(at, 0), n - 1)
            matrix[segment * steps : (segment + 1) * steps, column] += weights[:, offset]
    if not closed:
        matrix[-1, -1] = 1
    return matrix


def fixed(points: Points) -> NDArray[np.int32]:
    """Canvas coordinates (n, 2) as fixed-point numbers of 4 fractional bits (OpenCV's `shift=4`)."""
    return np.rint(((points + (MARGIN + 0.5)) * SCALE - 0.5) * 16).astype(np.int32)


def tint(colour: Colour, factor: float) -> Colour:
    """Returns the colour scaled by `factor`, clipped at 255."""
    b, g, r = (min(255.0, c * factor) for c in colour)
    return b, g, r


def blurred(mask: Mask, sigma: float) -> Mask:
    """Returns the mask after a Gaussian blur with `sigma` in canvas pixels."""
    return cv2.GaussianBlur(mask, (0, 0), sigma).astype(np.float32, copy=False)


class SoftCanvas:
    """A float32 BGR canvas with alpha masks; all positions are crop coordinates."""

    def __init__(self, colour: Colour) -> None:
        side = (SIZE + 2 * MARGIN) * SCALE
        self.pixels = np.empty((side, side, 3), np.float32)
        self.pixels[:] = colour
        grid = (np.arange(side, dtype=np.float32) + 0.5) / SCALE - 0.5 - MARGIN
        self.x, self.y = grid[None, :], grid[:, None]

    def mask(self, *outlines: Points, soft: float = 0.0) -> Mask:
        """Returns the filled outlines as a mask in [0, 1], blurred with sigma `soft` in crop pixels."""
        canvas = np.zeros(self.pixels.shape[:2], np.uint8)
        for outline in outlines:
            cv2.fillPoly(canvas, [fixed(outline)], 255, cv2.LINE_AA, 4)
        mask: Mask = canvas.astype(np.float32) / np.float32(255)
        return blurred(mask, soft * SCALE) if soft else mask

    def cover(self, mask: Mask, colour: Colour | Mask) -> None:
        """Alpha-blends a colour, or an image of the canvas's size, with the mask as alpha."""
        rows = np.flatnonzero(mask.any(axis=1))
        box = slice(rows[0], rows[-1] + 1) if len(rows) else slice(0)
        over = np.broadcast_to(np.asarray(colour, np.float32), self.pixels.shape)[box]
        self.pixels[box] += mask[box][..., None] * (over - self.pixels[box])

    def bump(self, x: float, y: float, width: float, height: float) -> Mask:
        """Returns a Gaussian bump with maximum 1 at (x, y)."""
        return np.exp(-(((self.x - x) / width) ** 2) - ((self.y - y) / height) ** 2)

    def pair(self, u: float, y: float, width: float, height: float) -> Mask:
        """Returns two Gaussian bumps at distance `u` on both sides of the symmetry axis."""
        return self.bump(MIDDLE - u, y, width, height) + self.bump(MIDDLE + u, y, width, height)
