"""What loggers get: curves of speed and gradients, and the best epoch's figures, scores and videos."""

import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, cast

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import LearningRateMonitor
from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer

from abaw.batch import Batch
from abaw.evaluation.scores import Sums, by_label, per_video
from abaw.tasks import Task
from abaw.training.callbacks import ScoreWriter
from abaw.training.run_files import Run


def tracking_callbacks(run: Run, scores: ScoreWriter) -> list[Callback]:
    """The callbacks of a training that is logged, called after `scores`; see `BestEpoch`."""
    return [LearningRateMonitor("step"), TrainingCurves(), BestEpoch(run, scores)]


class TrainingCurves(Callback):
    """Logs, at the steps at which losses are logged, what a training that is slow or unstable shows first.

    `train/gradient_norm`: the L2 norm before clipping. `train/frames_per_second`: frames of windows, hidden
    ones included, of this process since the last logged step. `train/waiting`: the share of that time in
    which it waited for a batch.
    """

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begins to measure: a resumed run may begin in the middle of an epoch."""
        self._reset()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begins anew, without the time of a validation."""
        self._reset()

    def _reset(self) -> None:
        self._start = self._idle_since = time.perf_counter()
        self._waited, self._frames = 0.0, 0

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        """Adds the time since the last step."""
        self._waited += time.perf_counter() - self._idle_since

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer
    ) -> None:
        """Logs the norm of the gradients, without reading it from the device."""
        if cast(Any, pl_module).logs_step:
            gradients = [p.grad for p in pl_module.parameters() if p.grad is not None]
            pl_module.log("train/gradient_norm", get_total_norm(gradients))

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Logs the speed."""
        self._idle_since = time.perf_counter()
        self._frames += batch.visible.numel()
        if cast(Any, pl_module).logs_step:
            seconds = self._idle_since - self._start
            speed = {"frames_per_second": self._frames / seconds, "waiting": self._waited / seconds}
            pl_module.log_dict({f"train/{name}": torch.tensor(value) for name, value in speed.items()})
            self._reset()


class BestEpoch(Callback):
    """Hands the best epoch so far to W&B and TensorBoard: its scores, their figures, and a table of videos.

    Figures are also files, in `figures/` of the run. Without such a logger nothing is drawn.

    Args:
        run: The run.
        scores: The callback that decides which epoch is the best, called before this one.
    """

    def __init__(self, run: Run, scores: ScoreWriter) -> None:
        self._figures = run.folder / "figures"
        self._scores = scores

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Logs a new best epoch, on the first process."""
        module = cast(Any, pl_module)
        loggers = [each for each in trainer.loggers if isinstance(each, (WandbLogger, TensorBoardLogger))]
        if trainer.sanity_checking or not self._scores.is_best or not loggers:
            return
        if not trainer.is_global_zero or not module.sums.labelled:
            return
        figures = draw_figures(module.scores, module.sums, self._figures)
        table = score_rows(module.sums)
        values = flat_scores(module.scores, module.sums.labelled) | {
            "best/epoch": float(trainer.current_epoch)
        }
        for logger in loggers:
            logger.log_metrics(values, trainer.global_step)
            log_pictures(logger, figures, table, trainer.global_step)


def flat_scores(scores: Mapping[str, Any], tasks: Iterable[Task]) -> dict[str, float]:
    """`best/total`, and per task `best/<task>` and `best/<task>/<label>`, from `scores.summarise`."""
    flat = {"best/total": float(scores["total"])}
    for task in tasks:
        entry = scores[task.name]
        flat[f"best/{task}"] = entry["score"]
        flat |= {f"best/{task}/{label}": score for label, score in by_label(task, entry).items()}
    return flat


def score_rows(sums: Sums) -> list[list[Any]]:
    """A table of videos: a row of names (`video` and tasks), then one per video with its scores or None."""
    tasks = [task.name for task in sums.labelled]
    rows = [
        [video, *(scores[task]["score"] if task in scores else None for task in tasks)]
        for video, scores in per_video(sums).items()
    ]
    return [["video", *tasks], *rows]


def draw_figures(scores: Mapping[str, Any], sums: Sums, folder: Path) -> list[Path]:
    """Draws the figures of the scores as PNG; returns their paths.

    Raises:
        AbawError: A file cannot be written.
    """
    from abaw.report.figures import score_figures
    from abaw.report.style import save_figure

    charts = score_figures(scores, sums)
    return [path for name, chart in charts.items() for path in save_figure(chart, folder / name, [".png"])]


def log_pictures(logger: Any, figures: list[Path], table: list[list[Any]], step: int) -> None:
    """Hands figures and a table to a logger.

    Args:
        logger: A WandbLogger or a TensorBoardLogger.
        figures: PNG files.
        table: Rows of equal length, the first of names.
        step: Optimizer step to which they belong.
    """
    if isinstance(logger, WandbLogger):
        for path in figures:
            logger.log_image(f"figures/{path.stem}", [str(path)], step=step)
        logger.log_table("videos", columns=table[0], data=table[1:], step=step)
        return
    import cv2

    for path in figures:
        picture = cast(Any, cv2.imread(str(path)))[..., ::-1]  # RGB
        logger.experiment.add_image(f"figures/{path.stem}", picture, step, dataformats="HWC")
    lines = [" | ".join("" if cell is None else str(cell) for cell in row) for row in table]
    logger.experiment.add_text(
        "videos", "\n".join([lines[0], " | ".join("-" * len(table[0])), *lines[1:]]), step
    )
