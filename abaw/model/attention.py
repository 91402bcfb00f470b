"""Who may look at whom, and the looking."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from abaw.model.positions import Rotation, rotate


class AttentionMask(NamedTuple):
    """Which frames each frame looks at; by default all."""

    mask: Tensor | None = None
    """bool (B, 1, T, T) or (T, T), query by key."""
    causal: bool = False
    """No later ones; stands in for a mask."""


def look(
    length: int,
    *,
    keys: Tensor | None,
    causal: bool = False,
    context: int | None = None,
    device: torch.device | None = None,
) -> AttentionMask:
    """Who may look at whom; each frame always at itself, so that none looks at nothing.

    Args:
        length: Frames in the sequence (T).
        keys: bool (B, T), True = others may look at this frame; None: all may be looked at.
        causal: No frame looks at a later one.
        context: Frames that one layer looks back, and ahead unless `causal`; None: any number.
        device: Where a mask is made.

    Returns:
        The cheapest form: a mask only where it is needed, one for all clips if they need the same.
    """
    if keys is None and context is None:
        return AttentionMask(causal=causal)
    place = torch.arange(length, device=device)
    ahead = place - place[:, None]  # (T, T), how far the key lies ahead of the query
    back = length if context is None else context
    mask = (ahead >= -back) & (ahead <= (0 if causal else back))  # (T, T)
    if keys is not None:
        mask = mask & (keys[:, None, None, :] | (ahead == 0))  # (B, 1, T, T)
    return AttentionMask(mask)


class SelfAttention(nn.Module):
    """Multi-head scaled dot-product attention of a sequence to itself."""

    def __init__(self, *, width: int, heads: int, dropout: float) -> None:
        """`dropout` is that of the attention weights; `heads` divides `width`."""
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        nn.init.xavier_uniform_(self.qkv.weight)
        nn.init.zeros_(self.qkv.bias)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor, sight: AttentionMask, turn: Rotation | None = None) -> Tensor:
        """From (B, T, width) to (B, T, width); `turn` is that of rotary positions."""
        b, t, width = x.shape
        q, k, v = self.qkv(x).view(b, t, 3, self.heads, -1).permute(2, 0, 3, 1, 4)  # (B, heads, T, head)
        if turn is not None:
            q, k = rotate(q, turn), rotate(k, turn)
        dropout = self.dropout if self.training else 0.0
        seen = F.scaled_dot_product_attention(
            q, k, v, attn_mask=sight.mask, dropout_p=dropout, is_causal=sight.causal
        )
        out: Tensor = self.out(seen.transpose(1, 2).reshape(b, t, width))
        return out
