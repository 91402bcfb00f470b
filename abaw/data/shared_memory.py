"""Memory in which a loader process hands its batches to the trainer, taken again and again."""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import get_worker_info

PREFETCH = 2
"""Batches that a loader process makes ahead."""


class SharedRing:
    """Gives memory for the large tensor of a batch, in a loader process some that the trainer can reach.

    Shared memory comes as fresh pages, and to fill those takes a loader process a fifth of its time. So each
    has as many pieces as batches can be under way, and takes them in turn: `PREFETCH`, and the one that the
    trainer is copying, for it copies what it gets before it asks for more (`ClipLoader`). Other processes
    get memory of their own. Pickled and forked copies share nothing.
    """

    def __init__(self) -> None:
        self._pieces: list[Tensor] = []

    def __getstate__(self) -> dict[str, Any]:
        return {"_pieces": []}

    def take(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """A tensor of that shape and type, with anything in it."""
        if get_worker_info() is None:
            like = torch.empty(0, dtype=dtype).numpy().dtype
            return torch.from_numpy(np.empty(shape, like))  # NumPy asks for pages of 2 MB
        if len(self._pieces) > PREFETCH:
            piece = self._pieces.pop(0)
            if piece.dtype == dtype and piece.shape == shape:
                self._pieces.append(piece)
                return piece
        memory: Any = torch.UntypedStorage._new_shared(math.prod(shape) * dtype.itemsize)  # type: ignore[no-untyped-call]
        self._pieces.append(torch.empty(0, dtype=dtype).set_(memory).view(shape))
        return self._pieces[-1]
