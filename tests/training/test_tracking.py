"""What loggers get: curves of every logged step, and the best epoch with figures and a table of videos."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from abaw.__main__ import main
from abaw.evaluation.scores import summarise
from abaw.evaluation.tracks import score_tracks
from abaw.tasks import AU, EXPR, TASKS
from abaw.training.callbacks import ScoreWriter
from abaw.training.run_files import Run
from abaw.training.tracking import BestEpoch, draw_figures, flat_scores, score_rows
from tests.support.predicted_runs import simulated
from tests.support.project import PROJECT
from tests.support.tiny_run import tiny_config
from tests.support.wandb_run import read_run

FIGURES = {"va-labels", "expr-labels", "expr-confusion", "au-labels"}
TRACKS, LABELS = simulated(4, seed=3)
SUMS = score_tracks(TRACKS, LABELS.__getitem__, TASKS)
SCORES = summarise(SUMS, draws=0)


def test_the_scores_of_every_label_have_a_name() -> None:
    flat = flat_scores(SCORES, TASKS)
    assert flat["best/total"] == SCORES["total"]
    assert flat["best/va/arousal"] == SCORES["va"]["arousal"]
    assert {name for name in flat if name.startswith("best/expr/")} == {f"best/expr/{n}" for n in EXPR.names}
    assert flat["best/au/AU12"] == SCORES["au"]["per_au"]["AU12"]
    assert len(flat) == 1 + 3 + 2 + 8 + 12


def test_the_table_has_a_row_per_video() -> None:
    head, *rows = score_rows(SUMS)
    assert head == ["video", "va", "expr", "au"]
    assert [row[0] for row in rows] == [track.video for track in TRACKS]
    for track, row in zip(TRACKS, rows, strict=True):
        alone = summarise(score_tracks([track], LABELS.__getitem__, TASKS), draws=0)
        assert row[3] == pytest.approx(alone[AU.name]["score"], abs=1e-12)


def test_figures_are_pictures(tmp_path: Path) -> None:
    paths = draw_figures(SCORES, SUMS, tmp_path / "figures")
    assert {path.stem for path in paths} == FIGURES
    for path in paths:
        assert np.std(cv2.imread(str(path))) > 5, path


def logged(folder: Path) -> EventAccumulator:
    return EventAccumulator(str(folder), size_guidance={"images": 0, "scalars": 0}).Reload()


def test_only_a_better_epoch_is_handed_on(tmp_path: Path) -> None:
    logger = TensorBoardLogger(tmp_path, "", "")
    trainer: Any = SimpleNamespace(
        loggers=[logger], sanity_checking=False, is_global_zero=True, current_epoch=0, global_step=0
    )
    writer = ScoreWriter(str(tmp_path / "scores.json"))
    callback = BestEpoch(Run(tmp_path), writer)
    for epoch, total in enumerate((0.5, 0.4, 0.9)):
        trainer.current_epoch = trainer.global_step = epoch
        module: Any = SimpleNamespace(scores=SCORES | {"total": total}, sums=SUMS)
        writer.on_validation_end(trainer, module)
        callback.on_validation_end(trainer, module)
    logger.finalize("success")
    found = logged(tmp_path)
    assert [event.value for event in found.Scalars("best/total")] == pytest.approx([0.5, 0.9])
    assert [event.value for event in found.Scalars("best/epoch")] == [0, 2]
    assert {tag.removeprefix("figures/") for tag in found.Tags()["images"]} == FIGURES
    assert "videos/text_summary" in found.Tags()["tensors"]


def words(tmp_path: Path, root: Path, *more: str) -> list[str]:
    config = tiny_config(tmp_path, trainer={"max_epochs": 2, "log_every_n_steps": 1})
    return ["fit", *config, f"--data.root={root}", f"--run={tmp_path / 'run'}", *more]


def test_a_training_has_curves_and_with_tensorboard_figures(synth_root: Path, tmp_path: Path) -> None:
    overlay = f"--config={PROJECT / 'configs/tensorboard.yaml'}"
    assert main(words(tmp_path, synth_root, overlay)) == 0
    with (tmp_path / "run/metrics.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["train/loss"]]
    assert len(rows) > 2
    for row in rows:
        assert float(row["train/gradient_norm"]) > 0
        assert float(row["train/frames_per_second"]) > 0
        assert 0 <= float(row["train/waiting"]) <= 1
        assert float(row["train/masked"]) == 0.75
    found = logged(tmp_path / "run/tensorboard")
    curves = {"train/loss", "val/loss", "val/score", "best/expr/Fear", "train/waiting"}
    assert curves <= set(found.Tags()["scalars"])
    assert {path.stem for path in (tmp_path / "run/figures").iterdir()} == FIGURES


def test_without_such_a_logger_nothing_is_drawn(synth_root: Path, tmp_path: Path) -> None:
    assert main(words(tmp_path, synth_root, "--trainer.max_epochs=1")) == 0
    assert not (tmp_path / "run/figures").exists()


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_wandb_has_one_run_with_everything_across_a_resume(
    synth_root: Path, tmp_path: Path, processes: int
) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "WANDB_MODE"}
    environment |= {"HOME": str(tmp_path), "PYTHONPATH": str(PROJECT)}  # no netrc, so no key
    overlay = f"--config={PROJECT / 'configs/wandb.yaml'}"
    more = [overlay, "--ckpt_path=last", f"--trainer.devices={processes}", "--trainer.accelerator=cpu"]
    more += ["--data.workers=2"]
    more += ["--trainer.strategy=ddp"] * (processes > 1)
    for epochs in (1, 2):
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "abaw",
                *words(tmp_path, synth_root, *more),
                f"--trainer.max_epochs={epochs}",
            ],
            stdin=subprocess.DEVNULL,
            env=environment,
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert done.returncode == 0, done.stderr
        assert "anonymous" not in done.stderr
    found = read_run(tmp_path / "run/wandb")
    assert found["ids"] == {(tmp_path / "run/wandb_id").read_text().strip()}
    assert {"model", "data", "trainer"} <= set(found["config"])
    assert found["config"]["provenance"] == json.loads((tmp_path / "run/provenance.json").read_text())
    history = found["history"]
    curves = {"train/loss", "train/gradient_norm", "train/masked", "val/loss", "val/score"}
    assert curves | {"best/au/AU12", "videos._type"} <= set(history)
    assert {f"figures/{name}._type" for name in FIGURES} <= set(history)
    assert sorted(set(history["epoch"])) == [0, 1]
    assert max(history["val/score"]) == pytest.approx(history["best/total"][-1], abs=1e-6)
