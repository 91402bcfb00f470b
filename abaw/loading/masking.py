"""Random frame masking for training.

Source: Min, Yang, Lim, "Emotion Recognition Using Transformers with Masked Learning" (2024).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from abaw.errors import UsageError


@dataclass(frozen=True)
class RandomFrameMasking:
    """Masks an exact share of the visible frames of each clip, but never all of them.

    The noise is part of the clip, so a mask depends on the position of the clip in the epoch only, and is
    the same for any number of workers and devices, and after a resume.

    Attributes:
        ratio: Share of the visible frames that is masked, in [0, 1].
        span: Number of consecutive visible frames that are masked together.
        start_ratio: Ratio at step 0 of a linear ramp to `ratio`; null: constant ratio.
        ramp_steps: Number of optimizer steps of the ramp.
    """

    ratio: float = 0.5
    span: int = 1
    start_ratio: float | None = None
    ramp_steps: int = 0

    def __post_init__(self) -> None:
        for name in ("ratio", "start_ratio"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise UsageError(f"masking.{name} is a share of frames between 0 and 1, got {value}")
        if self.span < 1 or self.ramp_steps < 0:
            raise UsageError(
                f"masking needs span >= 1 and ramp_steps >= 0, got {self.span} and {self.ramp_steps}"
            )

    def ratio_at(self, step: int) -> float:
        """The ratio at an optimizer step, counted from 0."""
        if self.start_ratio is None or step >= self.ramp_steps:
            return self.ratio
        return self.start_ratio + (self.ratio - self.start_ratio) * step / self.ramp_steps

    def __call__(self, visible: Tensor, noise: Tensor, step: int = 0) -> Tensor:
        """Returns the frames that remain visible.

        Args:
            visible: bool (B, T), the visible frames.
            noise: float (B, T), uniform in [0, 1), from the clips.
            step: Optimizer step, for the ramp of the ratio.

        Returns:
            bool (B, T), a subset of `visible`. Of n visible frames, round(ratio * n) are masked,
                at most n - 1.
        """
        n_visible = visible.sum(1)  # (B,)
        # numpy's and Python's rounding (half to even) is torch's too; float64 keeps .5 * n exact
        n_masked = (self.ratio_at(step) * n_visible.double()).round().long()
        n_masked = torch.minimum(n_masked, (n_visible - 1).clamp(min=0))
        rank = self._priority(visible, noise).argsort(dim=1, stable=True).argsort(dim=1)
        return visible & (rank >= n_masked[:, None])

    def _priority(self, visible: Tensor, noise: Tensor) -> Tensor:
        """Order of masking, float (B, T): frames with the smallest values first, invisible ones last."""
        if self.span > 1:
            position = visible.cumsum(1) - 1  # position among the visible frames of the clip
            # random phase of the runs, from a noise value that is not used for a run
            offset = (noise[:, -1:] * self.span).long()
            run = (position + offset).clamp(min=0) // self.span  # (B, T)
            noise = noise.gather(1, run.clamp(max=noise.shape[1] - 1))
        return noise.masked_fill(~visible, torch.inf)
