"""How a frame knows its place in the sequence: sinusoidal, learned or rotary."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def sinusoidal(length: int, width: int, device: torch.device | None = None) -> Tensor:
    """Sines and cosines of the place, float32 (T, width), to be added; `width` is even.

    Source: Vaswani et al., "Attention Is All You Need" (2017).
    """
    angles = _angles(length, width, device)  # (T, width / 2)
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)


class LearnedPositions(nn.Module):
    """A trained vector per place, to be added; longer sequences stretch the table linearly."""

    def __init__(self, *, length: int, width: int) -> None:
        """`length` is the longest sequence that has a vector per place."""
        super().__init__()
        self.table = nn.Parameter(torch.empty(length, width))
        nn.init.trunc_normal_(self.table, std=0.02)

    def forward(self, length: int) -> Tensor:
        """Float (T, width)."""
        if length <= len(self.table):
            return self.table[:length]
        stretched = F.interpolate(self.table.T[None], length, mode="linear", align_corners=True)
        return stretched[0].T


Rotation = tuple[Tensor, Tensor]
"""Cosines and sines, each float32 (T, head width / 2)."""


def rotation(length: int, head_width: int, device: torch.device | None = None) -> Rotation:
    """The rotary embedding of every place; `head_width` is even.

    Source: Su et al., "RoFormer" (2021). Products of rotated queries and keys depend on distance alone.
    """
    angles = _angles(length, head_width, device)
    return angles.cos(), angles.sin()


def rotate(x: Tensor, by: Rotation) -> Tensor:
    """Turns queries or keys, (..., T, head width), in pairs of their halves; type and shape stay."""
    cos, sin = by
    first, second = x.float().chunk(2, dim=-1)
    turned = torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)
    return turned.to(x.dtype)


def _angles(length: int, width: int, device: torch.device | None) -> Tensor:
    """Float32 (T, width / 2): place times frequency, from 1 down to 1/10000 turns of a radian per frame."""
    frequency = torch.exp(torch.arange(0, width, 2, device=device) * (-math.log(10000.0) / width))
    return torch.arange(length, device=device)[:, None] * frequency
