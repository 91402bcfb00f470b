"""Tracks: predictions for all frames of a video as a Parquet table; reading, writing, averaging."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from abaw.data.labels import Labels
from abaw.data.progress import Progress
from abaw.errors import AbawError, UsageError
from abaw.evaluation.formulas import video_sums
from abaw.evaluation.scores import Sums
from abaw.evaluation.track_metadata import (
    KEY,
    TrackMetadata,
    check_fits,
    common_metadata,
    ensemble_metadata,
    read_metadata,
)
from abaw.files import atomic_path
from abaw.tasks import TASKS, Task

SUFFIX = ".parquet"


@dataclass(frozen=True, kw_only=True, eq=False)
class Track:
    """Predictions for all frames of one video; row k is frame k (from 0).

    Attributes:
        video: Name of the video.
        seen: bool (N,), the frame was visible to the network; other values are predicted from context.
        values: Per predicted task float32 (N, K): values of a `real` task, else probabilities.
    """

    video: str
    seen: NDArray[np.bool_]
    values: Mapping[Task, NDArray[np.float32]]

    def __post_init__(self) -> None:
        for task, values in self.values.items():
            if values.shape != (len(self), task.size):
                raise ValueError(f"track.{task} has shape {values.shape}, expected {(len(self), task.size)}")

    def __len__(self) -> int:
        return len(self.seen)

    @property
    def tasks(self) -> tuple[Task, ...]:
        """The predicted tasks."""
        return tuple(self.values)


def track_frame(track: Track) -> pd.DataFrame:
    """The track as a table: `frame` (from 1), `seen`, and the columns of each task."""
    columns: dict[str, NDArray] = {"frame": np.arange(1, len(track) + 1, dtype=np.int32), "seen": track.seen}
    for task, values in track.values.items():
        columns |= dict(zip(task.columns, np.asarray(values, np.float32).T, strict=True))
    return pd.DataFrame(columns)


def write_track(track: Track, folder: Path | str, metadata: TrackMetadata | None = None) -> Path:
    """Writes `<video>.parquet` atomically and returns its path.

    Args:
        track: Predictions for a video.
        folder: Target folder.
        metadata: Origin of the track; null: unknown.

    Raises:
        AbawError: A value is NaN or infinite, or the video's name is not a valid file name.
    """
    path = track_path(folder, track.video)
    if problem := _first_problem(track):
        raise AbawError(f"{path}: not written, because {problem}; check the checkpoint and its training")
    table = pa.Table.from_pandas(track_frame(track), preserve_index=False)
    if metadata is not None:
        table = table.replace_schema_metadata({**table.schema.metadata, KEY: metadata.to_json()})
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary)
    return path


def track_path(folder: Path | str, video: str) -> Path:
    """Path of a video's track in a folder of tracks.

    Raises:
        AbawError: The name is empty or has a path separator.
    """
    if video in ("", ".", "..") or set(video) & set("/\\\0"):
        raise AbawError(f"video name {video!r} cannot name a file; rename the video's folder")
    return Path(folder) / f"{video}{SUFFIX}"


def known_tasks(path: Path, *, trust_code: bool = False) -> tuple[Task, ...]:
    """The tasks that a track may hold: those of the challenge, then others that its metadata describe.

    Args:
        path: A track.
        trust_code: Whether to import tasks that need code.

    Raises:
        AbawError: The file is damaged.
        UsageError: A task needs code that is not trusted, or cannot be imported.
    """
    metadata = read_metadata(path)
    described = [] if metadata is None else metadata.tasks
    try:
        return (*TASKS, *(Task.from_description(plain, trust_code=trust_code) for plain in described))
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from error


def read_track(path: Path | str, tasks: Iterable[Task] | None = None) -> Track:
    """Reads and validates one track.

    Args:
        path: The file.
        tasks: Tasks that it may hold; None: its `known_tasks`.

    Raises:
        AbawError: The file is damaged, has other columns, missing or unordered rows, or values that are NaN
            or infinite.
    """
    path = Path(path)
    tasks = known_tasks(path) if tasks is None else tasks
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise AbawError(f"{path}: cannot be read as a track ({error}); predict it again") from error
    tasks = [task for task in tasks if set(table.column_names) & set(task.columns)]
    columns = _checked_columns(path, table, tasks)
    values = {task: np.stack([columns[name] for name in task.columns], axis=1) for task in tasks}
    track = Track(video=path.name.removesuffix(SUFFIX), seen=columns["seen"], values=values)
    if problem := _first_problem(track):
        raise AbawError(f"{path}: {problem}; predict it again")
    return track


def _checked_columns(path: Path, table: pa.Table, tasks: Sequence[Task]) -> dict[str, NDArray]:
    """The columns of a track's table, converted to their types, one row per frame."""
    names = set(table.column_names)
    types = {"frame": pa.int32(), "seen": pa.bool_()}
    types |= {column: pa.float32() for task in tasks for column in task.columns}
    wrong = [f"lacks {name!r}" for name in types if name not in names]
    wrong += [f"has {name!r}" for name in sorted(names - set(types))]
    wrong += [f"has empty cells in {name!r}" for name in types if name in names and table[name].null_count]
    if wrong or not tasks:
        raise AbawError(
            f"{path}: is not a track: it {wrong[0] if wrong else 'holds no task'}; a track has the columns "
            "frame, seen and all columns of each predicted task; predict it again"
        )
    try:
        table = table.select(list(types)).cast(pa.schema(types))
    except pa.ArrowException as error:
        raise AbawError(f"{path}: is not a track: a column has the wrong type ({error})") from error
    columns = {name: table[name].to_numpy() for name in types}
    misplaced = columns["frame"] != np.arange(1, len(table) + 1)
    if misplaced.any():
        row = int(misplaced.argmax())
        raise AbawError(
            f"{path}: row {row + 1} is frame {columns['frame'][row]}; a track has one row per frame, from 1; "
            "predict it again"
        )
    return columns


