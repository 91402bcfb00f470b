"""The curves of a run that goes on stay in one table, and W&B is one run that asks for no key."""

import csv
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import loggers as lightning_loggers

from abaw.errors import UsageError
from abaw.training.loggers import CSVLogger, wandb_settings, without_unset
from abaw.training.run_files import Run

KEYS = ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE", "WANDB_BASE_URL", "WANDB_MODE", "NETRC")


def test_a_table_is_continued_with_its_old_columns_and_new_ones(tmp_path: Path) -> None:
    for step, metrics in enumerate([{"train/loss": 3.0}, {"train/loss": 2.0, "val/score": 1.0}]):
        logger = CSVLogger(str(tmp_path))  # one per start of the run
        logger.log_metrics(metrics, step)
        logger.save()
    with (tmp_path / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["train/loss"] for row in rows] == ["3.0", "2.0"]
    assert [row["val/score"] for row in rows] == ["", "1.0"]
    assert [row["step"] for row in rows] == ["0", "1"]
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.csv"]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A run in a folder that is there, on a machine where nobody has a key."""
    for key in KEYS:
        monkeypatch.delenv(key, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "runs" / "one").mkdir(parents=True)
    return Run(tmp_path / "runs" / "one")


def test_a_resumed_run_keeps_its_id(run: Run) -> None:
    first, second = wandb_settings(run, {}), wandb_settings(run, {})
    assert first == second
    assert (run.folder / "wandb_id").read_text().strip() == first["id"]
    assert (first["save_dir"], first["name"]) == (str(run.folder), "one")


@pytest.mark.parametrize("given", [{"id": "mine", "name": "called"}, {"version": "mine", "name": "called"}])
def test_what_the_configuration_sets_stays(run: Run, given: dict[str, Any]) -> None:
    settings = wandb_settings(run, given)
    assert (settings["id"], settings["name"]) == ("mine", "called")


@pytest.mark.parametrize(
    ("environment", "netrc", "given", "offline"),
    [
        ({}, "", {}, True),
        ({"WANDB_API_KEY": "k"}, "", {}, False),
        ({"WANDB_API_KEY": "k"}, "", {"offline": True}, True),
        ({"WANDB_MODE": "disabled"}, "", {}, False),  # W&B itself keeps to the mode
        ({}, "machine api.wandb.ai login user password k", {}, False),
        ({}, "machine elsewhere.org login user password k", {}, True),
        ({}, "machine without", {}, True),  # which W&B could not read either
    ],
)
def test_without_a_key_the_run_is_offline(
    run: Run,
    environment: dict[str, str],
    netrc: str,
    given: Any,
    offline: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    path = run.folder.parents[1] / ".netrc"
    path.write_text(f"{netrc}\n")
    path.chmod(0o600)
    assert bool(wandb_settings(run, given)["offline"]) == offline


def test_checkpoints_cannot_be_uploaded_offline(run: Run) -> None:
    with pytest.raises(UsageError, match=r"log_model: all uploads checkpoints.*WANDB_API_KEY"):
        wandb_settings(run, {"log_model": "all"})


def test_wandb_warns_of_no_setting_that_nobody_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    logger = lightning_loggers.WandbLogger(project="p", save_dir=tmp_path)
    assert without_unset(logger) is logger
    logger.experiment.finish()
    assert "anonymous" not in "".join(capsys.readouterr())
    plain = without_unset(CSVLogger(str(tmp_path)))  # any other stays as it is
    assert isinstance(plain, CSVLogger)
