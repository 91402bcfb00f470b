"""Writing of submissions from tracks: all rows of the sample, in its order, verified."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, fields
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from abaw.data.progress import Progress
from abaw.errors import AbawError
from abaw.evaluation.submission.formats import Form, Sample, VideoList, form_named, read_sample
from abaw.evaluation.submission.verify import SubmissionDefect, check_file, check_video_file, split_lines
from abaw.evaluation.track_metadata import common_metadata
from abaw.evaluation.tracks import Track, find_tracks, read_track
from abaw.files import atomic_path
from abaw.tasks import Task

MOST_BEYOND = 0.02
FEW_BEYOND = 30
"""A video is cut short if more than this share and number of its rows are beyond its last crop.

The official lists have one row more than there are frames, and a face may leave before the video ends.
"""

_NAMED = 5  # number of videos named in a message


@dataclass(frozen=True)
class Provenance:
    """Origin of the rows of a submission or of one of its videos.

    Attributes:
        rows: Number of rows.
        seen: Rows whose crop was visible to the network.
        from_context: Rows without a crop but with a later one, predicted from neighbouring frames.
        beyond_the_last_crop: Rows without a later crop, predicted from earlier frames, or after the end of
            the track repeating its last prediction.
    """

    rows: int = 0
    seen: int = 0
    from_context: int = 0
    beyond_the_last_crop: int = 0

    def __add__(self, other: "Provenance") -> "Provenance":
        return Provenance(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    @property
    def is_cut_short(self) -> bool:
        """Whether the number of rows beyond the last crop implies missing images."""
        beyond = self.beyond_the_last_crop
        return beyond > FEW_BEYOND and beyond > MOST_BEYOND * self.rows


@dataclass(frozen=True)
class Submission:
    """Summary of a written submission.

    Attributes:
        videos: Origin of the rows of each video by name, in the order of the sample.
    """

    videos: Mapping[str, Provenance]

    @property
    def total(self) -> Provenance:
        """Origin of all rows."""
        return sum(self.videos.values(), Provenance())

    @property
    def cut_short(self) -> dict[str, Provenance]:
        """Videos that are cut short, those with most rows beyond the last crop first."""
        short = [(video, rows) for video, rows in self.videos.items() if rows.is_cut_short]
        return dict(sorted(short, key=lambda entry: -entry[1].beyond_the_last_crop))

    def named_cut_short(self) -> str:
        """The first videos that are cut short with their counts, for a message."""
        short = self.cut_short
        named = [
            f"{video} ({rows.beyond_the_last_crop:,} of {rows.rows:,} rows)"
            for video, rows in islice(short.items(), _NAMED)
        ]
        more = f" and {len(short) - _NAMED:,} more" if len(short) > _NAMED else ""
        return ", ".join(named) + more

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON: the total, and those of each video under `videos`."""
        videos = {video: asdict(rows) for video, rows in self.videos.items()}
        return {**asdict(self.total), "cut_short": list(self.cut_short), "videos": videos}

    def table(self, most: int) -> str:
        """Table of the videos with rows that were not seen, those with most beyond the last crop first.

        Args:
            most: Maximum number of videos listed.
        """
        unseen = [(video, rows) for video, rows in self.videos.items() if rows.seen < rows.rows]
        unseen.sort(key=lambda entry: (-entry[1].beyond_the_last_crop, -entry[1].from_context))
        width = max([len(video) for video, _ in unseen[:most]], default=0)
        cells = ("rows", "seen", "from context", "beyond the last crop")
        lines = [f"{'video':<{max(width, 5)}}" + "".join(f"  {name:>12}" for name in cells)] if unseen else []
        for video, rows in unseen[:most]:
            counts = (
                f"  {count:>{max(len(name), 12)},}" for name, count in zip(cells, astuple(rows), strict=True)
            )
            lines.append(f"{video:<{max(width, 5)}}" + "".join(counts))
        if len(unseen) > most:
            lines.append(f"... and {len(unseen) - most:,} more; --json lists all")
        if n_whole := len(self.videos) - len(unseen):
            lines.append(f"every row seen: {n_whole:,} {'other ' * bool(unseen)}video{'s' * (n_whole > 1)}")
        return "\n".join(lines)


