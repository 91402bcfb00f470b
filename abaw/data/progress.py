"""Progress of long work: a bar at a terminal, a line a minute in logs and pipes."""

import io
import sys
from typing import Any

from tqdm import tqdm

SECONDS = 60.0
"""Time between two lines where there is no terminal."""


class Progress(tqdm):  # type: ignore[misc]
    """tqdm's bar, which prints plain lines to standard error if that is not a terminal.

    Args:
        args: Those of tqdm: the iterable first.
        show: Whether to show anything.
        options: Keyword arguments of tqdm.
    """

    def __init__(self, *args: Any, show: bool = True, **options: Any) -> None:
        self._lines = not sys.stderr.isatty()
        rarely = {"mininterval": SECONDS, "maxinterval": SECONDS, "miniters": 1} if self._lines else {}
        file = io.StringIO() if self._lines else sys.stderr  # tqdm also writes control characters
        super().__init__(*args, disable=not show, file=file, **rarely, **options)

    def display(self, msg: str | None = None, pos: int | None = None) -> bool | None:
        """Shows the bar, or prints a line if at least a minute has passed."""
        if not self._lines:
            shown: bool | None = super().display(msg, pos)
            return shown
        seconds = self.format_dict["elapsed"]
        if seconds >= SECONDS:
            name = f"{self.desc.removesuffix(': ')}: " if self.desc else ""
            of = f" of {self.total:,}" if self.total else ""
            rate = (self.n - self.initial) / seconds
            left = f", {tqdm.format_interval((self.total - self.n) / rate)} left" if of and rate else ""
            print(f"{name}{self.n:,}{of} {self.unit}s{left}", file=sys.stderr, flush=True)
        return True
