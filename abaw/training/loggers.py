"""Loggers: `metrics.csv` of a run, settings of W&B."""

import csv
import netrc
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch import loggers as lightning_loggers
from lightning.pytorch.loggers.csv_logs import ExperimentWriter
from lightning.pytorch.utilities import rank_zero_only

from abaw.errors import UsageError
from abaw.files import atomic_path
from abaw.training.run_files import Run


class _Rows(ExperimentWriter):
    """Appends to an existing `metrics.csv`, which Lightning's own writer would delete."""

    def __init__(self, log_dir: str) -> None:
        super().__init__(log_dir)
        path = Path(self.metrics_file_path)
        if path.exists():
            with path.open(newline="", encoding="utf-8") as file:
                self.metrics_keys = next(csv.reader(file), [])

    def _check_log_dir_exists(self) -> None:
        """Keeps the existing file, which Lightning's own writer removes here."""

    def log_hparams(self, params: dict[str, Any]) -> None:
        """Does nothing: `config.yaml` has the settings."""


class CSVLogger(lightning_loggers.CSVLogger):
    """Writes metrics to `metrics.csv` in the run's directory.

    Args:
        folder: The run's directory.
    """

    def __init__(self, folder: str) -> None:
        super().__init__(folder, name="", version="")

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The writer of `metrics.csv`."""
        if self._experiment is None:
            self._experiment = _Rows(self.log_dir)
        return self._experiment


def logger_settings(run: Run, class_path: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by which a configured logger writes into the directory of its run.

    Args:
        run: The run.
        class_path: Import path of the logger's class.
        given: Its settings in the configuration, which take precedence.

    Raises:
        UsageError: See `wandb_settings`.
    """
    name = class_path.rpartition(".")[2]
    if name == "WandbLogger":
        return wandb_settings(run, given)
    if name == "TensorBoardLogger" and not given.get("save_dir"):
        return {"save_dir": str(run.folder), "name": "tensorboard", "version": ""}
    return {}


def wandb_settings(run: Run, given: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with which a WandbLogger resumes its run and never asks for a key.

    Args:
        run: Run whose directory holds the files and the id of W&B.
        given: Settings of the logger in the configuration, which take precedence.

    Raises:
        UsageError: Checkpoints are to be uploaded, but there is no key.
    """
    mode = os.environ.get("WANDB_MODE", "online")  # set by the user, if it is another
    offline = given.get("offline") or not (mode != "online" or _has_wandb_key())
    if offline and given.get("log_model"):
        raise UsageError(
            f"trainer.logger: WandbLogger with log_model: {given['log_model']} uploads checkpoints, which"
            " cannot be done offline; set WANDB_API_KEY, or log_model: false"
        )
    remembered = run.folder / "wandb_id"
    number = given.get("id") or given.get("version")
    if number is None and remembered.exists():
        number = remembered.read_text(encoding="utf-8").strip()
    number = number or os.environ.get("WANDB_RUN_ID") or secrets.token_hex(4)  # the id of a sweep's trial
    _remember(remembered, number)
    return {
        "save_dir": str(run.folder),
        "id": number,
        "name": given.get("name") or run.folder.name,
        "offline": offline,
    }


def without_unset(logger: Any) -> Any:
    """The logger, which, if it is a WandbLogger, does not pass on `anonymous` where nobody set it.

    Lightning passes it always, and W&B warns about a setting without effect whatever its value.
    """
    if isinstance(logger, lightning_loggers.WandbLogger) and logger._wandb_init.get("anonymous") is None:
        logger._wandb_init.pop("anonymous", None)
    return logger


@rank_zero_only
def _remember(path: Path, number: str) -> None:
    if path.exists() and path.read_text(encoding="utf-8").strip() == number:
        return
    with atomic_path(path) as temporary:
        temporary.write_text(f"{number}\n", encoding="utf-8")


def _has_wandb_key() -> bool:
    """Whether W&B would find a key without asking for one."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    host = urlparse(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).netloc
    for path in (os.environ.get("NETRC"), "~/.netrc", "~/_netrc"):
        try:
            if path and netrc.netrc(Path(path).expanduser()).authenticators(host):
                return True
        except (OSError, netrc.NetrcParseError):
            continue  # missing, or not readable for W&B either
    return False
