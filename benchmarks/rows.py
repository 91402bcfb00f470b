"""Rows of measurements: a figure, its limit and its conditions."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from statistics import median


@dataclass(frozen=True, kw_only=True)
class Row:
    """A line of docs/benchmarks.md.

    Attributes:
        what: Description of the measurement.
        value: The figure; None if it cannot be measured on the machine.
        at_least: Lower limit, or
        at_most: upper limit.
        unit: Unit of the figure: `×`, `%` (of a share) or `MB`.
        how: Conditions of the measurement.
        rates: Median rates in frames per second, by name.
    """

    what: str
    value: float | None
    at_least: float | None = None
    at_most: float | None = None
    unit: str = "×"
    how: str = ""
    rates: Mapping[str, float] = field(default_factory=dict)

    def holds(self, slack: float = 1.0) -> bool:
        """Whether the figure is within its limit times `slack`."""
        if self.value is None:
            return False
        return (self.at_least is None or self.value * slack >= self.at_least) and (
            self.at_most is None or self.value <= self.at_most * slack
        )

    @property
    def limit(self) -> str:
        """The limit as text."""
        return f"≥ {self._text(self.at_least)}" if self.at_most is None else f"≤ {self._text(self.at_most)}"

    @property
    def figure(self) -> str:
        """The figure as text; empty if there is none."""
        return "" if self.value is None else self._text(self.value)

    @property
    def details(self) -> str:
        """Conditions and rates as text."""
        rates = ", ".join(f"{name} {_digits(rate)}" for name, rate in self.rates.items())
        return f"{self.how}; frames/s: {rates}" if rates else self.how

    def _text(self, value: float | None) -> str:
        assert value is not None
        if self.unit == "%":
            return f"{100 * value:.3g} %"
        return f"{_digits(value)} {self.unit}"


def _digits(value: float) -> str:
    """A number with three significant digits."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def in_turns(rounds: int, *works: Callable[[int], object]) -> list[list[float]]:
    """Seconds per round of several functions that are called alternately, so that disturbances affect all.

    Args:
        rounds: Number of rounds, without one warm-up round.
        works: Functions of the number of the round, from 0.
    """
    seconds: list[list[float]] = [[] for _ in works]
    for number in range(rounds + 1):
        for work, taken in zip(works, seconds, strict=True):
            start = time.perf_counter()
            work(number)
            taken.append(time.perf_counter() - start)
    return [taken[1:] for taken in seconds]


def ratio(slow: list[float], fast: list[float]) -> float:
    """Ratio of two durations: the median over the rounds."""
    return median(a / b for a, b in zip(slow, fast, strict=True))