def find_tracks(folder: Path | str) -> dict[str, Path]:
    """The track files of a folder by video, sorted by name.

    Raises:
        AbawError: The folder has no tracks.
    """
    paths = list_tracks(folder)
    if not paths:
        raise AbawError(f"{folder}: holds no tracks (<video>{SUFFIX}); `abaw predict` writes them")
    return paths


def list_tracks(folder: Path | str) -> dict[str, Path]:
    """As `find_tracks`, but empty if there are no tracks."""
    paths = {path.name.removesuffix(SUFFIX): path for path in Path(folder).glob(f"*{SUFFIX}")}
    return dict(sorted(paths.items()))


def score_tracks(tracks: Iterable[Track], labels_of: Callable[[str], Labels], tasks: Sequence[Task]) -> Sums:
    """Sums for the official scores, with the most probable class and AUs present from probability 0.5.

    Label rows beyond the last frame are scored with the last prediction.

    Args:
        tracks: One track per video, consumed one at a time.
        labels_of: Function from the name of a video to the labels of all its rows.
        tasks: Tasks to score, predicted in every track.

    Raises:
        AbawError: A track lacks a task.
    """
    videos: list[str] = []
    sums: dict[Task, list[NDArray]] = {task: [] for task in tasks}
    for track in tracks:
        labels = labels_of(track.video)
        videos.append(track.video)
        for task in tasks:
            if task not in track.values:
                have = ", ".join(map(str, track.tasks))
                raise AbawError(f"track of {track.video}: {task} was not predicted there, only {have}")
            sums[task].append(video_sums(task, track.values[task], labels[task]))
    return Sums(tuple(videos), {task: np.stack(values) for task, values in sums.items() if values})


def _first_problem(track: Track) -> str | None:
    for task, values in track.values.items():
        bad = ~np.isfinite(values).all(1)
        if bad.any():
            return f"frame {int(bad.argmax()) + 1} has a value of {task} that is NaN or infinite"
    return None


def ensemble_tracks(
    folders: Sequence[Path | str], out: Path | str, weights: Sequence[float] | None = None
) -> list[Path]:
    """Writes the mean track of every video.

    Args:
        folders: At least two folders with tracks of the same videos, of different checkpoints, window
            lengths or folds.
        out: Folder of the mean tracks, not one of `folders`.
        weights: Nonnegative weight of each folder; null: equal weights.

    Returns:
        The files written.

    Raises:
        UsageError: Too few folders, or weights that do not fit.
        AbawError: The folders differ in videos, frames or tasks, one has tracks of several checkpoints, or
            `out` has tracks of another ensemble.
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
    # all means in memory first, 88 bytes a frame: if any tracks differ, nothing is written
    videos = Progress(found[0], desc="tracks", unit="track")
    means = [mean_track([read_track(paths[video]) for paths in found], weights) for video in videos]
    return [write_track(mean, out, metadata) for mean in means]


def mean_track(tracks: Sequence[Track], weights: Sequence[float]) -> Track:
    """Weighted mean of tracks of one video, of VA values and of probabilities.

    A frame counts as seen if it is in any track of positive weight.

    Raises:
        AbawError: The tracks differ in frames or tasks.
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
    return replace(first, values=means, seen=seen)


def _described(track: Track) -> str:
    return f"{len(track)} frames of {', '.join(map(str, track.tasks))}"
