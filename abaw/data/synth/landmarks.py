"""Landmark lines of a face and the blendshapes by which action units deform them.

The displacements follow the Facial Action Coding System (Ekman, Friesen and Hager: Facial Action Coding
System, The Manual, 2002). Blendshapes are linear, with one corrective shape for AU1 combined with AU4.
"""

import numpy as np
from numpy.typing import NDArray

from abaw.data.synth.canvas import MIDDLE, Points, spline
from abaw.data.synth.identity import Identity
from abaw.tasks import AU

MOVEMENTS = (*AU.names, "AU5", "AU9", "AU17", "AU20", "AU45")
"""The animated action units: the twelve labelled ones first, then upper lid raiser, nose wrinkler, chin
raiser, lip stretcher and blink, which are part of expressions but have no label."""

_EYE, _MOUTH = 51.6, 92.3  # rows of eyes and mouth corners in the landmark template of `cropped_aligned`
Shift = dict[str, list[tuple[float, float]]]

# Each line of half a face: rest positions, and displacements at intensity 1, in pixels as (outwards, down).
# Eyes and brows are relative to the centre of the eye, nose and mouth to the symmetry axis.
_LID: Shift = {
    "rest": [(-7.2, 0.7), (-3.6, -2.9), (0, -4.0), (4.0, -3.2), (7.4, 0.0)],
    "AU5": [(0, 0), (0, -2.2), (0, -2.8), (0, -2.2), (0, 0)],
    "AU6": [(0, 0), (0, 0), (0, 0.2), (0, 0.8), (0, 0.8)],
    "AU7": [(0, 0), (0, 1.5), (0, 1.9), (0, 1.5), (0, 0)],
    "AU9": [(0, 0), (0, 0.5), (0, 0.3), (0, 0), (0, 0)],
    "AU4": [(0, 0), (0, 1.0), (0, 0.6), (0, 0), (0, 0)],
    "AU45": [(0, 0.4), (0, 4.6), (0, 6.2), (0, 5.2), (0, 0.8)],
}

_LOWER_LID: Shift = {
    "rest": [(-7.2, 0.7), (-3.6, 2.4), (0, 3.0), (4.0, 2.5), (7.4, 0.0)],
    "AU6": [(0, 0), (0, -0.8), (0, -1.4), (0, -1.6), (0, 0.8)],
    "AU7": [(0, 0), (0, -1.7), (0, -2.2), (0, -1.8), (0, 0)],
    "AU9": [(0, 0), (0, -0.6), (0, -0.4), (0, 0), (0, 0)],
    "AU5": [(0, 0), (0, 0.3), (0, 0.4), (0, 0.3), (0, 0)],
    "AU45": [(0, 0.4), (0, -0.2), (0, -0.3), (0, -0.2), (0, 0.8)],
}

_CREASE: Shift = {
    "rest": [(-6.4, -2.2), (-3.4, -5.2), (0.4, -6.6), (4.8, -5.6), (8.2, -2.0)],
    "AU1": [(0, -1.6), (0, -1.4), (0, -0.6), (0, 0), (0, 0)],
    "AU2": [(0, 0), (0, 0), (0, -1.0), (0, -1.8), (0, -1.0)],
    "AU4": [(-0.4, 2.0), (-0.3, 1.8), (0, 1.4), (0, 1.0), (0, 0.2)],
    "AU5": [(0, -0.6), (0, -1.0), (0, -1.0), (0, -1.0), (0, -0.4)],
    "AU45": [(0, 0.4), (0, 1.4), (0, 1.6), (0, 1.4), (0, 0.4)],
}

_BROW: Shift = {
    "rest": [(-10.2, -8.6), (-5.6, -10.4), (0, -11.8), (5.8, -11.4), (11.0, -8.4)],
    "AU1": [(-0.6, -6.8), (-0.3, -4.6), (0, -1.6), (0, 0), (0, 0)],
    "AU2": [(0, 0.2), (0, -0.8), (0, -3.4), (0.4, -6.2), (0.8, -5.6)],
    "AU4": [(-3.0, 4.4), (-2.2, 3.8), (-1.2, 2.6), (-0.4, 1.4), (0, 0.4)],
    "AU1+AU4": [(0.8, -2.6), (0.4, -2.4), (0, -1.6), (0, -0.4), (0, 0.4)],
    "AU5": [(0, -0.5), (0, -0.6), (0, -0.8), (0, -0.6), (0, -0.4)],
    "AU6": [(0, 0), (0, 0), (0, 0.2), (0, 0.8), (0, 1.0)],
    "AU9": [(-0.6, 1.4), (-0.3, 1.0), (0, 0.4), (0, 0), (0, 0)],
}

