"""Configuration of a run, what it ran on, and the settings that a resumed run must keep.

A checkpoint restores optimizer, schedule, class weights and the position in the data. A setting changed on
resuming would have no effect although `config.yaml` records it, or would change the training midway.
"""

import json
import platform
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import torch
import yaml
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn

from abaw.data.index import Index
from abaw.errors import AbawError, UsageError
from abaw.files import atomic_path
from abaw.training.checkpointing import by_current_class, with_current_class_paths, with_current_options
from abaw.training.run_files import Run

_MAY_CHANGE = """
    run config ckpt_path weights_only checkpoint nonfinite
    data.root data.folds data.cache_dir data.workers data.source.image_roots data.source.annotations
    data.loading.on_bad_frame data.evaluation.batch_size data.evaluation.test_split
    data.evaluation.predict_split data.evaluation.predict_videos
    model.backbone.chunk model.backbone.compile model.backbone.gradient_checkpointing model.temporal.compile
    trainer.accelerator trainer.strategy trainer.devices trainer.num_nodes trainer.plugins trainer.benchmark
    trainer.deterministic trainer.default_root_dir trainer.use_distributed_sampler trainer.model_registry
    trainer.max_epochs trainer.min_epochs trainer.max_steps trainer.min_steps trainer.max_time
    trainer.logger trainer.log_every_n_steps trainer.enable_autolog_hparams trainer.enable_checkpointing
    trainer.enable_progress_bar trainer.enable_model_summary trainer.profiler trainer.detect_anomaly
    trainer.barebones trainer.fast_dev_run trainer.inference_mode trainer.num_sanity_val_steps
    trainer.limit_val_batches trainer.limit_test_batches trainer.limit_predict_batches
    trainer.val_check_interval trainer.check_val_every_n_epoch
"""
"""Settings of duration, location, speed, validation and logging, which may change on resuming."""

_SHOWS_ONLY = """
    TQDMProgressBar RichProgressBar ModelSummary RichModelSummary LearningRateMonitor DeviceStatsMonitor
    ThroughputMonitor Timer ModelCheckpoint OnExceptionCheckpoint
"""
"""Callbacks without effect on the training."""

_PACKAGES = ("abaw", "torch", "torchvision", "lightning", "timm", "torchmetrics", "albumentations", "numpy")

_WHOLE = frozenset({"model.backbone.overrides", "model.loss.task_weights"})
"""Options whose value is a mapping with any keys."""

_CALLBACKS = "trainer.callbacks"
_ABSENT = object()
_COMPARED = ("data.", "model.", "trainer.", "seed_everything")
_MOST_NAMED, _LONGEST = 5, 60
Settings = dict[str, Any]
"""Nested plain values, as in `config.yaml`."""


def fixed_settings(config: Mapping[str, Any]) -> Settings:
    """The settings of a resolved configuration that a resumed run must keep.

    Callbacks are keyed by the names of their classes. Folders of cached features, which may be moved, are
    replaced by their number.
    """
    kept: Settings = _fixed(config, "")
    if "trainer" in kept:
        kept["trainer"]["callbacks"] = _by_class(kept["trainer"].get("callbacks"))
    if kept.get("data", {}).get("features") is not None:
        kept["data"]["features"] = f"{len(kept['data']['features'])} folder(s)"
    return kept


def _fixed(values: Mapping[str, Any], prefix: str) -> Settings:
    names = {key: f"{prefix}{key}" for key in values}
    return {
        key: _fixed(value, f"{names[key]}.")
        if isinstance(value, Mapping) and names[key] not in _WHOLE
        else value
        for key, value in values.items()
        if names[key] not in _MAY_CHANGE.split()
    }


def _by_class(callbacks: Any) -> Settings:
    named: Settings = {}
    for callback in callbacks if isinstance(callbacks, Sequence) else [callbacks] if callbacks else []:
        name = str(callback["class_path"]).rpartition(".")[2]
        if name not in _SHOWS_ONLY.split():
            n_same = sum(key.partition(" ")[0] == name for key in named)
            named[f"{name} {n_same + 1}" if n_same else name] = callback.get("init_args") or {}
    return named


