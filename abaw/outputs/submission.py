"""From tracks to the file the organisers take: every row filled, in the sample's order, verified twice."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from abaw.errors import AbawError
from abaw.files import atomic_path
from abaw.outputs.samples import Form, Sample, VideoList, form_named, read_sample
from abaw.outputs.tracks import Track, find_tracks, read_track
from abaw.outputs.verification import Finding, check_file, check_video_file, split_lines
from abaw.scores import au_present, expr_class
from abaw.tasks import Task


@dataclass(frozen=True)
class Provenance:
    """How the rows of a submission were obtained.

    Attributes:
        rows: All of them.
        seen: The network saw the frame's crop.
        from_context: The frame has no crop; its neighbours in time decided.
        beyond_the_last_crop: The frame lies behind the track's end, whose last prediction was taken.
    """

    rows: int = 0
    seen: int = 0
    from_context: int = 0
    beyond_the_last_crop: int = 0

    def __add__(self, other: "Provenance") -> "Provenance":
        return Provenance(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))


def write_submission(
    tracks: Path | str,
    sample: Path | str,
    task: str,
    out: Path | str,
    change: Callable[[Track], Track] = lambda track: track,
) -> Provenance:
    """Writes the submission of one task, or of all three as `mtl`.

    Args:
        tracks: Folder of tracks; those of other videos are left alone.
        sample: The organisers' sample file, or a list of videos (3rd edition).
        task: va, expr, au or mtl.
        out: The file; for a list of videos the folder that gets a file for each.
        change: Applied to every track before its decisions are taken, such as a calibration.

    Returns:
        How many rows were seen, came from the context, or lie beyond the last crop.

    Raises:
        AbawError: A video has no track or its track lacks the task; or the result would not be valid.
        UsageError: The task is unknown, or not that of the sample.
    """
    form = form_named(task)
    rows = read_sample(sample, form)
    paths = find_tracks(tracks)
    if absent := [video for video in rows.videos if video not in paths]:
        named = ", ".join(absent[:10]) + (", …" if len(absent) > 10 else "")
        raise AbawError(
            f"{tracks}: {len(absent)} videos of {sample} have no track: {named}; predict them first"
        )
    videos = tqdm(rows.videos, desc="tracks", disable=None)
    read = (change(read_track(paths[video])) for video in videos)
    if isinstance(rows, Sample):
        return _write_file(read, rows, form, Path(out))
    return _write_folder(read, rows, form, Path(out))


def _write_file(tracks: Iterable[Track], sample: Sample, form: Form, out: Path) -> Provenance:
    cells = np.empty(len(sample), dtype=object)
    provenance = Provenance()
    by_video = np.argsort(sample.video, kind="stable")
    rows_of = np.split(by_video, np.cumsum(np.bincount(sample.video))[:-1])
    for track, rows in zip(tracks, rows_of, strict=True):
        frames = sample.frame[rows]
        values = np.array(_cells(track, form), dtype=object)
        cells[rows] = values[np.minimum(frames, len(track) - 1)]
        provenance += _provenance(track, frames)
    lines = [form.header, *(f"{image},{row}" for image, row in zip(sample.images, cells, strict=True))]
    _write_verified(lines, out, partial(check_file, sample=sample, form=form))
    return provenance


def _write_folder(tracks: Iterable[Track], videos: VideoList, form: Form, out: Path) -> Provenance:
    if not form.video_header:
        raise AbawError(f"{form.name}: no edition took a file per video; give a sample file with images")
    provenance = Provenance()
    for video, track in zip(videos.videos, tracks, strict=True):
        file, n_rows = f"{video}.txt", len(track)
        lines = [form.video_header, *_cells(track, form)]
        _write_verified(lines, out / file, partial(check_video_file, form=form, file=file, n_rows=n_rows))
        provenance += _provenance(track, np.arange(n_rows))
    return provenance


def _write_verified(
    lines: Sequence[str], path: Path, check: Callable[[Sequence[str]], list[Finding]]
) -> None:
    """Writes lines that `check` has nothing against, and checks again what came to lie on the disk."""

    def refuse(findings: Sequence[Finding]) -> None:
        if findings:
            raise AbawError(
                f"{path}: not written, it would be invalid at {len(findings):,} places, first at "
                f"{findings[0]}; look at the sample file and the tracks"
            )

    refuse(check(lines))
    with atomic_path(path) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")
        refuse(check(split_lines(temporary.read_bytes())))


def _cells(track: Track, form: Form) -> list[str]:
    """The official text of every frame, without the image."""
    if absent := [task for task in form.tasks if task not in track.values]:
        raise AbawError(f"track of {track.video}: {', '.join(absent)} was not predicted there")
    if not len(track):
        raise AbawError(f"track of {track.video}: holds no frame to take a prediction from")
    parts = [_TEXT[task](track.values[task]) for task in form.tasks]
    return [",".join(row) for row in zip(*parts, strict=True)]


def _va_text(values: NDArray) -> list[str]:
    return [f"{valence:.6f},{arousal:.6f}" for valence, arousal in values.clip(-1, 1).tolist()]


def _expr_text(values: NDArray) -> list[str]:
    return [str(number) for number in expr_class(values).tolist()]


def _au_text(values: NDArray) -> list[str]:
    return [",".join("01"[present] for present in row) for row in au_present(values).tolist()]


_TEXT: dict[Task, Callable[[NDArray], list[str]]] = {
    Task.VA: _va_text,
    Task.EXPR: _expr_text,
    Task.AU: _au_text,
}


def _provenance(track: Track, frames: NDArray[np.integer]) -> Provenance:
    inside = frames[frames < len(track)]
    seen = int(track.seen[inside].sum())
    return Provenance(len(frames), seen, len(inside) - seen, len(frames) - len(inside))