_BROW_HALF_HEIGHT = np.array([1.3, 1.75, 1.6, 1.15, 0.25])

_WING: Shift = {
    "rest": [(6.2, 69.0), (8.0, 72.6), (7.4, 75.6), (4.6, 76.0)],
    "AU9": [(0.6, -2.6), (1.2, -2.6), (1.2, -2.2), (0.4, -1.4)],
    "AU10": [(0.4, -1.6), (0.8, -1.8), (0.8, -1.6), (0.2, -0.8)],
}

_LIP_TOP: Shift = {
    "rest": [(0, -3.7), (3.6, -4.8), (9.4, -3.0), (14.6, 0)],
    "AU9": [(0, -1.0), (0, -1.4), (0, -1.2), (0, 0)],
    "AU10": [(0, -3.0), (0, -3.6), (0.6, -4.6), (0.4, -0.6)],
    "AU12": [(0, 0.7), (0.6, 0.5), (2.4, -1.4), (5.0, -5.6)],
    "AU15": [(0, -0.2), (0, 0), (0.3, 1.8), (0.6, 5.2)],
    "AU17": [(0, -1.4), (0, -1.4), (0, -0.8), (-0.4, 1.0)],
    "AU20": [(0, 0.4), (0.8, 0.6), (3.0, 0.8), (5.4, 1.4)],
    "AU23": [(0, 1.6), (-1.0, 2.4), (-3.0, 1.4), (-4.6, 0)],
    "AU24": [(0, 2.9), (0, 3.7), (0.2, 2.5), (0.8, 0)],
    "AU25": [(0, -0.8), (0, -0.8), (0, -0.5), (-0.2, 0.2)],
    "AU26": [(0, 0), (0, 0), (-1.0, 0.3), (-2.6, 1.6)],
}

_MOUTH_TOP: Shift = {
    "rest": [(0, -0.4), (3.8, -0.5), (9.0, -0.3), (13.9, 0)],
    "AU9": [(0, -0.6), (0, -0.6), (0, -0.5), (0, 0)],
    "AU10": [(0, -2.2), (0, -2.4), (0.4, -2.6), (0.2, -0.5)],
    "AU12": [(0, 1.0), (0.6, 0.8), (2.2, -1.2), (5.0, -5.5)],
    "AU15": [(0, -0.2), (0, 0), (0.3, 1.4), (0.6, 5.0)],
    "AU17": [(0, -1.6), (0, -1.6), (0, -0.6), (-0.4, 1.0)],
    "AU20": [(0, 0), (0.8, 0.1), (3.0, 0.5), (5.2, 1.4)],
    "AU23": [(0, 0.2), (-1.2, 0.2), (-3.2, 0), (-4.6, 0)],
    "AU24": [(0, 0.2), (0, 0.2), (0.2, 0.1), (0.8, 0)],
    "AU25": [(0, -1.1), (0, -1.1), (0, -0.7), (-0.2, 0.2)],
    "AU26": [(0, 0), (0, 0), (-1.0, 0.3), (-2.6, 1.6)],
}

_MOUTH_BOTTOM: Shift = _MOUTH_TOP | {
    "rest": [(0, -0.1), (3.8, -0.2), (9.0, -0.1), (13.9, 0)],
    "AU10": [(0, -2.0), (0, -2.2), (0.4, -2.4), (0.2, -0.5)],
    "AU25": [(0, 3.4), (0, 3.2), (0, 2.2), (-0.2, 0.3)],
    "AU26": [(0, 6.3), (-0.3, 6.2), (-1.0, 5.0), (-2.6, 1.6)],
}

_LIP_BOTTOM: Shift = {
    "rest": [(0, 6.0), (4.4, 5.6), (10.0, 3.4), (14.6, 0)],
    "AU10": [(0, -1.2), (0, -1.2), (0, -1.2), (0.4, -0.6)],
    "AU12": [(0, 0.4), (0.8, 0), (2.6, -2.0), (5.0, -5.6)],
    "AU15": [(0, -0.6), (0, 0.2), (0.4, 2.2), (0.6, 5.2)],
    "AU17": [(0, -2.6), (0, -2.4), (0, -1.2), (-0.4, 1.0)],
    "AU20": [(0, -0.4), (1.0, -0.4), (3.0, 0.4), (5.4, 1.4)],
    "AU23": [(0, -2.2), (-1.2, -2.2), (-3.2, -1.4), (-4.6, 0)],
    "AU24": [(0, -4.4), (0, -4.2), (0.2, -2.6), (0.8, 0)],
    "AU25": [(0, 2.9), (0, 2.7), (0, 1.7), (-0.2, 0.2)],
    "AU26": [(0, 6.2), (0, 6.1), (-0.6, 5.4), (-2.6, 1.6)],
}


