"""Metadata of tracks: run, weights and settings, stored in each file, equal within a folder."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from abaw.errors import AbawError

KEY = b"abaw"
"""Key in the metadata of the Parquet schema; the value is JSON."""

_RENAMED = {
    "hide_frames": "drop_frames",
}
"""Settings of earlier versions, with their current names."""


@dataclass(frozen=True, kw_only=True)
class TrackMetadata:
    """Origin of a track. Tracks belong together if `weights` and `settings` are equal.

    Attributes:
        run: The run's directory as given; for an ensemble the folder of its tracks.
        weights: Fingerprint of the network's tensors (SHA-256); for an ensemble that of its sources.
        settings: Other settings that affect the predictions, as plain numbers: windows, dropped frames.
        sources: Members of an ensemble, each with `folder`, `share` and its own metadata, null if unknown.
        tasks: Descriptions of predicted tasks besides those of the challenge; see `Task.describe`.
        version: Version of the package.
    """

    run: str
    weights: str
    settings: Mapping[str, float] = field(default_factory=dict)
    sources: Sequence[Mapping[str, Any]] = field(default_factory=list)
    tasks: Sequence[Any] = field(default_factory=list)
    version: str = field(default_factory=partial(version_of, "abaw"))

    def goes_with(self, other: "TrackMetadata | None") -> bool:
        """Whether tracks of both origins may be in one folder."""
        return other is not None and (self.weights, self.settings) == (other.weights, other.settings)

    def to_json(self) -> bytes:
        """JSON text for the Parquet metadata."""
        return json.dumps(asdict(self)).encode()

    def __str__(self) -> str:
        settings = "".join(f", {name} {value:g}" for name, value in self.settings.items())
        return f"{self.run} (weights {self.weights[:12]}{settings})"


def ensemble_metadata(
    out: Path | str,
    folders: Sequence[Path | str],
    members: Sequence[TrackMetadata | None],
    shares: Sequence[float],
) -> TrackMetadata:
    """Metadata of an ensemble.

    Args:
        out: Folder of the mean tracks.
        folders: Folders of the members.
        members: Metadata of the members.
        shares: Weights of the members, which sum to 1.
    """
    sources = [
        {"folder": str(folder), "share": share, "metadata": None if member is None else asdict(member)}
        for folder, member, share in zip(folders, members, shares, strict=True)
    ]
    parts = [
        [str(folder), share] if member is None else [member.weights, dict(member.settings), share]
        for folder, member, share in zip(folders, members, shares, strict=True)
    ]
    weights = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
    tasks = members[0].tasks if members[0] is not None else []
    return TrackMetadata(run=str(out), weights=weights, sources=sources, tasks=tasks)


def read_metadata(path: Path) -> TrackMetadata | None:
    """Metadata of a track; None if its file has none, as with tracks of other programs.

    Raises:
        AbawError: The file or its metadata is damaged.
    """
    try:
        plain = (pq.read_schema(path).metadata or {}).get(KEY)
        if plain is None:
            return None
        found = TrackMetadata(**json.loads(plain))
        return replace(found, settings={_RENAMED.get(key, key): n for key, n in found.settings.items()})
    except (OSError, pa.ArrowException) as error:
        raise AbawError(f"{path}: cannot be read as a track ({error}); predict it again") from error
    except (ValueError, TypeError, AttributeError) as error:
        raise AbawError(f"{path}: its metadata cannot be read ({error}); predict it again") from error


def common_metadata(folder: Path | str, tracks: Mapping[str, Path]) -> TrackMetadata | None:
    """The common metadata of all tracks of a folder; None if no file has any.

    Args:
        folder: The folder, for the message.
        tracks: Its files by video, at least one.

    Raises:
        AbawError: The tracks differ in weights or settings, or only some have metadata.
    """
    found = _all_metadata(tracks)
    first, common = next(found)
    for video, other in found:
        if not _together(common, other):
            raise AbawError(
                f"{folder}: holds tracks of different checkpoints or settings: {first} of {_named(common)},"
                f" {video} of {_named(other)}; predict all videos again into an empty folder"
            )
    return common


def check_fits(folder: Path | str, tracks: Mapping[str, Path], new: TrackMetadata) -> None:
    """Checks that new tracks belong together with the existing tracks of a folder.

    Args:
        folder: The folder, for the message.
        tracks: Its files by video.
        new: Metadata of the new tracks.

    Raises:
        AbawError: A track has other weights or settings, or no metadata.
    """
    for video, existing in _all_metadata(tracks):
        if not new.goes_with(existing):
            raise AbawError(
                f"{folder}: holds tracks of another checkpoint or other settings, such as {video} of"
                f" {_named(existing)}; the new ones would be of {new}; remove or rename the folder first"
            )


def _all_metadata(tracks: Mapping[str, Path]) -> Iterator[tuple[str, TrackMetadata | None]]:
    return ((video, read_metadata(path)) for video, path in tracks.items())


def _together(one: TrackMetadata | None, other: TrackMetadata | None) -> bool:
    return other is None if one is None else one.goes_with(other)


def _named(metadata: TrackMetadata | None) -> str:
    return "unknown origin" if metadata is None else str(metadata)
