"""What a run leaves on disk besides checkpoints: tracks, scores, and the number of images it skipped."""

import json
from pathlib import Path
from typing import Any, cast

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info, rank_zero_only

from abaw.batch import Batch
from abaw.data.bad_frames import BAD_FRAMES, count_bad_frames
from abaw.files import atomic_path
from abaw.outputs.tracks import Track, write_track
from abaw.score_table import score_table
from abaw.stitching import Stitched, Stitcher
from abaw.tasks import Task


class TrackWriter(Callback):
    """Writes one track per video as soon as its last window is predicted.

    Every video lives on one device, so every file has one writer.

    Args:
        folder: Where the tracks go.
    """

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)

    def on_predict_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """Starts with no video in progress."""
        self._stitcher: Stitcher[Task] = Stitcher(cast(Any, trainer).datamodule.n_frames)

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,  # noqa: ARG002
        outputs: Any,
        batch: Batch,
        batch_idx: int,  # noqa: ARG002
        dataloader_idx: int = 0,  # noqa: ARG002
    ) -> None:
        """Adds a batch of predicted windows."""
        self._stitcher.add(batch.where, outputs, batch.visible)
        self._write(trainer, self._stitcher.finished())

    def on_predict_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """Writes the last video."""
        self._write(trainer, self._stitcher.flush())

    def _write(self, trainer: Trainer, videos: list[Stitched]) -> None:
        data = cast(Any, trainer).datamodule
        for video in videos:
            if (
                not video.covered.all()
            ):  # only a limited run (`--trainer.limit_predict_batches`) ends in mid-video
                continue
            values = {str(task): tensor.cpu().numpy() for task, tensor in video.predictions.items()}
            seen = video.seen.cpu().numpy()
            write_track(Track(video=data.video_name(video.video), seen=seen, **values), self.folder)


class ScoreWriter(Callback):
    """Keeps the official scores in `scores.json` and prints them when the run ends.

    In `fit` the file holds the scores of the best epoch, the one `checkpoints/best.ckpt` comes from.

    Args:
        path: The file.
    """

    def __init__(self, path: str) -> None:
        self.path = Path(path)
        self._best: float | None = None
        self._scores: dict[str, Any] | None = None

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the scores, in `fit` those of a new best epoch."""
        scores = cast(Any, pl_module).scores
        if trainer.sanity_checking:
            return
        fitting = trainer.state.fn == "fit"
        total = float(scores.get("total", 0.0))
        if fitting and self._best is not None and total <= self._best:
            return
        self._best, self._scores = total, scores
        self._write(trainer)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the scores."""
        self._scores = cast(Any, pl_module).scores
        self._write(trainer)

    def _write(self, trainer: Trainer) -> None:
        if trainer.is_global_zero:
            with atomic_path(self.path) as temporary:
                temporary.write_text(json.dumps(self._scores, indent=2) + "\n", encoding="utf-8")

    def state_dict(self) -> dict[str, Any]:
        """The best total, so that a resumed run does not overwrite a better epoch."""
        return {"best": self._best, "scores": self._scores}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes up where the interrupted run was."""
        self._best, self._scores = state_dict["best"], state_dict["scores"]

    @rank_zero_only
    def show(self) -> None:
        """Prints the scores as a short table."""
        print(
            "not validated, so there are no scores and no best checkpoint"
            if self._scores is None
            else score_table(self._scores)
        )


class SkippedFrames(Callback):
    """Tells how many images could not be read and counted as not visible, where that is allowed.

    Args:
        folder: The run's directory, in which a file names them, those of an interrupted part too.
    """

    def __init__(self, folder: str) -> None:
        self.path = Path(folder) / BAD_FRAMES

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Adds the number so far to the curves."""
        if trainer.is_global_zero and (n_frames := count_bad_frames(self.path)):
            pl_module.log("bad_frames", float(n_frames), rank_zero_only=True)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:  # noqa: ARG002
        """Says it when the run ends."""
        if n_frames := count_bad_frames(self.path):
            rank_zero_info(
                f"{n_frames:,} images could not be read and counted as not visible; {self.path} names them"
            )
