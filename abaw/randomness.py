"""Keyed random generators: one per purpose, seed and position, instead of a global generator."""

from enum import IntEnum

import numpy as np

_WORD = 32  # bits per word of NumPy's SeedSequence


class Purpose(IntEnum):
    """Purposes of random numbers. Changing the value of a member changes all results that depend on it."""

    ORDER = 1
    """Windows of an epoch and their order. Key: seed, epoch."""
    CLIP = 2
    """Jitter, augmentation seed and mask noise of a training clip. Key: seed, epoch, slot."""
    AUGMENTATION = 3
    """Augmentation of one clip. Key: the augmentation seed drawn from its CLIP generator."""
    DROPOUT = 4
    """PyTorch's global generator at the start of a step. Key: seed, step, rank."""
    DROPPED_FRAMES = 5
    """Frames dropped in an evaluation. Key: seed, checksum of the video's name."""
    FOLDS = 6
    """Order of recordings when folds are made. Key: seed."""
    BOOTSTRAP = 7
    """Bootstrap samples of videos. Key: seed."""
    EXPORT = 8
    """Clips with which an exported network is compared. Key: number of frames."""


def keyed_generator(purpose: Purpose, *key: int) -> np.random.Generator:
    """The generator of a purpose and a key, different from those of all other purposes and keys.

    NumPy's own seeding treats `[3]`, `[3, 0]` and 3 as equal seeds, and also `[2**32 + 3]` and `[3, 1]`.

    Args:
        purpose: Purpose of the random numbers.
        key: Non-negative integers of any size.

    Raises:
        ValueError: A key is negative.
    """
    if min(key, default=0) < 0:
        raise ValueError(f"the key {key} of {purpose.name} holds a negative number")
    words = [int(purpose)]
    for number in key:
        n_words = max(-(-int(number).bit_length() // _WORD), 1)
        words += [n_words, *(int(number) >> _WORD * k & (1 << _WORD) - 1 for k in range(n_words))]
    return np.random.default_rng(words)


def keyed_seed(purpose: Purpose, *key: int) -> int:
    """A seed in [0, 2**63) for another library's generator, drawn from the generator of a purpose and key."""
    return int(keyed_generator(purpose, *key).integers(2**63))
