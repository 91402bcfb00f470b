"""Scripts of expressions and facial movements with given label statistics.

Expressions follow the prototypes of EMFACS (Friesen and Ekman: EMFACS-7, Emotional Facial Action Coding
System, 1983); the mixtures called Other follow compound emotions (Du, Tao and Martinez, PNAS 111, 2014).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from abaw.data.synth.landmarks import MOVEMENTS
from abaw.tasks import AU, EXPR

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
"""Variants of each expression: probability, and probability of each movement given the variant."""


@dataclass(frozen=True, kw_only=True)
class LabelStatistics:
    """Label statistics of a generated data set.

    Attributes:
        expressions: Share of the frames of each expression.
        units: Share of the frames in which each labelled action unit is present.
        episode: Mean length of an expression in frames.
        strength: Lowest and highest intensity of a movement at its apex.
        lag: Smallest and largest delay of valence and arousal annotations in frames.
    """

    expressions: tuple[float, ...]
    units: tuple[float, ...]
    episode: int
    strength: tuple[float, float]
    lag: tuple[int, int]


@dataclass(frozen=True)
class Span:
    """An expression or movement (by number) with its frames and its intensity at the apex."""

    what: int
    start: int
    stop: int
    peak: float


@dataclass(frozen=True, kw_only=True)
class Script:
    """Script of one video: consecutive expressions, and the movements that show them."""

    n_rows: int
    expressions: tuple[Span, ...]
    movements: tuple[Span, ...]


class ScriptSampler:
    """Samples scripts whose pooled labels match the statistics, also over few videos.

    Choices are stratified rather than independent: each takes previous choices into account.
    """

    def __init__(self, rng: np.random.Generator, statistics: LabelStatistics) -> None:
        self._rng = rng
        self._statistics = statistics
        self._n_frames = np.zeros(len(EXPR.names))
        self._totals: dict[object, float] = {}
        implied = _implied(statistics)
        wanted = np.array(statistics.units)
        self._keep = np.minimum(1, wanted / np.maximum(implied, 1e-9))
        deficit = np.clip((wanted - implied) / (1 - implied), 0, 0.95)
        self._extra_rates = -np.log1p(-deficit)  # corrected for overlapping spans

    def sample(self, n_rows: int) -> Script:
        """Returns a random script of `n_rows` frames."""
        spans: list[Span] = []
        movements: list[Span] = []
        low, high = self._statistics.strength
        start, last = 0, -1
        while start < n_rows:
            length = int(min(self._statistics.episode, max(n_rows / 2, 8)) * self._rng.uniform(0.6, 1.4)) + 1
            stop = n_rows if start + 1.4 * length > n_rows else start + length
            what = self._choose(stop - start, last)
            peak = float(self._rng.uniform(low, high))
            spans.append(Span(what, start, stop, peak))
            movements += self._movements_of(what, start, stop, peak)
            start, last = stop, what
        movements += self._extras(n_rows)
        return Script(n_rows=n_rows, expressions=tuple(spans), movements=tuple(movements))

    def _dither(self, key: object, share: float) -> bool:
        """Returns True in `share` of the calls with the same key, evenly spread by error diffusion."""
        total = self._totals.setdefault(key, float(self._rng.random())) + share
        self._totals[key] = total - (total >= 1)
        return total >= 1

    def _choose(self, length: int, last: int) -> int:
        wanted = np.array(self._statistics.expressions) * (self._n_frames.sum() + length)
        deficit = np.maximum(wanted - self._n_frames, 1e-9)
        if last >= 0:
            deficit[last] = 1e-9
        what = int(self._rng.choice(len(deficit), p=deficit**2 / (deficit**2).sum()))
        self._n_frames[what] += length
        return what

    def _movements_of(self, what: int, start: int, stop: int, peak: float) -> list[Span]:
        name = EXPR.names[what]
        variants = PROTOTYPES[name]
        rest, way = 1.0, len(variants) - 1
        for k, (weight, _) in enumerate(variants[:-1]):
            if self._dither((name, k), weight / rest):
                way = k
                break
            rest -= weight
        found = []
        for movement, share in variants[way][1].items():
            if not self._dither((name, way, movement), share):
                continue
            number = MOVEMENTS.index(movement)
            extent = peak * float(self._rng.uniform(0.9, 1.1))
            if number < len(AU.names) and not self._dither(("keep", movement), float(self._keep[number])):
                extent = float(self._rng.uniform(0.1, 0.25)) * peak  # below the labelling threshold
            early, late = self._rng.integers(-2, 3, 2).tolist()
            found.append(Span(number, start + early, stop + late, min(extent, 1.0)))
        return found

    def _extras(self, n_rows: int) -> list[Span]:
        """Returns additional movements for action units that expressions alone show too rarely."""
        found = []
        low, high = self._statistics.strength
        for number in np.flatnonzero(self._extra_rates > 0.005).tolist():
            length = min(self._statistics.episode, max(n_rows // 2, 4))
            count = self._extra_rates[number] * n_rows / length
            for _ in range(int(count) + self._dither(("extra", number), float(count % 1))):
                start = int(self._rng.integers(-length // 2, n_rows - length // 2))
                stop = start + int(length * self._rng.uniform(0.6, 1.4)) + 1
                found.append(Span(number, start, stop, float(self._rng.uniform(low, high))))
        return found


def _implied(statistics: LabelStatistics) -> NDArray[np.float64]:
    """Returns the share of frames in which the expressions alone show each labelled action unit, (12,)."""
    shares = np.zeros(len(AU.names))
    for share, name in zip(statistics.expressions, EXPR.names, strict=True):
        for weight, movements in PROTOTYPES[name]:
            for movement, often in movements.items():
                if movement in AU.names:
                    shares[AU.names.index(movement)] += share * weight * often
    return shares
