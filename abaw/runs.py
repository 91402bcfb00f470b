"""A run's directory: what lies where, whether it holds a run already, and what keeps its curves."""

import os
from argparse import ArgumentError, ArgumentParser
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities import rank_zero_info

from abaw.checkpoints import best_scores, load_checkpoint, newest_checkpoint
from abaw.errors import AbawError, UsageError
from abaw.files import atomic_path, check_writable
from abaw.fixed_settings import fixed_settings

_COMPARED = ("data.", "model.", "trainer.", "seed_everything")


@dataclass(frozen=True)
class Run:
    """One run's directory.

    Attributes:
        folder: The directory; it need not exist yet.
    """

    folder: Path

    @classmethod
    def named(cls, folder: str | None, configs: Sequence[object]) -> "Run":
        """The run that the options name: `--run`, else `runs/<name of the first configuration>`.

        Raises:
            UsageError: Neither is given.
        """
        if folder is None and not configs:
            raise UsageError("name a configuration with --config FILE, or a run's directory with --run DIR")
        return cls(Path(folder) if folder is not None else Path("runs") / Path(str(configs[0])).stem)

    @property
    def config(self) -> Path:
        """The resolved configuration of the training."""
        return self.folder / "config.yaml"

    @property
    def checkpoints(self) -> Path:
        """Where `best.ckpt` and `last.ckpt` are."""
        return self.folder / "checkpoints"

    @property
    def best(self) -> Path:
        """The checkpoint with the highest official score."""
        return self.checkpoints / "best.ckpt"

    @property
    def tracks(self) -> Path:
        """Where `predict` leaves a table per video."""
        return self.folder / "tracks"

    @property
    def scores(self) -> Path:
        """The official scores of the best epoch."""
        return self.folder / "scores.json"

    def evaluation(self, verb: str) -> Path:
        """The official scores that `validate` or `test` leaves."""
        return self.folder / f"scores-{'val' if verb == 'validate' else 'test'}.json"

    @property
    def metrics(self) -> Path:
        """The curves of the training."""
        return self.folder / "metrics.csv"

    @property
    def is_taken(self) -> bool:
        """Whether a new training here would overwrite something."""
        return self.metrics.exists() or any(self.checkpoints.glob("*.ckpt"))

    def start(self, asked: str | None) -> str | None:
        """The checkpoint that `fit` continues from, None for a new training.

        `last` without a checkpoint starts anew, so that a job's script may always say it.

        Raises:
            UsageError: The directory holds a run that is not the one to be continued.
            AbawError: The checkpoint asked for is not there or damaged, or nothing can be written there.
        """
        check_writable(self.folder)
        if asked == "last" and not any(self.checkpoints.glob("*.ckpt")):
            rank_zero_info(f"{self.folder}: holds no checkpoint; starting a new training")
            return None
        start = None if asked is None else self._find(asked)
        if self.is_taken and (start is None or start.resolve().parent != self.checkpoints.resolve()):
            raise UsageError(
                f"{self.folder} already holds a run; continue it with --ckpt_path last,"
                " or name another directory with --run"
            )
        return None if start is None else str(start)

    def trained(self, asked: str | None) -> str:
        """The checkpoint that `validate`, `test` and `predict` use; the best one unless another is asked for.

        Raises:
            AbawError: It is not there or damaged.
        """
        return str(self._find(asked or "best"))

    def _find(self, asked: str) -> Path:
        if asked == "last":
            return newest_checkpoint(self.checkpoints)
        path = self.best if asked == "best" else Path(asked)
        if asked == "best" and not path.is_file():
            raise AbawError(
                f"{path}: there is no such checkpoint; train first with `abaw fit`, name the run's directory"
                " with --run, or a checkpoint with --ckpt_path FILE"
            )
        load_checkpoint(path)
        return path


