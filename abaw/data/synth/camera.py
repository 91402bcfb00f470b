"""Camera model: head pose, lighting, occluders, blur, compression artefacts and noise.

Labels do not depend on it, so that a degraded frame can only be predicted from its neighbours.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from abaw.data.synth.canvas import MARGIN, MIDDLE, SCALE, SIZE, Colour, Image
from abaw.data.synth.occluders import draw_occluders, spans

_GRAIN = 32.0  # standard deviation of the noise tile below, which is centred on 128


@dataclass(frozen=True, kw_only=True)
class CaptureConditions:
    """Severity of the image degradations of a preset.

    Attributes:
        pose: Extent of head turns, 1 = about 20 degrees.
        jitter: Standard deviation of the face alignment error, in pixels.
        degraded: Share of the frames degraded independently: blurred, low-contrast, noisy or pixelated.
        bursts: Share of the frames within bursts of blur.
        occluded: Share of the frames with an occluder in front of the face.
    """

    pose: float
    jitter: float
    degraded: float
    bursts: float
    occluded: float


@dataclass(frozen=True, kw_only=True)
class _State:
    """Camera parameters of every frame, each (T,), or (T, 2) for turn, shift and place."""

    turn: NDArray[np.float32]  # yaw and pitch, 1 = about 20 degrees
    shift: NDArray[np.float32]  # alignment error, x and y in pixels
    roll: NDArray[np.float32]  # radians
    zoom: NDArray[np.float32]  # natural logarithm of the scale
    gain: NDArray[np.float32]  # contrast
    slant: NDArray[np.float32]  # strength of the lighting gradient across the face
    blur: NDArray[np.int64]  # kernel size of the box blur in pixels, 0 for none
    noise: NDArray[np.float32]  # standard deviation of the sensor noise in grey levels
    pixelated: NDArray[np.bool_]  # whether a block of the image is pixelated
    place: NDArray[np.float32]  # position of that block, 0 to 1


class Camera:
    """Renders the frames of one video as aligned crops.

    Args:
        rng: The video's generator; all camera parameters are drawn at construction.
        n_frames: T.
        conditions: Severity of the degradations.
        skin: Skin colour, BGR: determines the exposure and the colour of hands.
    """

    def __init__(
        self, rng: np.random.Generator, *, n_frames: int, conditions: CaptureConditions, skin: Colour
    ) -> None:
        # auto-exposure, which compensates the skin tone only in part
        self._exposure = float(np.clip((150 / np.mean(skin)) ** 0.5, 0.9, 1.5))
        self._state = _draw_state(rng, n_frames, conditions)
        x, y = np.meshgrid(np.arange(SIZE, dtype=np.float32), np.arange(SIZE, dtype=np.float32))
        self._x, self._y = x - MIDDLE, y - 66
        bump = np.exp(-((self._x / 27) ** 2) - ((self._y - 2) / 36) ** 2)
        self._turn = 9 * bump - 3
        lower = np.clip((y - 97) / 13, 0, 1)
        self._jaw = 5.5 * lower * lower * (3 - 2 * lower) * np.exp(-((self._x / 36) ** 2))
        angle = rng.uniform(0, 2 * np.pi)  # direction of the light
        slope = 128 + 90 * (np.cos(angle) * self._x + np.sin(angle) * self._y) / 56
        self._slope = np.repeat(np.clip(slope, 0, 255).astype(np.uint8)[..., None], 3, axis=2)
        self._tile = np.clip(
            np.random.default_rng(0).normal(128, _GRAIN, (2 * SIZE, 2 * SIZE, 3)), 0, 255
        ).astype(np.uint8)
        self._corner = rng.integers(0, SIZE, (n_frames, 2))
        self._occluders = draw_occluders(rng, n_frames, share=conditions.occluded, skin=skin)

    def render(self, canvas: Image, jaw: float, t: int) -> Image:
        """Returns frame `t` as an aligned crop.

        Args:
            canvas: The drawn face, from `Face.draw`.
            jaw: Intensity of the jaw drop, 0 to 1, by which the chin is moved.
            t: Frame number, from 0.

        Returns:
            uint8 BGR (SIZE, SIZE, 3).
        """
        state = self._state
        picture = self._aligned(canvas, jaw, t)
        for item in self._occluders:
            item.cover(picture, t)
        gain, slant = float(state.gain[t]), float(state.slant[t])
        haze = 110 * (1 - gain) - 128 * slant
        cv2.addWeighted(picture, self._exposure * gain, self._slope, slant, haze, dst=picture)
        if size := int(state.blur[t]):
            cv2.blur(picture, (size, size), dst=picture)
            cv2.blur(picture, (size, size), dst=picture)
        if state.pixelated[t]:
            self._pixelate(picture, state.place[t])
        top, left = self._corner[t]
        grain = self._tile[top : top + SIZE, left : left + SIZE]
        amount = float(state.noise[t]) / _GRAIN
        cv2.addWeighted(picture, 1, grain, amount, -128 * amount, dst=picture)
        return picture

    def _aligned(self, canvas: Image, jaw: float, t: int) -> Image:
        state = self._state
        scale, roll = float(np.exp(-state.zoom[t])), float(state.roll[t])
        cos, sin = scale * np.cos(roll), scale * np.sin(roll)
        (dx, dy), (yaw, pitch) = state.shift[t].tolist(), state.turn[t].tolist()
        x = cos * self._x - sin * self._y - yaw * self._turn
        y = sin * self._x + cos * self._y - pitch * self._turn - jaw * self._jaw
        x = (x + (MIDDLE - dx + MARGIN + 0.5)) * SCALE - 0.5
        y = (y + (66 - dy + MARGIN + 0.5)) * SCALE - 0.5
        picture = np.empty((SIZE, SIZE, 3), np.uint8)
        maps = x.astype(np.float32), y.astype(np.float32)
        cv2.remap(canvas, *maps, cv2.INTER_LINEAR, picture, cv2.BORDER_REPLICATE)
        return picture

    @staticmethod
    def _pixelate(picture: Image, place: NDArray[np.float32]) -> None:
        """Pixelates a block of the image, as after packet loss in a video stream."""
        left, top = (place * 40).astype(int).tolist()
        block = picture[top : top + 64, left : left + 72]
        coarse = cv2.resize(block, (4, 4), interpolation=cv2.INTER_AREA)
        block[:] = cv2.resize(coarse, (72, 64), interpolation=cv2.INTER_NEAREST)


def _drift(rng: np.random.Generator, n: int, width: int, columns: int = 1) -> NDArray[np.float32]:
    """Returns low-pass filtered Gaussian noise of unit variance, (n, columns)."""
    bell = np.exp(-0.5 * np.linspace(-2.5, 2.5, 5 * width) ** 2)
    bell /= np.sqrt((bell**2).sum())
    white = rng.standard_normal((columns, n + len(bell) - 1))
    return np.stack([np.convolve(row, bell, "valid") for row in white], axis=1).astype(np.float32)


def _draw_state(rng: np.random.Generator, n: int, conditions: CaptureConditions) -> _State:
    turn = 0.35 * conditions.pose * np.clip(_drift(rng, n, 25, 2), -2, 2)
    light = np.abs(rng.normal(0, 0.8) + 0.2 * _drift(rng, n, 50)[:, 0])
    shift = conditions.jitter * (_drift(rng, n, 12, 2) + rng.normal(0, 0.6, (n, 2)))
    gain = np.clip(rng.uniform(0.85, 1.1) + 0.06 * _drift(rng, n, 40)[:, 0], 0.6, 1.2)
    noise = rng.uniform(3, 9) + rng.uniform(0, 3, n)
    blur = np.zeros(n, np.int64)
    for start, stop in spans(rng, n, conditions.bursts, 9):
        blur[max(start, 0) : stop] = rng.integers(3, 6) * 2 - 1
    # 0 none, 1 motion blur, 2 low contrast, 3 noise, 4 pixelation
    fault = np.where(rng.random(n) < conditions.degraded, rng.integers(1, 5, n), 0)
    blur[fault == 1] = rng.integers(3, 6, n)[fault == 1] * 2 + 1
    gain = np.where(fault == 2, rng.uniform(0.15, 0.3, n), gain)
    noise = np.where(fault == 3, rng.uniform(40, 60, n), noise)
    return _State(
        turn=turn.astype(np.float32),
        shift=shift.astype(np.float32),
        roll=(0.05 * conditions.pose * _drift(rng, n, 30)[:, 0]).astype(np.float32),
        zoom=(0.03 * conditions.pose * _drift(rng, n, 30)[:, 0]).astype(np.float32),
        gain=gain.astype(np.float32),
        slant=(0.25 * light.clip(0, 1.6)).astype(np.float32),
        blur=blur,
        noise=noise.astype(np.float32),
        pixelated=fault == 4,
        place=rng.random((n, 2), dtype=np.float32),
    )
