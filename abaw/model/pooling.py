"""From what a timm network makes of an image to one vector."""

from typing import Any

import torch
from torch import Tensor, nn


class PooledFeatures(nn.Module):
    """A timm network without classifier: one vector per image, averaged over the places of the image.

    Tokens: the mean of the patch tokens after the final norm, prefix tokens (CLS, registers) left out; a
    network that was pretrained with its final norm behind the mean has it there. Maps: the network's own
    average and what it does behind it.
    """

    net: Any  # timm's networks share methods that nn.Module does not declare

    def __init__(self, net: Any) -> None:
        super().__init__()
        net.attn_pool = None  # the pooling of some, unused here: DDP refuses unused parameters
        self.net = net

    def forward(self, images: Tensor) -> Tensor:
        """From float (M, 3, S, S) to float32 (M, D)."""
        places: Tensor = self.net.forward_features(images)  # (M, tokens, D), or a map
        if places.ndim == 3:
            pooled: Tensor = places[:, getattr(self.net, "num_prefix_tokens", 0) :].mean(
                1, dtype=torch.float32
            )
            pooled = self.net.fc_norm(pooled) if hasattr(self.net, "fc_norm") else pooled
        else:
            pooled = self.net.forward_head(places, pre_logits=True)
        return pooled.float()
