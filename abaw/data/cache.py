"""Cache of indices on disk: file names, fingerprints of the files they were built from, deletion."""

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from numpy.typing import NDArray

from abaw.data.formats.arrays import DamagedFileError, write_arrays
from abaw.errors import AbawError

_VERSION = 1  # of the arrays and the metadata; after a change every index is built again
_KEPT = 4  # indices of one data set that stay on disk: a running job may still open an earlier one
_CLOCK_TICK = 0.02  # seconds within which a file system may give two changes the same time

Content = TypeVar("Content")


def cache_folder(cache_dir: Path | None) -> Path:
    """Returns `cache_dir`, else the environment variable ABAW_CACHE, else ~/.cache/abaw."""
    return Path(cache_dir or os.environ.get("ABAW_CACHE") or "~/.cache/abaw").expanduser()


def fingerprint(paths: Iterable[Path]) -> str:
    """Fingerprint of files and folders: a line per path with its name, size and modification time.

    Waits up to one tick of the file system's clock if a path has just changed, because a further change
    within the same tick would not change the fingerprint.

    Raises:
        AbawError: A path no longer exists or cannot be read.
    """
    lines, latest = [], 0.0
    for path in paths:
        try:
            status = path.stat()
        except OSError as error:
            raise AbawError(f"{path}: cannot be read ({error.strerror}); was it moved just now?") from error
        size = 0 if path.is_dir() else status.st_size
        lines.append(f"{path}\t{size}\t{status.st_mtime_ns}")
        latest = max(latest, status.st_mtime)
    time.sleep(min(max(latest + _CLOCK_TICK - time.time(), 0), _CLOCK_TICK))
    return "\n".join(lines)


def cache_file(folder: Path, options: object, fingerprint: str) -> Path:
    """Path of the index of one data set (`options`) whose files have this fingerprint."""
    key = hashlib.sha256(json.dumps([_VERSION, options]).encode()).hexdigest()[:16]
    return folder / "index" / f"{key}-{hashlib.sha256(fingerprint.encode()).hexdigest()[:16]}.safetensors"


def cached(
    path: Path,
    open_file: Callable[..., Content],
    build: Callable[[], tuple[Mapping[str, Sequence[NDArray[Any]]], str]],
) -> Content:
    """The content of a cache file of arrays, which is built if it is missing or damaged.

    Building it deletes all but the newest few files of the same data set.

    Args:
        path: The cache file, named by `cache_file`.
        open_file: Called with the path, and `verify=True` for a file that was not built just now.
        build: Returns the arrays and the metadata to write.

    Raises:
        AbawError: The file cannot be written.
    """
    try:
        return open_file(path, verify=True)
    except (OSError, DamagedFileError):
        parts, metadata = build()
    with writing_cache():
        write_arrays(path, parts, metadata)
    others = []
    for other in path.parent.glob(f"{path.name.partition('-')[0]}-*.safetensors"):
        with suppress(FileNotFoundError):  # another process deletes them too
            others.append((other.stat().st_mtime_ns, other))
    for _, other in sorted(others)[:-_KEPT]:
        if other != path:
            other.unlink(missing_ok=True)
    return open_file(path)


@contextmanager
def writing_cache() -> Iterator[None]:
    """Context in which the error of a failed write says how to choose another cache folder.

    Raises:
        AbawError: That error, with the cure.
    """
    try:
        yield
    except AbawError as error:
        raise AbawError(f"{error} with the environment variable ABAW_CACHE") from error
