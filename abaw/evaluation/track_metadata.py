"""What made a track: kept in the metadata of its file, and the same for all tracks of a folder."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

import abaw
from abaw.errors import AbawError

KEY = b"abaw"
"""In the metadata of a Parquet schema; the value is JSON."""


@dataclass(frozen=True, kw_only=True)
class TrackMetadata:
    """What made a track. Two tracks belong together where `weights` and `settings` are the same.

    Attributes:
        run: The run's directory, as it was named; of an ensemble the folder of its tracks.
        weights: SHA-256 of the network's tensors; of an ensemble that of its sources.
        settings: What else decides about the values, as plain numbers: how videos are cut, what is hidden.
        sources: Of an ensemble the members, each with its `folder`, its `share` and its own metadata, null
            where that is unknown.
        version: Of the package.
    """

    run: str
    weights: str
    settings: Mapping[str, float] = field(default_factory=dict)
    sources: Sequence[Mapping[str, Any]] = field(default_factory=list)
    version: str = field(default_factory=lambda: abaw.__version__)

    def goes_with(self, other: "TrackMetadata | None") -> bool:
        """Whether tracks of both may lie in one folder."""
        return other is not None and (self.weights, self.settings) == (other.weights, other.settings)

    def to_json(self) -> bytes:
        """As the metadata's value."""
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
    """The metadata of the mean of some folders of tracks.

    Args:
        out: Folder of the mean tracks.
        folders: Those averaged.
        members: Their metadata.
        shares: How much each counts; they sum to 1.
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
    return TrackMetadata(run=str(out), weights=weights, sources=sources)


def read_metadata(path: Path) -> TrackMetadata | None:
    """What made a track; None where its file does not say, as with tracks of other programs.

    Raises:
        AbawError: The file is damaged, or says it in a way that cannot be understood.
    """
    try:
        plain = (pq.read_schema(path).metadata or {}).get(KEY)
        return None if plain is None else TrackMetadata(**json.loads(plain))
    except (OSError, pa.ArrowException) as error:
        raise AbawError(f"{path}: cannot be read as a track ({error}); predict it again") from error
    except (ValueError, TypeError) as error:
        raise AbawError(f"{path}: its metadata cannot be read ({error}); predict it again") from error


def common_metadata(folder: Path | str, tracks: Mapping[str, Path]) -> TrackMetadata | None:
    """What made all tracks of a folder; None where no file says it.

    Args:
        folder: For the message.
        tracks: Its files by video, at least one.

    Raises:
        AbawError: They are not all of the same weights and settings, or some do not say.
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
    """Raises where new tracks would not go with those that a folder holds already.

    Args:
        folder: For the message.
        tracks: Its files by video.
        new: What makes the new ones.

    Raises:
        AbawError: One of the tracks is of other weights or settings, or does not say.
    """
    for video, there in _all_metadata(tracks):
        if not new.goes_with(there):
            raise AbawError(
                f"{folder}: holds tracks of another checkpoint or other settings, such as {video} of"
                f" {_named(there)}; the new ones would be of {new}; remove or rename the folder first"
            )


def _all_metadata(tracks: Mapping[str, Path]) -> Iterator[tuple[str, TrackMetadata | None]]:
    return ((video, read_metadata(path)) for video, path in tracks.items())


def _together(one: TrackMetadata | None, other: TrackMetadata | None) -> bool:
    return other is None if one is None else one.goes_with(other)


def _named(metadata: TrackMetadata | None) -> str:
    return "unknown origin" if metadata is None else str(metadata)
