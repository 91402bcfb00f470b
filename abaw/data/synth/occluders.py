"""Moving occluders in front of the face: hands, telephones, cups."""

from dataclasses import dataclass

import cv2
import numpy as np

from abaw.data.synth.canvas import MIDDLE, Colour, Image, Points, tint

_ANGLE = np.linspace(0, 2 * np.pi, 24, endpoint=False)


def spans(rng: np.random.Generator, n: int, share: float, mean: int) -> list[tuple[int, int]]:
    """Returns random spans (start, stop) of about `mean` frames that cover about `share` of `n` frames."""
    found = []
    for _ in range(int(rng.poisson(share * n / mean))):
        start = int(rng.integers(-mean // 2, n))
        found.append((start, start + int(mean * rng.uniform(0.5, 1.5)) + 1))
    return found


def _ellipse(x: float, y: float, width: float, height: float, grow: float = 0.0) -> Points:
    """Returns the outline of an ellipse centred at (x, y)."""
    return np.stack([x + (width + grow) * np.cos(_ANGLE), y + (height + grow) * np.sin(_ANGLE)], axis=1)


def _box(top: float, bottom: float, height: float) -> Points:
    """Returns a trapezium with the given half widths and half height."""
    return np.array([(-top, -height), (top, -height), (bottom, height), (-bottom, height)])


def _hand(skin: Colour) -> list[tuple[Points, Colour]]:
    fingers = [(0.5 * k - 0.75, -0.95 - 0.1 * (k in (1, 2)), 0.23, 0.9) for k in range(4)]
    parts = [*fingers, (0.0, 0.0, 1.0, 1.05)]
    layers = [(0.09, tint(skin, 0.6)), (0.0, tint(skin, 0.88))]  # the darker edge first
    return [(_ellipse(*part, grow), colour) for grow, colour in layers for part in parts]


def _shapes(skin: Colour) -> list[list[tuple[Points, Colour]]]:
    """Returns the possible occluders: outlines with colours, in units of half the width of a hand."""
    telephone = [(_box(0.75, 0.75, 1.4), (34.0, 32.0, 32.0)), (_box(0.64, 0.64, 1.2), (70.0, 62.0, 56.0))]
    cup = [(_box(0.9, 0.7, 1.0), (206.0, 214.0, 220.0)), (_ellipse(0, -1, 0.9, 0.2), (60.0, 66.0, 90.0))]
    return [_hand(skin), telephone, cup]


@dataclass(frozen=True)
class Occluder:
    """An object that moves along `path` from frame `start` up to `stop` (excluded)."""

    start: int
    stop: int
    outlines: tuple[tuple[Points, Colour], ...]
    path: tuple[tuple[float, float], tuple[float, float]]
    size: float

    def cover(self, picture: Image, t: int) -> None:
        """Draws the object on frame `t`, if it is present there."""
        if not self.start <= t < self.stop:
            return
        part = (t - self.start + 0.5) / (self.stop - self.start)
        place = np.array(self.path[0]) * (1 - part) + np.array(self.path[1]) * part
        for outline, colour in self.outlines:
            points = np.rint((outline * self.size + place) * 16).astype(np.int32)
            cv2.fillPoly(picture, [points], colour, cv2.LINE_AA, 4)


def draw_occluders(rng: np.random.Generator, n: int, *, share: float, skin: Colour) -> list[Occluder]:
    """Returns random occluders that are present in about `share` of `n` frames."""
    found = []
    shapes = _shapes(skin)
    for start, stop in spans(rng, n, share, 22):
        side = float(rng.choice((-1, 1)))
        path = [
            (MIDDLE + side * 62, float(rng.uniform(60, 110))),
            (MIDDLE - side * float(rng.uniform(-10, 50)), float(rng.uniform(45, 105))),
        ]
        if rng.random() < 0.5:
            path.reverse()
        outlines = tuple(shapes[int(rng.integers(len(shapes)))])
        found.append(Occluder(start, stop, outlines, (path[0], path[1]), float(rng.uniform(16, 23))))
    return found