def changed_settings(config: Path, text: str) -> dict[str, Any] | None:
    """The settings of a command that a run was not trained with, by dotted name, with their values.

    Only what both know is compared: data, model, trainer and seed.

    Args:
        config: The run's `config.yaml`.
        text: The resolved configuration of the command, as YAML.

    Returns:
        Nothing where all are the same; None where the run has no configuration.

    Raises:
        AbawError: The file cannot be read.
    """
    if not config.is_file():
        return None
    try:
        trained = _flat(yaml.safe_load(config.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, yaml.YAMLError, AttributeError) as error:
        reason = str(error).splitlines()[0]
        raise AbawError(f"{config}: not a configuration ({reason}); restore it, or remove it") from error
    return {
        name: value
        for name, value in _flat(yaml.safe_load(text)).items()
        if name.startswith(_COMPARED) and not (name in trained and trained[name] == value)
    }


def _flat(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by dotted name."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        inner = isinstance(value, dict) and value
        flat |= _flat(value, f"{prefix}{name}.") if inner else {f"{prefix}{name}": value}
    return flat


class Record(Callback):
    """Keeps the resolved configuration, in the run's `config.yaml` and with the trackers.

    Checkpoints hold the part of it that a resumed run has to keep.

    Args:
        run: The run.
        config: The configuration as YAML.
    """

    def __init__(self, run: Run, config: str) -> None:
        self.run = run
        self.config = config
        self._fixed = fixed_settings(yaml.safe_load(config))

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:  # noqa: ARG002
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

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """Writes it once the start is accepted: a resumed run may have changed what may change."""
        if trainer.is_global_zero:
            with atomic_path(self.run.config) as temporary:
                temporary.write_text(self.config, encoding="utf-8")
            for logger in trainer.loggers:
                logger.log_hyperparams(yaml.safe_load(self.config))

    def on_save_checkpoint(
        self,
        trainer: Trainer,  # noqa: ARG002
        pl_module: LightningModule,  # noqa: ARG002
        checkpoint: dict[str, Any],
    ) -> None:
        """Adds the settings that the run keeps."""
        checkpoint.setdefault("abaw", {})["settings"] = self._fixed


class BestCheckpoint(ModelCheckpoint):
    """Keeps `best.ckpt`: the state that validation scored highest.

    The score to beat is that of the `best.ckpt` in the folder, whatever the resumed checkpoint says: a run
    that was moved or copied keeps its best, and a run that starts from another one's checkpoint has none yet.

    Args:
        folder: Where it goes.
    """

    def __init__(self, folder: str) -> None:
        super().__init__(
            folder,
            "best",
            "val/score",
            mode="max",
            save_on_train_epoch_end=False,  # when it has been scored
            enable_version_counter=False,
        )

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Reads the score to beat."""
        super().setup(trainer, pl_module, stage)
        assert self.dirpath is not None
        path = os.path.join(self.dirpath, "best.ckpt")  # noqa: PTH118 - as Lightning spells it
        if (scores := best_scores(path)) is not None:
            total = torch.tensor(scores.get("total", 0.0))
            self.best_model_path = self.kth_best_model_path = path
            self.best_model_score = self.kth_value = total
            self.best_k_models = {path: total}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Leaves the score to beat as `setup` found it."""


def with_own_config(args: list[str]) -> list[str]:
    """The options; of a run that is there already, its own configuration serves where none is named.

    Raises:
        UsageError: `--run` or `--config` is the last word.
    """
    parser = ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--run", type=Path)
    parser.add_argument("-c", "--config", action="append")
    try:
        given, _ = parser.parse_known_args([word for word in args if word not in ("-h", "--help")])
    except ArgumentError as error:
        option = str(error.argument_name).rpartition("/")[2]
        raise UsageError(
            f"{option} needs a value: {option} {'FILE' if option == '--config' else 'DIR'}"
        ) from error
    own = Run(given.run).config if given.run is not None and not given.config else None
    return ["--config", str(own), *args] if own is not None and own.is_file() else args