def write_submission(
    tracks: Path | str,
    sample: Path | str,
    task: str,
    out: Path | str,
    change: Callable[[Track], Track] = lambda track: track,
    allow_missing: bool = False,
) -> Submission:
    """Writes the submission of one task, or of all three as `mtl`.

    Args:
        tracks: Folder of tracks; those of other videos are left alone.
        sample: The organisers' sample file, or a list of videos (3rd edition).
        task: va, expr, au or mtl.
        out: The file; for a list of videos the folder that gets a file for each.
        change: Applied to every track before its decisions are taken, such as a calibration.
        allow_missing: Also write videos that are cut short.

    Returns:
        How many rows of each video were seen, came from the context, or lie beyond the last crop.

    Raises:
        AbawError: A video has no track, its track lacks the task or ends long before its rows do; the folder
            mixes tracks of several checkpoints; or the result would not be valid.
        UsageError: The task is unknown, or not that of the sample.
    """
    form = form_named(task)
    rows = read_sample(sample, form)
    if isinstance(rows, VideoList) and not form.video_header:
        raise AbawError(f"{form.name}: no edition took a file per video; give a sample file with images")
    paths = find_tracks(tracks)
    common_metadata(tracks, paths)
    if absent := [video for video in rows.videos if video not in paths]:
        named = ", ".join(absent[:10]) + (", …" if len(absent) > 10 else "")
        raise AbawError(
            f"{tracks}: {len(absent)} videos of {sample} have no track: {named}; predict them first"
        )
    frames = _frames_of(rows)
    filled: dict[str, list[str]] = {}  # all tracks first: if one is refused, nothing is written
    obtained: dict[str, Provenance] = {}
    for k, video in enumerate(Progress(rows.videos, desc="tracks", unit="track")):
        track = change(read_track(paths[video]))
        asked = np.arange(len(track)) if frames is None else frames[k]
        filled[video] = _cells(track, form, asked)
        obtained[video] = _provenance(track, asked)
    done = Submission(obtained)
    if done.cut_short and not allow_missing:
        n = len(done.cut_short)
        raise AbawError(
            f"{tracks}: {f'{n:,} videos end' if n > 1 else '1 video ends'} long before the rows of {sample} "
            f"do; beyond the last crop are {done.named_cut_short()}\n"
            "fetch their images and predict again, or repeat the last predictions with --allow_missing"
        )
    if isinstance(rows, Sample):
        _write_file(filled, rows, form, Path(out))
    else:
        _write_folder(filled, form, Path(out))
    return done


def _frames_of(rows: Sample | VideoList) -> list[NDArray[np.int32]] | None:
    """Frames to submit per video, in the order of its rows; None: all, for a list of videos."""
    if isinstance(rows, VideoList):
        return None
    return [rows.frame[places] for places in _rows_of(rows)]


def _rows_of(sample: Sample) -> list[NDArray[np.intp]]:
    """Row indices per video of a sample."""
    by_video = np.argsort(sample.video, kind="stable")
    return np.split(by_video, np.cumsum(np.bincount(sample.video))[:-1])


def _write_file(filled: Mapping[str, list[str]], sample: Sample, form: Form, out: Path) -> None:
    cells = np.empty(len(sample), dtype=object)
    for video, places in zip(sample.videos, _rows_of(sample), strict=True):
        cells[places] = filled[video]
    lines = [form.header, *(f"{image},{row}" for image, row in zip(sample.images, cells, strict=True))]
    _write_verified(lines, out, partial(check_file, sample=sample, form=form))


def _write_folder(filled: Mapping[str, list[str]], form: Form, out: Path) -> None:
    for video, cells in filled.items():
        file, lines = f"{video}.txt", [form.video_header, *cells]
        check = partial(check_video_file, form=form, file=file, n_rows=len(cells))
        _write_verified(lines, out / file, check)


def _write_verified(
    lines: Sequence[str], path: Path, check: Callable[[Sequence[str]], list[SubmissionDefect]]
) -> None:
    """Writes lines if `check` finds no defects, and checks the written file again."""

    def refuse(defects: Sequence[SubmissionDefect]) -> None:
        if defects:
            raise AbawError(
                f"{path}: not written, it would be invalid at {len(defects):,} places, first at "
                f"{defects[0]}; check the sample file and the tracks"
            )

    refuse(check(lines))
    with atomic_path(path) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")
        refuse(check(split_lines(temporary.read_bytes())))


def _cells(track: Track, form: Form, frames: NDArray[np.integer]) -> list[str]:
    """Official text of some frames, without the image; after the track's end that of its last frame."""
    if absent := [task for task in form.tasks if task not in track.values]:
        raise AbawError(f"track of {track.video}: {', '.join(map(str, absent))} was not predicted there")
    if not len(track):
        raise AbawError(f"track of {track.video}: holds no frame to take a prediction from")
    inside = np.minimum(frames, len(track) - 1)
    parts = [_text(task, track.values[task][inside]) for task in form.tasks]
    return [",".join(row) for row in zip(*parts, strict=True)]


def _text(task: Task, values: NDArray) -> list[str]:
    """Official text of the predictions (n, K) of a task."""
    if task.kind == "class":
        return [str(number) for number in values.argmax(1).tolist()]
    if task.kind == "binary":
        return [",".join("01"[present] for present in row) for row in (values >= 0.5).tolist()]
    return [",".join(f"{value:.6f}" for value in row) for row in values.clip(task.low, task.high).tolist()]


def _provenance(track: Track, frames: NDArray[np.integer]) -> Provenance:
    seen = np.flatnonzero(track.seen)
    beyond = frames > seen.max(initial=-1)
    n_beyond, n_seen = int(beyond.sum()), int(track.seen[frames[~beyond]].sum())
    return Provenance(len(frames), n_seen, len(frames) - n_seen - n_beyond, n_beyond)
