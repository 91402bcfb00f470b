"""Callbacks that average weights and write tracks, scores and the count of skipped images."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.utilities import rank_zero_info, rank_zero_only

from abaw.batch import Batch
from abaw.data.frames import BAD_FRAMES, count_bad_frames
from abaw.evaluation.stitching import Stitched, Stitcher
from abaw.evaluation.tables import score_table
from abaw.evaluation.track_metadata import TrackMetadata, check_fits
from abaw.evaluation.tracks import Track, list_tracks, write_track
from abaw.files import atomic_path
from abaw.model.checkpoints import best_scores, load_checkpoint, weights_fingerprint
from abaw.tasks import TASKS


class TrackWriter(Callback):
    """Writes one track per video after its last window. Each video is processed by one device.

    Args:
        folder: Folder of the tracks.
        run: Name of the run, for the metadata of the tracks.
    """

    def __init__(self, folder: str, run: str) -> None:
        self.folder = Path(folder)
        self.run = run

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Checks that the folder has no tracks of another checkpoint.

        Raises:
            AbawError: It has.
        """
        data = cast(Any, trainer).datamodule
        self._metadata = TrackMetadata(
            run=self.run,
            weights=weights_fingerprint(cast(Any, pl_module).network.state_dict()),
            settings={**data.eval_window_sizes, "drop_frames": data.evaluation.drop_frames},
            tasks=[task.describe() for task in cast(Any, pl_module).tasks if task not in TASKS],
        )
        check_fits(self.folder, list_tracks(self.folder), self._metadata)

    def on_predict_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Resets the stitcher."""
        self._stitcher = Stitcher(cast(Any, trainer).datamodule.n_frames)

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Adds a batch of predicted windows."""
        self._stitcher.add(batch.where, outputs, batch.visible)
        self._write(trainer, self._stitcher.finished())

    def on_predict_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the last video."""
        self._write(trainer, self._stitcher.flush())

    def _write(self, trainer: Trainer, videos: list[Stitched]) -> None:
        data = cast(Any, trainer).datamodule
        for video in videos:
            if not video.covered.all():  # with `--trainer.limit_predict_batches`
                continue
            values = {task: tensor.cpu().numpy() for task, tensor in video.predictions.items()}
            seen = video.seen.cpu().numpy()
            track = Track(video=data.video_name(video.video), seen=seen, values=values)
            write_track(track, self.folder, self._metadata)


class ScoreWriter(Callback):
    """Writes the official scores of the best epoch, those of `best.ckpt`, and prints them after training.

    Args:
        path: Path of `scores.json`.
        best: Path of `best.ckpt`, whose scores a resumed run has to exceed; None: it is not saved.

    Attributes:
        is_best: Whether the latest validation was better than all before it.
    """

    def __init__(self, path: str, best: Path | None = None) -> None:
        self.path = Path(path)
        self.best = best
        self.is_best = False
        self._scores: dict[str, Any] | None = None
        self._latest: dict[str, Any] | None = None
        self._best_epoch = self._latest_epoch = -1  # -1: before this start

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Reads the scores of the best checkpoint."""
        if self.best is not None:
            self._scores = best_scores(self.best)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the scores of the best checkpoint if the run was killed before it did."""
        if self._scores is not None and not (self.path.is_file() and self.path.read_text() == self._text()):
            self._write(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the scores of a new best epoch."""
        scores = cast(Any, pl_module).scores
        if trainer.sanity_checking:
            return
        self._latest, self._latest_epoch = scores, trainer.current_epoch
        self.is_best = not (self._scores is not None and _total(scores) <= _total(self._scores))
        if not self.is_best:
            return
        self._scores, self._best_epoch = scores, trainer.current_epoch
        self._write(trainer)

    def _write(self, trainer: Trainer) -> None:
        if trainer.is_global_zero:
            with atomic_path(self.path) as temporary:
                temporary.write_text(self._text(), encoding="utf-8")

    def _text(self) -> str:
        return _json(self._scores)

    @rank_zero_only
    def show(self) -> None:
        """Prints the best scores as a short table, their epoch beside the latest one, and what comes next."""
        if self._scores is None:
            print("not validated, so there are no scores and no best checkpoint")
            return
        print(score_table(self._scores))
        if self.best is None:
            return
        epoch = self._best_epoch if self._best_epoch >= 0 else load_checkpoint(self.best)["epoch"]
        text = f"best: epoch {epoch}, total {_total(self._scores):.4f}, {self.best}"
        if self._latest is not None and self._latest_epoch != epoch:
            text += f"; latest: epoch {self._latest_epoch}, total {_total(self._latest):.4f}"
        print(f"{text}\nnext: abaw predict --run {self.path.parent}")


