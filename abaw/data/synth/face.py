"""Face renderer: a neutral portrait deformed by action units, with the wrinkles that they cause."""

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from abaw.data.synth.canvas import (
    AXIS,
    MARGIN,
    MIDDLE,
    SCALE,
    Colour,
    Image,
    Mask,
    Points,
    blurred,
    fixed,
    spline,
    tint,
)
from abaw.data.synth.identity import Identity
from abaw.data.synth.landmarks import MOVEMENTS, brow_shape, lines
from abaw.data.synth.portrait import paint

_Line = tuple[list[tuple[float, float]], float]  # points as (distance from the axis, row), darkness
_Bulge = tuple[float, float, float, float, float]  # distance from the axis, row, width, height, brightness

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
    """Darkening and brightening of the skin at full intensity of a movement, in a box of the canvas."""

    movement: int
    box: tuple[slice, slice]
    dark: Image
    light: Image


def skin_folds(who: Identity, still: Image, bare: Mask) -> list[Fold]:
    """Returns the skin folds of a person on the neutral canvas `still`; `bare` is the skin mask in [0, 1]."""
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
    light = 0.5 * np.roll(slope, 5, axis=0)  # a highlight below and outside of each fold
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


Pixels = NDArray[np.int32]  # fixed-point canvas coordinates with 4 fractional bits
_EYES = slice((38 + MARGIN) * SCALE, (66 + MARGIN) * SCALE)  # rows of the canvas that contain the eyes
_MOUTH = slice((78 + MARGIN) * SCALE, None)
_IRIS_ROW = 51.2
_TOOTH = 3.2  # length of the visible teeth below the upper lip
_OPEN = 0.8  # smallest gap between the lips at which the inside of the mouth is drawn


