"""What a training prints: its summary, a progress bar, a line per epoch."""

import math
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, cast

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import TQDMProgressBar
from lightning.pytorch.utilities import rank_zero_info

from abaw.batch import Batch
from abaw.data.progress import SECONDS


class EpochReport:
    """Text about the epochs of a training: losses and scores of the latest one, and the best so far.

    Told of the beginnings and ends of epochs and validations by the callback that shows the text.

    Attributes:
        best: The best total score so far, as text; empty before the first validation.
    """

    def __init__(self) -> None:
        self._validated = False
        self._start: float | None = None
        self._first = self._frames = 0
        self.best = ""

    def start(self, trainer: Trainer) -> None:
        """Begins to measure the speed: at the start of an epoch."""
        self.read_best(trainer)
        self._start, self._first, self._frames = time.monotonic(), trainer.global_step, 0

    def add(self, batch: Batch) -> None:
        """Counts the frames of a step."""
        self._frames += batch.visible.numel()

    def validated(self, trainer: Trainer) -> None:
        """Notes that the epoch has scores."""
        self._validated = self._validated or not trainer.sanity_checking

    def speed(self, trainer: Trainer) -> dict[str, str]:
        """Frames per second in this epoch, and the time left until the training ends, without validations."""
        steps = trainer.global_step - self._first
        if self._start is None or not steps:
            return {}
        seconds = time.monotonic() - self._start
        shown = {"frames/s": f"{self._frames / seconds:.0f}"}
        total = trainer.estimated_stepping_batches
        if math.isfinite(total) and total > trainer.global_step:
            left = round((total - trainer.global_step) * seconds / steps)
            shown["left"] = str(timedelta(seconds=left))
        return shown

    def read_best(self, trainer: Trainer) -> None:
        """Reads the best total score so far from the callback that saves it."""
        saver = next(
            (c for c in trainer.checkpoint_callbacks if getattr(c, "monitor", "") == "val/score"), None
        )
        score = None if saver is None else cast(Any, saver).best_model_score
        self.best = "" if score is None else f"{float(score):.3f}"

    def line(self, trainer: Trainer) -> str:
        """The line of an epoch at its end."""
        values = {name: float(value) for name, value in trainer.callback_metrics.items()}
        tasks = [str(task) for task in cast(Any, trainer.lightning_module).tasks]
        last = "" if trainer.max_epochs in (None, -1) else f"/{trainer.max_epochs - 1}"
        parts = [f"epoch {trainer.current_epoch}{last}", _group("loss", values, "train", tasks)]
        if self._validated:
            parts.append(_group("score", values, "val", tasks))
            self.read_best(trainer)
            if self.best:
                parts.append(f"best {self.best}")
        self._validated = False
        if "bad_frames" in values:
            parts.append(f"bad frames {values['bad_frames']:.0f}")
        return "  ".join(part for part in parts if part)


def _group(name: str, values: Mapping[str, float], stage: str, tasks: Sequence[str]) -> str:
    """`loss 1.200 (va 0.300 expr 0.900)`: a value of a stage, and those of its tasks."""
    if f"{stage}/{name}" not in values:
        return ""
    rest = [f"{task} {values[f'{stage}/{task}']:.3f}" for task in tasks if f"{stage}/{task}" in values]
    return f"{name} {values[f'{stage}/{name}']:.3f}" + (f" ({' '.join(rest)})" if len(rest) > 1 else "")


