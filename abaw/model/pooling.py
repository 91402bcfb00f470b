"""From what a timm network makes of an image to one vector."""

import math
from typing import Any

import torch
from torch import Tensor, nn


class PooledFeatures(nn.Module):
    """A timm network without classifier: one vector per image, averaged over the places of the image.

    Tokens: the mean of the patch tokens after the final norm, prefix tokens (CLS, registers) left out; a
    network that was pretrained with its final norm behind the mean has it there, as `fc_norm` or in its
    head. Maps: the network's own average and what it does behind it.
    """

    net: Any  # timm's networks share methods that nn.Module does not declare

    def __init__(self, net: Any) -> None:
        super().__init__()
        net.attn_pool = None  # the pooling of some, unused here: DDP refuses unused parameters
        self.net = net

    def forward(self, images: Tensor) -> Tensor:
        """From float (M, 3, S, S) to float32 (M, D).

        Raises:
            NotImplementedError: The network does not give one vector per place of the image.
        """
        places = self.net.forward_features(images)  # (M, tokens, D), or a map
        if not isinstance(places, Tensor):
            raise NotImplementedError(f"its features are a {type(places).__name__} instead of one tensor")
        if places.ndim == 3:
            patches = places[:, self._n_prefix_tokens(places.shape[1]) :]
            pooled: Tensor = self._norm_after_mean()(patches.mean(1, dtype=torch.float32))
        else:
            pooled = self.net.forward_head(places, pre_logits=True)
        return pooled.float()

    def _n_prefix_tokens(self, n: int) -> int:
        """How many of `n` tokens come before the patches; some networks do not tell of their class token."""
        if hasattr(self.net, "num_prefix_tokens"):
            return int(self.net.num_prefix_tokens)
        n_others = n - math.isqrt(n) ** 2  # as images are square
        if n_others > 1 or n == 1:
            raise NotImplementedError(f"its features are {n} tokens, not a square grid of patches")
        return n_others

    def _norm_after_mean(self) -> Any:
        norms = (getattr(self.net, "fc_norm", None), getattr(getattr(self.net, "head", None), "norm", None))
        return next((norm for norm in norms if norm is not None), nn.Identity())
