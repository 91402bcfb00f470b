"""A moving average of the weights, kept beside them on the device."""

from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging


class MovingAverage(WeightAveraging):
    """Averages the weights exponentially over the steps; the average is validated, saved and used.

    Lightning's `EMAWeightAveraging` makes the average before the network is on its device, so it stays in
    the host's memory and every step waits until all weights have been copied there. This one never waits.
    Weights that do not change stay as they are to the last bit, and buffers are taken over as they are.

    Args:
        decay: What is left of the average after a step, in [0, 1).
    """

    def __init__(self, decay: float = 0.999) -> None:
        super().__init__(use_buffers=False)
        self.decay = decay

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """Takes the average to where the weights are by now."""
        assert self._average_model is not None
        self._average_model.to(pl_module.device)

    @torch.no_grad()
    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,  # noqa: ARG002
        batch: Any,  # noqa: ARG002
        batch_idx: int,  # noqa: ARG002
    ) -> None:
        """Moves the average after every step of the optimizer; the first one makes it."""
        if trainer.global_step == self._latest_update_step:
            return  # a micro-batch
        assert self._average_model is not None
        average = self._average_model.module
        weight = 1 - self.decay if self._latest_update_step else 1.0
        torch._foreach_lerp_([*average.parameters()], [*pl_module.parameters()], weight)
        torch._foreach_copy_([*average.buffers()], [*pl_module.buffers()])
        self._latest_update_step = trainer.global_step
