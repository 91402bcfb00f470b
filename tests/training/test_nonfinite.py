"""A NaN or infinite loss stops the run, is named, and spoils no checkpoint."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from abaw.__main__ import main
from abaw.model.checkpoints import load_checkpoint
from abaw.tasks import EXPR, Task
from abaw.training.losses import TaskLosses
from tests.support.tiny_run import tiny_config

BAD_STEP = 2


@pytest.fixture
def words(synth_root: Path, tmp_path: Path) -> list[str]:
    """What follows `fit` for a training of six steps."""
    trainer = {"limit_train_batches": 6, "limit_val_batches": 0, "log_every_n_steps": 2}
    configs = tiny_config(tmp_path, trainer=trainer)
    return [*configs, f"--run={tmp_path / 'run'}", f"--data.root={synth_root}"]


Losses = tuple[Tensor, dict[Task, Tensor]]


def spoil(patch: pytest.MonkeyPatch, change: Callable[[Tensor, dict[Task, Tensor]], Losses]) -> None:
    """Changes the losses of one step."""
    forward, calls = TaskLosses.forward, iter(range(100))

    def spoilt(self: TaskLosses, outputs: Any, batch: Any) -> Losses:
        losses = forward(self, outputs, batch)
        return change(*losses) if next(calls) == BAD_STEP else losses

    patch.setattr(TaskLosses, "forward", spoilt)


@pytest.fixture
def _nan(monkeypatch: pytest.MonkeyPatch) -> None:
    """The expression loss is NaN at one step."""

    def nan(total: Tensor, per_task: dict[Task, Tensor]) -> Losses:
        none = torch.full_like(total, torch.nan)
        return total * none, per_task | {EXPR: none}

    spoil(monkeypatch, nan)


@pytest.mark.usefixtures("_nan")
def test_the_run_stops_and_names_task_step_and_videos(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fit", *words, "--checkpoint.every_n_steps=1"]) == 1
    message = capsys.readouterr().err.splitlines()[-1]
    assert f"loss of expr is NaN or infinite from step {BAD_STEP}, on videos " in message
    assert "--nonfinite.action skip" in message
    saved = load_checkpoint(tmp_path / "run" / "nonfinite.ckpt")["state_dict"]
    assert not all(weight.isfinite().all() for weight in saved.values())
    for path in (tmp_path / "run" / "checkpoints").glob("*.ckpt"):  # what there is can be continued from
        content = load_checkpoint(path)
        assert content["global_step"] <= BAD_STEP
        assert all(weight.isfinite().all() for weight in content["state_dict"].values()), path


@pytest.mark.usefixtures("_nan")
def test_a_validation_in_mid_epoch_saves_no_nan_weights(words: list[str], tmp_path: Path) -> None:
    """The scores of NaN weights are finite numbers, and the first are the best so far."""
    mid_epoch = ["--trainer.val_check_interval=3", "--trainer.limit_val_batches=2"]
    assert main(["fit", *words, *mid_epoch, "--trainer.log_every_n_steps=50"]) == 1
    assert not (tmp_path / "run/checkpoints/best.ckpt").exists()
    assert not (tmp_path / "run/scores.json").exists()


@pytest.mark.usefixtures("_nan")
def test_skipping_goes_on_with_finite_weights(words: list[str], tmp_path: Path) -> None:
    assert main(["fit", *words, "--nonfinite.action=skip", "--nonfinite.max_skips=1"]) == 0
    content = load_checkpoint(tmp_path / "run" / "checkpoints" / "last.ckpt")
    assert content["global_step"] == 6
    assert all(weight.isfinite().all() for weight in content["state_dict"].values())


@pytest.mark.usefixtures("_nan")
def test_more_skips_than_allowed_stop_the_run(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", *words, "--nonfinite.action=skip", "--nonfinite.max_skips=0"]) == 1
    assert "1 steps had a NaN or infinite gradient, 0 are allowed" in capsys.readouterr().err


class Exploding(torch.autograd.Function):
    """Leaves a loss as it is and makes its gradient infinite."""

    @staticmethod
    def forward(ctx: Any, loss: Tensor) -> Tensor:
        return loss.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient * torch.inf


def test_an_infinite_gradient_spoils_no_checkpoint(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every loss is a number, but the weights are not after the step: the next loss would come too late."""
    spoil(monkeypatch, lambda total, per_task: (Exploding.apply(total), per_task))
    assert main(["fit", *words, "--checkpoint.every_n_steps=1"]) == 1
    assert f"NaN or infinite after step {BAD_STEP + 1}" in capsys.readouterr().err
    content = load_checkpoint(tmp_path / "run/checkpoints/last.ckpt")
    assert content["global_step"] == BAD_STEP
    assert all(weight.isfinite().all() for weight in content["state_dict"].values())
