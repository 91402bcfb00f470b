"""What the made-up people do: scripts of expressions and movements that keep the shares asked for.

Expressions follow the prototypes of EMFACS (Friesen and Ekman: EMFACS-7, Emotional Facial Action Coding
System, 1983); the mixtures called Other follow compound emotions (Du, Tao and Martinez, PNAS 111, 2014).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from abaw.data.synth.landmarks import MOVEMENTS
from abaw.tasks import AU_NAMES, EXPR_NAMES

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


@dataclass(frozen=True, kw_only=True)
class LabelStatistics:
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
class Span:
    """An expression or a movement (its number), its frames and its extent at the apex."""

    what: int
    start: int
    stop: int
    peak: float


@dataclass(frozen=True, kw_only=True)
class Script:
    """What one person is to do in one video: expressions without gaps, and the movements that show them."""

    n_rows: int
    expressions: tuple[Span, ...]
    movements: tuple[Span, ...]


class ScriptSampler:
    """Writes scripts one after another so that all together keep the society's shares, few videos or many.

    Choices are dealt rather than tossed: each takes the account of what was chosen before.
    """

    def __init__(self, rng: np.random.Generator, society: LabelStatistics) -> None:
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
        spans: list[Span] = []
        movements: list[Span] = []
        low, high = self._society.strength
        start, last = 0, -1
        while start < n_rows:
            length = int(min(self._society.episode, max(n_rows / 2, 8)) * self._rng.uniform(0.6, 1.4)) + 1
            stop = n_rows if start + 1.4 * length > n_rows else start + length
            what = self._choose(stop - start, last)
            peak = float(self._rng.uniform(low, high))
            spans.append(Span(what, start, stop, peak))
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

    def _show(self, what: int, start: int, stop: int, peak: float) -> list[Span]:
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
            found.append(Span(number, start + early, stop + late, min(extent, 1.0)))
        return found

    def _extras(self, n_rows: int) -> list[Span]:
        """Gives movements that belong to no expression, such as speech, where the prototypes leave a lack."""
        found = []
        low, high = self._society.strength
        for number in np.flatnonzero(self._fill > 0.005).tolist():
            length = min(self._society.episode, max(n_rows // 2, 4))
            count = self._fill[number] * n_rows / length
            for _ in range(int(count) + self._deal(("extra", number), float(count % 1))):
                start = int(self._rng.integers(-length // 2, n_rows - length // 2))
                stop = start + int(length * self._rng.uniform(0.6, 1.4)) + 1
                found.append(Span(number, start, stop, float(self._rng.uniform(low, high))))
        return found


def _implied(society: LabelStatistics) -> NDArray[np.float64]:
    """Gives how often each labelled unit would be present from the expressions alone, (12,)."""
    shares = np.zeros(len(AU_NAMES))
    for share, name in zip(society.expressions, EXPR_NAMES, strict=True):
        for weight, movements in PROTOTYPES[name]:
            for movement, often in movements.items():
                if movement in AU_NAMES:
                    shares[AU_NAMES.index(movement)] += share * weight * often
    return shares