def trained_settings(path: Path, checkpoint: Mapping[str, Any]) -> Settings | None:
    """The fixed settings of the training that wrote a checkpoint; None if they are unknown.

    Those of a checkpoint without settings, from an earlier version, are read from `config.yaml` of its run.

    Args:
        path: Path of the checkpoint.
        checkpoint: Its content.
    """
    stored: Settings | None = with_current_options(checkpoint["abaw"].get("settings"))
    if stored is not None:
        trainer = stored.get("trainer", {})
        callbacks = {"callbacks": by_current_class(trainer["callbacks"])} if "callbacks" in trainer else {}
        return stored | {"trainer": trainer | callbacks}
    rank_zero_warn(
        f"{path}: was written by an earlier version; weights, average and optimizer continue, but"
        " masks and augmentations are drawn from other random numbers than there"
    )
    config = path.parent.parent / "config.yaml"
    return fixed_settings(read_config(config)) if config.is_file() else None


def changed_settings(config: Path, now: Settings, defaults: Settings) -> Settings | None:
    """The settings of data, model, trainer and seed with which a run was not trained.

    Args:
        config: `config.yaml` of the run.
        now: The settings of a command.
        defaults: Default settings, for options that the run does not know.

    Returns:
        Values of `now` by dotted name; None if the run has no configuration.

    Raises:
        AbawError: The file cannot be read.
    """
    if not config.is_file():
        return None
    changes = _changes(read_config(config), now, defaults, "")
    return {name: new for name, _, new in changes if name.startswith(_COMPARED)}


