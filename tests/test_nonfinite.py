"""A loss that is no number stops the run, is named, and spoils no checkpoint."""

from pathlib import Path

import pytest
import torch

from abaw.__main__ import main
from abaw.checkpoints import load_checkpoint
from abaw.losses import TaskLosses
from abaw.tasks import Task

PROJECT = Path(__file__).parents[1]
TINY = """
data: {window: 8, stride: 4, batch_size: 2, workers: 0}
model:
  backbone: {name: vit_tiny_patch16_224, weights: none, image_size: 32, overrides: {depth: 1}}
  temporal: {layers: 1, heads: 2, width: 16, feedforward: 16}
trainer:
  {accelerator: cpu, precision: 32-true, max_epochs: 1, check_val_every_n_epoch: 1, limit_train_batches: 6,
   limit_val_batches: 0, log_every_n_steps: 2, enable_progress_bar: false, enable_model_summary: false}
"""
BAD_STEP = 2


@pytest.fixture
def words(synth_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A training whose expression loss is NaN at one step, with the words that start it."""
    config = tmp_path / "tiny.yaml"
    config.write_text(TINY)
    forward, calls = TaskLosses.forward, iter(range(100))

    def spoilt(self, outputs, batch):
        total, per_task = forward(self, outputs, batch)
        if next(calls) == BAD_STEP:
            nan = torch.full_like(total, torch.nan)
            return total * nan, per_task | {Task.EXPR: nan}
        return total, per_task

    monkeypatch.setattr(TaskLosses, "forward", spoilt)
    demo = PROJECT / "configs/demo.yaml"
    return [
        f"--config={demo}",
        f"--config={config}",
        f"--run={tmp_path / 'run'}",
        f"--data.root={synth_root}",
    ]


def test_the_run_stops_and_names_task_step_and_videos(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fit", *words, "--checkpoint.every_n_steps=1"]) == 1
    message = capsys.readouterr().err.splitlines()[-1]
    assert f"loss of expr is no number from step {BAD_STEP}, on videos " in message
    assert "--on_nonfinite skip" in message
    saved = load_checkpoint(tmp_path / "run" / "nonfinite.ckpt")["state_dict"]
    assert not all(weight.isfinite().all() for weight in saved.values())
    for path in (tmp_path / "run" / "checkpoints").glob("*.ckpt"):  # what there is can be continued from
        content = load_checkpoint(path)
        assert content["global_step"] <= BAD_STEP
        assert all(weight.isfinite().all() for weight in content["state_dict"].values()), path


def test_skipping_goes_on_with_finite_weights(words: list[str], tmp_path: Path) -> None:
    assert main(["fit", *words, "--on_nonfinite=skip"]) == 0
    content = load_checkpoint(tmp_path / "run" / "checkpoints" / "last.ckpt")
    assert content["global_step"] == 6
    assert all(weight.isfinite().all() for weight in content["state_dict"].values())
