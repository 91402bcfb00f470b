"""Position encodings: sinusoidal, learned and rotary."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def sinusoidal(length: int, width: int, device: torch.device | None = None) -> Tensor:
    """Sinusoidal position encoding, float32 (T, width), added to the input; `width` is even.

    Source: Vaswani et al., "Attention Is All You Need" (2017).
    """
    angles = _angles(length, width, device)  # (T, width / 2)
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)


class LearnedPositions(nn.Module):
    """Learned position embedding, added to the input; interpolated linearly for longer sequences."""

    def __init__(self, *, length: int, width: int) -> None:
        """`length` is the number of positions with an embedding of their own."""
        super().__init__()
        self.table = nn.Parameter(torch.empty(length, width))
        nn.init.trunc_normal_(self.table, std=0.02)

    def forward(self, length: int) -> Tensor:
        """The embedding of positions 0 to `length` - 1, float (T, width)."""
        if length <= len(self.table):
            return self.table[:length]
        stretched = F.interpolate(self.table.T[None], length, mode="linear", align_corners=True)
        return stretched[0].T


RotaryEmbedding = tuple[Tensor, Tensor]
"""Cosines and sines, each float32 (T, head width / 2)."""


def rotary_embedding(length: int, head_width: int, device: torch.device | None = None) -> RotaryEmbedding:
    """The rotary position embedding of every frame; `head_width` is even.

    Source: Su et al., "RoFormer" (2021). Products of rotated queries and keys depend on distance only.
    """
    angles = _angles(length, head_width, device)
    return angles.cos(), angles.sin()


def apply_rotary(x: Tensor, rotary: RotaryEmbedding) -> Tensor:
    """Rotated queries or keys, (..., T, head width), same dtype; a pair has one value of each half."""
    cos, sin = rotary
    first, second = x.float().chunk(2, dim=-1)
    rotated = torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)
    return rotated.to(x.dtype)


def _angles(length: int, width: int, device: torch.device | None) -> Tensor:
    """Angles in radians, float32 (T, width / 2): position times frequency, 1 down to 1/10000 per frame."""
    frequency = torch.exp(torch.arange(0, width, 2, device=device) * (-math.log(10000.0) / width))
    return torch.arange(length, device=device)[:, None] * frequency
