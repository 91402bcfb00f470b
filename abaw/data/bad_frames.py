"""Where the frames are named that could not be read and were skipped."""

import os
from collections.abc import Sequence
from pathlib import Path


class BadFrameLog:
    """A file with a line for every frame that could not be read, each once, written by many processes.

    Two processes that meet a frame at the same instant may both write it: count distinct lines.

    Args:
        path: The file; it is made when it is first needed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._known: set[str] = set()
        self._end = 0  # how far the file has been read

    def add(self, paths: Sequence[str]) -> None:
        """Appends those paths that are not there yet."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a+b", buffering=0) as file:  # appends are whole, whoever else is writing
            file.seek(self._end)
            lines = file.read()
            self._end += len(lines)
            self._known.update(os.fsdecode(line) for line in lines.splitlines())
            new = [path for path in dict.fromkeys(paths) if path not in self._known]
            file.write(b"".join(os.fsencode(path) + b"\n" for path in new))