class EvaluationWriter(Callback):
    """Writes the official scores of `validate` or `test`, and prints them.

    Args:
        path: Path of the file.
        checkpoint: Path of the scored checkpoint.
        settings: Settings that differ from those of the training, by name; None: unknown.
    """

    def __init__(self, path: str, checkpoint: str, settings: Mapping[str, Any] | None) -> None:
        self.path = Path(path)
        self.checkpoint = checkpoint
        self.settings = settings

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the scores with their split, checkpoint and settings."""
        self._scores: dict[str, Any] = cast(Any, pl_module).scores
        metadata = {
            "split": cast(Any, trainer).datamodule.eval_split(trainer.state.fn),
            "checkpoint": self.checkpoint,
            "settings": self.settings,
        }
        if trainer.is_global_zero:
            with atomic_path(self.path) as temporary:
                temporary.write_text(_json(self._scores | metadata), encoding="utf-8")

    on_test_end = on_validation_end

    @rank_zero_only
    def show(self) -> None:
        """Prints the scores as a short table."""
        print(score_table(self._scores))


def _json(content: Mapping[str, Any] | None) -> str:
    return json.dumps(content, indent=2) + "\n"


def _total(scores: Mapping[str, Any]) -> float:
    """The total score in float32, as it is compared for `best.ckpt`."""
    return float(np.float32(scores.get("total", 0.0)))


class SkippedFrames(Callback):
    """Logs and prints the number of unreadable images that were skipped.

    Args:
        folder: Directory of the run, in which `bad_frames.txt` lists them, also those before a resume.
    """

    def __init__(self, folder: str) -> None:
        self.path = Path(folder) / BAD_FRAMES

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Logs the number so far."""
        if trainer.is_global_zero and (n_frames := count_bad_frames(self.path)):
            pl_module.log("bad_frames", float(n_frames), rank_zero_only=True)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Prints the number when the run ends."""
        if n_frames := count_bad_frames(self.path):
            rank_zero_info(
                f"{n_frames:,} images could not be read and counted as not visible; {self.path} names them"
            )


class EMA(WeightAveraging):
    """Exponential moving average (EMA) of the weights, which is validated and saved.

    Lightning's `EMAWeightAveraging` creates the average before the network is on its device, so it stays in
    host memory, and every step waits for a copy of all weights. This one stays on the device.
    Frozen weights keep their exact values, and buffers are copied.

    Args:
        decay: Weight of the previous average at each step, in [0, 1).
    """

    def __init__(self, decay: float = 0.999) -> None:
        super().__init__(use_buffers=False)
        self.decay = decay

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Moves the average to the device of the weights."""
        assert self._average_model is not None
        self._average_model.to(pl_module.device)

    @torch.no_grad()
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Updates the average after every optimizer step; the first step initialises it."""
        if trainer.global_step == self._latest_update_step:
            return  # a micro-batch
        assert self._average_model is not None
        average = self._average_model.module
        weight = 1 - self.decay if self._latest_update_step else 1.0
        torch._foreach_lerp_([*average.parameters()], [*pl_module.parameters()], weight)
        torch._foreach_copy_([*average.buffers()], [*pl_module.buffers()])
        self._latest_update_step = trainer.global_step
