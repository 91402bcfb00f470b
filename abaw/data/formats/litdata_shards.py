"""Litdata shards: segments of consecutive images as samples of a litdata data set for object storage."""

import hashlib
import json
import os
import shutil
import tempfile
import zlib
from collections.abc import Iterable
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from abaw.data.formats.arrays import DamagedFileError, open_arrays, write_arrays
from abaw.data.formats.flat_shards import PACK, remove_packed, write_packed
from abaw.data.formats.litdata_io import open_litdata, open_writer, read_sample
from abaw.data.labels import is_video_name
from abaw.errors import AbawError
from abaw.files import not_written

CONTENTS = "contents.safetensors"
"""Table of contents of litdata shards, and their last sample, so that a download needs no other file."""

_UNFINISHED = ".packing-"
_ORIGIN = "origin.json"  # in a mirror: address of the samples
_FORMAT = "abaw segments 1"
_CHUNK_BYTES = 64 << 20
_CACHED_SEGMENTS = 4  # per process, as consecutive windows in evaluation share segments


class LitdataStore:
    """Random access to segments in litdata shards, on disk or in object storage, one request each.

    The order of clips and their distribution to processes are left to the samplers. Forked and pickled
    copies open their own connections.
    """

    def __init__(self) -> None:
        self._forget()

    def __getstate__(self) -> dict[str, Any]:
        return {"_process": -1}

    def _forget(self) -> None:
        self._process = os.getpid()
        stream = cache(_open)
        self._segment = lru_cache(_CACHED_SEGMENTS)(
            lambda root, number: read_sample(stream(root), number, root)
        )

    def fetch(self, root: Path, number: int) -> bytes:
        """A segment of the shards at `root` by its number: concatenated image files.

        Raises:
            AbawError: The shards are damaged, or the storage cannot be reached for minutes.
        """
        if self._process != os.getpid():
            self._forget()
        return self._segment(root, number)


def segment_frames(root: Path) -> int | None:
    """Number of frames per segment of the litdata shards at `root`; None for another kind of image root."""
    return int(read_contents(root)["segment_frames"]) if (root / CONTENTS).is_file() else None


