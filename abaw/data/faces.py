"""Draws a moving face: the still portrait, and on it in every frame wrinkles, eyes, brows, nose and mouth."""

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from abaw.data.portraits import (
    MARGIN,
    MIDDLE,
    SCALE,
    SIZE,
    Colour,
    Identity,
    Image,
    Points,
    fixed,
    paint,
    spline,
    tint,
)
from abaw.data.rig import MOVEMENTS, brow_shape, lines

# Folds of the skin, half a face: movement -> lines of (outwards, row) with their darkness, and bulges of light
# (outwards, row, width, height, brightness).
_FOLDS: dict[str, tuple[list[tuple[list[tuple[float, float]], float]], list[tuple[float, ...]]]] = {
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
    "AU7": ([([(11, 56.4), (17.5, 57.8), (24, 56.2)], 0.45)], [(17.5, 55.8, 6, 1.2, 0.12)]),
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
        [([(0, 98.2), (9, 98), (15, 95)], 0.6), ([(5, 87), (12, 88.2)], 0.4)],
        [(0, 86, 11, 2, 0.16), (0, 101, 11, 2.2, 0.16), (18, 92, 3, 4, 0.1)],
    ),
    "AU26": ([([(27, 78), (25, 92)], 0.25)], []),
}


@dataclass(frozen=True)
class _Fold:
    """What one movement changes in the shade of the skin, within a box of the canvas."""

    movement: int
    box: tuple[slice, slice]
    dark: Image
    light: Image


