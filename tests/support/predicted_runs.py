"""Runs with tracks of simulated videos, beside their annotations in the official layout."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from abaw.data.labels import Labels
from abaw.evaluation.tracks import Track, write_track
from abaw.tasks import TASKS, Task
from tests.support.tiny_set import write_labels
from tests.support.tracks import simulate

METRICS = """\
epoch,step,train/loss,val/loss,val/va,val/expr,val/au,val/score
0,9,3.2,,,,,
0,18,,2.9,0.1,0.2,0.3,0.6
1,28,2.1,,,,,
1,37,,2.5,0.3,0.25,0.35,0.9
"""


def simulated(
    n_videos: int, seed: int, noise: float = 1.0, frames: tuple[int, int] = (150, 400)
) -> tuple[list[Track], dict[str, Labels]]:
    """Tracks and labels; of every third video the last fifth of the frames was not seen."""
    tracks, labels_of = simulate(n_videos, seed, noise, frames=frames)
    seen = [np.arange(len(t)) < (len(t) * 4 // 5 if k % 3 == 0 else len(t)) for k, t in enumerate(tracks)]
    tracks = [replace(track, seen=each) for track, each in zip(tracks, seen, strict=True)]
    return tracks, {track.video: labels_of(track.video) for track in tracks}


def write_runs(
    folder: Path,
    noises: dict[str, float],
    n_videos: int = 6,
    frames: tuple[int, int] = (150, 400),
    tasks: Sequence[Task] = TASKS,
) -> Path:
    """Writes runs/NAME with tracks and metrics for each noise, and `data`, which is returned."""
    root = folder / "data"
    for name, noise in noises.items():
        tracks, labels = simulated(n_videos, 0, noise, frames)
        run = folder / "runs" / name
        for track in tracks:
            chosen = replace(track, values={task: track.values[task] for task in tasks})
            write_track(chosen, run / "tracks")
            if not (root / "VA_Estimation_Challenge/Validation_Set" / f"{track.video}.txt").exists():
                write_labels(root, track.video, "val", TASKS, labels[track.video])
        (run / "metrics.csv").write_text(METRICS)
        (run / "config.yaml").write_text(f"data: {{root: {root}, source: {{label_set: challenge}}}}\n")
    return root
