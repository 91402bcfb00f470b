"""What the report says of a run, read from its tracks beside the labels of a data set."""

from pathlib import Path
from typing import Any

from abaw.evaluation.calibration import Calibration
from abaw.evaluation.labelled_tracks import LabelledTracks
from abaw.evaluation.scores import compare, summarise
from abaw.evaluation.tracks import score_tracks
from abaw.report.aggregates import aggregate
from abaw.report.curves import read_metrics
from abaw.report.page import RunReport


def read_run(
    name: str,
    tracks: Path,
    labelled: LabelledTracks,
    *,
    metrics: Path,
    calibration: Calibration | None = None,
    against: RunReport | None = None,
    draws: int = 1000,
    seed: int = 0,
) -> RunReport:
    """Reads the tracks of a run once, and with a calibration a second time.

    Args:
        name: Name of the run, unique on the page.
        tracks: Folder of its tracks.
        labelled: The labels.
        metrics: Its table of metrics, which need not exist.
        calibration: Calibration whose scores stand beside those of the tracks.
        against: The run with which it is compared.
        draws: Number of bootstrap draws; 0: no intervals.
        seed: Seed of the bootstrap.

    Raises:
        AbawError: A file is damaged, a video has no track, or the two runs have other labelled frames.
    """
    videos, tasks = labelled.videos_and_tasks(tracks)
    found = aggregate(labelled.read(tracks, videos), labelled.labels_of, tasks)
    more: dict[str, Any] = {}
    if against is not None:
        more["against"] = compare(found.sums, against.aggregates.sums, draws, seed)
    if calibration is not None:
        changed = map(calibration.apply, labelled.read(tracks, videos))
        more["calibrated"] = summarise(score_tracks(changed, labelled.labels_of, tasks), draws, seed)
        if known := len(set(calibration.chosen_on) & set(videos)):
            more["notes"] = [
                f"The calibrated scores are optimistic: the calibration was fitted on {known} of these"
                f" {len(videos)} videos; abaw calibrate estimates the score on new ones."
            ]
    curves = read_metrics(metrics) if metrics.is_file() else None
    return RunReport(name, summarise(found.sums, draws, seed), found, curves, **more)