class Face:
    """Draws the face of one person.

    Args:
        who: Appearance of the person.
        scene: Seed of the background.
    """

    def __init__(self, who: Identity, *, scene: int) -> None:
        self._who = who
        self._still, bare = paint(who, scene)
        self._folds = skin_folds(who, self._still, bare)
        self._glasses = _glasses(who, self._still.shape) if who.glasses else None
        self._inner = np.empty_like(self._still)  # eyeballs and inside of the mouth
        self._hole = np.zeros(self._still.shape[:2], np.uint8)

    def draw(self, moves: NDArray[np.float32], gaze: NDArray[np.float32]) -> Iterator[Image]:
        """Yields the drawn canvas of every frame.

        Args:
            moves: (T, len(MOVEMENTS)), intensities in [0, 1].
            gaze: (T, 2), shift of the irises in crop pixels.

        Yields:
            uint8 BGR, (SIZE + 2 MARGIN) * SCALE pixels square.
        """
        who, line = self._who, lines(self._who, moves)
        # the halves of a line, (T, 2, m, 2), from corner to corner
        lip_top, mouth_top, mouth_bottom, lip_bottom = (
            np.concatenate([line[name][:, 0, :0:-1], line[name][:, 1]], axis=1)
            for name in ("lip_top", "mouth_top", "mouth_bottom", "lip_bottom")
        )
        gap = (mouth_bottom - mouth_top)[..., 1].max(axis=1)
        teeth = (mouth_top - AXIS) * (0.9, 1) + AXIS
        bow = np.linspace(-1, 1, teeth.shape[1])
        biting = np.stack([0 * bow, _TOOTH * (1 - bow**4)], axis=1)
        irises = np.array([(MIDDLE - who.eye_spacing, _IRIS_ROW), (MIDDLE + who.eye_spacing, _IRIS_ROW)])
        part = {
            "wing": fixed(line["wing"]),
            "eye": fixed(_between(line["lid"], line["lower_lid"])),
            "iris": fixed(irises + gaze[:, None]),
            "crease": fixed(line["crease"]),
            "lid": fixed(line["lid"]),
            "lower_lid": fixed(line["lower_lid"]),
            "brow": fixed(brow_shape(who, line["brow"])),
            "lips": fixed(_between(lip_top, lip_bottom)),
            "lower_lip": fixed(_between(mouth_bottom, lip_bottom)),
            "mouth": fixed(_between(mouth_top, mouth_bottom)),
            "teeth": fixed(_between(teeth - biting, teeth + biting)),
            "seam": fixed(mouth_top),
        }
        for t in range(len(moves)):
            now = {name: points[t] for name, points in part.items()}
            canvas = self._still.copy()
            self._fold_skin(canvas, moves[t])
            self._draw_nose(canvas, now["wing"])
            self._draw_eyes(canvas, now)
            self._draw_brows(canvas, now["brow"])
            self._draw_mouth(canvas, now, is_open=bool(gap[t] > _OPEN))
            if self._glasses is not None:
                cv2.copyTo(*self._glasses, canvas)
            yield canvas

    def _fold_skin(self, canvas: Image, moves: NDArray[np.float32]) -> None:
        for fold in self._folds:
            amount = float(moves[fold.movement])
            if amount > 0.02:
                patch = canvas[fold.box]
                cv2.addWeighted(patch, 1, fold.dark, -amount, 0, dst=patch)
                cv2.addWeighted(patch, 1, fold.light, amount, 0, dst=patch)

    def _draw_nose(self, canvas: Image, wings: Pixels) -> None:
        skin = self._who.skin
        cv2.polylines(canvas, list(wings), False, tint(skin, 0.62), 2, cv2.LINE_AA, 4)
        for wing, inwards in zip(wings, (24, -24), strict=True):
            x, y = wing[-1].tolist()
            nostril = (x + inwards, y - 24)
            cv2.ellipse(canvas, nostril, (48, 26), 0, 0, 360, tint(skin, 0.35), -1, cv2.LINE_AA, 4)

    def _draw_eyes(self, canvas: Image, now: dict[str, Pixels]) -> None:
        ball, hole, skin, iris = self._inner, self._hole, self._who.skin, self._who.iris
        ball[_EYES] = (218, 224, 230)
        hole[_EYES] = 0
        r = int(3.7 * self._who.eye_size * SCALE * 16)
        rings = ((1.0, tint(iris, 0.6)), (0.8, iris), (0.45, (14.0, 10.0, 10.0)))
        for x, y in now["iris"].tolist():
            for size, colour in rings:
                cv2.circle(ball, (x, y), int(size * r), colour, -1, cv2.LINE_AA, 4)
            cv2.circle(ball, (x - r // 3, y - r // 3), r // 5, (255, 255, 255), -1, cv2.LINE_AA, 4)
        for eye in now["eye"]:
            cv2.fillPoly(hole, [eye], 255, cv2.LINE_8, 4)
        cv2.copyTo(ball[_EYES], hole[_EYES], canvas[_EYES])
        cv2.polylines(canvas, list(now["crease"]), False, tint(skin, 0.6), 1, cv2.LINE_AA, 4)
        cv2.polylines(canvas, list(now["lower_lid"]), False, tint(skin, 0.55), 1, cv2.LINE_AA, 4)
        cv2.polylines(canvas, list(now["lid"]), False, (22, 18, 20), 3, cv2.LINE_AA, 4)

    def _draw_brows(self, canvas: Image, brows: Pixels) -> None:
        b, g, r = ((hair + skin) / 2 for hair, skin in zip(self._who.hair, self._who.skin, strict=True))
        cv2.polylines(canvas, list(brows), True, (b, g, r), 2, cv2.LINE_AA, 4)
        for brow in brows:
            cv2.fillPoly(canvas, [brow], tint(self._who.hair, 0.85), cv2.LINE_AA, 4)

    def _draw_mouth(self, canvas: Image, now: dict[str, Pixels], *, is_open: bool) -> None:
        lips = self._who.lips
        cv2.fillPoly(canvas, [now["lips"]], lips, cv2.LINE_AA, 4)
        cv2.fillPoly(canvas, [now["lower_lip"]], tint(lips, 1.12), cv2.LINE_AA, 4)
        if not is_open:
            cv2.polylines(canvas, [now["seam"]], False, tint(lips, 0.45), 2, cv2.LINE_AA, 4)
            return
        inside, hole = self._inner, self._hole
        inside[_MOUTH] = (30, 18, 52)
        hole[_MOUTH] = 0
        cv2.fillPoly(hole, [now["mouth"]], 255, cv2.LINE_8, 4)
        x, y = now["mouth"][3 * len(now["mouth"]) // 4].tolist()  # middle of the lower lip's edge
        tongue = (8 * SCALE * 16, int(3.5 * SCALE * 16))
        cv2.ellipse(inside, (x, y + 40), tongue, 0, 0, 360, (86, 78, 178), -1, cv2.LINE_AA, 4)
        cv2.fillPoly(inside, [now["teeth"]], (228, 236, 240), cv2.LINE_AA, 4)
        cv2.copyTo(inside[_MOUTH], hole[_MOUTH], canvas[_MOUTH])


def _between(one: Points, other: Points) -> Points:
    """Returns the closed outline between two lines of the same direction."""
    return np.concatenate([one, other[..., ::-1, :]], axis=-2)


def _glasses(who: Identity, shape: tuple[int, ...]) -> tuple[Image, Image]:
    """Returns an image in the colour of the glasses, and their mask."""
    rng = np.random.default_rng(who.seed + 1)
    colours: tuple[Colour, ...] = ((30, 26, 26), (30, 40, 70), (120, 120, 130), (60, 30, 30))
    frame, mask = np.zeros(shape, np.uint8), np.zeros(shape[:2], np.uint8)
    frame[:] = colours[int(rng.integers(len(colours)))]
    size = rng.uniform((11, 8), (13.5, 10.5))
    angle = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    round_ = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    ring = size * np.sign(round_) * np.abs(round_) ** (2 / rng.uniform(2, 5))  # from round to square
    inner, outer = who.eye_spacing + 0.6 - size[0], who.eye_spacing + 0.6 + size[0]
    rims = [(ring + np.array([who.eye_spacing + 0.6, 53.0])) * (side, 1) + AXIS for side in (-1, 1)]
    arms = [np.array([(outer, 50), (who.head_width + 2, 48)]) * (side, 1) + AXIS for side in (-1, 1)]
    bridge = spline(3) @ np.array([(MIDDLE - inner, 51), (MIDDLE, 49), (MIDDLE + inner, 51)])
    thickness = int(rng.integers(2, 5))
    cv2.polylines(mask, [fixed(rim) for rim in rims], True, 255, thickness, cv2.LINE_8, 4)
    cv2.polylines(mask, [fixed(line) for line in (*arms, bridge)], False, 255, thickness, cv2.LINE_8, 4)
    return frame, mask
