"""Detection of NaN or infinite losses and weights, without synchronising the device at every step."""

from collections import deque
from pathlib import Path
from typing import Any, Literal, cast

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer

from abaw.batch import Batch
from abaw.errors import AbawError, check_settings
from abaw.tasks import Task
from abaw.windows import Window

NEVER = torch.iinfo(torch.int64).max


class NonFiniteGuard(Callback):
    """Stops a run whose loss is NaN or infinite, with an error that names tasks and videos.

    The flags stay on the device. They are read every `log_every_n_steps` steps and before every validation
    and checkpoint, so that NaN weights are never scored or saved as progress.

    Args:
        folder: Folder in which the state is saved as `nonfinite.ckpt`, for inspection.
        action: Action on a NaN or infinite gradient: stop the run, or skip, a step with a gradient of zero.
        max_skips: Maximum number of skipped steps.
    """

    def __init__(self, folder: str, action: Literal["stop", "skip"] = "stop", max_skips: int = 10) -> None:
        self.folder = Path(folder)
        self.action = action
        self.max_skips = max_skips
        self._stopping = False
        check_settings("nonfinite", self, {"max_skips": (max_skips >= 0, "at least 0")})

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Resets the flags."""
        self._tasks: tuple[Task, ...] = tuple(cast(Any, pl_module).tasks)
        # per task, step of the first NaN or infinite loss
        self._first = torch.full((len(self._tasks),), NEVER, device=pl_module.device)
        self._n_skipped = torch.zeros((), dtype=torch.int64, device=pl_module.device)
        n_recent = cast(Any, trainer).log_every_n_steps
        self._recent: deque[tuple[int, tuple[Window, ...]]] = deque(maxlen=n_recent)

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer
    ) -> None:
        """With `skip`, sets a NaN or infinite gradient to zero, on the device."""
        if self.action == "skip":
            gradients = [p.grad for p in pl_module.parameters() if p.grad is not None]
            finite = get_total_norm(gradients).isfinite()
            for gradient in gradients:
                gradient.copy_(torch.where(finite, gradient, 0))
            self._n_skipped += ~finite

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Records the step of a NaN or infinite loss; reads the record every `log_every_n_steps` steps."""
        step = trainer.fit_loop.epoch_loop.total_batch_idx
        losses = torch.stack([outputs["per_task"][task] for task in self._tasks])
        self._first = self._first.minimum(torch.where(losses.isfinite(), NEVER, step))
        self._recent.append((step, batch.where))
        if (batch_idx + 1) % cast(Any, trainer).log_every_n_steps == 0 or trainer.is_last_batch:
            self._check(trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Reads the flags: scores of NaN weights may be finite, and the best so far."""
        self._check_if_fitting(trainer)

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Reads the flags before a checkpoint is saved."""
        self._check_if_fitting(trainer)

    def _check_if_fitting(self, trainer: Trainer) -> None:
        if trainer.state.fn == "fit" and hasattr(self, "_first") and not self._stopping:
            self._check(trainer)

    def _check(self, trainer: Trainer) -> None:
        """Reads the flags, the same on all ranks, and stops the run if one is set."""
        first = self._first.clone()
        if trainer.world_size > 1:
            torch.distributed.all_reduce(first, op=torch.distributed.ReduceOp.MIN)
        n_skipped = int(self._n_skipped)
        if n_skipped > self.max_skips:
            what = f"{n_skipped} steps had a NaN or infinite gradient, {self.max_skips} are allowed"
        elif self.action == "stop" and int(first.min()) != NEVER:
            what = self._describe(trainer, first)
        elif not get_total_norm(trainer.lightning_module.parameters()).isfinite():
            what = (
                f"the weights are NaN or infinite after step {trainer.global_step}, though every loss was"
                " finite"
            )
        else:
            return
        self._stopping = True
        path = self.folder / "nonfinite.ckpt"
        trainer.save_checkpoint(path, weights_only=False)
        raise AbawError(
            f"{what}; the state is in {path}. Lower the learning rate, train with --trainer.precision "
            "32-true, or leave such steps out with --nonfinite.action skip"
        )

    def _describe(self, trainer: Trainer, first: Tensor) -> str:
        step = int(first.min())
        tasks = [task for task, at in zip(self._tasks, first.tolist(), strict=True) if at == step]
        name = cast(Any, trainer).datamodule.video_name
        windows = (window for at, where in self._recent if at == step for window in where)
        videos = sorted({name(window.video) for window in windows if window.video >= 0})
        names = ", ".join(map(str, tasks))
        return f"the loss of {names} is NaN or infinite from step {step}, on videos {', '.join(videos)}"
