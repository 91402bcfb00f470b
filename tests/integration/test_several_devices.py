"""Two or three processes give what one gives: scores, curves and tracks, however unequal the videos are."""

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from abaw.__main__ import main
from abaw.data.labels import Labels
from abaw.tasks import TASKS, VA
from tests.support.tiny_run import tiny_config
from tests.support.tiny_set import labels_of, write_images, write_labels

pytestmark = pytest.mark.slow

SETS = {  # processes, and the frames of the validation videos
    "an odd number of very unequal videos": (2, [97, 3, 11, 1, 26]),
    "one video on two": (2, [37]),
    "two videos on three": (3, [9, 37]),
}
BATCH = 6  # windows of all processes together


def write_set(root: Path, lengths: Sequence[int]) -> None:
    """Two videos to train on, and these to validate on, some of them annotated for all tasks."""
    rng = np.random.default_rng(0)
    for number, n in enumerate([40, 33, *lengths]):
        split, name = ("train", f"t{number}") if number < 2 else ("val", f"v{number}")
        write_images(root, name, n, missing=range(5, 8))
        labels = labels_of(n + 1, unlabelled=rng.choice(n, n // 5, replace=False))
        va = labels[VA].values * rng.uniform(0.5, 1, labels[VA].values.shape)
        changed = labels[VA]._replace(values=va.astype(np.float32))
        labels = Labels(len(labels), {**labels.by_task, VA: changed})
        tasks = TASKS if number < 2 else TASKS[: 3 - (number + 1) % 3]
        write_labels(root, name, split, tasks, labels)


@dataclass(frozen=True)
class Trained:
    """The same training on one device and on several.

    Attributes:
        folder: Holds the data, the configuration and both runs.
        config: The options that read the configuration.
        devices: How many are several.
        lengths: Frames of the validation videos.
        said: What the training on several printed.
    """

    folder: Path
    config: list[str]
    devices: int
    lengths: list[int]
    said: str = ""

    def words(self, subcommand: str, run: str, devices: int) -> list[str]:
        """A command for one of the runs."""
        divided = [f"--trainer.devices={devices}", f"--data.batch_size={BATCH // devices}"]
        divided += ["--trainer.strategy=ddp"] if devices > 1 else []
        return [
            subcommand,
            *self.config,
            f"--data.root={self.folder / 'data'}",
            f"--run={self.folder / run}",
            *divided,
        ]

    def on_several(self, subcommand: str, run: str) -> str:
        """What a command prints that starts its own processes."""
        command = [sys.executable, "-m", "abaw", *self.words(subcommand, run, self.devices)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def scores(self, run: str, file: str = "scores.json") -> dict[str, Any]:
        """All numbers of a run's scores, intervals included."""
        text = (self.folder / run / file).read_text()
        numbers: dict[str, Any] = pd.json_normalize(json.loads(text)).iloc[0].to_dict()
        return {name: value for name, value in numbers.items() if value is not None}


@pytest.fixture(scope="module", params=SETS)
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    devices, lengths = SETS[request.param]
    folder = tmp_path_factory.mktemp("devices")
    write_set(folder / "data", lengths)
    config = tiny_config(
        folder,
        over=None,
        data={
            "tasks": ["va", "expr", "au"],
            "batch_size": ...,
            "loading": {"frame_size": 16},
            "evaluation": {"batch_size": 2},
        },
        model={  # without dropout, which every process draws for itself
            "temporal": {"dropout": 0},
            "heads": {"dropout": 0},
            "masking": {"ratio": 0.5},
            "optimizer": {"lr": 1e-3},
        },
        trainer={"max_epochs": 2, "limit_train_batches": 2},
    )
    trained = Trained(folder, config, devices, lengths)
    assert main(trained.words("fit", "one", 1)) == 0
    return replace(trained, said=trained.on_several("fit", "several"))


def same(left: dict[str, Any], right: dict[str, Any]) -> None:
    assert set(left) == set(right)
    for name, value in left.items():
        assert value == pytest.approx(right[name], abs=1e-6), name


def test_training_ends_with_the_same_scores_and_curves(trained: Trained) -> None:
    same(trained.scores("one"), trained.scores("several"))
    total = trained.scores("several")["total"]
    assert [line.split()[1] for line in trained.said.splitlines() if line.startswith("total")] == [
        f"{total:.4f}"
    ]
    one, several = (pd.read_csv(trained.folder / run / "metrics.csv") for run in ("one", "several"))
    curves = [name for name in one if name.startswith("val/")]
    assert len(curves) == 7
    pd.testing.assert_frame_equal(one[curves], several[curves], rtol=0, atol=1e-6)
    speed = {"train/frames_per_second", "train/waiting"}
    losses = [name for name in one if name.startswith("train/") and name not in speed]
    names = ["au", "expr", "gradient_norm", "loss", "masked", "va"]
    assert losses == [f"train/{name}" for name in names]
    assert one[losses].notna().all(axis=1).sum() == 4  # steps
    pd.testing.assert_frame_equal(one[losses], several[losses], rtol=0, atol=1e-5)
    assert one["step"].equals(several["step"])


def test_validation_gives_the_same_scores_as_on_one_device_and_as_training(trained: Trained) -> None:
    at_the_end = trained.scores("several")
    said = trained.on_several("validate", "several")
    assert said.count("\ntotal") == 1
    validated = [trained.scores("several", "scores-val.json")]
    assert main(trained.words("validate", "several", 1)) == 0
    validated.append(trained.scores("several", "scores-val.json"))
    for scores in validated:
        numbers = {name: value for name, value in scores.items() if name in at_the_end}
        assert scores["split"] == "val"
        same(numbers, at_the_end)
    assert at_the_end["va.frames"] > 20


def test_prediction_writes_the_same_tracks(trained: Trained) -> None:
    folder = trained.folder / "several" / "tracks"
    trained.on_several("predict", "several")
    several = {path.name: pd.read_parquet(path) for path in folder.iterdir()}
    shutil.rmtree(folder)
    assert main(trained.words("predict", "several", 1)) == 0
    one = {path.name: pd.read_parquet(path) for path in folder.iterdir()}
    assert sorted(len(table) for table in several.values()) == sorted(trained.lengths)
    assert set(several) == set(one)
    for name, table in one.items():
        exact = ["frame", "seen"]
        pd.testing.assert_frame_equal(several[name][exact], table[exact])
        pd.testing.assert_frame_equal(several[name], table, rtol=0, atol=1e-5)
