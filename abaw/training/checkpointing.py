"""Checkpoint files of a run: written atomically, the best and the newest kept, saved after a signal.

A run that is killed at any moment and resumed with `--ckpt_path last` ends with the same weights as an
uninterrupted one. Checkpoints are therefore taken between two steps, never between the last step of an epoch
and the validation that belongs to it.

`CLASS_PATHS` and `OPTIONS` translate names in files of earlier versions.
"""

import os
import re
import time
from collections.abc import Callable, Iterable, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch import Tensor

from abaw.errors import AbawError, check_settings
from abaw.files import atomic_path
from abaw.model.checkpoints import (
    best_scores,
    load_checkpoint,
    network_weights,
    oldest_first,
    save_checkpoint,
)
from abaw.model.network import Network
from abaw.training.preemption import PreemptionFlag

CLASS_PATHS = {
    "abaw.averaging.MovingAverage": "abaw.training.callbacks.EMA",
    "abaw.callbacks.ScoreWriter": "abaw.training.callbacks.ScoreWriter",
    "abaw.callbacks.SkippedFrames": "abaw.training.callbacks.SkippedFrames",
    "abaw.callbacks.TrackWriter": "abaw.training.callbacks.TrackWriter",
    "abaw.data.transforms.ClipAugmentation": "abaw.loading.transforms.ClipAugmentation",
    "abaw.feature_key.FeatureCheck": "abaw.training.extraction.FeatureCheck",
    "abaw.losses.LossSettings": "abaw.training.losses.LossSettings",
    "abaw.masking.RandomFrameMasking": "abaw.loading.masking.RandomFrameMasking",
    "abaw.module.OptimizerSettings": "abaw.training.module.OptimizerSettings",
    "abaw.nonfinite.NonFiniteGuard": "abaw.training.nonfinite.NonFiniteGuard",
    "abaw.resume.AtomicCheckpointIO": "abaw.training.checkpointing.AtomicCheckpointIO",
    "abaw.resume.LastCheckpoint": "abaw.training.checkpointing.LastCheckpoint",
    "abaw.runs.BestCheckpoint": "abaw.training.checkpointing.BestCheckpoint",
    "abaw.signals.EndOnSignal": "abaw.training.preemption.EndOnSignal",
    "abaw.trackers.EpochLines": "abaw.training.progress.EpochLogger",
    "abaw.trackers.LossBar": "abaw.training.progress.ProgressBar",
    "abaw.trackers.MetricsFile": "abaw.training.loggers.CSVLogger",
    "abaw.training.loggers.EpochLogger": "abaw.training.progress.EpochLogger",
    "abaw.training.loggers.ProgressBar": "abaw.training.progress.ProgressBar",
}
"""Class paths in configurations of earlier versions, with the current ones."""

_CLASS_PATH = re.compile(rf"(?<![\w./-])(?:{'|'.join(map(re.escape, CLASS_PATHS))})(?![\w.])")
_CLASSES = {old.rpartition(".")[2]: new.rpartition(".")[2] for old, new in CLASS_PATHS.items()}


def with_current_class_paths(text: str) -> str:
    """A configuration, or an argument of the command line, with current class paths on the same lines."""
    return _CLASS_PATH.sub(lambda found: CLASS_PATHS[found[0]], text)


OPTIONS = {
    "data.label_set": "data.source.label_set",
    "data.image_roots": "data.source.image_roots",
    "data.annotations": "data.source.annotations",
    "data.stride": "data.windows.stride",
    "data.step": "data.windows.step",
    "data.jitter": "data.windows.jitter",
    "data.balance": "data.windows.balance",
    "data.augmentation": "data.loading.augmentation",
    "data.frame_size": "data.loading.frame_size",
    "data.on_bad_frame": "data.loading.on_bad_frame",
    "data.eval_window": "data.evaluation.window",
    "data.eval_stride": "data.evaluation.stride",
    "data.eval_batch_size": "data.evaluation.batch_size",
    "data.hide_frames": "data.evaluation.drop_frames",
    "data.test_split": "data.evaluation.test_split",
    "data.predict_split": "data.evaluation.predict_split",
    "data.predict_videos": "data.evaluation.predict_videos",
    "model.temporal.fill": "model.temporal.mask_token",
}
"""Options of earlier versions, with their current names."""


def current_option(name: str) -> str:
    """The current name of an option, possibly in a renamed group, such as `data.augmentation.p_flip`."""
    for old, new in OPTIONS.items():
        if f"{name}.".startswith(f"{old}."):
            return new + name.removeprefix(old)
    return name


