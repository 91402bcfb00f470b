"""Self-attention with scaled dot products, and its attention mask."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from abaw.model.positions import RotaryEmbedding, apply_rotary


class AttentionMask(NamedTuple):
    """Attention mask for scaled_dot_product_attention; by default all frames attend to all."""

    mask: Tensor | None = None
    """bool (B, 1, T, T) or (T, T), query by key; True = attends."""
    causal: bool = False
    """Whether no frame attends to a later one; used instead of `mask`."""


def attention_mask(
    length: int,
    *,
    keys: Tensor | None,
    causal: bool = False,
    context: int | None = None,
    device: torch.device | None = None,
) -> AttentionMask:
    """The attention mask of clips; each frame attends to itself, so that every softmax has a key.

    Args:
        length: Frames in the sequence (T).
        keys: bool (B, T), True = other frames may attend to this one; None: to all.
        causal: No frame attends to a later one.
        context: Number of frames before, and after unless `causal`, that a layer attends to; None: all.
        device: Device of the mask.

    Returns:
        A mask tensor only where one is needed, shared by all clips if they need the same.
    """
    if keys is None and context is None:
        return AttentionMask(causal=causal)
    position = torch.arange(length, device=device)
    ahead = position - position[:, None]  # (T, T), number of frames from query to key
    back = length if context is None else context
    mask = (ahead >= -back) & (ahead <= (0 if causal else back))  # (T, T)
    if keys is not None:
        mask = mask & (keys[:, None, None, :] | (ahead == 0))  # (B, 1, T, T)
    return AttentionMask(mask)


class SelfAttention(nn.Module):
    """Multi-head self-attention."""

    def __init__(self, *, width: int, heads: int, dropout: float) -> None:
        """`dropout` is applied to the attention weights; `width` is a multiple of `heads`."""
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        nn.init.xavier_uniform_(self.qkv.weight)
        nn.init.zeros_(self.qkv.bias)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor, mask: AttentionMask, rotary: RotaryEmbedding | None = None) -> Tensor:
        """From (B, T, width) to (B, T, width); `rotary` is given with rotary positions."""
        b, t, width = x.shape
        q, k, v = self.qkv(x).view(b, t, 3, self.heads, -1).permute(2, 0, 3, 1, 4)  # (B, heads, T, head)
        if rotary is not None:
            q, k = apply_rotary(q, rotary), apply_rotary(k, rotary)
        dropout = self.dropout if self.training else 0.0
        attended = F.scaled_dot_product_attention(
            q, k, v, attn_mask=mask.mask, dropout_p=dropout, is_causal=mask.causal
        )
        return self.out(attended.transpose(1, 2).reshape(b, t, width))
