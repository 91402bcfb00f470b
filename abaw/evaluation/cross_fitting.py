"""Choosing a calibration with an honest account of its gain.

Every video is scored with what would have been chosen without its fold: which corrections to keep, their
settings, and the class prior.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from abaw.data.labels import Labels, recording
from abaw.errors import AbawError, UsageError
from abaw.evaluation.calibration import Calibration, Smoothing
from abaw.evaluation.calibration_search import (
    DRAWS,
    NOTHING,
    SURE,
    TEMPERATURES,
    Choice,
    Choose,
    Grid,
    best_of,
    cross_fit,
    named_sums,
    run_trials,
)
from abaw.evaluation.scores import compare, draw_recordings, official, resample
from abaw.evaluation.tracks import Track, score_tracks
from abaw.tasks import Task


@dataclass(frozen=True, kw_only=True)
class TaskReport:
    """What calibration does for the official score of one task.

    Attributes:
        raw: Without calibration.
        cross_fitted: Every video with what was chosen on the other folds: what to expect on new videos. That
            is raw where nothing is kept.
        optimistic: Every video with the settings chosen on all of them, itself included.
        gain_interval: 95 % interval of cross_fitted - raw, paired over recordings; null where nothing is kept
            or the interval is unknown.
        notes: What was tried, what it did on held-out videos, and what was left out. The best of several
            looks better there than it is; `cross_fitted` allows for that.
    """

    raw: float
    cross_fitted: float
    optimistic: float
    gain_interval: list[float] | None
    notes: tuple[str, ...]


@dataclass(frozen=True)
class CalibrationResult:
    """A calibration and what it is worth.

    Attributes:
        calibration: Chosen on all videos.
        reports: Per task.
    """

    calibration: Calibration
    reports: dict[Task, TaskReport]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        reports = {str(task): asdict(report) for task, report in self.reports.items()}
        return {"calibration": self.calibration.to_dict(), "reports": reports}


def calibrate(
    tracks: Sequence[Track],
    labels_of: Callable[[str], Labels],
    folds: int | Mapping[str, int] = 5,
    seed: int = 0,
) -> CalibrationResult:
    """Chooses a calibration for every task that was predicted and is labelled.

    A correction that does not surely gain on held-out folds is left out, and the report says so.

    Args:
        tracks: Of the videos to choose on, raw.
        labels_of: Gives the labels of a video by name.
        folds: How many, all videos of a recording in one; or the fold of every video by name.
        seed: Of the bootstrap.

    Raises:
        AbawError: A video has no fold, or nothing is labelled.
        UsageError: There are fewer than two folds.
    """
    chosen, reports = Calibration(chosen_on=tuple(track.video for track in tracks)), {}
    for task in Task:
        labelled = [
            track.with_values({task: track.values[task]})
            for track in tracks
            if task in track.values and labels_of(track.video).valid(task).any()
        ]
        if labelled:
            grid = Grid(task, labelled, labels_of, _fold_of(labelled, folds))
            settings, reports[task] = _calibrate_task(grid, folds, seed)
            chosen = _joined(chosen, settings, task)
    if not reports:
        raise AbawError("calibration: none of the predicted tasks is labelled in these videos")
    return CalibrationResult(chosen, reports)


def _fold_of(tracks: Sequence[Track], folds: int | Mapping[str, int]) -> NDArray[np.int64]:
    """The fold of every track; made here, recordings of the most frames first, each into the emptiest."""
    if not isinstance(folds, int):
        if missing := [track.video for track in tracks if track.video not in folds]:
            raise AbawError(f"folds: {len(missing)} videos have none, such as {missing[0]}; make them anew")
        return np.array([folds[track.video] for track in tracks])
    if folds < 2:
        raise UsageError(f"folds: {folds} cannot hold anything out; take at least 2")
    frames: dict[str, int] = {}
    for track in tracks:
        whole = recording(track.video)
        frames[whole] = frames.get(whole, 0) + len(track)
    filled, fold_of = [0] * folds, {}
    for whole in sorted(frames, key=lambda name: (-frames[name], name)):
        fold_of[whole] = fold = filled.index(min(filled))
        filled[fold] += frames[whole]
    return np.array([fold_of[recording(track.video)] for track in tracks])


def _calibrate_task(grid: Grid, folds: int | Mapping[str, int], seed: int) -> tuple[Calibration, TaskReport]:
    task, everything = grid.task, np.arange(len(grid.tracks))
    raw = honest = named_sums(grid, everything, grid.raw)
    trials = run_trials(grid, everything, grid.fold_of, seed)
    best, gain, notes = best_of(trials), None, []
    if best is not None:
        honest = cross_fit(grid, everything, grid.fold_of, _all_over_again(grid, folds, seed))
        gain = compare(honest, raw, DRAWS, seed)[task]
        if gain["difference"] <= 0:
            notes.append(f"{best.what}: no gain where the choice of it was held out too: left out")
            best, gain, honest = None, None, raw
    if not trials:
        notes.append("too few recordings to hold any out: nothing was calibrated")
    notes = [*(trial.note(kept=trial is best) for trial in trials), *notes]
    settings = grid.calibration(grid.choose(everything, without=None, **(best.parts if best else NOTHING)))
    if trials and task is not Task.VA:
        settings, note = _with_temperature(grid, settings, seed)
        notes.append(note)
    applied = score_tracks(map(settings.apply, grid.tracks), grid.labels_of, [task])
    return settings, TaskReport(
        raw=official(raw)[task],
        cross_fitted=official(honest)[task],
        optimistic=official(applied)[task],
        gain_interval=None if gain is None else gain["interval"],
        notes=tuple(notes),
    )


def _all_over_again(grid: Grid, folds: int | Mapping[str, int], seed: int) -> Choose:
    """Chooses on some tracks as on all: tries the corrections, keeps what gains, takes its best settings."""

    def choose(rest: NDArray[np.int64], fold: int) -> Choice:
        fold_of = _fold_of([grid.tracks[video] for video in rest], folds)
        best = best_of(run_trials(grid, rest, fold_of, seed, without=fold))
        return grid.choose(rest, without=fold, **(best.parts if best else NOTHING))

    return choose


def _with_temperature(grid: Grid, calibration: Calibration, seed: int) -> tuple[Calibration, str]:
    """Adds the temperature of the least log loss, if it lowers that of held-out videos too."""
    losses = grid.log_losses(calibration)  # (V, 1 + temperatures)
    held_out = np.empty(len(losses))
    for fold in set(grid.fold_of.tolist()):
        inside = grid.fold_of == fold
        held_out[inside] = losses[inside, 1 + losses[~inside, 1:].sum(0).argmin()]
    videos = [track.video for track in grid.tracks]
    drawn = resample(held_out - losses[:, 1], draw_recordings(videos, DRAWS, seed))
    before, after = losses[:, 1].sum() / losses[:, 0].sum(), held_out.sum() / losses[:, 0].sum()
    temperature = TEMPERATURES[int(losses[:, 1:].sum(0).argmin())]
    note = f"temperature {temperature:.2f}: log loss of held-out videos {before:.4f} -> {after:.4f}"
    if (drawn < 0).mean() < SURE:
        return calibration, f"{note}: left out"
    return replace(calibration, temperature={grid.task: temperature}), f"{note}: kept"


def _joined(all_tasks: Calibration, one: Calibration, task: Task) -> Calibration:
    """The settings of the tasks so far with those of one more."""
    joined = replace(
        all_tasks,
        smoothing={**all_tasks.smoothing, task: one.smoothing.get(task, Smoothing())},
        temperature={**all_tasks.temperature, **one.temperature},
    )
    if task is Task.EXPR:
        return replace(joined, expr_prior=one.expr_prior, expr_prior_strength=one.expr_prior_strength)
    return replace(joined, au_thresholds=one.au_thresholds) if task is Task.AU else joined
