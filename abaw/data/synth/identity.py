"""Appearance parameters of a generated person."""

from dataclasses import dataclass

import numpy as np

from abaw.data.synth.canvas import Colour

HAIR_STYLES = ("bald", "cropped", "parted", "fringe", "long", "curly")
BEARDS = ("none", "stubble", "moustache", "full")
_SKIN = (0xFFDDC4, 0xF3C9A8, 0xE8B88F, 0xD6A074, 0xB87D54, 0x8D5A3C, 0x68422E)
_DARK_HAIR = (0x1C1818, 0x3A261C, 0x5E3E26, 0x969492)
_LIGHT_HAIR = (0x8C5C32, 0xC49C60, 0x8A4426)
_BROWN_IRIS = (0x4A3222, 0x604628)
_LIGHT_IRIS = (0x546E4A, 0x466E96, 0x6C7880)
_CLOTH = (0x34486E, 0x783438, 0x46604E, 0x3A3A40, 0xBEBAB2, 0x967846)


@dataclass(frozen=True, kw_only=True)
class Identity:
    """Appearance of one person: lengths in crop pixels, colours as BGR, other values factors around 1."""

    head_width: float
    jaw_width: float
    chin: float
    hairline: float
    eye_spacing: float
    eye_size: float
    eye_tilt: float
    brow_height: float
    brow_weight: float
    brow_arch: float
    nose_width: float
    nose_length: float
    mouth_width: float
    lip_fullness: float
    wrinkles: float
    asymmetry: float
    hair_style: str
    beard: str
    glasses: bool
    skin: Colour
    lips: Colour
    hair: Colour
    iris: Colour
    cloth: Colour
    light: float
    seed: int


def draw_identity(rng: np.random.Generator, *, variation: float = 1.0) -> Identity:
    """Returns a random person; `variation` scales the deviation from the mean face."""

    def about(mean: float, spread: float) -> float:
        return mean + variation * spread * float(rng.uniform(-1, 1))

    def colour(palette: tuple[int, ...], spread: float = 8) -> Colour:
        value = int(rng.choice(np.array(palette)))
        shift = rng.uniform(-spread, spread)
        b, g, r = (float(np.clip((value >> bits & 255) + shift, 0, 255)) for bits in (0, 8, 16))
        return b, g, r

    style = str(rng.choice(HAIR_STYLES, p=(0.1, 0.2, 0.2, 0.15, 0.2, 0.15)))
    bearded = 0.0 if style in ("long", "fringe") else 0.55 * variation
    beard = str(rng.choice(BEARDS, p=(1 - bearded, 0.45 * bearded, 0.2 * bearded, 0.35 * bearded)))
    skin = colour(_SKIN, 10)
    is_dark = sum(skin) < 380  # hair and iris colours correlate with the skin
    hair = colour(_DARK_HAIR if is_dark else _DARK_HAIR + _LIGHT_HAIR)
    while sum(hair) > 0.75 * sum(skin):  # brows must contrast with the skin
        hair = (hair[0] * 0.8, hair[1] * 0.8, hair[2] * 0.8)
    rouge = float(rng.uniform(0.4, 0.8)) if beard == "none" else 0.35
    return Identity(
        head_width=about(38.5, 3),
        jaw_width=about(0.82, 0.09),
        chin=about(110, 2.5),
        hairline=about(17, 4),
        eye_spacing=about(17.6, 1.0),
        eye_size=about(1.05, 0.1),
        eye_tilt=about(0, 0.8),
        brow_height=about(0, 1.2),
        brow_weight=about(1.15, 0.35),
        brow_arch=about(0, 1.2),
        nose_width=about(1.0, 0.18),
        nose_length=about(0, 1.5),
        mouth_width=about(14.6, 1.2),
        lip_fullness=about(1.0, 0.3),
        wrinkles=about(1.0, 0.35),
        asymmetry=about(0, 0.1),
        hair_style=style,
        beard=beard,
        glasses=bool(rng.random() < 0.25 * variation),
        skin=skin,
        lips=_lips(skin, rouge),
        hair=hair,
        iris=colour(_BROWN_IRIS if is_dark else _BROWN_IRIS + _LIGHT_IRIS),
        cloth=colour(_CLOTH),
        light=float(rng.uniform(-1, 1)),
        seed=int(rng.integers(2**31)),
    )


def _lips(skin: Colour, rouge: float) -> Colour:
    """Returns the lip colour: the skin colour with redness increased by `rouge`, 0 to 1."""
    b, g, r = skin
    return b * (1 - 0.45 * rouge) + 12, g * (1 - 0.55 * rouge) + 8, min(r * (1 - 0.12 * rouge) + 22, 255.0)