def read_config(path: Path) -> Settings:
    """The configuration of a run, with the current names of classes and options.

    Raises:
        AbawError: The file cannot be read, or is not a configuration.
    """
    try:
        text = with_current_class_paths(path.read_text(encoding="utf-8"))
        settings = with_current_options(yaml.safe_load(text))
        if not isinstance(settings, dict):
            raise TypeError(f"{type(settings).__name__} instead of options")
    except (OSError, UnicodeDecodeError, yaml.YAMLError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise AbawError(f"{path}: not a configuration ({reason}); restore it, or remove it") from error
    return settings


def refuse_changes(path: Path, trained: Settings, now: Settings, defaults: Settings) -> None:
    """Refuses to resume a checkpoint with other settings than it was trained with.

    Args:
        path: Path of the checkpoint.
        trained: Its fixed settings.
        now: Fixed settings of the command.
        defaults: Fixed default settings, for options that the checkpoint does not know.

    Raises:
        UsageError: A fixed setting has another value; the message names all of them.
    """
    changes = [
        f"{name}: the run was trained with {_text(was)}, now it is {_text(new)}"
        for name, was, new in _changes(trained, now, defaults, "")
    ]
    if changes:
        more = f"; and {len(changes) - _MOST_NAMED} more" if len(changes) > _MOST_NAMED else ""
        raise UsageError(
            f"{'; '.join(changes[:_MOST_NAMED])}{more}.\nA resumed run keeps its settings: restore them"
            " (without --config the run's own are used),\nor start a new run from these weights with"
            f" --init_from {path} --run NEW"
        )


def refuse_shortening(
    path: Path, checkpoint: Mapping[str, Any], *, max_epochs: int | None, max_steps: int
) -> None:
    """Refuses to resume a checkpoint after the end of the training, or one without its state.

    Args:
        path: Path of the checkpoint.
        checkpoint: Its content.
        max_epochs: Number of epochs of the training; None or -1: no limit.
        max_steps: Number of optimizer steps; -1: no limit.

    Raises:
        UsageError: It has begun a later epoch, or made more steps, or `abaw export` wrote it.
    """
    if "loops" not in checkpoint:
        raise UsageError(
            f"{path}: holds weights only, without the state of a training; start a new run from them with"
            f" --init_from {path}"
        )
    epoch = checkpoint["loops"]["fit_loop"]["epoch_progress"]["current"]["started"]
    for name, limit, reached, n_done in (
        ("max_epochs", max_epochs, "begun epoch", epoch),
        ("max_steps", max_steps, "made step", checkpoint["global_step"]),
    ):
        if limit not in (None, -1) and n_done > limit:
            raise UsageError(
                f"trainer.{name}: {path} has {reached} {n_done} already, and the training is to end after"
                f" {limit}; raise it, or use the checkpoint as it is"
            )


def _changes(trained: Any, now: Any, default: Any, name: str) -> Iterator[tuple[str, Any, Any]]:
    """Name, old and new value of every setting that differs."""
    if isinstance(trained, Mapping) and isinstance(now, Mapping) and name not in _WHOLE:
        for key in dict.fromkeys((*trained, *now)):
            fallback = default.get(key, _ABSENT) if isinstance(default, Mapping) else _ABSENT
            values = trained.get(key, fallback), now.get(key, fallback)
            yield from _changes(*values, fallback, f"{name}.{key}" if name else key)
    elif trained is _ABSENT or now is _ABSENT:
        if name.rpartition(".")[0] == _CALLBACKS:  # other options exist in one of the two versions only
            yield name, trained, now
    elif trained != now or (name.startswith("trainer.limit_") and type(trained) is not type(now)):
        yield name, trained, now  # a limit of 1 is one batch, 1.0 all of them


def _text(value: Any) -> str:
    if value is _ABSENT:
        return "none at all"
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def provenance(index: Index, device: torch.device) -> dict[str, Any]:
    """What is written beside a configuration, so that a run can be told from another one.

    Args:
        index: Index of the data.
        device: Device of the training.

    Returns:
        `versions` by package, with that of Python; `device`, its name; `git`, see `git_state`; `data`: the
        `fingerprint` of the index, and its numbers of `videos` and `frames`.
    """
    versions = {"python": platform.python_version()} | {name: version(name) for name in _PACKAGES}
    cuda = device.type == "cuda"
    return {
        "versions": versions,
        "device": torch.cuda.get_device_name(device) if cuda else platform.processor() or platform.machine(),
        "git": git_state(),
        "data": {
            "fingerprint": index.fingerprint(),
            "videos": len(index),
            "frames": int(index.n_frames.sum()),
        },
    }


def git_state() -> dict[str, Any] | None:
    """The `commit` of the working directory's repository, and its number of `changed` files; None without."""
    try:
        commit, changed = (
            subprocess.run(["git", *words], capture_output=True, text=True, check=True, timeout=10).stdout
            for words in (["rev-parse", "HEAD"], ["status", "--porcelain", "--untracked-files=no"])
        )
    except (OSError, subprocess.SubprocessError):  # no git, no repository, or one without a commit
        return None
    return {"commit": commit.strip(), "changed": len(changed.splitlines())}


class SaveConfig(Callback):
    """Writes the resolved configuration to `config.yaml`, the loggers and checkpoints; see also `provenance`.

    Args:
        run: The run.
        config: The configuration as YAML.
    """

    def __init__(self, run: Run, config: str) -> None:
        self.run = run
        self.config = config
        self._settings: Settings = yaml.safe_load(config)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Checks the number of processes.

        Raises:
            UsageError: Fewer processes run than the configuration asks for.
        """
        asked = trainer.num_nodes * trainer.num_devices
        if trainer.world_size != asked:
            raise UsageError(
                f"{trainer.num_devices} devices on {trainer.num_nodes} nodes are configured, but"
                f" {trainer.world_size} processes run; start one per device, under SLURM with `srun` and"
                f" --ntasks-per-node={trainer.num_devices}"
            )

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the configuration and what it ran on.

        At the start of training, because a resumed run may change settings.
        """
        if trainer.is_global_zero:
            ran_on = provenance(cast(Any, trainer).datamodule.index, pl_module.device)
            texts = {self.run.config: self.config, self.run.provenance: json.dumps(ran_on, indent=2) + "\n"}
            for path, text in texts.items():
                with atomic_path(path) as temporary:
                    temporary.write_text(text, encoding="utf-8")
            for logger in trainer.loggers:
                logger.log_hyperparams(self._settings | {"provenance": ran_on})

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Adds the settings that a resumed run must keep."""
        checkpoint.setdefault("abaw", {})["settings"] = fixed_settings(self._settings)
