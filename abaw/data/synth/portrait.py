"""Neutral portrait of a person: background, neck, head, hair and beard."""

import cv2
import numpy as np

from abaw.data.synth.canvas import (
    AXIS,
    MIDDLE,
    SCALE,
    Colour,
    Image,
    Mask,
    Points,
    SoftCanvas,
    blurred,
    fixed,
    spline,
    tint,
)
from abaw.data.synth.identity import Identity

_WALL = (0x9FB4BE, 0xC2B8A6, 0x8A9A8C, 0x6E7684, 0xB09A8E, 0xA8AEB6, 0x54606A)


def _mirrored(half: list[tuple[float, float]]) -> Points:
    """Returns the closed symmetric outline of a right half given as (distance from the axis, row)."""
    right = np.array(half, dtype=float)
    left = right[::-1] * (-1, 1)
    outline = np.concatenate([right, left[left[:, 0] < -0.01]])
    return spline(len(outline), closed=True) @ (outline + AXIS)


def head_outline(who: Identity) -> Points:
    """Returns the closed outline of the head in crop coordinates."""
    w, jaw = who.head_width, who.head_width * who.jaw_width
    return _mirrored(
        [
            (0, -4),
            (w * 0.62, 2),
            (w * 0.97, 28),
            (w, 56),
            (w * 0.95, 74),
            (jaw, 90),
            (jaw * 0.62, who.chin - 6),
            (jaw * 0.25, who.chin),
            (0, who.chin + 0.6),
        ]
    )


def paint(who: Identity, scene: int) -> tuple[Image, Mask]:
    """Returns the neutral canvas: background, hair, head and shading, without eyes, brows and mouth.

    Args:
        who: The person.
        scene: Seed of the background, shared by the people of one recording.

    Returns:
        The canvas, uint8 BGR, (SIZE + 2 MARGIN) * SCALE pixels square, and the mask of bare skin, 0 to 1.
    """
    rng = np.random.default_rng(who.seed)
    canvas = SoftCanvas((0, 0, 0))
    _background(canvas, np.random.default_rng(scene))
    if who.hair_style in ("long", "curly"):
        _hair_behind(canvas, who, rng)
    _neck(canvas, who)
    head = canvas.mask(head_outline(who))
    _ears(canvas, who)
    canvas.cover(
        canvas.mask(head_outline(who) + np.array([0, 2]), soft=3) * 0.25, (30, 25, 25)
    )  # shadow on the neck
    canvas.cover(head, _skin(canvas, who, rng))
    bare = head * (1 - 0.6 * _beard(canvas, who, head, rng))
    bare *= 1 - _hair(canvas, who, rng)
    return np.clip(canvas.pixels, 0, 255).astype(np.uint8), bare


def _background(canvas: SoftCanvas, rng: np.random.Generator) -> None:
    value = int(rng.choice(np.array(_WALL)))
    canvas.pixels[:] = (value & 255, value >> 8 & 255, value >> 16)
    for _ in range(int(rng.integers(3, 7))):  # furniture, windows, lamps
        x, y = rng.uniform(-20, 130, 2)
        w, h = rng.uniform(8, 40, 2)
        box = np.array([(x - w, y - h), (x + w, y - h), (x + w, y + h), (x - w, y + h)])
        shade = rng.uniform(0.6, 1.35)
        canvas.cover(canvas.mask(box) * 0.6, tuple(c * shade for c in canvas.pixels[0, 0].tolist()))
    canvas.pixels[:] = cv2.GaussianBlur(canvas.pixels, (0, 0), rng.uniform(3, 6))
    canvas.pixels *= 1 + rng.uniform(-0.004, 0.004) * (canvas.x - MIDDLE)[..., None]


def _neck(canvas: SoftCanvas, who: Identity) -> None:
    w = who.head_width * 0.62
    neck = np.array([(MIDDLE - w, 80), (MIDDLE + w, 80), (MIDDLE + w * 1.05, 140), (MIDDLE - w * 1.05, 140)])
    canvas.cover(canvas.mask(neck), tint(who.skin, 0.78))
    shoulders = _mirrored([(0, 121), (w, 116), (w * 2.2, 121), (w * 3, 150), (0, 150)])
    canvas.cover(canvas.mask(shoulders), who.cloth)


