"""What the made-up people do and feel: courses of movements, and the labels annotators would give.

Expressions follow the prototypes of EMFACS (Friesen and Ekman: EMFACS-7, Emotional Facial Action Coding
System, 1983); the mixtures called Other follow compound emotions (Du, Tao and Martinez, PNAS 111, 2014);
valence and arousal lie on the circumplex (Russell, J. Pers. Soc. Psychol. 39, 1980); annotators are late
(Mariooryad and Busso, IEEE Trans. Affective Computing 6, 2015).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from abaw.data.annotations import Labels
from abaw.data.synthesis.rig import MOVEMENTS
from abaw.tasks import AU_NAMES, EXPR_NAMES

PRESENT = 0.35
"""A movement from this extent on is labelled as present; annotators do not count traces."""

PROTOTYPES: dict[str, tuple[tuple[float, dict[str, float]], ...]] = {
    "Neutral": ((1.0, {}),),
    "Anger": (
        (0.7, {"AU4": 1, "AU5": 0.5, "AU7": 1, "AU23": 0.8, "AU24": 0.4}),
        (0.3, {"AU4": 1, "AU5": 0.7, "AU7": 1, "AU10": 0.6, "AU23": 0.7, "AU25": 1}),
    ),
    "Disgust": (
        (0.6, {"AU9": 1, "AU10": 0.7, "AU17": 0.6, "AU15": 0.3}),
        (0.4, {"AU9": 0.6, "AU10": 1, "AU7": 0.4, "AU25": 0.8}),
    ),
    "Fear": (
        (1.0, {"AU1": 1, "AU2": 0.8, "AU4": 0.9, "AU5": 1, "AU7": 0.3, "AU20": 1, "AU25": 0.9, "AU26": 0.3}),
    ),
    "Happiness": ((1.0, {"AU6": 0.9, "AU12": 1, "AU7": 0.25, "AU25": 0.7, "AU26": 0.15}),),
    "Sadness": ((1.0, {"AU1": 1, "AU4": 0.8, "AU15": 1, "AU17": 0.5, "AU24": 0.15}),),
    "Surprise": ((1.0, {"AU1": 1, "AU2": 1, "AU5": 0.9, "AU25": 1, "AU26": 1}),),
    "Other": (
        (0.35, {"AU1": 0.8, "AU2": 1, "AU17": 1, "AU24": 1}),  # doubt
        (0.35, {"AU4": 0.6, "AU6": 0.6, "AU10": 1, "AU12": 1, "AU25": 1}),  # happily disgusted
        (0.3, {"AU2": 1, "AU7": 0.6, "AU12": 0.9, "AU23": 0.4, "AU24": 0.4}),  # sly
    ),
}
"""Ways to show an expression: how often each, and how often each movement belongs to it."""

_CIRCUMPLEX = np.array(
    [(0, 0), (-0.55, 0.65), (-0.65, 0.25), (-0.4, 0.8), (0.8, 0.4), (-0.7, -0.4), (0.2, 0.75), (0.1, 0.15)]
)
"""Valence and arousal of each expression at its height, in the order of the official header."""


@dataclass(frozen=True, kw_only=True)
class Society:
    """How often people do what, and how strongly.

    Attributes:
        expressions: Share of the frames of each expression.
        units: Share of the frames in which each labelled action unit is present.
        episode: Mean length of an expression in frames.
        strength: Lowest and highest extent of a movement at its apex.
        lag: Fewest and most frames by which an annotator of valence and arousal is late.
    """

    expressions: tuple[float, ...]
    units: tuple[float, ...]
    episode: int
    strength: tuple[float, float]
    lag: tuple[int, int]


@dataclass(frozen=True)
class _Span:
    """An expression or a movement (its number), its frames and its extent at the apex."""

    what: int
    start: int
    stop: int
    peak: float


@dataclass(frozen=True, kw_only=True)
class Script:
    """What one person is to do in one video: expressions without gaps, and the movements that show them."""

    n_rows: int
    expressions: tuple[_Span, ...]
    movements: tuple[_Span, ...]


class Playwright:
    """Writes scripts one after another so that all together keep the society's shares, few videos or many.

    Choices are dealt rather than tossed: each takes the account of what was chosen before.
    """

    def __init__(self, rng: np.random.Generator, society: Society) -> None:
        self._rng = rng
        self._society = society
        self._given = np.zeros(len(EXPR_NAMES))
        self._hands: dict[object, float] = {}
        implied = _implied(society)
        wanted = np.array(society.units)
        self._keep = np.minimum(1, wanted / np.maximum(implied, 1e-9))
        lack = np.clip((wanted - implied) / (1 - implied), 0, 0.95)
        self._fill = -np.log1p(-lack)  # spans placed at random overlap

    def write(self, n_rows: int) -> Script:
        """Gives a script of `n_rows` frames."""
        spans: list[_Span] = []
        movements: list[_Span] = []
        low, high = self._society.strength
        start, last = 0, -1
        while start < n_rows:
            length = int(min(self._society.episode, max(n_rows / 2, 8)) * self._rng.uniform(0.6, 1.4)) + 1
            stop = n_rows if start + 1.4 * length > n_rows else start + length
            what = self._choose(stop - start, last)
            peak = float(self._rng.uniform(low, high))
            spans.append(_Span(what, start, stop, peak))
            movements += self._show(what, start, stop, peak)
            start, last = stop, what
        movements += self._extras(n_rows)
        return Script(n_rows=n_rows, expressions=tuple(spans), movements=tuple(movements))

    def _deal(self, card: object, share: float) -> bool:
        """Says yes in `share` of the calls with the same card, as evenly as can be."""
        total = self._hands.setdefault(card, float(self._rng.random())) + share
        self._hands[card] = total - (total >= 1)
        return total >= 1

    def _choose(self, length: int, last: int) -> int:
        wanted = np.array(self._society.expressions) * (self._given.sum() + length)
        lack = np.maximum(wanted - self._given, 1e-9)
        if last >= 0:
            lack[last] = 1e-9
        what = int(self._rng.choice(len(lack), p=lack**2 / (lack**2).sum()))
        self._given[what] += length
        return what

    def _show(self, what: int, start: int, stop: int, peak: float) -> list[_Span]:
        name = EXPR_NAMES[what]
        variants = PROTOTYPES[name]
        rest, way = 1.0, len(variants) - 1
        for k, (weight, _) in enumerate(variants[:-1]):
            if self._deal((name, k), weight / rest):
                way = k
                break
            rest -= weight
        found = []
        for movement, share in variants[way][1].items():
            if not self._deal((name, way, movement), share):
                continue
            number = MOVEMENTS.index(movement)
            extent = peak * float(self._rng.uniform(0.9, 1.1))
            if number < len(AU_NAMES) and not self._deal(("keep", movement), float(self._keep[number])):
                extent = float(self._rng.uniform(0.1, 0.25)) * peak  # only a trace
            early, late = self._rng.integers(-2, 3, 2).tolist()
            found.append(_Span(number, start + early, stop + late, min(extent, 1.0)))
        return found

    def _extras(self, n_rows: int) -> list[_Span]:
        """Gives movements that belong to no expression, such as speech, where the prototypes leave a lack."""
        found = []
        low, high = self._society.strength
        for number in np.flatnonzero(self._fill > 0.005).tolist():
            length = min(self._society.episode, max(n_rows // 2, 4))
            count = self._fill[number] * n_rows / length
            for _ in range(int(count) + self._deal(("extra", number), float(count % 1))):
                start = int(self._rng.integers(-length // 2, n_rows - length // 2))
                stop = start + int(length * self._rng.uniform(0.6, 1.4)) + 1
                found.append(_Span(number, start, stop, float(self._rng.uniform(low, high))))
        return found


def _implied(society: Society) -> NDArray[np.float64]:
    """Gives how often each labelled unit would be present from the expressions alone, (12,)."""
    shares = np.zeros(len(AU_NAMES))
    for share, name in zip(society.expressions, EXPR_NAMES, strict=True):
        for weight, movements in PROTOTYPES[name]:
            for movement, often in movements.items():
                if movement in AU_NAMES:
                    shares[AU_NAMES.index(movement)] += share * weight * often
    return shares


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


def play(script: Script, society: Society, rng: np.random.Generator) -> Performance:
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


def _course(n: int, span: _Span, rng: np.random.Generator) -> NDArray[np.float64]:
    """Gives onset, apex and offset over `n` frames: one half at the span's first and last frame."""
    t = np.arange(n)
    onset, offset = rng.uniform(5, 10), rng.uniform(7, 14)
    rise = np.clip((t - span.start) / onset + 0.5, 0, 1)
    fall = np.clip((span.stop - t) / offset + 0.5, 0, 1)
    return rise**2 * (3 - 2 * rise) * fall**2 * (3 - 2 * fall)


def _annotate(felt: NDArray[np.float64], society: Society, rng: np.random.Generator) -> NDArray[np.float32]:
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
