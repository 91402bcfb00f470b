"""Plays a script: smooth courses of movements, and the labels annotators would give to them.

Valence and arousal lie on the circumplex (Russell, J. Pers. Soc. Psychol. 39, 1980); annotators are late
(Mariooryad and Busso, IEEE Trans. Affective Computing 6, 2015).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from abaw.data.labels import Labels
from abaw.data.synth.landmarks import MOVEMENTS
from abaw.data.synth.script import LabelStatistics, Script, Span
from abaw.tasks import AU_NAMES

PRESENT = 0.35
"""A movement from this extent on is labelled as present; annotators do not count traces."""

_CIRCUMPLEX = np.array(
    [(0, 0), (-0.55, 0.65), (-0.65, 0.25), (-0.4, 0.8), (0.8, 0.4), (-0.7, -0.4), (0.2, 0.75), (0.1, 0.15)]
)
"""Valence and arousal of each expression at its height, in the order of the official header."""


@dataclass(frozen=True, kw_only=True)
class Performance:
    """One script played: what is to be drawn, and its labels.

    Attributes:
        moves: float32 (R, len(MOVEMENTS)), 0 at rest, 1 at the extreme.
        gaze: float32 (R, 2), shift of the irises in crop pixels.
        labels: Every task labelled on every row; row k is frame k.
    """

    moves: NDArray[np.float32]
    gaze: NDArray[np.float32]
    labels: Labels


def play(script: Script, society: LabelStatistics, rng: np.random.Generator) -> Performance:
    """Gives courses and labels of a script; labels follow from the undisturbed courses."""
    n = script.n_rows
    moves = np.zeros((n, len(MOVEMENTS)))
    for span in script.movements:
        course = span.peak * _course(n, span, rng)
        if MOVEMENTS[span.what] == "AU25":  # syllables
            course *= 0.88 + 0.12 * np.sin(np.arange(n) * rng.uniform(0.5, 0.9))
        moves[:, span.what] = np.maximum(moves[:, span.what], course)
    parted, dropped = MOVEMENTS.index("AU25"), MOVEMENTS.index("AU26")
    moves[:, parted] = np.maximum(moves[:, parted], moves[:, dropped])  # a dropped jaw parts the lips
    present = moves[:, : len(AU_NAMES)] >= PRESENT
    expr = np.zeros(n, np.int64)
    felt = np.zeros((n, 2))
    for span in script.expressions:
        expr[max(span.start, 0) : span.stop] = span.what
        place = _CIRCUMPLEX[span.what] * span.peak + rng.normal(0, 0.04, 2)
        felt += _course(n, span, rng)[:, None] * place
    labels = Labels(
        va=_annotate(felt, society, rng),
        va_valid=np.ones(n, np.bool_),
        expr=expr,
        expr_valid=np.ones(n, np.bool_),
        au=present.astype(np.float32),
        au_valid=np.ones((n, len(AU_NAMES)), np.bool_),
    )
    _blink(moves, rng)
    return Performance(moves=moves.astype(np.float32), gaze=_gaze(n, rng), labels=labels)


def _course(n: int, span: Span, rng: np.random.Generator) -> NDArray[np.float64]:
    """Gives onset, apex and offset over `n` frames: one half at the span's first and last frame."""
    t = np.arange(n)
    onset, offset = rng.uniform(5, 10), rng.uniform(7, 14)
    rise = np.clip((t - span.start) / onset + 0.5, 0, 1)
    fall = np.clip((span.stop - t) / offset + 0.5, 0, 1)
    return rise**2 * (3 - 2 * rise) * fall**2 * (3 - 2 * fall)


def _annotate(
    felt: NDArray[np.float64], society: LabelStatistics, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Gives what annotators write down: late, smoothed and never twice alike, (R, 2)."""
    n = len(felt)
    lag = int(rng.integers(society.lag[0], society.lag[1] + 1))
    bell = np.exp(-0.5 * np.linspace(-2.5, 2.5, 21) ** 2)
    bell /= bell.sum()
    seen = np.concatenate([np.repeat(felt[:1], lag + 10, axis=0), felt, np.repeat(felt[-1:], 10, axis=0)])
    smooth = np.stack([np.convolve(column, bell, "valid")[:n] for column in seen.T], axis=1)
    mood = rng.normal(0, 0.03, 2) + 0.03 * np.sin(np.arange(n)[:, None] / rng.uniform(20, 60, 2))
    return np.clip(np.round(smooth + mood, 3), -1, 1).astype(np.float32)


def _blink(moves: NDArray[np.float64], rng: np.random.Generator) -> None:
    closed = np.array([0.3, 0.8, 1, 0.9, 0.5, 0.2])
    column, start = MOVEMENTS.index("AU45"), int(rng.integers(0, 90))
    while start < len(moves):
        part = moves[start : start + len(closed), column]
        part[:] = closed[: len(part)]
        start += int(rng.integers(45, 150))


def _gaze(n: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Gives fixations with jumps between them."""
    jumps = np.repeat(rng.normal(0, (1.1, 0.5), (n // 15 + 1, 2)), 15, axis=0)[:n]
    return np.clip(jumps, -2, 2).astype(np.float32)