def read_contents(root: Path) -> dict[str, Any]:
    """Table of contents of the litdata shards at `root`: videos, n_frames, size, segment_frames, state.

    Raises:
        AbawError: They are damaged.
    """
    try:
        arrays, text = open_arrays(root / CONTENTS, verify=True)
        metadata = json.loads(text)
        if metadata["format"] != _FORMAT:
            raise DamagedFileError("of another version")
        if wrong := [video for video in metadata["videos"] if not is_video_name(video)]:
            raise DamagedFileError(f"{wrong[0]!r} is not a valid video name")
        return {**metadata, "n_frames": arrays["n_frames"], "size": arrays["size"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise AbawError(f"{root / CONTENTS}: not litdata shards ({error}); pack again") from error


def write_litdata_shards(
    out: Path,
    videos: Iterable[tuple[str, NDArray[np.int64], list[bytes]]],
    *,
    segment_frames: int,
    fingerprint: str,
) -> None:
    """Writes litdata shards and verifies them.

    Args:
        out: Output folder; earlier litdata shards in it are replaced when the new ones are complete.
        videos: Name, int64 (N,) length of each image in bytes or -1, and contents of the existing images.
        segment_frames: Number of frames per segment; the last of a video may have fewer.
        fingerprint: Fingerprint of the images.

    Raises:
        AbawError: `out` contains another data set, or cannot be written.
    """
    held = [*out.glob("chunk-*.bin"), *out.glob("*index.json"), *out.glob(f"*/{PACK}")]
    if held and not (out / CONTENTS).is_file():
        raise AbawError(f"{out}: holds another pack or data set ({held[0].name}); choose another folder")
    try:
        out.mkdir(parents=True, exist_ok=True)
        for abandoned in out.glob(f"{_UNFINISHED}*"):  # by a killed process
            shutil.rmtree(abandoned)
        with tempfile.TemporaryDirectory(prefix=_UNFINISHED, dir=out) as temporary:
            new = Path(temporary)
            checksums = _write_samples(new, videos, segment_frames, fingerprint)
            stream = _open(new)
            for number, checksum in enumerate(checksums):
                if zlib.crc32(read_sample(stream, number, out)) != checksum:
                    raise AbawError(f"{out}: the disk did not keep what was written; choose another place")
            _write_tables(new)
            _exchange(held, new, out)
    except OSError as error:
        raise not_written(out, error) from error


def _exchange(old: Iterable[Path], new: Path, out: Path) -> None:
    """Replaces the files of old shards by those of new ones; in between `out` is marked as incomplete."""
    (out / CONTENTS).write_bytes(b"")
    for path in old:
        if path.name == PACK:
            remove_packed(path.parent)
        else:
            path.unlink()
    files = [path for path in new.rglob("*") if path.is_file()]
    for path in sorted(files, key=lambda path: path.name == CONTENTS):  # last: marks completion
        target = out / path.relative_to(new)
        target.parent.mkdir(exist_ok=True)
        path.replace(target)


def _write_samples(
    out: Path, videos: Iterable[tuple[str, NDArray[np.int64], list[bytes]]], length: int, fingerprint: str
) -> list[int]:
    """Writes all segments, then the table of contents; returns the checksum of every sample."""
    writer = open_writer(out, _CHUNK_BYTES)
    names: list[str] = []
    sizes: list[NDArray[np.int64]] = []
    checksums: list[int] = []

    def write(content: bytes) -> None:
        writer[len(checksums)] = content
        checksums.append(zlib.crc32(content))

    for name, size, images in videos:
        there = np.concatenate([[0], np.cumsum(size >= 0)])
        for first in range(0, len(size), length):
            last = min(first + length, len(size))
            write(b"".join(images[there[first] : there[last]]))
        names.append(name)
        sizes.append(size)
    metadata = {"format": _FORMAT, "videos": names, "segment_frames": length, "state": fingerprint}
    n_frames = np.array([len(size) for size in sizes])
    write_arrays(out / CONTENTS, {"n_frames": [n_frames], "size": sizes}, json.dumps(metadata))
    write((out / CONTENTS).read_bytes())
    writer.done()
    writer._merge_no_wait()  # `merge` waits for the other ranks of a launcher
    return checksums


def mirror(url: str, folder: Path) -> Path:
    """A local image root for litdata shards in object storage, with all their tables but no images.

    Credentials and endpoint are taken from the usual variables of the storage client, such as
    AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_ENDPOINT_URL.

    Args:
        url: Address of the shards, such as s3://bucket/pack.
        folder: Folder of the mirrors; an existing mirror is reused if the shards are unchanged.

    Raises:
        AbawError: The storage cannot be reached, or contains no litdata shards.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as temporary:
            new = Path(temporary) / "root"
            new.mkdir()
            return _download(url, new, folder)
    except OSError as error:
        raise AbawError(
            f"{folder}: cannot hold what describes {url} ({error.strerror}); choose another folder with the"
            " environment variable ABAW_CACHE"
        ) from error


def _download(url: str, new: Path, folder: Path) -> Path:
    """Downloads a mirror to `new` and moves it to `folder`, unless it exists there."""
    (new / _ORIGIN).write_text(json.dumps({"url": url}))
    stream = _open(new)
    index = (new / "index.json").read_bytes()
    root = folder / hashlib.sha256(url.encode() + index).hexdigest()[:16]
    if not root.exists():
        n_samples = sum(chunk["chunk_size"] for chunk in json.loads(index)["chunks"])
        (new / CONTENTS).write_bytes(read_sample(stream, n_samples - 1, url))
        _write_tables(new)
        try:
            new.rename(root)
        except OSError:
            if not root.exists():  # otherwise another process has created it
                raise
    return root


def _write_tables(root: Path) -> None:
    """Writes the folder of every video, by which it is discovered."""
    contents = read_contents(root)
    ends = np.cumsum(contents["n_frames"])
    length, first = contents["segment_frames"], 0
    for video, size in zip(contents["videos"], np.split(contents["size"], ends[:-1]), strict=True):
        write_packed(root / video, size, [], segment_frames=length, first_segment=first)
        first += -(-len(size) // length)


def _open(root: Path) -> Any:
    """The litdata data set at `root`, or the one of which `root` is a mirror."""
    origin = root / _ORIGIN
    return open_litdata(root, json.loads(origin.read_text())["url"] if origin.is_file() else None)
