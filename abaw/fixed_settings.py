"""The settings that a training keeps when it is resumed: which they are, and what is said of a changed one.

A checkpoint brings its own optimizer, schedule, class weights and place in the data. A setting that was
changed since would be recorded without taking effect, or would turn the run into another one half way.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from abaw.errors import UsageError

_MAY_CHANGE = """
    run config ckpt_path weights_only checkpoint nonfinite
    data.root data.image_roots data.annotations data.folds data.cache_dir data.workers data.on_bad_frame
    data.eval_batch_size data.test_split data.predict_split data.predict_videos
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
"""How long, where and how fast the run is; what is shown, validated and kept of it."""
_SHOWS_ONLY = """
    TQDMProgressBar RichProgressBar ModelSummary RichModelSummary LearningRateMonitor DeviceStatsMonitor
    ThroughputMonitor Timer ModelCheckpoint OnExceptionCheckpoint
"""
"""Callbacks that change nothing."""
_WHOLE = frozenset({"model.backbone.overrides", "model.loss.task_weights"})
"""Options whose value is a mapping with any keys."""
_CALLBACKS = "trainer.callbacks"
_ABSENT = object()
_MOST_NAMED, _LONGEST = 5, 60

Settings = dict[str, Any]


def fixed_settings(config: Mapping[str, Any]) -> Settings:
    """The part of a resolved configuration that a resumed run keeps.

    Args:
        config: The configuration in plain values, as `config.yaml` holds it.

    Returns:
        Plain values, nested like it. Callbacks stand under the names of their classes, and cached features,
        whose folders may be moved, as the number of their folders.
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
    """The fixed settings that a checkpoint was trained with; None if nothing tells.

    A checkpoint of an abaw that did not store them was trained with those of the `config.yaml` of its run.

    Args:
        path: Where it lies.
        checkpoint: What it holds.
    """
    stored: Settings | None = checkpoint["abaw"].get("settings")
    if stored is not None:
        return stored
    config = path.parent.parent / "config.yaml"
    return fixed_settings(yaml.safe_load(config.read_text(encoding="utf-8"))) if config.is_file() else None


def refuse_changes(path: Path, trained: Settings, now: Settings, defaults: Settings) -> None:
    """Refuses to resume a checkpoint with other settings than it was trained with.

    Args:
        path: The checkpoint.
        trained: Its fixed settings.
        now: Those of this start.
        defaults: Those that nothing was said about; they stand for what an older checkpoint does not know.

    Raises:
        UsageError: A fixed setting has another value; names every one.
    """
    changes = [
        f"{name}: the run was trained with {_text(was)}, now it is {_text(new)}"
        for name, was, new in _changes(trained, now, defaults, "")
    ]
    if changes:
        more = f"; and {len(changes) - _MOST_NAMED} more" if len(changes) > _MOST_NAMED else ""
        raise UsageError(
            f"{'; '.join(changes[:_MOST_NAMED])}{more}.\nA resumed run keeps its settings: restore them"
            " (without --config the run's own serve),\nor start a new run from these weights with"
            f" --init_from {path} --run NEW"
        )


def refuse_shortening(
    path: Path, checkpoint: Mapping[str, Any], *, max_epochs: int | None, max_steps: int
) -> None:
    """Refuses to resume a checkpoint that is past the end of the training.

    Args:
        path: Where it lies.
        checkpoint: What it holds.
        max_epochs: Where the training ends; None and -1 leave it open.
        max_steps: The same in optimizer steps.

    Raises:
        UsageError: It has begun a later epoch, or made more steps.
    """
    reached = {
        "max_epochs": (checkpoint["loops"]["fit_loop"]["epoch_progress"]["current"]["started"], max_epochs),
        "max_steps": (checkpoint["global_step"], max_steps),
    }
    for name, (n_done, limit) in reached.items():
        if limit not in (None, -1) and n_done > limit:
            what = "begun epoch" if name == "max_epochs" else "made step"
            raise UsageError(
                f"trainer.{name}: {path} has {what} {n_done} already, and the training is to end after"
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
        if name.rpartition(".")[0] == _CALLBACKS:  # any other option one of the two abaws does not have
            yield name, trained, now
    elif trained != now or (name.startswith("trainer.limit_") and type(trained) is not type(now)):
        yield name, trained, now  # of a limit 1 is one batch, 1.0 all of them


def _text(value: Any) -> str:
    if value is _ABSENT:
        return "none at all"
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