def with_current_options(settings: Any) -> Any:
    """Nested settings under the current names of their options."""
    settings = deepcopy(settings)
    for old, new in OPTIONS.items():
        group, name = _group_of(old, settings)
        if name in group:
            value = group.pop(name)
            group, name = _group_of(new, settings, dict.setdefault)
            group.setdefault(name, value)
    return settings


def _group_of(option: str, settings: Any, find: Callable[..., Any] = dict.get) -> tuple[dict[str, Any], str]:
    """The group of settings that an option belongs to, and its name in the group."""
    *groups, name = option.split(".")
    for group in groups:
        settings = find(settings, group, {}) if isinstance(settings, dict) else None
    return settings if isinstance(settings, dict) else {}, name


def by_current_class(values: Mapping[str, Any]) -> dict[str, Any]:
    """A mapping whose keys are names of callback classes, with their current names."""
    return {_CLASSES.get(name, name): value for name, value in values.items()}


class AtomicCheckpointIO(TorchCheckpointIO):
    """Saves to a temporary file and renames it, so a checkpoint is always complete."""

    def load_checkpoint(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Loads a checkpoint; states of callbacks have the current names of their classes."""
        checkpoint = super().load_checkpoint(*args, **kwargs)
        return checkpoint | {"callbacks": by_current_class(checkpoint.get("callbacks", {}))}

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Saves a checkpoint; see `model.checkpoints.save_checkpoint`."""
        save_checkpoint(checkpoint, path)


class LastCheckpoint(Checkpoint):
    """Saves checkpoints at intervals of steps and minutes, and after a signal.

    `last.ckpt` is a hard link to the newest `step-N.ckpt`. SIGTERM and SIGUSR1 set a flag, which the ranks
    exchange after every step, and know a step later; if it is set, they save and raise `Preempted`.

    Args:
        folder: Folder of the checkpoints.
        every_n_steps: Number of optimizer steps between checkpoints; null: no such limit.
        every_n_minutes: Minutes between checkpoints.
        keep: Number of checkpoints to keep.
    """

    def __init__(
        self, folder: str, every_n_steps: int | None = None, every_n_minutes: float = 10.0, keep: int = 2
    ) -> None:
        rules = {
            "every_n_steps": (every_n_steps is None or every_n_steps >= 1, "at least 1, or null"),
            "every_n_minutes": (every_n_minutes > 0, "above 0"),
            "keep": (keep >= 1, "at least 1"),
        }
        self.folder = Path(folder)
        self.every_n_steps = every_n_steps
        self.every_n_minutes = every_n_minutes
        self.keep = keep
        check_settings("checkpoint", self, rules)
        self._preemption = PreemptionFlag()

    def on_sanity_check_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Registers signal handlers; signals take effect at the end of a step."""
        self._preemption.register_handlers(trainer)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Registers signal handlers, and removes temporary files of a killed run."""
        self._preemption.register_handlers(trainer)
        self._saved_step = trainer.global_step
        self._saved_time = time.monotonic()
        self._has_saved = trainer.ckpt_path is not None
        if trainer.is_global_zero:
            for leftover in self.folder.glob(".*.tmp"):
                leftover.unlink(missing_ok=True)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Saves if it is due; after the last step of an epoch, its validation comes first."""
        n_left = trainer.num_training_batches - (batch_idx + 1)
        per_step = trainer.accumulate_grad_batches
        if (batch_idx + 1) % per_step and n_left:
            return  # no checkpoint between the micro-batches of a step
        later = trainer.world_size > 1  # flags are known to all ranks a step later
        seconds = 60 * self.every_n_minutes
        if 0 <= n_left - later * per_step <= per_step:  # the step after that is followed by validation
            seconds /= 10
        late = trainer.is_global_zero and time.monotonic() - self._saved_time >= seconds
        preempted, due = self._preemption.exchange(trainer, self._preemption.is_set, late)
        due = due and trainer.global_step > self._saved_step + later  # not saved in the meantime
        due = due or (n_left <= per_step and not self._has_saved)
        if self.every_n_steps is not None:
            due = due or trainer.global_step - self._saved_step >= self.every_n_steps
        ends_here = trainer.global_step == trainer.max_steps
        if (preempted or due or ends_here) and n_left:
            self.save(trainer)
        if preempted:
            self._preemption.exit_all_ranks(trainer)

    def on_validation_batch_end(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        """Ends the run after a signal during validation; it resumes from the newest checkpoint."""
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._preemption.exit_if_set(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Saves after the epoch's validation; a run that ended within an epoch is saved already."""
        if trainer.global_step != self._saved_step:
            self.save(trainer)
        self._preemption.exit_if_set(trainer)

    def save(self, trainer: Trainer) -> None:
        """Writes a checkpoint, links `last.ckpt` to it and removes old ones; a collective call."""
        path = self.folder / f"step-{trainer.global_step:09d}.ckpt"
        trainer.save_checkpoint(path, weights_only=False)  # the optimizer too
        if trainer.is_global_zero:
            with atomic_path(self.folder / "last.ckpt") as temporary:
                _same_file(path, temporary)
            for old in oldest_first(self.folder.glob("step-*.ckpt"))[: -self.keep]:
                old.unlink()
        self._saved_step, self._saved_time, self._has_saved = trainer.global_step, time.monotonic(), True


def _same_file(source: Path, target: Path) -> None:
    """Links a file under a second name; copies it where the file system has no links."""
    try:
        os.link(source, target)
    except OSError:
        target.write_bytes(source.read_bytes())


class BestCheckpoint(ModelCheckpoint):
    """Saves the checkpoint with the highest validation score as `best.ckpt`.

    The best score so far is that of `best.ckpt` in the folder, not that in the resumed checkpoint: a run that
    was moved or copied keeps its best, and a run that resumes a checkpoint of another one has none yet.

    Args:
        folder: Folder of the checkpoint.
    """

    def __init__(self, folder: str) -> None:
        super().__init__(
            folder,
            "best",
            "val/score",
            mode="max",
            save_on_train_epoch_end=False,  # but after validation
            enable_version_counter=False,
        )

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Reads the best score so far."""
        super().setup(trainer, pl_module, stage)
        assert self.dirpath is not None
        path = os.path.join(self.dirpath, "best.ckpt")  # noqa: PTH118 - as Lightning spells it
        if (scores := best_scores(path)) is not None:
            total = torch.tensor(scores.get("total", 0.0))
            self.best_model_path = self.kth_best_model_path = path
            self.best_model_score = self.kth_value = total
            self.best_k_models = {path: total}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Ignores the saved score: `setup` reads that of `best.ckpt`."""


_BACKBONE = "backbone."
_MOST_NAMED = 4


def load_initial_weights(network: Network, path: Path | str) -> str:
    """Loads the weights of a checkpoint that match the network by name and shape.

    If the checkpoint lacks some weights of the backbone, the pretrained weights are loaded first. If the
    training averaged its weights, the average is loaded.

    Args:
        network: Changed in place.
        path: A checkpoint, possibly of other tasks, windows or input.

    Returns:
        A report of loaded, skipped and missing tensors.

    Raises:
        AbawError: The checkpoint is missing or damaged, or none of its weights matches.
    """
    given = network_weights(load_checkpoint(path))
    own = network.state_dict()
    taken = {name: given[name] for name, w in own.items() if name in given and given[name].shape == w.shape}
    if not taken:
        raise AbawError(
            f"{path}: none of its {len(given)} tensors matches the network by name and shape; use the"
            " settings of its training (model.temporal, model.backbone), or leave out --init_from"
        )
    missing = own.keys() - taken.keys()
    if network.backbone is not None and any(name.startswith(_BACKBONE) for name in missing):
        network.backbone.load_pretrained()
    network.load_state_dict(taken, strict=False)
    return _report(path, own, given, taken)


def _report(
    path: Path | str, own: Mapping[str, Tensor], given: Mapping[str, Tensor], taken: Mapping[str, Tensor]
) -> str:
    other = [name for name in own if name in given and name not in taken]
    new = [name for name in own if name not in given]
    left = [name for name in given if name not in own]
    counts = ", ".join(f"{part} {len(names)}" for part, names in _by_part(taken).items())
    lines = [f"{path}: {len(taken)} of the network's {len(own)} tensors loaded: {counts}"]
    for what, names in (
        ("of another shape, not loaded", other),
        ("not in the checkpoint", new),
        ("not in the network", left),
    ):
        parts = [f"{part} {len(all_)} ({_some(all_)})" for part, all_ in _by_part(names).items()]
        lines += [f"  {what}: {', '.join(parts)}"] if parts else []
    return "\n".join(lines)


def _by_part(names: Iterable[str]) -> dict[str, list[str]]:
    """Names of tensors by part of the network: backbone, temporal, heads.va, ..."""
    parts: dict[str, list[str]] = {}
    for name in names:
        first, *rest = name.split(".")
        if first == "heads":  # heads.heads.va.1.weight
            first, rest = f"heads.{rest[1]}", rest[2:]
        parts.setdefault(first, []).append(".".join(rest).removeprefix("pooled.net."))
    return parts


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return ", ".join(names[:_MOST_NAMED]) + more
