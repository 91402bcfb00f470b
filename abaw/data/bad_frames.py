"""Where the frames are named that could not be read and were skipped."""

import os
from collections.abc import Sequence
from pathlib import Path

from abaw.errors import AbawError

BAD_FRAMES = "bad_frames.txt"
"""The file's name, in the directory of a run."""


class BadFrameLog:
    """A file with a line for every frame that could not be read, each once, written by many processes.

    Args:
        path: The file; it is made when it is first needed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._known: set[bytes] = set()
        self._end = 0  # how far the file has been read

    def add(self, paths: Sequence[str]) -> None:
        """Appends those paths that are not there yet.

        Raises:
            AbawError: The operating system refuses.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a+b", buffering=0) as file:  # appends are whole, whoever else is writing
                file.seek(self._end)
                lines = file.read()
                self._end += len(lines)
                self._known.update(lines.splitlines())
                new = [path for path in dict.fromkeys(map(os.fsencode, paths)) if path not in self._known]
                file.write(b"".join(path + b"\n" for path in new))
        except OSError as error:
            raise AbawError(
                f"{self.path}: cannot take the names of bad frames ({error.strerror}); free the disk, or"
                " choose another directory with --run"
            ) from error


def count_bad_frames(path: Path) -> int:
    """How many frames the file names; two processes that met one at the same instant may both have."""
    return len(set(path.read_bytes().splitlines())) if path.exists() else 0
