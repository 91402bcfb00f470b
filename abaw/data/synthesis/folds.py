"""Folds and bulges that movements make in the skin."""

from dataclasses import dataclass

import cv2
import numpy as np

from abaw.data.synthesis.canvas import AXIS, MARGIN, MIDDLE, SCALE, Image, Mask, blurred, fixed, spline
from abaw.data.synthesis.identity import Identity
from abaw.data.synthesis.rig import MOVEMENTS

_Line = tuple[list[tuple[float, float]], float]  # points as (outwards, row), darkness
_Bulge = tuple[float, float, float, float, float]  # outwards, row, width, height, brightness

_FOLDS: dict[str, tuple[list[_Line], list[_Bulge]]] = {  # of half a face
    "AU1": ([([(0, 29), (8, 28.5), (14, 31)], 0.35), ([(0, 33.5), (8, 33), (13, 35)], 0.35)], []),
    "AU2": ([([(15, 31), (22, 28.5), (29, 31)], 0.35), ([(17, 35), (23, 32.5), (28, 34.5)], 0.3)], []),
    "AU4": ([([(2.2, 38), (3.2, 43), (2.6, 48)], 0.75), ([(0, 50), (3.5, 49.5)], 0.4)], [(6, 36, 4, 3, 0.1)]),
    "AU6": (
        [
            ([(28, 50), (33, 47.5)], 0.5),
            ([(28.5, 52.5), (34.5, 52.5)], 0.5),
            ([(28, 55), (33, 58)], 0.5),
            ([(11, 59), (18, 61.5), (26, 59.5)], 0.45),
        ],
        [(21, 67, 7, 4, 0.16)],
    ),
    "AU7": ([([(11, 55.8), (17.5, 57.2), (24, 55.6)], 0.6)], [(17.5, 60, 6, 1.5, 0.1)]),
    "AU9": ([([(1, 53), (5.5, 56)], 0.6), ([(1, 56.5), (6, 60)], 0.6), ([(5, 62), (9, 68)], 0.5)], []),
    "AU10": ([([(9, 68), (12.5, 72), (15, 78), (15.5, 83)], 0.75)], [(19, 74, 5, 5, 0.1)]),
    "AU12": ([([(11, 71), (17, 76), (21.5, 82), (22.5, 87)], 0.65)], [(25, 75, 6, 6, 0.14)]),
    "AU15": ([([(17, 96), (19, 100), (18.5, 104)], 0.7)], [(22, 98, 3, 4, 0.1)]),
    "AU17": (
        [([(0, 100), (6, 100.6), (11, 103.5)], 0.6), ([(2, 105), (5, 107)], 0.4)],
        [(0, 104.5, 6, 2.5, 0.14)],
    ),
    "AU20": ([([(21, 90), (22.5, 94), (21, 99)], 0.5)], []),
    "AU23": (
        [
            ([(3, 84), (3, 87)], 0.4),
            ([(7, 84.5), (6.5, 87.5)], 0.4),
            ([(4, 98), (4.5, 101)], 0.4),
            ([(13, 88), (14.5, 92.3), (13, 97)], 0.55),
        ],
        [],
    ),
    "AU24": (
        [([(0, 97.4), (9, 97), (15, 94.6)], 0.65), ([(4, 88), (12, 88.8)], 0.4)],
        [(0, 85, 11, 2, 0.3), (0, 101, 11, 2.2, 0.3), (18, 92, 3, 4, 0.16)],
    ),
    "AU26": ([([(27, 78), (25, 92)], 0.25)], []),
}


@dataclass(frozen=True)
class Fold:
    """What a full movement takes from the brightness of the skin and adds to it, in a box of the canvas."""

    movement: int
    box: tuple[slice, slice]
    dark: Image
    light: Image


def skin_folds(who: Identity, still: Image, bare: Mask) -> list[Fold]:
    """Gives the folds of a person on the `still` canvas, where its skin is `bare`, 0 to 1."""
    return [_fold(who, name, still, bare) for name in _FOLDS]


def _fold(who: Identity, name: str, still: Image, bare: Mask) -> Fold:
    folds, bulges = _FOLDS[name]
    canvas = np.zeros(bare.shape, np.uint8)
    for path, strength in folds:
        for side in (-1, 1):
            line = spline(len(path)) @ (np.array(path, float) * (side, 1) + AXIS)
            cv2.polylines(canvas, [fixed(line)], False, 255 * strength, 3, cv2.LINE_AA, 4)
    strokes = canvas.astype(np.float32) / np.float32(255)
    slope = blurred(strokes, 5)
    dark = 0.5 * blurred(strokes, 1.6) + 0.8 * slope
    light = 0.5 * np.roll(slope, 5, axis=0)  # a bulge below each fold, and beside it away from the axis
    middle = int((MIDDLE + MARGIN) * SCALE)
    light[:, :middle], light[:, middle:] = np.roll(light, -7, 1)[:, :middle], np.roll(light, 7, 1)[:, middle:]
    grid = (np.arange(len(dark), dtype=np.float32) + 0.5) / SCALE - 0.5 - MARGIN
    for u, y, width, height, strength in bulges:
        for side in {-1, 1} if u else {1}:
            across = np.exp(-(((grid - MIDDLE - side * u) / width) ** 2))
            light += strength * np.outer(np.exp(-(((grid - y) / height) ** 2)), across)
    rows, columns = np.nonzero((dark > 0.01) | (light > 0.01))
    box = (slice(int(rows.min()), int(rows.max()) + 1), slice(int(columns.min()), int(columns.max()) + 1))
    skin = still[box] * (bare[box] * who.wrinkles)[..., None]
    dark_shade, light_shade = (
        np.clip(part[box][..., None] * skin, 0, 255).astype(np.uint8) for part in (dark, light)
    )
    return Fold(MOVEMENTS.index(name), box, dark_shade, light_shade)
