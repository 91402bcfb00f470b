"""What a camera makes of a drawn face: pose, light, passing objects, blur, lost packets and noise.

None of it touches a label: it is why one frame does not suffice and its neighbours help.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from abaw.data.portraits import MARGIN, MIDDLE, SCALE, SIZE, Image

_GRAIN = 32.0  # standard deviation of the noise tile below, which is centred on 128


@dataclass(frozen=True, kw_only=True)
class Weather:
    """How hard the conditions are.

    Attributes:
        pose: Extent of head turns, 1 = about 20 degrees.
        jitter: Standard deviation of the alignment's error in pixels, new in every frame.
        spoilt: Share of the frames that are spoilt on their own: blurred, washed out, noisy or half lost.
        bursts: Share of the frames within bursts of blur.
        covered: Share of the frames in which something passes before the face.
    """

    pose: float
    jitter: float
    spoilt: float
    bursts: float
    covered: float


@dataclass(frozen=True, kw_only=True)
class _Take:
    """The state of the camera in every frame, each (T,) or (T, 2)."""

    turn: NDArray[np.float32]
    shift: NDArray[np.float32]
    roll: NDArray[np.float32]
    zoom: NDArray[np.float32]
    gain: NDArray[np.float32]
    slant: NDArray[np.float32]
    blur: NDArray[np.int64]
    noise: NDArray[np.float32]
    lost: NDArray[np.bool_]
    place: NDArray[np.float32]


class Camera:
    """Films one video of T frames.

    Args:
        rng: The video's generator; everything random is drawn here, at once.
        n_frames: T.
        weather: How hard the conditions are.
        skin: Colour of a hand that passes, BGR.
    """

    def __init__(self, rng: np.random.Generator, *, n_frames: int, weather: Weather, skin: tuple[float, ...]) -> None:
        self._rng = rng
        self._skin = skin
        self._take = _draw_take(rng, n_frames, weather)
        x, y = np.meshgrid(np.arange(SIZE, dtype=np.float32), np.arange(SIZE, dtype=np.float32))
        self._x, self._y = x - MIDDLE, y - 66
        bump = np.exp(-((self._x / 27) ** 2) - ((self._y - 2) / 36) ** 2)
        self._turn = 9 * bump - 3
        lower = np.clip((y - 97) / 13, 0, 1)
        self._jaw = 5.5 * lower * lower * (3 - 2 * lower) * np.exp(-((self._x / 36) ** 2))
        angle = rng.uniform(0, 2 * np.pi)
        slope = 128 + 90 * (np.cos(angle) * self._x + np.sin(angle) * self._y) / 56
        self._slope = np.repeat(np.clip(slope, 0, 255).astype(np.uint8)[..., None], 3, axis=2)
        self._tile = np.clip(
            np.random.default_rng(0).normal(128, _GRAIN, (2 * SIZE, 2 * SIZE, 3)), 0, 255
        ).astype(np.uint8)
        self._corner = rng.integers(0, SIZE, (n_frames, 2))
        self._passing = _draw_passing(rng, n_frames, weather.covered)

    def shoot(self, canvas: Image, jaw: float, t: int) -> Image:
        """Gives frame `t` as an aligned crop.

        Args:
            canvas: From `Face.draw`.
            jaw: How far the jaw is dropped, 0 to 1; the chin follows.
            t: Which frame, from 0.

        Returns:
            uint8 BGR (SIZE, SIZE, 3).
        """
        take = self._take
        picture = self._aligned(canvas, jaw, t)
        for item in self._passing:
            item.cover(picture, t, self._skin)
        gain, slant = float(take.gain[t]), float(take.slant[t])
        cv2.addWeighted(picture, gain, self._slope, slant, 128 * (1 - gain - slant), dst=picture)
        if size := int(take.blur[t]):
            picture = cv2.blur(cv2.blur(picture, (size, size)), (size, size))
        if take.lost[t]:
            self._lose(picture, take.place[t])
        top, left = self._corner[t]
        grain = self._tile[top : top + SIZE, left : left + SIZE]
        amount = float(take.noise[t]) / _GRAIN
        return cv2.addWeighted(picture, 1, grain, amount, -128 * amount)

    def _aligned(self, canvas: Image, jaw: float, t: int) -> Image:
        take = self._take
        scale, roll = float(np.exp(-take.zoom[t])), float(take.roll[t])
        cos, sin = scale * np.cos(roll), scale * np.sin(roll)
        (dx, dy), (yaw, pitch) = take.shift[t].tolist(), take.turn[t].tolist()
        x = cos * self._x - sin * self._y - yaw * self._turn
        y = sin * self._x + cos * self._y - pitch * self._turn - jaw * self._jaw
        x = (x + (MIDDLE - dx + MARGIN + 0.5)) * SCALE - 0.5
        y = (y + (66 - dy + MARGIN + 0.5)) * SCALE - 0.5
        return cv2.remap(canvas, x.astype(np.float32), y.astype(np.float32), cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)

    @staticmethod
    def _lose(picture: Image, place: NDArray[np.float32]) -> None:
        """Replaces half the face by a coarse mosaic, as where packets of a stream were lost."""
        left, top = (place * 40).astype(int).tolist()
        block = picture[top : top + 64, left : left + 72]
        block[:] = cv2.resize(cv2.resize(block, (4, 4), interpolation=cv2.INTER_AREA), (72, 64), interpolation=cv2.INTER_NEAREST)


@dataclass(frozen=True)
class _Passing:
    """Something that crosses the picture: a hand, a telephone, a cup."""

    start: int
    stop: int
    kind: int
    way: tuple[tuple[float, float], tuple[float, float]]
    size: float

    def cover(self, picture: Image, t: int, skin: tuple[float, ...]) -> None:
        if not self.start <= t < self.stop:
            return
        part = (t - self.start + 0.5) / (self.stop - self.start)
        (x0, y0), (x1, y1) = self.way
        x, y, r = (x0 + part * (x1 - x0)) * 16, (y0 + part * (y1 - y0)) * 16, self.size * 16
        if self.kind == 0:  # a hand: palm and four fingers
            edge = tuple(c * 0.6 for c in skin)
            for colour, grow in ((edge, 24), (tuple(c * 0.88 for c in skin), 0)):
                for finger in range(4):
                    root = (int(x + (finger - 1.5) * 0.5 * r), int(y - 0.9 * r))
                    cv2.ellipse(picture, root, (int(0.24 * r) + grow, int((0.95 - 0.1 * abs(finger - 1.4)) * r) + grow), (finger - 1.5) * 7, 0, 360, colour, -1, cv2.LINE_AA, 4)
                cv2.ellipse(picture, (int(x), int(y)), (int(r) + grow, int(1.05 * r) + grow), 0, 0, 360, colour, -1, cv2.LINE_AA, 4)
        elif self.kind == 1:  # a telephone
            for grow, colour in ((1.0, (34, 32, 32)), (0.86, (70, 62, 56))):
                w, h = 0.75 * r * grow, 1.4 * r * grow
                box = np.array([(x - w, y - h), (x + w, y - h), (x + w, y + h), (x - w, y + h)], np.int32)
                cv2.fillConvexPoly(picture, box, colour, cv2.LINE_AA, 4)
        else:  # a cup
            cup = np.array([(x - 0.9 * r, y - r), (x + 0.9 * r, y - r), (x + 0.7 * r, y + r), (x - 0.7 * r, y + r)], np.int32)
            cv2.fillConvexPoly(picture, cup, (206, 214, 220), cv2.LINE_AA, 4)
            cv2.ellipse(picture, (int(x), int(y - r)), (int(0.9 * r), int(0.2 * r)), 0, 0, 360, (60, 66, 90), -1, cv2.LINE_AA, 4)


def _drift(rng: np.random.Generator, n: int, width: int, columns: int = 1) -> NDArray[np.float32]:
    """Gives smooth noise of unit variance, (n, columns): white noise under a bell of `width` frames."""
    bell = np.exp(-0.5 * np.linspace(-2.5, 2.5, 5 * width) ** 2)
    bell /= np.sqrt((bell**2).sum())
    white = rng.standard_normal((columns, n + len(bell) - 1))
    return np.stack([np.convolve(row, bell, "valid") for row in white], axis=1).astype(np.float32)


def _spans(rng: np.random.Generator, n: int, share: float, mean: int) -> list[tuple[int, int]]:
    """Gives spans of about `mean` frames that cover about `share` of `n`."""
    spans = []
    for _ in range(int(rng.poisson(share * n / mean))):
        start = int(rng.integers(-mean // 2, n))
        spans.append((start, start + int(mean * rng.uniform(0.5, 1.5)) + 1))
    return spans


def _draw_passing(rng: np.random.Generator, n: int, share: float) -> list[_Passing]:
    found = []
    for start, stop in _spans(rng, n, share, 22):
        side = rng.choice((-1, 1))
        ends = [(MIDDLE + side * 62, rng.uniform(60, 110)), (MIDDLE - side * rng.uniform(-10, 50), rng.uniform(45, 105))]
        if rng.random() < 0.5:
            ends.reverse()
        found.append(_Passing(start, stop, int(rng.integers(3)), (ends[0], ends[1]), float(rng.uniform(16, 23))))
    return found


def _draw_take(rng: np.random.Generator, n: int, weather: Weather) -> _Take:
    turn = 0.35 * weather.pose * np.clip(_drift(rng, n, 25, 2), -2, 2)
    shift = weather.jitter * (_drift(rng, n, 12, 2) + rng.normal(0, 0.6, (n, 2)))
    gain = np.clip(rng.uniform(0.85, 1.1) + 0.06 * _drift(rng, n, 40)[:, 0], 0.6, 1.2)
    noise = rng.uniform(3, 9) + rng.uniform(0, 3, n)
    blur = np.zeros(n, np.int64)
    for start, stop in _spans(rng, n, weather.bursts, 9):
        blur[max(start, 0) : stop] = rng.integers(3, 6) * 2 - 1
    # 0 untouched, 1 moved while exposed, 2 washed out, 3 dark and grainy, 4 half lost
    fault = np.where(rng.random(n) < weather.spoilt, rng.integers(1, 5, n), 0)
    blur[fault == 1] = rng.integers(3, 6, n)[fault == 1] * 2 + 1
    gain = np.where(fault == 2, rng.uniform(0.15, 0.3, n), gain)
    noise = np.where(fault == 3, rng.uniform(40, 60, n), noise)
    return _Take(
        turn=turn.astype(np.float32),
        shift=shift.astype(np.float32),
        roll=(0.03 * _drift(rng, n, 30)[:, 0]).astype(np.float32),
        zoom=(0.02 * _drift(rng, n, 30)[:, 0]).astype(np.float32),
        gain=gain.astype(np.float32),
        slant=(0.25 * np.abs(rng.normal(0, 0.8) + 0.2 * _drift(rng, n, 50)[:, 0]).clip(0, 1.6)).astype(np.float32),
        blur=blur,
        noise=noise.astype(np.float32),
        lost=fault == 4,
        place=rng.random((n, 2), dtype=np.float32),
    )