def lines(who: Identity, moves: NDArray[np.float32]) -> dict[str, Points]:
    """Returns the landmark lines of every frame.

    Args:
        who: Appearance of the person.
        moves: (T, len(MOVEMENTS)), intensities in [0, 1].

    Returns:
        Float (T, 2, m, 2): frame, side (image left, image right), point, (x, y) in crop coordinates. Lines
        run outwards from the axis; those of the mouth start on it.
    """
    sides = np.stack([moves * (1 + who.asymmetry), moves * (1 - who.asymmetry)], axis=1).astype(np.float64)
    sides[..., MOVEMENTS.index("AU45")] = moves[:, None, MOVEMENTS.index("AU45")]
    eye, mouth = (who.eye_size, who.eye_size), (who.mouth_width / 14.6, who.lip_fullness)
    around_eye = (who.eye_spacing, _EYE)
    found = {
        "lid": _deform(_LID, sides, eye, around_eye),
        "lower_lid": _deform(_LOWER_LID, sides, eye, around_eye),
        "crease": _deform(_CREASE, sides, eye, around_eye),
        "brow": _deform(_BROW, sides, (1, 1), (who.eye_spacing, _EYE + who.brow_height)),
        "wing": _deform(_WING, sides, (who.nose_width, 1), (0, who.nose_length)),
    }
    for name, table in (
        ("lip_top", _LIP_TOP),
        ("mouth_top", _MOUTH_TOP),
        ("mouth_bottom", _MOUTH_BOTTOM),
        ("lip_bottom", _LIP_BOTTOM),
    ):
        found[name] = _deform(table, sides, mouth, (0, _MOUTH))
    for name in ("lid", "lower_lid", "crease"):
        found[name][..., 1] += who.eye_tilt * (found[name][..., 0] - who.eye_spacing) / 7
    found["brow"][..., 1] -= who.brow_arch * (1 - ((found["brow"][..., 0] - who.eye_spacing) / 11) ** 2)
    _keep_above(found["lid"], found["lower_lid"], 0.0)
    _keep_above(found["mouth_top"], found["mouth_bottom"], 0.0)
    _keep_above(found["lip_top"], found["mouth_top"], 0.5)
    found["lip_bottom"][..., 1] = np.maximum(found["lip_bottom"][..., 1], found["mouth_bottom"][..., 1] + 0.6)
    for points in found.values():  # from "outwards" to columns of the image
        points[..., 0] = MIDDLE + np.array([-1.0, 1.0])[:, None] * points[..., 0]
    return found


def brow_shape(who: Identity, middle: Points) -> Points:
    """Returns the closed outlines of the brows from their centre lines, (T, 2, 2 m, 2)."""
    half = spline(len(_BROW_HALF_HEIGHT)) @ _BROW_HALF_HEIGHT * who.brow_weight
    height = np.stack([np.zeros_like(half), half], axis=1)
    return np.concatenate([middle - height, (middle + height)[..., ::-1, :]], axis=2)


def _deform(table: Shift, sides: Points, scale: tuple[float, float], origin: tuple[float, float]) -> Points:
    """Returns a line deformed by its blendshapes, (T, 2, m, 2) as (outwards, down)."""
    rest = np.array(table["rest"]) * scale + origin
    control = np.broadcast_to(rest, (*sides.shape[:2], *rest.shape)).copy()
    for name, shift in table.items():
        if name == "AU1+AU4":
            amount = sides[..., MOVEMENTS.index("AU1")] * sides[..., MOVEMENTS.index("AU4")]
        elif name != "rest":
            amount = sides[..., MOVEMENTS.index(name)]
        else:
            continue
        control += amount[..., None, None] * np.array(shift)
    # einsum, as the rounding of a BLAS matrix product may depend on the number of threads
    return np.einsum("mn,tsnc->tsmc", spline(len(rest)), control)


def _keep_above(upper: Points, lower: Points, gap: float) -> None:
    np.minimum(upper[..., 1], lower[..., 1] - gap, out=upper[..., 1])
