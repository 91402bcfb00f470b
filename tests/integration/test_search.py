"""The searches of docs/search: a study that is interrupted and continued, a sweep whose options exist."""

import os
import subprocess
import sys
from pathlib import Path

import optuna
import pytest
import yaml
from optuna.trial import TrialState
from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args

from tests.support.option_names import options
from tests.support.project import PROJECT
from tests.support.tiny_run import tiny_config

SWEEP = yaml.safe_load((PROJECT / "docs/search/sweep.yaml").read_text(encoding="utf-8"))


def trial_of_the_sweep() -> tuple[dict[str, object], list[str]]:
    """Values of every option, and the command that the agent of W&B makes of them."""
    values = {
        name: spec["values"][-1] if "values" in spec else spec["max"]
        for name, spec in SWEEP["parameters"].items()
    }
    command = {
        "args": {name: {"value": value} for name, value in values.items()},
        "program": SWEEP["program"],
    }
    made = create_sweep_command_args(command)
    words: list[str] = []
    for word in map(str, create_sweep_command(SWEEP["command"])):
        words += made[word[2:-1]] if word.startswith("${") else [word]
    return values, words


def test_a_sweep_names_options_that_exist() -> None:
    known = options("fit")
    for name in SWEEP["parameters"]:
        assert name in known or name.rpartition(".")[0] in known, (
            name
        )  # those of `model.masking`, which may be null
    assert SWEEP["metric"]["name"].startswith("best/")


@pytest.mark.slow
def test_a_trial_of_the_sweep_is_a_run_of_its_own() -> None:
    values, words = trial_of_the_sweep()
    environment = os.environ | {
        "WANDB_RUN_ID": "a1b2",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    done = subprocess.run(
        [*words, "--print_config"], cwd=PROJECT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    config = yaml.safe_load(done.stdout)
    assert config["run"] == "runs/sweep/a1b2"
    for name, value in values.items():
        found = config
        for key in name.split("."):
            found = found[key]
        assert found == value, name


@pytest.mark.slow
def test_a_study_continues_the_trial_that_was_interrupted(synth_root: Path, tmp_path: Path) -> None:
    folder = tmp_path / "search"
    command = [
        *[sys.executable, str(PROJECT / "docs/search/study.py"), f"--folder={folder}", "--trials=2", "--"],
        *[*tiny_config(tmp_path), f"--data.root={synth_root}"],
    ]
    environment = os.environ | {"PYTHONPATH": str(PROJECT)}
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if b"training:" in line:  # of the first trial
                break
        process.kill()
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f"best: {folder}/" in done.stdout
    study = optuna.load_study(study_name="abaw", storage=f"sqlite:///{folder / 'study.db'}")
    states = [trial.state for trial in study.trials]
    assert states == [TrialState.FAIL, TrialState.COMPLETE, TrialState.COMPLETE]
    assert study.trials[1].params == study.trials[0].params
    assert {path.name for path in folder.iterdir()} == {"study.db", "0", "2"}
    for trial, run in zip(study.trials[1:], ("0", "2"), strict=True):
        config = yaml.safe_load((folder / run / "config.yaml").read_text(encoding="utf-8"))
        assert config["model"]["optimizer"]["lr"] == trial.params["lr"]
        assert yaml.safe_load((folder / run / "scores.json").read_text())["total"] == pytest.approx(
            trial.value
        )