def _ears(canvas: SoftCanvas, who: Identity) -> None:
    for side in (-1, 1):
        ear = MIDDLE + side * (who.head_width + 1.5)
        canvas.cover(np.clip(canvas.bump(ear, 60, 4.5, 9.5) * 6 - 2.2, 0, 1), tint(who.skin, 0.9))
        canvas.cover(np.clip(canvas.bump(ear, 60, 2.2, 6) * 3 - 1.2, 0, 1) * 0.5, tint(who.skin, 0.7))


def _skin(canvas: SoftCanvas, who: Identity, rng: np.random.Generator) -> Mask:
    """Returns the shaded skin of the head, (H, W, 3)."""
    u, v = (canvas.x - MIDDLE) / (who.head_width * 1.08), (canvas.y - 62) / 62
    depth = np.sqrt(np.clip(1 - u**2 - v**2, 0, 1))
    shade = 0.74 + 0.27 * depth + 0.1 * who.light * u - 0.03 * v
    nose = 71.7 + who.nose_length
    side = 1 if who.light > 0 else -1
    shade += 0.06 * canvas.bump(MIDDLE, 28, 22, 10)  # forehead
    shade -= 0.13 * canvas.pair(who.eye_spacing, 49, 9, 5.5)  # sockets
    shade -= 0.06 * canvas.pair(6.5, 50, 3, 6)
    shade += 0.07 * canvas.bump(MIDDLE, 58, 2.6, 11)  # bridge of the nose
    shade += 0.10 * canvas.bump(MIDDLE, nose - 1, 3.2, 3)  # its tip
    shade -= 0.09 * canvas.bump(MIDDLE - side * 6.0 * who.nose_width, nose - 6, 2.6, 9)
    shade -= 0.13 * canvas.bump(MIDDLE, nose + 5.4, 7 * who.nose_width, 1.8)
    shade += 0.05 * canvas.pair(22, 66, 8, 6)  # cheekbones
    shade -= 0.05 * canvas.pair(27, 86, 6, 9)
    shade -= 0.07 * canvas.bump(MIDDLE, 84, 1.5, 4)  # philtrum
    shade -= 0.10 * canvas.bump(MIDDLE, 101.5, 8, 2.2)  # under the lip
    shade += 0.05 * canvas.bump(MIDDLE, 106, 6, 3)
    speckle = blurred(rng.standard_normal(shade.shape, dtype=np.float32), 1.5)
    shade += 0.03 * speckle
    skin: Mask = shade[..., None].astype(np.float32) * np.asarray(who.skin, np.float32)
    blush = 0.10 * canvas.pair(23, 73, 8, 7) + 0.08 * canvas.bump(MIDDLE, nose, 5, 4)
    skin *= 1 - blush[..., None] * np.asarray((1.0, 0.9, 0.1), np.float32)
    return skin


def _strands(canvas: SoftCanvas, colour: Colour, rng: np.random.Generator, *, curly: bool) -> Mask:
    """Returns a hair texture of the size of the canvas, (H, W, 3)."""
    hair = canvas.pixels.astype(np.uint8)
    hair[:] = tint(colour, 0.8)
    crown = np.array([MIDDLE + rng.uniform(-8, 8), -14.0])
    for angle in rng.uniform(-1.9, 1.9, 90 if curly else 170):
        shade = tint(colour, rng.uniform(0.6, 1.3))
        reach = np.linspace(4, 140, 8)
        path = crown + np.stack(
            [np.sin(angle * (0.75 + reach / 400)) * reach, np.cos(angle * 0.8) * reach + 2], axis=1
        )
        if curly:
            for x, y in path[1:] + rng.normal(0, 3, (7, 2)):
                centre = fixed(np.array([x, y])).tolist()
                radius = int(rng.uniform(1.2, 3.2) * SCALE * 16)
                cv2.circle(hair, centre, radius, tint(shade, 0.75), -1, cv2.LINE_AA, 4)
                cv2.ellipse(hair, centre, (radius, radius), 0, 180, 330, shade, 2, cv2.LINE_AA, 4)
        else:
            cv2.polylines(hair, [fixed(path)], False, shade, 1, cv2.LINE_AA, 4)
    return hair.astype(np.float32)


