"""Several opinions, one track: the weighted mean of the predictions for the same videos."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from abaw.errors import AbawError, UsageError
from abaw.outputs.track_metadata import check_fits, common_metadata, ensemble_metadata
from abaw.outputs.tracks import Track, find_tracks, list_tracks, read_track, write_track


def ensemble_tracks(
    folders: Sequence[Path | str], out: Path | str, weights: Sequence[float] | None = None
) -> list[Path]:
    """Writes the mean track of every video.

    Args:
        folders: At least two folders of tracks of the same videos, from other checkpoints, window lengths
            or folds.
        out: Folder for the means, none of `folders`.
        weights: One per folder, not negative; null weighs all alike.

    Returns:
        The files written.

    Raises:
        UsageError: Too few folders, or weights that do not fit.
        AbawError: The folders disagree in videos, frames or tasks; one mixes tracks of several checkpoints,
            or `out` holds those of another ensemble.
    """
    weights = [1.0] * len(folders) if weights is None else list(weights)
    if len(folders) < 2 or Path(out).resolve() in [Path(folder).resolve() for folder in folders]:
        raise UsageError("an ensemble takes at least two folders of tracks and another one for the result")
    if len(weights) != len(folders) or min(weights) < 0 or not 0 < sum(weights) < np.inf:
        raise UsageError(
            f"weights: got {weights} for {len(folders)} folders; give one per folder, not negative, not all 0"
        )
    shares = [weight / sum(weights) for weight in weights]
    found = [find_tracks(folder) for folder in folders]
    members = [common_metadata(folder, paths) for folder, paths in zip(folders, found, strict=True)]
    metadata = ensemble_metadata(out, folders, members, shares)
    check_fits(out, list_tracks(out), metadata)
    for folder, paths in zip(folders, found, strict=True):
        if differing := sorted(set(paths) ^ set(found[0])):
            raise AbawError(
                f"{folder} and {folders[0]} hold tracks of different videos: {len(differing)} are in one of "
                f"them only, such as {', '.join(differing[:5])}; predict the same videos with each checkpoint"
            )
    # all means first, 88 bytes a frame: where any tracks disagree, nothing is written
    videos = tqdm(found[0], desc="tracks", disable=None)
    means = [mean_track([read_track(paths[video]) for paths in found], weights) for video in videos]
    return [write_track(mean, out, metadata) for mean in means]


def mean_track(tracks: Sequence[Track], weights: Sequence[float]) -> Track:
    """The weighted mean of tracks of one video: of VA values and of probabilities.

    A frame is seen where any track of some weight saw it.

    Raises:
        AbawError: The tracks disagree in frames or tasks.
    """
    first = tracks[0]
    for track in tracks[1:]:
        if len(track) != len(first) or track.tasks != first.tasks:
            raise AbawError(
                f"track of {first.video}: one has {_described(first)}, another {_described(track)}; "
                "an ensemble needs the same frames and tasks"
            )
    shares = np.asarray(weights, np.float64) / np.sum(weights)
    means = {}
    for task in first.tasks:
        members = np.stack([track.values[task] for track in tracks])  # (M, N, K)
        means[task] = np.tensordot(shares, members, axes=1).astype(np.float32)
    seen = np.any([track.seen for track, share in zip(tracks, shares, strict=True) if share > 0], axis=0)
    return replace(first.with_values(means), seen=seen)


def _described(track: Track) -> str:
    return f"{len(track)} frames of {', '.join(track.tasks)}"
