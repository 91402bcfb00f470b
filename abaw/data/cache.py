"""Where the index of a data set lies on disk, and whether it still describes its sources."""

import hashlib
import json
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from abaw.errors import AbawError

_VERSION = 1  # of the arrays and the note; a change makes every older cache be built anew

_KEPT = 4  # states of one data set that stay on disk: a running job may still open an earlier one

_CLOCK_TICK = 0.02  # seconds within which a file system may give two changes the same time


def cache_folder(cache_dir: Path | None) -> Path:
    """The folder given, else that in the environment variable ABAW_CACHE, else ~/.cache/abaw."""
    return Path(cache_dir or os.environ.get("ABAW_CACHE") or "~/.cache/abaw").expanduser()


def stamp(paths: Iterable[Path]) -> str:
    """A line per path that changes with it: name, size, time of the last change.

    Waits for a moment when something has just changed: a further change in the same tick of the file
    system's clock would go unseen.

    Raises:
        AbawError: A path has vanished or cannot be looked at.
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


def cache_file(folder: Path, options: object, state: str) -> Path:
    """The name under which the index of one data set (`options`) in one `state` is kept."""
    key = hashlib.sha256(json.dumps([_VERSION, options]).encode()).hexdigest()[:16]
    return folder / "index" / f"{key}-{hashlib.sha256(state.encode()).hexdigest()[:16]}.safetensors"


def forget_old_states(current: Path) -> None:
    """Deletes all but the newest few caches of the data set that `current` belongs to."""
    key = current.name.partition("-")[0]
    others = []
    for path in current.parent.glob(f"{key}-*.safetensors"):
        with suppress(FileNotFoundError):  # another process is tidying up too
            others.append((path.stat().st_mtime_ns, path))
    for _, path in sorted(others)[:-_KEPT]:
        if path != current:
            path.unlink(missing_ok=True)


@contextmanager
def writing_cache() -> Iterator[None]:
    """Adds to the error of a write that fails how to choose another folder for caches."""
    try:
        yield
    except AbawError as error:
        raise AbawError(f"{error} with the environment variable ABAW_CACHE") from error