def _hair_behind(canvas: SoftCanvas, who: Identity, rng: np.random.Generator) -> None:
    w = who.head_width
    long = who.hair_style == "long"
    outline = _mirrored(
        [
            (0, -12),
            (w * 0.9, -4),
            (w * 1.22, 30),
            (w * 1.25, 62),
            (w * (1.3 if long else 1.05), 84),
            (w * (1.25 if long else 0.7), 125 if long else 86),
            (0, 125 if long else 80),
        ]
    )
    canvas.cover(canvas.mask(outline, soft=0.6), 0.75 * _strands(canvas, who.hair, rng, curly=not long))


def _hair(canvas: SoftCanvas, who: Identity, rng: np.random.Generator) -> Mask:
    """Draws the hair and returns its mask."""
    if who.hair_style == "bald":
        return np.zeros(canvas.pixels.shape[:2], np.float32)
    w, line, style = who.head_width, who.hairline, who.hair_style
    grow = {"cropped": 2.0, "parted": 5, "fringe": 5, "long": 5, "curly": 8}[style]
    down = 52 if style in ("cropped", "curly") else 58
    outer = [(0, -6 - grow), (w * 0.7, -2 - grow), (w + grow, 28), (w + grow * 0.6, down)]
    temple = [(w - 2.5, down), (w - 4, 40), (w - 7, line + 10)]
    if style == "fringe":
        inner = [(w - 9, 34), (w * 0.5, 33), (0, 32.5)]
    elif style == "long":
        outer = [*outer[:-1], (w + 6, 70), (w + 7, 130)]
        temple = [(w - 1, 130), (w - 3, 84), (w - 5, 48), (w - 9, line + 10)]
        inner = [(w * 0.4, line + 2), (0, line - 5)]
    else:
        inner = [(w * 0.5, line + 1), (0, line - 1)]
    right = np.array(outer + temple + inner, dtype=float)
    left = right[::-1] * (-1, 1)
    if style == "parted":  # the parting is on one side
        left[: len(inner)] += (6, -2)
        right[-len(inner) :] += (6, 5)
    outline = np.concatenate([right, left[1:-1]])
    outline = spline(len(outline), closed=True) @ (outline + AXIS)
    mask = canvas.mask(outline, soft=0.5)
    canvas.cover(blurred(mask, 3.0) * 0.35, tint(who.skin, 0.45))  # shadow of the hair
    canvas.cover(mask, _strands(canvas, who.hair, rng, curly=style == "curly"))
    return mask


def _beard(canvas: SoftCanvas, who: Identity, head: Mask, rng: np.random.Generator) -> Mask:
    """Draws the beard and returns its mask."""
    if who.beard == "none":
        return np.zeros_like(head)
    w, jaw = who.head_width, who.head_width * who.jaw_width
    moustache = _mirrored([(0, 81.5), (8, 81.5), (16, 85), (20, 90.5), (15, 89.5), (7, 87.5), (0, 87)])
    cheeks = _mirrored(
        [
            (0, 101),
            (10, 101),
            (19, 95),
            (22, 87),
            (w - 6, 72),
            (w + 1, 60),
            (jaw + 4, 92),
            (jaw * 0.7, 116),
            (0, 120),
        ]
    )
    areas = [moustache] if who.beard == "moustache" else [moustache, cheeks]
    grain = 0.75 + 0.5 * rng.random(head.shape, dtype=np.float32)
    mask = canvas.mask(*areas, soft=1.6 if who.beard == "stubble" else 0.8) * head * grain
    mask = np.clip(mask * (0.3 if who.beard == "stubble" else 0.85), 0, 1)
    canvas.cover(mask, tint(who.hair, 0.85))
    return mask
