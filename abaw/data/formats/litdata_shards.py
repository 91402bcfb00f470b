"""Segments: the images of a video in runs of frames, samples of a litdata data set for object storage."""

import hashlib
import json
import os
import shutil
import tempfile
import zlib
from collections import OrderedDict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from abaw.data.formats.arrays import DamagedFileError, open_arrays, write_arrays
from abaw.data.formats.flat_shards import PACK, remove_packed, write_packed
from abaw.data.formats.litdata_io import open_stream, open_writer, sample
from abaw.data.labels import is_video_name
from abaw.errors import AbawError
from abaw.files import not_written

CONTENTS = "contents.safetensors"
"""Says what a pack of segments holds; it is also its last sample, so that the storage needs nothing else."""

_UNFINISHED = ".packing-"

_ORIGIN = "origin.json"  # in a stand-in: where the samples are

_FORMAT = "abaw segments 1"

_CHUNK_BYTES = 64 << 20

_HELD = 4  # segments kept per process: in evaluation the windows of a video follow one another


class SegmentStore:
    """Fetches segments from any pack, on disk or in object storage, each whole and by its own request.

    So clips may be drawn in any order, and the samplers alone decide which process sees what. Forked and
    pickled copies open their own connections.
    """

    def __init__(self) -> None:
        self._forget()

    def __getstate__(self) -> dict[str, Any]:
        return {"_process": -1}

    def _forget(self) -> None:
        self._process = os.getpid()
        self._streams: dict[Path, Any] = {}
        self._held: OrderedDict[tuple[Path, int], bytes] = OrderedDict()  # least recently used first

    def fetch(self, root: Path, number: int) -> bytes:
        """The segment of that number in the pack at `root`: image files one after the other.

        Raises:
            AbawError: The pack is damaged, or the storage cannot be reached for minutes.
        """
        if self._process != os.getpid():
            self._forget()
        key = root, number
        if key not in self._held:
            if root not in self._streams:
                self._streams[root] = _stream_of(root)
            self._held[key] = sample(self._streams[root], number, root)
            if len(self._held) > _HELD:
                self._held.popitem(last=False)
        self._held.move_to_end(key)
        return self._held[key]


def segment_frames(root: Path) -> int | None:
    """Frames in a segment of the pack at `root`; None of an image root of another kind."""
    return int(read_contents(root)["segment_frames"]) if (root / CONTENTS).is_file() else None


