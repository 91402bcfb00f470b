"""Animation curves of a script, and the labels that annotators would assign to them.

Valence and arousal follow the circumplex model (Russell, J. Pers. Soc. Psychol. 39, 1980); annotations lag
the video (Mariooryad and Busso, IEEE Trans. Affective Computing 6, 2015).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from abaw.data.labels import Labels
from abaw.data.synth.landmarks import MOVEMENTS
from abaw.data.synth.script import LabelStatistics, Script, Span
from abaw.tasks import AU, EXPR, VA, Task, TaskLabels

PRESENT = 0.35
"""Smallest intensity at which an action unit is labelled as present."""

_CIRCUMPLEX = np.array(
    [(0, 0), (-0.55, 0.65), (-0.65, 0.25), (-0.4, 0.8), (0.8, 0.4), (-0.7, -0.4), (0.2, 0.75), (0.1, 0.15)]
)
"""Valence and arousal of each expression at its apex, in the order of the official header."""


@dataclass(frozen=True, kw_only=True)
class Animation:
    """The animation curves of one video and its labels.

    Attributes:
        moves: float32 (R, len(MOVEMENTS)), intensities in [0, 1].
        gaze: float32 (R, 2), shift of the irises in crop pixels.
        labels: Labels of all tasks on every row; row k is frame k.
    """

    moves: NDArray[np.float32]
    gaze: NDArray[np.float32]
    labels: Labels


def animate(script: Script, statistics: LabelStatistics, rng: np.random.Generator) -> Animation:
    """Returns the animation curves and labels of a script; labels are derived from the noise-free curves."""
    n = script.n_rows
    moves = np.zeros((n, len(MOVEMENTS)))
    for span in script.movements:
        curve = span.peak * _curve(n, span, rng)
        if MOVEMENTS[span.what] == "AU25":  # modulated by speech
            curve *= 0.88 + 0.12 * np.sin(np.arange(n) * rng.uniform(0.5, 0.9))
        moves[:, span.what] = np.maximum(moves[:, span.what], curve)
    lips_part, jaw_drop = MOVEMENTS.index("AU25"), MOVEMENTS.index("AU26")
    moves[:, lips_part] = np.maximum(moves[:, lips_part], moves[:, jaw_drop])  # a jaw drop parts the lips
    present = moves[:, : AU.size] >= PRESENT
    expr = np.zeros(n, np.int64)
    affect = np.zeros((n, 2))
    for span in script.expressions:
        expr[max(span.start, 0) : span.stop] = span.what
        place = _CIRCUMPLEX[span.what] * span.peak + rng.normal(0, 0.04, 2)
        affect += _curve(n, span, rng)[:, None] * place
    values: dict[Task, NDArray[Any]] = {
        VA: _annotate(affect, statistics, rng),
        EXPR: expr,
        AU: present.astype(np.float32),
    }
    labels = Labels(
        n, {task: TaskLabels(v, np.ones((n, *task.valid_shape), np.bool_)) for task, v in values.items()}
    )
    _blink(moves, rng)
    return Animation(moves=moves.astype(np.float32), gaze=_gaze(n, rng), labels=labels)


def _curve(n: int, span: Span, rng: np.random.Generator) -> NDArray[np.float64]:
    """Returns an onset-apex-offset curve over `n` frames: 0.5 at the first and last frame of the span."""
    t = np.arange(n)
    onset, offset = rng.uniform(5, 10), rng.uniform(7, 14)
    rise = np.clip((t - span.start) / onset + 0.5, 0, 1)
    fall = np.clip((span.stop - t) / offset + 0.5, 0, 1)
    return rise**2 * (3 - 2 * rise) * fall**2 * (3 - 2 * fall)


def _annotate(
    affect: NDArray[np.float64], statistics: LabelStatistics, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Returns delayed, smoothed and noisy annotations of `affect`, (R, 2)."""
    n = len(affect)
    lag = int(rng.integers(statistics.lag[0], statistics.lag[1] + 1))
    bell = np.exp(-0.5 * np.linspace(-2.5, 2.5, 21) ** 2)
    bell /= bell.sum()
    padded = np.pad(affect, ((lag + 10, 10), (0, 0)), "edge")
    smooth = np.stack([np.convolve(column, bell, "valid")[:n] for column in padded.T], axis=1)
    bias = rng.normal(0, 0.03, 2) + 0.03 * np.sin(np.arange(n)[:, None] / rng.uniform(20, 60, 2))
    return np.clip(np.round(smooth + bias, 3), -1, 1).astype(np.float32)


def _blink(moves: NDArray[np.float64], rng: np.random.Generator) -> None:
    closed = np.array([0.3, 0.8, 1, 0.9, 0.5, 0.2])
    column, start = MOVEMENTS.index("AU45"), int(rng.integers(0, 90))
    while start < len(moves):
        part = moves[start : start + len(closed), column]
        part[:] = closed[: len(part)]
        start += int(rng.integers(45, 150))


def _gaze(n: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Returns gaze shifts: fixations of 15 frames with saccades between them, (n, 2)."""
    jumps = np.repeat(rng.normal(0, (1.1, 0.5), (n // 15 + 1, 2)), 15, axis=0)[:n]
    return np.clip(jumps, -2, 2).astype(np.float32)