class ProgressBar(TQDMProgressBar):
    """A progress bar with speed, time left and best score, and a line per epoch above it.

    Loss and best score are read when they are logged: at every step this would synchronise the device.

    Args:
        refresh_rate: Number of batches between two updates; 0: no bar.
        process_position: Number of bars above it.
        leave: Whether the bars of finished epochs stay.
    """

    def __init__(self, refresh_rate: int = 1, process_position: int = 0, leave: bool = False) -> None:
        super().__init__(refresh_rate, process_position, leave)
        self._report = EpochReport()

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        """The values shown after the bar."""
        every, loss = cast(Any, trainer).log_every_n_steps, trainer.callback_metrics.get("train/loss")
        if every and trainer.global_step % every == 0 and loss is not None:
            self._items = {"loss": f"{float(loss):.3f}"}
        shown = getattr(self, "_items", {}) | self._report.speed(trainer)
        return shown | ({"best": self._report.best} if self._report.best else {})

    def on_train_epoch_start(self, trainer: Trainer, *args: Any) -> None:
        """Begins the bar of an epoch."""
        super().on_train_epoch_start(trainer, *args)
        self._report.start(trainer)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Moves the bar."""
        self._report.add(batch)
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Closes the bar of the validation."""
        super().on_validation_end(trainer, pl_module)
        self._report.validated(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Prints the line of the epoch above the bar."""
        self._report.read_best(trainer)
        super().on_train_epoch_end(trainer, pl_module)
        self.print(self._report.line(trainer), file=sys.stderr)


class EpochLogger(Callback):
    """Prints a line per epoch, in place of a progress bar, and in between one a minute."""

    def __init__(self) -> None:
        self._report = EpochReport()
        self._printed = time.monotonic()

    def _print(self, text: str) -> None:
        self._printed = time.monotonic()
        rank_zero_info(text)

    def _print_batch(self, name: str, batch_idx: int, n_batches: list[Any]) -> None:
        """Prints the number of batches if the last line is a minute old."""
        if time.monotonic() - self._printed >= SECONDS:
            total = sum(n_batches)
            of = f" of {total:,.0f}" if math.isfinite(total) else ""
            self._print(f"{name}: {batch_idx + 1:,}{of} batches")

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begins to measure the speed."""
        self._report.start(trainer)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Prints the progress of a long epoch."""
        self._report.add(batch)
        if time.monotonic() - self._printed >= SECONDS:
            speed = "".join(f", {name} {value}" for name, value in self._report.speed(trainer).items())
            of = f"{batch_idx + 1:,} of {trainer.num_training_batches:,} batches"
            self._print(f"epoch {trainer.current_epoch}: {of}{speed}")

    def on_validation_batch_end(self, trainer: Trainer, *args: Any) -> None:
        """Prints the progress of a long validation."""
        self._print_batch("validation", args[3], trainer.num_val_batches)

    def on_test_batch_end(self, trainer: Trainer, *args: Any) -> None:
        """Prints the progress of a long test."""
        self._print_batch("test", args[3], trainer.num_test_batches)

    def on_predict_batch_end(self, trainer: Trainer, *args: Any) -> None:
        """Prints the progress of a long prediction or extraction."""
        self._print_batch("predict", args[3], trainer.num_predict_batches)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Notes that the epoch has scores."""
        self._report.validated(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Prints the line of the epoch."""
        self._print(self._report.line(trainer))


class TrainingSummary(Callback):
    """Prints network, steps, batches, device and precision of a training that begins."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Prints two lines."""
        network, data = cast(Any, pl_module).network, cast(Any, trainer).datamodule
        _print_above(trainer, _network_line(network))
        n, device = trainer.world_size, trainer.strategy.root_device.type
        n_steps, n_epochs = trainer.estimated_stepping_batches, trainer.max_epochs
        until = f"{n_steps:,.0f} steps" if math.isfinite(n_steps) else "no limit of steps"
        until += f" in {n_epochs} epochs" if n_epochs not in (None, -1) else ""
        _print_above(
            trainer,
            f"training: {until}, batches of {data.batch_size} windows of {data.window} frames"
            f"{f' on each of {n} devices' if n > 1 else ''} ({device}, {trainer.precision})",
        )


def _print_above(trainer: Trainer, text: str) -> None:
    """Prints a line, above the progress bar if there is one."""
    bar = trainer.progress_bar_callback
    if bar is None:
        rank_zero_info(text)
    else:
        bar.print(text, file=sys.stderr)


def _network_line(network: Any) -> str:
    counts = [(p.numel(), p.requires_grad) for p in network.parameters()]
    total, trained = sum(n for n, _ in counts), sum(n for n, grad in counts if grad)
    first = "cached features"
    if network.backbone is not None:
        settings = network.backbone.settings
        first = f"{settings.name} ({settings.image_size} pixels)"
    layers = network.temporal.settings.layers
    return (
        f"network: {first}, transformer ({layers} layers, width {network.temporal.width}),"
        f" {total:,} parameters, {'all' if trained == total else f'{trained:,}'} trained"
    )