def read_contents(root: Path) -> dict[str, Any]:
    """What the pack at `root` holds: videos, n_frames, size, segment_frames, state.

    Raises:
        AbawError: It is damaged.
    """
    try:
        arrays, note = open_arrays(root / CONTENTS, verify=True)
        about = json.loads(note)
        if about["format"] != _FORMAT:
            raise DamagedFileError("of another version")
        if wrong := [video for video in about["videos"] if not is_video_name(video)]:
            raise DamagedFileError(f"{wrong[0]!r} is not the name of a video")
        return {**about, "n_frames": arrays["n_frames"], "size": arrays["size"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise AbawError(f"{root / CONTENTS}: no pack of segments ({error}); pack again") from error


def write_segments(
    out: Path,
    videos: Iterable[tuple[str, NDArray[np.int64], list[bytes]]],
    *,
    segment_frames: int,
    state: str,
) -> None:
    """Writes a pack of segments and reads every byte of it back.

    Args:
        out: Its folder; an earlier pack of segments in it is replaced once the new one is complete.
        videos: Name, int64 (N,) length of every image in bytes or -1, and the content of those there are.
        segment_frames: Frames in a segment; the last of a video has fewer.
        state: What changes when an image does.

    Raises:
        AbawError: `out` holds another data set, or the disk refuses.
    """
    held = [*out.glob("chunk-*.bin"), *out.glob("*index.json"), *out.glob(f"*/{PACK}")]
    if held and not (out / CONTENTS).is_file():
        raise AbawError(f"{out}: holds another pack or data set ({held[0].name}); choose another folder")
    try:
        out.mkdir(parents=True, exist_ok=True)
        for abandoned in out.glob(f"{_UNFINISHED}*"):  # by a process that was killed
            shutil.rmtree(abandoned)
        with tempfile.TemporaryDirectory(prefix=_UNFINISHED, dir=out) as temporary:
            new = Path(temporary)
            checksums = _write_samples(new, videos, segment_frames, state)
            stream = _stream_of(new)
            for number, checksum in enumerate(checksums):
                if zlib.crc32(sample(stream, number, out)) != checksum:
                    raise AbawError(f"{out}: the disk did not keep what was written; choose another place")
            _write_tables(new)
            _exchange(held, new, out)
    except OSError as error:
        raise not_written(out, error) from error


def _exchange(old: Iterable[Path], new: Path, out: Path) -> None:
    """Puts the files of a complete pack in place of those of another; in between there is none at `out`."""
    (out / CONTENTS).write_bytes(b"")
    for path in old:
        if path.name == PACK:
            remove_packed(path.parent)
        else:
            path.unlink()
    files = [path for path in new.rglob("*") if path.is_file()]
    for path in sorted(files, key=lambda path: path.name == CONTENTS):  # it tells that all is there
        target = out / path.relative_to(new)
        target.parent.mkdir(exist_ok=True)
        path.replace(target)


def _write_samples(
    out: Path, videos: Iterable[tuple[str, NDArray[np.int64], list[bytes]]], segment_frames: int, state: str
) -> list[int]:
    """Writes all segments, then the contents; gives the checksum of every sample."""
    writer = open_writer(out, _CHUNK_BYTES)
    names: list[str] = []
    sizes: list[NDArray[np.int64]] = []
    checksums: list[int] = []

    def write(content: bytes) -> None:
        writer[len(checksums)] = content
        checksums.append(zlib.crc32(content))

    for name, size, images in videos:
        there = np.concatenate([[0], np.cumsum(size >= 0)])
        for first in range(0, len(size), segment_frames):
            last = min(first + segment_frames, len(size))
            write(b"".join(images[there[first] : there[last]]))
        names.append(name)
        sizes.append(size)
    about = {"format": _FORMAT, "videos": names, "segment_frames": segment_frames, "state": state}
    n_frames = np.array([len(size) for size in sizes])
    write_arrays(out / CONTENTS, {"n_frames": [n_frames], "size": sizes}, json.dumps(about))
    write((out / CONTENTS).read_bytes())
    writer.done()
    writer._merge_no_wait()  # the public one waits for all processes of a launcher, and this is one
    return checksums


def mirror(url: str, folder: Path) -> Path:
    """A local image root for a pack of segments in object storage: all of it but the images.

    Credentials and endpoint are those that the storage's own tools use, such as AWS_ACCESS_KEY_ID,
    AWS_SECRET_ACCESS_KEY and AWS_ENDPOINT_URL.

    Args:
        url: Such as s3://bucket/pack.
        folder: Where stand-ins are kept; one that is there and still true is used again.

    Raises:
        AbawError: The storage cannot be reached, or there is no pack of segments.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as temporary:
            new = Path(temporary) / "root"
            new.mkdir()
            return _bring(url, new, folder)
    except OSError as error:
        raise AbawError(
            f"{folder}: cannot hold what describes {url} ({error.strerror}); choose another folder with the"
            " environment variable ABAW_CACHE"
        ) from error


def _bring(url: str, new: Path, folder: Path) -> Path:
    """Makes a stand-in in `new` and moves it to its place in `folder`, unless it is there."""
    (new / _ORIGIN).write_text(json.dumps({"url": url}))
    stream = _stream_of(new)
    index = (new / "index.json").read_bytes()
    root = folder / hashlib.sha256(url.encode() + index).hexdigest()[:16]
    if not root.exists():
        n_samples = sum(chunk["chunk_size"] for chunk in json.loads(index)["chunks"])
        (new / CONTENTS).write_bytes(sample(stream, n_samples - 1, url))
        _write_tables(new)
        try:
            new.rename(root)
        except OSError:
            if not root.exists():  # else another process was faster
                raise
    return root


def _write_tables(root: Path) -> None:
    """Gives every video of a pack of segments the folder by which it is found."""
    contents = read_contents(root)
    ends = np.cumsum(contents["n_frames"])
    length, first = contents["segment_frames"], 0
    for video, size in zip(contents["videos"], np.split(contents["size"], ends[:-1]), strict=True):
        write_packed(root / video, size, [], segment_frames=length, first_segment=first)
        first += -(-len(size) // length)


def _stream_of(root: Path) -> Any:
    """The samples of the pack at `root`, or of the one that it stands in for."""
    origin = root / _ORIGIN
    return open_stream(root, json.loads(origin.read_text())["url"] if origin.is_file() else None)
