"""LightningModule of the network: training and evaluation steps, optimizer, schedule, checkpoint content."""

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, Literal, cast

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities import rank_zero_info
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor

from abaw.batch import Batch
from abaw.errors import UsageError
from abaw.evaluation.formulas import scores_of
from abaw.evaluation.metrics import OfficialScores
from abaw.evaluation.scores import Sums, by_label
from abaw.evaluation.stitching import Stitched, Stitcher, fill_overlaps
from abaw.loading.masking import RandomFrameMasking
from abaw.model.backbone import BackboneSettings
from abaw.model.checkpoints import FORMAT
from abaw.model.heads import HeadSettings
from abaw.model.network import Network
from abaw.model.temporal import TemporalSettings
from abaw.randomness import Purpose, keyed_seed
from abaw.tasks import Task, parse_tasks
from abaw.training.checkpointing import load_initial_weights
from abaw.training.losses import LossSettings, TaskLosses
from abaw.training.validation_loss import ValidationLoss


@dataclass(frozen=True)
class OptimizerSettings:
    """AdamW with a learning rate schedule.

    Attributes:
        lr: Peak learning rate.
        weight_decay: Weight decay of tensors with two or more dimensions; biases and norms have none.
        betas: Coefficients of the running averages of AdamW.
        layer_decay: Ratio of the learning rates of a backbone block and the block after it.
        backbone_lr: Learning rate of the last backbone block, as a factor of `lr`.
        warmup: Share of all optimizer steps with linear warm-up.
        schedule: Schedule after the warm-up: half a cosine, or constant.
        final_lr: Final learning rate of the cosine, as a factor of `lr`.
    """

    lr: float = 1e-4
    weight_decay: float = 0.05
    betas: tuple[float, float] = (0.9, 0.999)
    layer_decay: float = 1.0
    backbone_lr: float = 1.0
    warmup: float = 0.05
    schedule: Literal["cosine", "constant"] = "cosine"
    final_lr: float = 0.01

    def __post_init__(self) -> None:
        if not self.lr > 0:
            raise UsageError(f"model.optimizer.lr is a positive number, got {self.lr}")
        for name in ("layer_decay", "backbone_lr", "warmup", "final_lr"):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(f"model.optimizer.{name} is between 0 and 1, got {getattr(self, name)}")

    def factor(self, step: int, n_steps: int) -> float:
        """The learning rate at an optimizer step, 0 to `n_steps` - 1, as a factor of `lr`."""
        n_warmup = round(self.warmup * n_steps)
        if step < n_warmup:
            return (step + 1) / n_warmup
        if self.schedule == "constant":
            return 1.0
        done = min((step - n_warmup) / max(n_steps - n_warmup, 1), 1.0)
        return self.final_lr + (1 - self.final_lr) * 0.5 * (1 + math.cos(math.pi * done))