class Face:
    """One person, ready to be drawn.

    Args:
        who: The traits.
        scene: Seed of the background.
    """

    def __init__(self, who: Identity, *, scene: int) -> None:
        self.who = who
        self._still, bare = paint(who, scene)
        self._folds = [_fold(who, name, bare) for name in _FOLDS]
        self._glasses = _glasses(who, self._still.shape) if who.glasses else None
        self._brow_edge = tuple((h + s) / 2 for h, s in zip(who.hair, who.skin, strict=True))
        self._white = np.empty_like(self._still)
        self._mask = np.zeros(self._still.shape[:2], np.uint8)

    def draw(self, moves: NDArray[np.float32], gaze: NDArray[np.float32]) -> Iterator[Image]:
        """Yields one canvas per frame; the next call draws over nothing of it.

        Args:
            moves: (T, len(MOVEMENTS)), 0 at rest, 1 at the extreme.
            gaze: (T, 2), shift of the irises in crop pixels.

        Yields:
            uint8 BGR, (SIZE + 2 MARGIN) * SCALE pixels square.
        """
        shape = lines(self.who, moves)
        brows = fixed(brow_shape(self.who, shape["brow"]))
        eyes = fixed(_closed(shape["lid"], shape["lower_lid"]))
        irises = fixed(
            np.array([MIDDLE - self.who.eye_spacing, MIDDLE + self.who.eye_spacing])[None, :, None] * (1, 0)
            + (0, 51.2)
            + gaze[:, None]
        )
        strokes = {name: fixed(shape[name]) for name in ("lid", "lower_lid", "crease", "wing")}
        lips = fixed(_closed(_across(shape["lip_top"]), _across(shape["lip_bottom"])))
        lower = fixed(_closed(_across(shape["mouth_bottom"]), _across(shape["lip_bottom"])))
        gap = fixed(_closed(_across(shape["mouth_top"]), _across(shape["mouth_bottom"])))
        edge = _across(shape["mouth_top"])
        edge = (edge - (MIDDLE, 0)) * (0.86, 1) + (MIDDLE, 0)
        teeth = fixed(_closed(edge - (0, 3), edge + (0, 3.0)))
        seam = fixed(_across(shape["mouth_top"]))
        open_by = shape["mouth_bottom"][:, :, 0, 1].mean(1) - shape["mouth_top"][:, :, 0, 1].mean(1)
        for t in range(len(moves)):
            canvas = self._still.copy()
            self._fold_skin(canvas, moves[t])
            self._draw_nose(canvas, strokes["wing"][t])
            self._draw_eyes(canvas, eyes[t], irises[t], {name: of[t] for name, of in strokes.items()})
            for brow in brows[t]:
                cv2.polylines(canvas, [brow], True, self._brow_edge, 2, cv2.LINE_AA, 4)
                cv2.fillPoly(canvas, [brow], tint(self.who.hair, 0.85), cv2.LINE_AA, 4)
            self._draw_mouth(canvas, lips[t], lower[t], gap[t], teeth[t], seam[t], float(open_by[t]))
            if self._glasses is not None:
                canvas = self._wear_glasses(canvas)
            yield canvas

    def _fold_skin(self, canvas: Image, moves: NDArray[np.float32]) -> None:
        for fold in self._folds:
            amount = float(moves[fold.movement])
            if amount > 0.02:
                patch = canvas[fold.box]
                cv2.addWeighted(patch, 1, fold.dark, -amount, 0, dst=patch)
                cv2.addWeighted(patch, 1, fold.light, amount, 0, dst=patch)

    def _draw_nose(self, canvas: Image, wings: NDArray[np.int32]) -> None:
        for side, wing in enumerate(wings):
            cv2.polylines(canvas, [wing], False, tint(self.who.skin, 0.62), 2, cv2.LINE_AA, 4)
            x, y = wing[-1].tolist()
            cv2.ellipse(
                canvas,
                (x + (24 if side == 0 else -24), y - 24),
                (48, 26),
                0,
                0,
                360,
                tint(self.who.skin, 0.35),
                -1,
                cv2.LINE_AA,
                4,
            )

    def _draw_eyes(
        self,
        canvas: Image,
        eyes: NDArray[np.int32],
        irises: NDArray[np.int32],
        strokes: dict[str, NDArray[np.int32]],
    ) -> None:
        band = slice((38 + MARGIN) * SCALE, (66 + MARGIN) * SCALE)
        white, mask = self._white, self._mask
        white[band] = (218, 224, 230)
        mask[band] = 0
        radius = int(3.7 * self.who.eye_size * SCALE * 16)
        for eye, place in zip(eyes, irises.reshape(2, 2).tolist(), strict=True):
            cv2.fillPoly(mask, [eye], 255, cv2.LINE_8, 4)
            cv2.circle(white, place, radius, tint(self.who.iris, 0.6), -1, cv2.LINE_AA, 4)
            cv2.circle(white, place, int(radius * 0.8), self.who.iris, -1, cv2.LINE_AA, 4)
            cv2.circle(white, place, int(radius * 0.45), (14, 10, 10), -1, cv2.LINE_AA, 4)
            cv2.circle(
                white,
                (place[0] - radius // 3, place[1] - radius // 3),
                radius // 5,
                (255, 255, 255),
                -1,
                cv2.LINE_AA,
                4,
            )
        patch = canvas[band]
        cv2.copyTo(white[band], mask[band], patch)
        cv2.polylines(canvas, list(strokes["crease"]), False, tint(self.who.skin, 0.6), 1, cv2.LINE_AA, 4)
        cv2.polylines(canvas, list(strokes["lower_lid"]), False, tint(self.who.skin, 0.55), 1, cv2.LINE_AA, 4)
        cv2.polylines(canvas, list(strokes["lid"]), False, (22, 18, 20), 3, cv2.LINE_AA, 4)

    def _draw_mouth(self, canvas, lips, lower, gap, teeth, seam, open_by: float) -> None:
        lip = self.who.lips
        cv2.fillPoly(canvas, [lips], lip, cv2.LINE_AA, 4)
        cv2.fillPoly(canvas, [lower], tint(lip, 1.12), cv2.LINE_AA, 4)
        if open_by > 0.8:
            band = slice((80 + MARGIN) * SCALE, None)
            inside, mask = self._white, self._mask
            inside[band] = (30, 18, 52)
            mask[band] = 0
            cv2.fillPoly(mask, [gap], 255, cv2.LINE_8, 4)
            x, y = gap[3 * len(gap) // 4].tolist()
            cv2.ellipse(
                inside,
                (x, y + 40),
                (8 * SCALE * 16, int(3.5 * SCALE * 16)),
                0,
                0,
                360,
                (86, 78, 178),
                -1,
                cv2.LINE_AA,
                4,
            )
            cv2.fillPoly(inside, [teeth], (228, 236, 240), cv2.LINE_AA, 4)
            patch = canvas[band]
            cv2.copyTo(inside[band], mask[band], patch)
        else:
            cv2.polylines(canvas, [seam], False, tint(lip, 0.45), 2, cv2.LINE_AA, 4)

    def _wear_glasses(self, canvas: Image) -> Image:
        lens, frame = self._glasses
        return cv2.copyTo(frame[0], frame[1], canvas)


def _closed(one: Points, other: Points) -> Points:
    """Gives the outline between two lines that run the same way."""
    return np.concatenate([one, other[..., ::-1, :]], axis=-2)


def _across(halves: Points) -> Points:
    """Joins the two halves of a line of the mouth, (T, 2, m, 2), into one from corner to corner."""
    return np.concatenate([halves[:, 0, :0:-1], halves[:, 1]], axis=1)


def _fold(who: Identity, name: str, bare: NDArray[np.float32]) -> _Fold:
    dark, light = np.zeros_like(bare), np.zeros_like(bare)
    folds, bulges = _FOLDS[name]
    grid = (np.arange(len(dark), dtype=np.float32) + 0.5) / SCALE - 0.5 - MARGIN
    for side in (-1, 1):
        for path, strength in folds:
            line = spline(len(path)) @ (np.array(path, float) * (side, 1) + (MIDDLE, 0))
            stroke = np.zeros(bare.shape, np.uint8)
            cv2.polylines(stroke, [fixed(line)], False, 255, 3, cv2.LINE_AA, 4)
            stroke = stroke.astype(np.float32) * (strength / 255)
            crease, slope = cv2.GaussianBlur(stroke, (0, 0), 1.6), cv2.GaussianBlur(stroke, (0, 0), 5)
            dark = np.maximum(dark, 0.42 * crease + 1.15 * slope)
            light = np.maximum(light, 0.6 * np.roll(slope, (5, 7 * side), (0, 1)))
        for u, y, width, height, strength in bulges:
            bulge = -(((grid[None] - MIDDLE - side * u) / width) ** 2) - ((grid[:, None] - y) / height) ** 2
            light += strength * np.exp(bulge) * (1 if u else 0.5)
    rows, columns = np.nonzero((dark > 0.01) | (light > 0.01))
    box = (slice(int(rows.min()), int(rows.max()) + 1), slice(int(columns.min()), int(columns.max()) + 1))
    skin = np.asarray(who.skin, np.float32) * who.wrinkles
    shades = [
        np.clip((part * bare)[box][..., None] * skin, 0, 255).astype(np.uint8) for part in (dark, light)
    ]
    return _Fold(MOVEMENTS.index(name), box, *shades)


def _glasses(who: Identity, shape: tuple[int, ...]):
    rng = np.random.default_rng(who.seed + 1)
    frame = np.zeros(shape, np.uint8)
    mask = np.zeros(shape[:2], np.uint8)
    colour = [(30, 26, 26), (30, 40, 70), (120, 120, 130), (60, 30, 30)][int(rng.integers(4))]
    frame[:] = colour
    w, h = rng.uniform(11, 13.5), rng.uniform(8, 10.5)
    power = rng.uniform(2, 5)
    angle = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    ring = np.stack(
        [
            w * np.sign(np.cos(angle)) * abs(np.cos(angle)) ** (2 / power),
            h * np.sign(np.sin(angle)) * abs(np.sin(angle)) ** (2 / power),
        ],
        axis=1,
    )
    thick = int(rng.integers(2, 5))
    for side in (-1, 1):
        centre = (MIDDLE + side * (who.eye_spacing + 0.6), 53.0)
        cv2.polylines(mask, [fixed(ring + centre)], True, 255, thick, cv2.LINE_8, 4)
        arm = np.array([(centre[0] + side * w, 50), (MIDDLE + side * (who.head_width + 2), 48)])
        cv2.polylines(mask, [fixed(arm)], False, 255, thick, cv2.LINE_8, 4)
    inner = who.eye_spacing + 0.6 - w
    bridge = spline(3) @ np.array([(MIDDLE - inner, 51), (MIDDLE, 49), (MIDDLE + inner, 51)])
    cv2.polylines(mask, [fixed(bridge)], False, 255, thick, cv2.LINE_8, 4)
    return None, (frame, mask)
