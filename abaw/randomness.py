"""All that is random has a key: one generator per purpose, seed and place, and no global stream."""

from enum import IntEnum

import numpy as np

_WORD = 32  # bits; what NumPy's seeding takes at once


class Purpose(IntEnum):
    """What a stream of random numbers is for. A changed number changes every result that rests on it."""

    ORDER = 1
    """The windows of an epoch and their order: seed, epoch."""
    CLIP = 2
    """Shift, augmentation and mask noise of a training clip: seed, epoch, slot."""
    AUGMENTATION = 3
    """The changes of one clip: a number drawn from its CLIP stream."""
    DROPOUT = 4
    """PyTorch's own stream, at the start of a step: seed, step, rank."""
    HIDING = 5
    """Frames hidden in an evaluation: seed, checksum of the video's name."""
    FOLDS = 6
    """Ties between recordings when folds are made: seed."""
    BOOTSTRAP = 7
    """Videos drawn for intervals: seed."""


def keyed_generator(purpose: Purpose, *key: int) -> np.random.Generator:
    """The generator of a purpose and a key; no other purpose or key has its stream.

    NumPy alone takes `[3]`, `[3, 0]` and 3 for one seed, and `[2**32 + 3]` and `[3, 1]` for another.

    Args:
        purpose: What is drawn.
        key: Integers from 0, of any size.

    Raises:
        ValueError: One of them is negative.
    """
    if min(key, default=0) < 0:
        raise ValueError(f"the key {key} of {purpose.name} holds a negative number")
    words = [int(purpose)]
    for number in key:
        n_words = max(-(-int(number).bit_length() // _WORD), 1)
        words += [n_words, *(int(number) >> _WORD * k & (1 << _WORD) - 1 for k in range(n_words))]
    return np.random.default_rng(words)


def keyed_seed(purpose: Purpose, *key: int) -> int:
    """A seed in [0, 2**63) for a generator that is not NumPy's, from the purpose's stream of this key."""
    return int(keyed_generator(purpose, *key).integers(2**63))
