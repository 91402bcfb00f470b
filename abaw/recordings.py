"""Which videos belong together: the subjects and the numbered parts of one recording.

A recording is the unit of folds and of the bootstrap, because what it shows resembles itself.
"""

import re
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

_SIDE = re.compile(r"_(left|right)\Z")
_PART = re.compile(r"(video\d+)_\d+|(\d+-\d+-\d+x\d+)-\d+", re.ASCII)


def recording(video_name: str) -> str:
    """The name of the recording that a video belongs to.

    A trailing `_left` or `_right` tells its subjects apart. What is left of the name is a numbered part of a
    recording only where it has the form `video<n>_<part>` or `<n>-<fps>-<width>x<height>-<part>`; any other
    trailing number belongs to the name.
    """
    stem = _SIDE.sub("", video_name)
    part = _PART.fullmatch(stem)
    return stem if part is None else part[1] or part[2]


def recording_places(video_names: Iterable[str]) -> NDArray[np.int64]:
    """The recording of every video as a number, int64 (V,): recordings count from 0 as they first appear."""
    places: dict[str, int] = {}
    return np.array([places.setdefault(recording(name), len(places)) for name in video_names], np.int64)


def count_recordings(video_names: Iterable[str]) -> int:
    """The number of recordings that these videos belong to."""
    return len({recording(name) for name in video_names})
