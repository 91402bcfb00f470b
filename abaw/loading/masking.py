"""Random frame masking: which visible frames the network may see in training.

Source: Min, Yang, Lim, "Emotion Recognition Using Transformers with Masked Learning" (2024).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from abaw.errors import UsageError


@dataclass(frozen=True)
class RandomFrameMasking:
    """Hides an exact share of each clip's visible frames, and never all of them.

    It draws nothing itself: the noise travels with the clip, so a mask depends on the clip's place in
    the epoch alone and is the same for any number of workers and devices, and after a resume.

    Attributes:
        ratio: Share of the visible frames that is hidden, in [0, 1].
        span: Frames are hidden in runs of this many visible frames; 1 hides single frames.
        start_ratio: Ratio at step 0, from which `ratio` is approached linearly; null keeps it constant.
        ramp_steps: Optimizer steps after which `ratio` is reached.
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
        """The ratio in force at an optimizer step, counted from 0."""
        if self.start_ratio is None or step >= self.ramp_steps:
            return self.ratio
        return self.start_ratio + (self.ratio - self.start_ratio) * step / self.ramp_steps

    def __call__(self, visible: Tensor, noise: Tensor, step: int = 0) -> Tensor:
        """Gives what stays visible.

        Args:
            visible: bool (B, T), True = there is something to see.
            noise: float (B, T), uniform in [0, 1), the clip's own.
            step: Optimizer step, for a ratio that follows a schedule.

        Returns:
            bool (B, T), a subset of `visible`. Of n visible frames, round(ratio * n) are hidden,
                at most n - 1.
        """
        n_visible = visible.sum(1)  # (B,)
        # numpy's and Python's rounding (half to even) is torch's too; float64 keeps .5 * n exact
        n_hidden = (self.ratio_at(step) * n_visible.double()).round().long()
        n_hidden = torch.minimum(n_hidden, (n_visible - 1).clamp(min=0))
        order = (
            self._priority(visible, noise).argsort(dim=1, stable=True).argsort(dim=1)
        )  # rank of each frame
        return visible & (order >= n_hidden[:, None])

    def _priority(self, visible: Tensor, noise: Tensor) -> Tensor:
        """Float (B, T): the frames with the smallest values are hidden first; invisible ones come last."""
        if self.span > 1:
            position = visible.cumsum(1) - 1  # place among the clip's visible frames
            # where the first run is cut, so runs begin anywhere; from a number that ranks no run
            offset = (noise[:, -1:] * self.span).long()
            run = (position + offset).clamp(min=0) // self.span  # (B, T)
            noise = noise.gather(1, run.clamp(max=noise.shape[1] - 1))
        return noise.masked_fill(~visible, torch.inf)
