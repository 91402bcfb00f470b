"""Writing files so that a reader finds the old one or the new one, never half."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from abaw.errors import AbawError


@contextmanager
def atomic_path(path: Path | str) -> Iterator[Path]:
    """Yields a temporary name beside `path`; what is written there takes its place on success.

    On any failure the temporary file is removed and `path` stays as it was.

    Raises:
        AbawError: The operating system refused to write: disk full, no permission, no such folder.
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
        raise AbawError(
            f"{path}: could not be written ({error.strerror or error}); free the disk or choose another place"
        ) from error
    finally:
        with suppress(OSError):  # where its folder could not be made, the error above says so
            temporary.unlink(missing_ok=True)
