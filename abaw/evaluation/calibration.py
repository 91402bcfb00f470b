"""Calibration of tracks: smoothing, AU thresholds, EXPR prior and temperature; applying and storing it."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, special

from abaw.errors import AbawError
from abaw.evaluation.tracks import Track
from abaw.files import atomic_path
from abaw.model.checkpoints import load_checkpoint, save_checkpoint
from abaw.tasks import AU, EXPR, Task, task_named

Filter = Literal["none", "box", "gaussian", "median"]
FILTERS: tuple[Filter, ...] = get_args(Filter)
_TINY = 1e-6
"""Smallest distance of a probability from 0 and 1 in logarithms."""


@dataclass(frozen=True)
class Smoothing:
    """Smoothing filter over the frames of one video; at the ends the window is truncated, not padded.

    Attributes:
        kind: Moving average (`box`, or `gaussian` with a standard deviation of half the half-width), moving
            `median`, or `none`.
        half_width: Number of frames on either side.
    """

    kind: Filter = "none"
    half_width: int = 0

    def __post_init__(self) -> None:
        if self.kind not in FILTERS or self.half_width < 0:
            raise AbawError(f"smoothing: {self.kind!r} over {self.half_width} frames is invalid")

    def __call__(self, values: NDArray) -> NDArray:
        """The values (N, K), smoothed along N."""
        if self.kind == "none" or self.half_width == 0 or len(values) < 2:
            return values
        if self.kind == "median":
            return self._medians(values)
        if self.kind == "box":
            average = partial(ndimage.uniform_filter1d, size=2 * self.half_width + 1)
        else:
            average = partial(ndimage.gaussian_filter1d, sigma=self.half_width / 2, radius=self.half_width)
        inside = np.ones((len(values), 1))  # averaged: the share of the window inside the video
        means, shares = (average(v, axis=0, mode="constant") for v in (values.astype(np.float64), inside))
        return np.asarray(means / shares, values.dtype)

    def _medians(self, values: NDArray) -> NDArray:
        # as many +inf as -inf beyond the ends (at most one more): the median is that of the frames inside
        padding = np.where(np.arange(self.half_width) % 2, -np.inf, np.inf)
        columns = [np.concatenate([-padding[::-1], column, padding]) for column in values.T]
        size, rows = 2 * self.half_width + 1, slice(self.half_width, self.half_width + len(values))
        return np.stack([ndimage.median_filter(c, size)[rows] for c in columns], 1).astype(values.dtype)

    def __str__(self) -> str:
        return "no smoothing" if self.kind == "none" else f"{self.kind} of ±{self.half_width} frames"


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Post-processing of a model's tracks; the default changes nothing.

    Attributes:
        smoothing: Per task; other tasks are not smoothed.
        temperature: Per task with probabilities: above 1 lowers the confidence. Changes no decision.
        expr_prior: Mean predicted probabilities of the eight classes.
        expr_prior_strength: Exponent of the prior correction: p is divided by prior ** strength.
        au_thresholds: Decision thresholds of the twelve AUs.
        chosen_on: Videos on whose labels the calibration was fitted; scores on them are optimistic.
    """

    smoothing: Mapping[Task, Smoothing] = field(default_factory=dict)
    temperature: Mapping[Task, float] = field(default_factory=dict)
    expr_prior: tuple[float, ...] = (1 / len(EXPR.names),) * len(EXPR.names)
    expr_prior_strength: float = 0.0
    au_thresholds: tuple[float, ...] = (0.5,) * len(AU.names)
    chosen_on: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        shares = (*self.expr_prior, *self.au_thresholds)
        sizes = (len(self.expr_prior), len(self.au_thresholds)) == (EXPR.size, AU.size)
        positive = all(0 < share < 1 for share in shares) and all(t > 0 for t in self.temperature.values())
        if not (sizes and positive and 0 <= self.expr_prior_strength < np.inf):
            raise AbawError(
                "needs eight prior and twelve threshold values between 0 and 1, temperatures above 0 and a"
                f" prior strength from 0, got {self}"
            )

    def apply(self, track: Track) -> Track:
        """The calibrated track."""
        values = {task: self.smoothed(task, raw) for task, raw in track.values.items()}
        if EXPR in values:
            values[EXPR] = self._expr(values[EXPR])
        if AU in values:
            values[AU] = self._au(values[AU])
        return replace(track, values=values)

    def smoothed(self, task: Task, values: NDArray) -> NDArray:
        """Predictions (N, K) of a task after smoothing, without the other corrections."""
        smoothing = self.smoothing.get(task, Smoothing())
        values = smoothing(values)
        if task.kind == "class" and smoothing.kind == "median":  # medians do not sum to 1
            values = values + np.float32(_TINY)
            values = values / values.sum(1, keepdims=True)
        return values

    def _expr(self, probabilities: NDArray) -> NDArray:
        temperature = self.temperature.get(EXPR, 1.0)
        if temperature == 1 and self.expr_prior_strength == 0:
            return probabilities
        scores = log_probabilities(probabilities) - self.expr_prior_strength * np.log(self.expr_prior)
        return np.asarray(special.softmax(scores / temperature, axis=1), np.float32)

    def _au(self, probabilities: NDArray) -> NDArray:
        temperature, thresholds = self.temperature.get(AU, 1.0), np.asarray(self.au_thresholds)
        if temperature == 1 and (thresholds == 0.5).all():
            return probabilities
        scores = log_odds(probabilities) - log_odds(thresholds)
        corrected = special.expit(scores / temperature).astype(np.float32)
        # float32 rounds a score just below 0 up to 0.5, which changes the decision
        below_half = np.nextafter(np.float32(0.5), np.float32(0))
        return np.where(scores < 0, np.minimum(corrected, below_half), corrected)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for a checkpoint or JSON."""
        return {
            "smoothing": {task.name: asdict(smoothing) for task, smoothing in self.smoothing.items()},
            "temperature": {task.name: float(value) for task, value in self.temperature.items()},
            "expr_prior": list(self.expr_prior),
            "expr_prior_strength": self.expr_prior_strength,
            "au_thresholds": list(self.au_thresholds),
            "chosen_on": list(self.chosen_on),
        }

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> "Calibration":
        """The calibration of a dictionary from `to_dict`.

        Raises:
            AbawError: A key is missing or a value is invalid.
        """
        try:
            return cls(
                smoothing={task_named(task): Smoothing(**s) for task, s in plain["smoothing"].items()},
                temperature={task_named(task): float(value) for task, value in plain["temperature"].items()},
                expr_prior=tuple(plain["expr_prior"]),
                expr_prior_strength=plain["expr_prior_strength"],
                au_thresholds=tuple(plain["au_thresholds"]),
                chosen_on=tuple(plain["chosen_on"]),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            wrong = f"lacks {error}" if isinstance(error, KeyError) else f"is damaged ({error})"
            raise AbawError(f"calibration: {wrong}; calibrate again") from error


def log_probabilities(probabilities: NDArray) -> NDArray[np.float64]:
    """Logarithms of probabilities of any shape, finite at 0."""
    return np.log(np.maximum(probabilities, _TINY, dtype=np.float64))


def log_odds(probabilities: NDArray) -> NDArray[np.float64]:
    """Log-odds of probabilities of any shape, finite at 0 and 1."""
    return special.logit(np.clip(probabilities.astype(np.float64), _TINY, 1 - _TINY))


def read_calibration(path: Path) -> Calibration:
    """The calibration in a checkpoint or a JSON file.

    Raises:
        AbawError: The file cannot be read or has no calibration.
    """
    if path.suffix == ".json":
        try:
            return _checked(json.loads(path.read_text(encoding="utf-8")), path)
        except (OSError, json.JSONDecodeError, UnicodeDecodeError) as error:
            raise AbawError(f"{path}: cannot be read as a calibration ({error})") from error
    return calibration_in(load_checkpoint(path), path)


def calibration_in(checkpoint: dict[str, Any], path: Path) -> Calibration:
    """The calibration in a loaded checkpoint.

    Raises:
        AbawError: The checkpoint has no calibration.
    """
    plain = checkpoint["abaw"].get("calibration")
    if plain is None:
        raise AbawError(f"{path}: holds no calibration; `abaw calibrate TRACKS ROOT --ckpt {path}` adds one")
    return _checked(plain, path)


def _checked(plain: dict[str, Any], path: Path) -> Calibration:
    try:
        return Calibration.from_dict(plain)
    except AbawError as error:
        raise AbawError(f"{path}: {error}") from error


def store_calibration(calibration: Calibration, path: Path) -> None:
    """Writes a calibration to a JSON file, or into a checkpoint, replacing an earlier one.

    Raises:
        AbawError: The file cannot be read or written.
    """
    plain: dict[str, Any] = calibration.to_dict()
    if path.suffix == ".json":
        with atomic_path(path) as temporary:
            temporary.write_text(json.dumps(plain, indent=2) + "\n", encoding="utf-8")
        return
    checkpoint = load_checkpoint(path)
    checkpoint["abaw"]["calibration"] = plain
    save_checkpoint(checkpoint, path)
