"""From raw crops to what a pretrained network expects; a part of the network, so exported with it."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class PixelInput(nn.Module):
    """Normalises crops, then resizes them, in float32 under autocast too.

    In this order, equal to the usual one up to rounding, fewer pixels are touched when crops are enlarged.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, *, image_size: int, mean: Sequence[float], std: Sequence[float], interpolation: str
    ) -> None:
        """Side of the square in pixels, colours' statistics in [0, 1], a mode of F.interpolate."""
        super().__init__()
        self.size = (image_size, image_size)
        self.interpolation = interpolation
        # not in the state dict: they are settings, and a checkpoint holds its settings
        self.register_buffer("mean", 255 * torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", 255 * torch.tensor(std).view(3, 1, 1), persistent=False)

    def forward(self, frames: Tensor) -> Tensor:
        """From uint8 (M, H, W, 3), RGB, to float32 (M, 3, image_size, image_size)."""
        images = frames.permute(0, 3, 1, 2).float()  # (M, 3, H, W)
        images = (images - self.mean) / self.std
        if images.shape[-2:] == self.size:
            return images
        shrinks = images.shape[-2] > self.size[0] or images.shape[-1] > self.size[1]
        return F.interpolate(images, self.size, mode=self.interpolation, antialias=shrinks)
