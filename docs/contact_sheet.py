"""A contact sheet of generated faces."""

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from abaw.data.synth.camera import Camera
from abaw.data.synth.canvas import MARGIN, SCALE, SIZE, Image
from abaw.data.synth.face import Face
from abaw.data.synth.identity import HAIR_STYLES, Identity, draw_identity
from abaw.data.synth.landmarks import MOVEMENTS
from abaw.data.synth.presets import PRESETS
from abaw.data.synth.script import PROTOTYPES
from abaw.files import atomic_path
from abaw.tasks import AU, EXPR

_WIDTH, _LINE = 960, 20  # pixels of the sheet, and of a line of names


def contact_sheet(path: Path | str, *, seed: int = 0) -> None:
    """Writes a PNG: people by expressions, one person by action units, and consecutive frames of a video.

    Args:
        path: The file to write.
        seed: Random seed.

    Raises:
        AbawError: The file cannot be written.
    """
    rng = np.random.default_rng((seed, len(EXPR.names)))
    crowd = [draw_identity(rng) for _ in range(100)]
    people = [
        next(who for who in crowd if who.hair_style == style) for style in HAIR_STYLES if style != "bald"
    ]
    plain = next(who for who in crowd if who.beard == "none" and not who.glasses and who not in people)
    expressions = np.stack([_prototype(name) for name in EXPR.names])
    units = np.eye(len(AU.names), len(MOVEMENTS), dtype=np.float32)
    rows = [_names(EXPR.names)]
    rows += [_row(_still(who, expressions, scene=k)) for k, who in enumerate(people)]
    rows += [_names(AU.names), _row(_still(plain, units, scene=5))]
    rows += [_names(("as filmed: twelve frames in a row",)), _row(_filmed(people[0], rng))]
    sheet = np.concatenate(rows) & 0xFC  # two bits less halve the file and do not show
    _, data = cv2.imencode(".png", sheet, (cv2.IMWRITE_PNG_COMPRESSION, 9))
    with atomic_path(Path(path)) as temporary:
        temporary.write_bytes(data.tobytes())


def _prototype(expression: str) -> NDArray[np.float32]:
    """Movements of the most frequent prototype of an expression, (len(MOVEMENTS),)."""
    moves = np.zeros(len(MOVEMENTS), np.float32)
    _, movements = max(PROTOTYPES[expression], key=lambda way: way[0])
    for movement, often in movements.items():
        moves[MOVEMENTS.index(movement)] = often >= 0.5
    return moves


def _still(who: Identity, moves: NDArray[np.float32], *, scene: int) -> list[Image]:
    """Generated faces without capture conditions."""
    inner = slice(MARGIN * SCALE, (MARGIN + SIZE) * SCALE)
    gaze = np.zeros((len(moves), 2), np.float32)
    return [canvas[inner, inner] for canvas in Face(who, scene=scene).draw(moves, gaze)]


def _filmed(who: Identity, rng: np.random.Generator) -> list[Image]:
    """Consecutive frames of a growing smile."""
    n = len(AU.names)
    moves = np.linspace(0, 1, n, dtype=np.float32)[:, None] * _prototype("Happiness")
    camera = Camera(rng, n_frames=n, conditions=PRESETS["demo"].conditions, skin=who.skin)
    canvases = Face(who, scene=0).draw(moves, np.zeros((n, 2), np.float32))
    return [camera.render(canvas, 0.0, t) for t, canvas in enumerate(canvases)]


def _row(pictures: list[Image]) -> Image:
    side = _WIDTH // len(pictures)
    small = [cv2.resize(picture, (side, side), interpolation=cv2.INTER_AREA) for picture in pictures]
    return np.concatenate(small, axis=1).astype(np.uint8)


def _names(names: tuple[str, ...]) -> Image:
    """A line of text with a name centred in each column."""
    line = np.full((_LINE, _WIDTH, 3), 255, np.uint8)
    for k, name in enumerate(names):
        (width, _), _ = cv2.getTextSize(name, cv2.FONT_HERSHEY_SIMPLEX, 0.45, 1)
        x = int((k + 0.5) * _WIDTH / len(names) - width / 2)
        cv2.putText(line, name, (x, 14), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (40, 40, 40), 1, cv2.LINE_AA)
    return line