class AffectModule(LightningModule):
    """Trains and evaluates one network for any subset of the three tasks.

    Evaluation stitches overlapping windows into whole-video tracks and scores those officially; the
    monitored `val/score` is the sum of the scores of the asked tasks that have labels there.

    Args:
        tasks: Tasks to predict: any of va, expr, au, or import paths of others.
        backbone: Encoder of single frames; null for cached features of other programs.
        dim: Dimension of cached features, if there is no backbone.
        temporal: Encoder of the sequence.
        heads: Heads of the tasks.
        masking: Random masking of frames in training; null: none.
        loss: Losses and weights of the tasks.
        optimizer: Optimizer and schedule.

    Attributes:
        init_from: Checkpoint with whose weights a new training is initialised.
        resumed: Whether the trainer will load a checkpoint, so that no pretrained weights are loaded. The
            trainer knows its checkpoint only after `setup`.
    """

    init_from: str | None = None
    resumed: bool = False

    def __init__(
        self,
        *,
        tasks: list[str],
        backbone: BackboneSettings | None = BackboneSettings(),  # noqa: B008 - frozen
        dim: int | None = None,
        temporal: TemporalSettings = TemporalSettings(),  # noqa: B008
        heads: HeadSettings = HeadSettings(),  # noqa: B008
        masking: RandomFrameMasking | None = RandomFrameMasking(),  # noqa: B008
        loss: LossSettings = LossSettings(),  # noqa: B008
        optimizer: OptimizerSettings = OptimizerSettings(),
    ) -> None:
        super().__init__()
        self.tasks = parse_tasks(tasks)
        for task in self.tasks:
            scores_of(task)  # raises for an unknown name
        self.network = Network(
            tasks=self.tasks, backbone=backbone, temporal=temporal, heads=heads, dim=dim, pretrained=False
        )
        self.losses = TaskLosses(loss, self.tasks)
        self.masking = masking
        self.optimizer_settings = optimizer
        self.scores: dict[str, Any] = {}  # the latest official scores, as in `scores.json`
        self.sums: Sums | None = None  # those from which the scores are, of all devices
        self._last_visible: Tensor | None = None  # (T,), of the latest window of an evaluation
        self._last_features: Tensor | None = None  # (T, D), likewise

    # -- before a run

    def prepare_data(self) -> None:
        """Downloads pretrained weights in one process per machine."""
        self._load_weights()

    def setup(self, stage: str) -> None:
        """Loads the initial weights of a new training, and counts labels for the losses."""
        if stage == "fit":
            if report := self._load_weights():
                rank_zero_info(report)
            self.losses.set_label_counts(self._data.label_counts())

    def _load_weights(self) -> str | None:
        """Loads the initial weights of a new training; returns a report on those of `init_from`."""
        if self.trainer.state.fn != "fit" or self.resumed:
            return None
        if self.init_from is not None:
            return load_initial_weights(self.network, self.init_from)
        if self.network.backbone is not None:
            self.network.backbone.load_pretrained()
        return None

    # -- training

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Seeds dropout by step and rank, so that a resumed run has the same dropout."""
        step = self.trainer.fit_loop.epoch_loop.total_batch_idx
        torch.manual_seed(keyed_seed(Purpose.DROPOUT, self._data.seed, step, self.global_rank))

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        """The loss of a batch of clips, and the losses of the tasks."""
        total, per_task = self.losses(self.network(batch), batch)
        per_task = {task: loss.detach() for task, loss in per_task.items()}
        if self.logs_step:
            # the loss is the mean over processes; `prog_bar` would synchronise the device
            shares = torch.stack([total.detach(), *per_task.values()])
            losses = cast(Tensor, self.trainer.strategy.reduce(shares, reduce_op="mean"))
            names = ("train/loss", *(f"train/{task}" for task in per_task))
            self.log_dict(dict(zip(names, losses, strict=True)), batch_size=len(batch))
            if self.masking is not None:
                ratio = self.masking.ratio_at(self.global_step)
                self.log("train/masked", torch.tensor(ratio), batch_size=len(batch))  # on the CPU
        return {"loss": total, "per_task": per_task}

    @property
    def logs_step(self) -> bool:
        """Whether values of this step are logged; each takes Lightning half a millisecond."""
        every = cast(Any, self.trainer).log_every_n_steps
        return self.trainer.is_last_batch or (every > 0 and (self.global_step + 1) % every == 0)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW on all trained parameters, with a learning rate per backbone block."""
        settings = self.optimizer_settings
        groups = self.network.param_groups(
            lr=settings.lr,
            weight_decay=settings.weight_decay,
            layer_decay=settings.layer_decay,
            backbone_lr=settings.backbone_lr,
        )
        if weights := [p for p in self.losses.parameters() if p.requires_grad]:
            groups.append({"params": weights, "lr": settings.lr, "weight_decay": 0.0})
        fused = self.device.type == "cuda"  # one kernel for all tensors
        optimizer = torch.optim.AdamW(groups, lr=settings.lr, betas=settings.betas, fused=fused)
        # A fused optimizer offers to unscale the gradients within its step. Lightning then refuses to clip
        # them, even if no scaler is used (PL#21435). Without the offer a scaler unscales them before.
        cast(Any, optimizer)._step_supports_amp_scaling = False
        n_steps = int(self.trainer.estimated_stepping_batches)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: settings.factor(step, n_steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    # -- evaluation: windows -> tracks -> official scores

    def on_before_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Lets frames that earlier windows have too be as visible as there, on the CPU."""
        if not batch.overlaps:
            return batch
        visible = batch.visible.clone()
        self._last_visible = fill_overlaps(visible, batch.overlaps, self._last_visible)
        return replace(batch, visible=visible, complete=None)

    def on_validation_epoch_start(self) -> None:
        """Resets stitcher and scores."""
        videos = self._data.eval_videos(self._stage)
        self._position = {video: place for place, video in enumerate(videos)}
        self._stitcher = Stitcher(self._data.n_frames)
        names = [self._data.video_name(video) for video in videos]
        self._official = OfficialScores(self.tasks, names, device=self.device)
        self._loss = ValidationLoss(self.losses, device=self.device)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Predicts windows, and scores complete videos."""
        self._stitcher.add(batch.where, self.predict_step(batch), batch.visible)
        self._score(self._stitcher.finished())

    def on_validation_epoch_end(self) -> None:
        """Scores the last videos, and logs the scores over all devices."""
        self._score(self._stitcher.flush())
        scores = self._official.compute()
        loss = self._loss.compute(partial(self.trainer.strategy.reduce, reduce_op="sum"))
        prefix = "test" if self.trainer.testing else "val"
        if self.trainer.sanity_checking:
            return
        self.scores, self.sums = scores, self._official.total
        flat = {f"{prefix}/{t}": scores[t.name]["score"] for t in self.tasks if t.name in scores}
        for task in self.tasks:
            if task.kind == "real" and task.name in scores:
                scored = by_label(task, scores[task.name])
                flat |= {f"{prefix}/{name}": score for name, score in scored.items()}
        flat |= {f"{prefix}/score": scores.get("total", 0.0), f"{prefix}/loss": loss}
        self.log_dict(flat, rank_zero_only=False)

    on_test_epoch_start, test_step = on_validation_epoch_start, validation_step
    on_test_epoch_end = on_validation_epoch_end

    def predict_step(self, batch: Batch, batch_idx: int = 0) -> dict[Task, Tensor]:
        """Predictions per task, float32 (B, T, K): VA in [-1, 1], probabilities otherwise.

        The windows of a video come in order: features of the frames that two share are computed once.
        """
        features = self.network.encode(batch)
        if batch.overlaps:
            self._last_features = fill_overlaps(features, batch.overlaps, self._last_features)
        return self.network.predictions(self.network.from_features(features, batch))

    @property
    def _stage(self) -> Literal["validate", "test"]:
        return "test" if self.trainer.testing else "validate"

    def _score(self, videos: Iterable[Stitched]) -> None:
        for video in videos:
            labels = self._data.labels(video.video, self._stage)
            self._official.update(self._position[video.video], video, labels)
            self._loss.update(video, labels)

    # -- checkpoints

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds a description from which the network is rebuilt without Lightning, configuration or data."""
        checkpoint.setdefault("abaw", {}).update(
            {
                "format": FORMAT,
                "network": self.network.describe(),
                "labels": {task.name: list(task.names) for task in self.tasks},
                "masking": None if self.masking is None else asdict(self.masking),
                "windows": self._data.eval_window_sizes,
                "frame_size": self._data.loading.frame_size,
                "scores": self.scores,
            }
        )

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restores the position of the training loader, after checking that the data are the same.

        Lightning does not restore it, because `estimated_stepping_batches`, which the schedule needs, builds
        the loader before the loops are restored.

        Raises:
            AbawError: Windows, number of processes or class weights differ from those of the checkpoint.
        """
        if self.trainer.state.fn == "fit":
            (loader,) = checkpoint["loops"]["fit_loop"]["state_dict"]["combined_loader"]
            self._data.resume(loader)
            self.losses.check_resumed(checkpoint.get("current_model_state", checkpoint["state_dict"]))

    @property
    def _data(self) -> Any:
        """The data module of the trainer."""
        return cast(Any, self.trainer).datamodule
