"""A hyperparameter search with Optuna: each trial is a run, `runs/search/<number>`.

    python docs/search/study.py --trials 20 -- --config demo.yaml --data.root data/demo

Options after `--` are those of `abaw fit`. The study is a file, so that a second start continues it, a trial
that was interrupted included.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import optuna
from optuna.trial import FrozenTrial, TrialState

FAILED = 1


def suggest(trial: optuna.Trial) -> dict[str, object]:
    """The options of a trial; change them to what you search."""
    return {
        "--model.optimizer.lr": trial.suggest_float("lr", 1e-4, 3e-3, log=True),
        "--model.temporal.layers": trial.suggest_int("layers", 1, 4),
        "--model.masking.ratio": trial.suggest_float("masking", 0.0, 0.75, step=0.25),
    }


def run_of(folder: Path, trial: optuna.Trial | FrozenTrial) -> Path:
    """The run of a trial; one that was interrupted goes on in that of its first attempt."""
    return folder / str(trial.user_attrs.get("run", trial.number))


def train(trial: optuna.Trial, run: Path, words: Sequence[str]) -> float | None:
    """Trains one trial, or continues it; returns its total score, None if it failed, such as by diverging.

    Raises:
        SystemExit: It was interrupted, with its exit code, or its options are wrong.
    """
    options = [f"{name}={value}" for name, value in suggest(trial).items()]
    command = [sys.executable, "-m", "abaw", "fit", *words, *options, f"--run={run}", "--ckpt_path=last"]
    code = subprocess.run(command).returncode
    if code == FAILED:
        return None
    if code:  # usage, Ctrl-C, pre-emption
        sys.exit(code)
    return float(json.loads((run / "scores.json").read_text(encoding="utf-8"))["total"])


def search(folder: Path, n_trials: int, words: Sequence[str]) -> optuna.Study:
    """Runs trials, in one process, until `n_trials` of the study in a folder have ended."""
    folder.mkdir(parents=True, exist_ok=True)
    study = optuna.create_study(
        study_name="abaw",
        storage=f"sqlite:///{folder / 'study.db'}",
        direction="maximize",
        load_if_exists=True,
    )
    for trial in study.get_trials(states=[TrialState.RUNNING]):  # was interrupted: again, in its own run
        study.tell(trial.number, state=TrialState.FAIL)
        study.enqueue_trial(trial.params, user_attrs={"run": run_of(folder, trial).name})
    while len(study.get_trials(states=[TrialState.COMPLETE, TrialState.PRUNED])) < n_trials:
        trial = study.ask()
        score = train(trial, run_of(folder, trial), words)
        study.tell(trial, score, state=TrialState.PRUNED if score is None else TrialState.COMPLETE)
    return study


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=20, help="trials of the whole study")
    parser.add_argument("--folder", type=Path, default=Path("runs/search"), help="folder of study and runs")
    parser.add_argument("words", nargs="*", help="options of `abaw fit`, after --")
    options = parser.parse_args()
    best = search(options.folder, options.trials, options.words).best_trial
    print(f"best: {run_of(options.folder, best)}, total {best.value:.4f}, {best.params}")
