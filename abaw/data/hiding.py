"""Which frames of a video an evaluation does without, to see what missing faces cost."""

import zlib

import numpy as np
from numpy.typing import NDArray

from abaw.randomness import Purpose, keyed_generator


def hidden_frames(video: str, visible: NDArray[np.bool_], *, share: float, seed: int) -> NDArray[np.bool_]:
    """Chooses frames by the video's name and the seed alone; a larger share adds to those of a smaller.

    Args:
        video: Its name.
        visible: bool (N,), the frames that have a crop.
        share: Of these, how many to hide, in [0, 1].
        seed: From 0.

    Returns:
        bool (N,), True for round(share * n) of the n visible frames.
    """
    places = np.flatnonzero(visible)
    rng = keyed_generator(Purpose.HIDING, seed, zlib.crc32(video.encode()))
    order = rng.permutation(places)
    hidden = np.zeros(len(visible), np.bool_)
    hidden[order[: round(share * len(places))]] = True
    return hidden
