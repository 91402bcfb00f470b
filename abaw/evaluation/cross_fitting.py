"""Fitting of a calibration, with a cross-fitted estimate of its gain.

Every video is scored with a calibration fitted without its fold: selection of the corrections, their
settings, and the class prior.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from abaw.data.labels import Labels, recording
from abaw.errors import AbawError, UsageError
from abaw.evaluation.calibration import Calibration
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
from abaw.tasks import TASKS, Task


@dataclass(frozen=True, kw_only=True)
class TaskReport:
    """Effect of a calibration on the official score of one task.

    Attributes:
        raw: Score without calibration.
        cross_fitted: Score of every video with the settings chosen on the other folds, an estimate for new
            videos; equals `raw` if no correction is kept.
        optimistic: Score of every video with the settings chosen on all videos.
        gain_interval: 95 % interval of cross_fitted - raw, paired over recordings; null if no correction is
            kept or the interval is unknown.
        notes: Each correction, its gain on held-out videos and whether it was kept. The selection makes the
            best of these gains optimistic; `cross_fitted` accounts for that.
    """

    raw: float
    cross_fitted: float
    optimistic: float
    gain_interval: list[float] | None
    notes: tuple[str, ...]


@dataclass(frozen=True)
class CalibrationResult:
    """A calibration and its effect on the scores.

    Attributes:
        calibration: The calibration fitted on all videos.
        reports: Reports per task.
    """

    calibration: Calibration
    reports: dict[Task, TaskReport]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        reports = {task.name: asdict(report) for task, report in self.reports.items()}
        return {"calibration": self.calibration.to_dict(), "reports": reports}


def calibrate(
    tracks: Sequence[Track],
    labels_of: Callable[[str], Labels],
    folds: int | Mapping[str, int] = 5,
    seed: int = 0,
) -> CalibrationResult:
    """Fits a calibration for every task that is predicted and labelled.

    A correction without a significant gain on held-out folds is dropped, as noted in the report.

    Args:
        tracks: Uncalibrated tracks of the videos to fit on.
        labels_of: Function from the name of a video to its labels.
        folds: Number of folds, each with all videos of a recording; or the fold of every video by name.
        seed: Seed of the bootstrap.

    Raises:
        AbawError: A video has no fold, or nothing is labelled.
        UsageError: There are fewer than two folds.
    """
    chosen, reports = Calibration(chosen_on=tuple(track.video for track in tracks)), {}
    for task in TASKS:
        labelled = [
            replace(track, values={task: track.values[task]})
            for track in tracks
            if task in track.values and labels_of(track.video)[task].valid.any()
        ]
        if labelled:
            grid = Grid(task, labelled, labels_of, _fold_of(labelled, folds))
            chosen, reports[task] = _calibrate_task(grid, folds, seed, chosen)
    if not reports:
        raise AbawError("calibration: none of the predicted tasks is labelled in these videos")
    return CalibrationResult(chosen, reports)


def _fold_of(tracks: Sequence[Track], folds: int | Mapping[str, int]) -> NDArray[np.int64]:
    """The fold of every track; new folds take the longest recordings first, each into the smallest fold."""
    if not isinstance(folds, int):
        if missing := [track.video for track in tracks if track.video not in folds]:
            raise AbawError(f"folds: {len(missing)} videos have none, such as {missing[0]}; run `abaw folds`")
        return np.array([folds[track.video] for track in tracks])
    if folds < 2:
        raise UsageError(f"folds: {folds} is too few; give at least 2")
    frames: dict[str, int] = {}
    for track in tracks:
        whole = recording(track.video)
        frames[whole] = frames.get(whole, 0) + len(track)
    filled, fold_of = [0] * folds, {}
    for whole in sorted(frames, key=lambda name: (-frames[name], name)):
        fold_of[whole] = fold = filled.index(min(filled))
        filled[fold] += frames[whole]
    return np.array([fold_of[recording(track.video)] for track in tracks])


def _calibrate_task(
    grid: Grid, folds: int | Mapping[str, int], seed: int, base: Calibration
) -> tuple[Calibration, TaskReport]:
    """The calibration `base` with the settings of another task added, and its report."""
    task, everything = grid.task, np.arange(len(grid.tracks))
    raw = cross_fitted = named_sums(grid, everything, grid.raw)
    trials = run_trials(grid, everything, grid.fold_of, seed)
    best, gain = best_of(trials), None
    notes = [trial.note(len(grid.tracks), best) for trial in trials]
    if best is not None:
        cross_fitted = cross_fit(grid, everything, grid.fold_of, _nested_choice(grid, folds, seed))
        gain = compare(cross_fitted, raw, DRAWS, seed)[task.name]
        if gain["difference"] <= 0:
            notes = [trial.note(len(grid.tracks), best, confirmed=False) for trial in trials]
            best, gain, cross_fitted = None, None, raw
    if not trials:
        notes.append("too few recordings for two folds: nothing was calibrated")
    choice = grid.choose(everything, without=None, **(best.parts if best else NOTHING))
    settings = grid.calibration(choice, base)
    if trials and task.kind != "real":
        settings, note = _with_temperature(grid, settings, seed)
        notes.append(note)
    applied = score_tracks(map(settings.apply, grid.tracks), grid.labels_of, [task])
    return settings, TaskReport(
        raw=official(raw)[task],
        cross_fitted=official(cross_fitted)[task],
        optimistic=official(applied)[task],
        gain_interval=None if gain is None else gain["interval"],
        notes=tuple(notes),
    )


def _nested_choice(grid: Grid, folds: int | Mapping[str, int], seed: int) -> Choose:
    """The whole selection, of corrections and settings, as a function for `cross_fit`."""

    def choose(rest: NDArray[np.int64], fold: int) -> Choice:
        fold_of = _fold_of([grid.tracks[video] for video in rest], folds)
        best = best_of(run_trials(grid, rest, fold_of, seed, without=fold))
        return grid.choose(rest, without=fold, **(best.parts if best else NOTHING))

    return choose


def _with_temperature(grid: Grid, calibration: Calibration, seed: int) -> tuple[Calibration, str]:
    """Adds the temperature with the lowest log loss, if it lowers that of held-out videos too."""
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
    if (lower := float((drawn < 0).mean())) < SURE:
        return calibration, f"{note}, lower in {lower:.0%} of draws: left out, fewer than {SURE:.0%}"
    temperatures = {**calibration.temperature, grid.task: temperature}
    return replace(calibration, temperature=temperatures), f"{note}: kept"
