"""Atomic writing of files, and errors for files that cannot be written and folders that cannot be listed."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from abaw.errors import AbawError

CURES = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), "free the disk or choose another place"),
    **dict.fromkeys((errno.EACCES, errno.EPERM), "change the permissions or choose another place"),
    errno.EROFS: "choose a place that is not read-only",
    errno.ENOTDIR: "a part of the path is a file: choose another place",
}
"""Cures for errors in writing a file, by `errno`."""


def not_written(path: Path | str, error: OSError) -> AbawError:
    """The error to raise if `path` could not be written."""
    cure = CURES.get(error.errno or 0, "choose another place")
    return AbawError(f"{path}: could not be written ({error.strerror or error}); {cure}")


def check_writable(folder: Path) -> None:
    """Checks, without writing, that files can be created in a folder, which need not exist yet.

    Raises:
        AbawError: Permission is denied, the file system is read-only, or a part of the path is a file.
    """
    there = next(path for path in (folder, *folder.absolute().parents) if os.access(path, os.F_OK))
    if not there.is_dir():
        raise not_written(folder, NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR)))
    if not os.access(there, os.W_OK | os.X_OK):
        raise not_written(folder, PermissionError(errno.EACCES, os.strerror(errno.EACCES)))


@contextmanager
def atomic_path(path: Path | str) -> Iterator[Path]:
    """Yields a temporary path beside `path`, which replaces `path` on success.

    On failure the temporary file is removed, and `path` is unchanged.

    Raises:
        AbawError: The file cannot be written: disk full, permission denied, no such folder.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise not_written(path, error) from error
    finally:
        with suppress(OSError):  # if the folder could not be created, the error above is raised
            temporary.unlink(missing_ok=True)


@contextmanager
def listing() -> Iterator[None]:
    """Context in which a folder that cannot be listed is an `AbawError`."""
    try:
        yield
    except OSError as error:
        raise AbawError(
            f"{error.filename}: cannot be listed ({error.strerror}); check its permissions"
        ) from error
