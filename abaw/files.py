"""Atomic writing of files, errors for what cannot be written or listed, and files of the Hugging Face hub."""

import errno
import hashlib
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from abaw.errors import AbawError

log = logging.getLogger(__name__)

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
    """Context that raises an `AbawError` for a folder that cannot be listed."""
    try:
        yield
    except OSError as error:
        raise AbawError(
            f"{error.filename}: cannot be listed ({error.strerror}); check its permissions"
        ) from error


def from_hub(repository: str, filename: str, revision: str | None = None) -> tuple[Path, str | None]:
    """A file in the local cache of the Hugging Face hub, downloaded if it is absent.

    Args:
        repository: Name of the repository.
        filename: Path of the file in it.
        revision: Branch, tag or commit; None: the main branch.

    Returns:
        Its path, and, if it was downloaded now, the server's ETag (empty: it sends none), else None.

    Raises:
        ConnectionError: It is not in the cache, and the hub cannot be reached.
    """
    import huggingface_hub as hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    place: Any = {"repo_id": repository, "filename": filename, "revision": revision}
    try:
        return Path(hub.hf_hub_download(**place, local_files_only=True)), None
    except LocalEntryNotFoundError:
        log.info("%s is not in the local cache: asking the hub", repository)
    try:
        # one request without retries: hf_hub_download alone retries for most of a minute per process
        etag = hub.get_hf_file_metadata(hub.hf_hub_url(**place)).etag
        return Path(hub.hf_hub_download(**place)), etag or ""
    except Exception as error:  # the HTTP library depends on the hub's version: no other common class
        raise ConnectionError(str(error).strip() or type(error).__name__) from error


def delete_unless(path: Path, sha256: str) -> str | None:
    """Deletes a file of the cache, and returns its SHA-256, if that is not the given one; else None."""
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found == sha256:
        return None
    path.resolve().unlink()  # target of the cache's symbolic link
    path.unlink(missing_ok=True)
    return found
