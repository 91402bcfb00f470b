"""What a training prints: its summary, a line per epoch above the bar, the speed and the time left."""

import re
from pathlib import Path

import pytest

from abaw.__main__ import main
from abaw.training import progress
from tests.support.terminal import at_terminal
from tests.support.tiny_run import tiny_config

EPOCH = r"epoch {}/1  loss \d\.\d{{3}} \(va \d\.\d{{3}} expr \d\.\d{{3}} au \d\.\d{{3}}\)"
SCORES = r"  score -?\d\.\d{3} \(va -?\d\.\d{3} expr \d\.\d{3} au \d\.\d{3}\)  best -?\d\.\d{3}"
NOISE = (
    "GPU available",
    "TPU",
    "Seed set",
    "FLOPs",
    "Modules in",
    "train_dataloader",
    "max_epochs=",
    "Total",
)


def fit(folder: Path, root: Path, **trainer: object) -> list[str]:
    quiet = {"enable_progress_bar": ..., "enable_model_summary": ..., "max_epochs": 2, "log_every_n_steps": 1}
    every = {"check_val_every_n_epoch": 2, "limit_train_batches": 4}
    configs = tiny_config(folder, trainer=quiet | every | trainer)
    return ["fit", *configs, f"--run={folder / 'r'}", f"--data.root={root}"]


def test_a_training_prints_little_and_what_matters(
    synth_root: Path, tmp_path: Path, capfd: pytest.CaptureFixture, caplog: pytest.LogCaptureFixture
) -> None:
    assert main(fit(tmp_path, synth_root)) == 0
    lines = caplog.messages
    assert [line for line in lines if any(word in line for word in NOISE)] == []
    (network,) = (line for line in lines if line.startswith("network: "))
    assert re.fullmatch(
        r"network: vit_tiny_patch16_224 \(32 pixels\), transformer \(1 layers, width 16\),"
        r" [\d,]+ parameters, all trained",
        network,
    )
    assert "training: 8 steps in 2 epochs, batches of 2 windows of 8 frames (cpu, 32-true)" in lines
    epochs = [line for line in lines if line.startswith("epoch ")]
    assert re.fullmatch(EPOCH.format(0), epochs[0])  # without a validation no scores, and no old ones
    assert re.fullmatch(EPOCH.format(1) + SCORES, epochs[1])
    assert len(lines) <= 8
    out = capfd.readouterr().out.splitlines()
    assert re.fullmatch(rf"best: epoch 1, total -?\d\.\d{{4}}, {tmp_path}/r/checkpoints/best\.ckpt", out[-2])
    assert out[-1] == f"next: abaw predict --run {tmp_path}/r"


def test_the_latest_score_stands_beside_a_better_one(
    synth_root: Path, tmp_path: Path, capfd: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from abaw.training.module import AffectModule

    totals = iter([0.9, 0.4])
    real = AffectModule.on_validation_epoch_end

    def planted(self: AffectModule) -> None:
        real(self)
        self.scores = {**self.scores, "total": next(totals)}

    monkeypatch.setattr(AffectModule, "on_validation_epoch_end", planted)
    assert main(fit(tmp_path, synth_root, check_val_every_n_epoch=1)) == 0
    line = capfd.readouterr().out.splitlines()[-2]
    assert line.startswith("best: epoch 0, total 0.9000, ")
    assert line.endswith("; latest: epoch 1, total 0.4000")


def test_a_long_epoch_prints_lines_in_between(
    synth_root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "SECONDS", 0.0)
    words = fit(tmp_path, synth_root)
    assert main(words) == 0
    assert main(["predict", *words[1:]]) == 0
    err = "\n".join(caplog.messages)
    assert re.search(r"^epoch 0: 3 of 4 batches, frames/s \d+, left \d:\d\d:\d\d$", err, re.MULTILINE)
    assert re.search(r"^validation: 1 of \d+ batches$", err, re.MULTILINE)
    assert re.search(r"^predict: 2 of \d+ batches$", err, re.MULTILINE)


@pytest.mark.slow
def test_at_a_terminal_the_scores_stand_above_the_bar(synth_root: Path, tmp_path: Path) -> None:
    code, text = at_terminal(fit(tmp_path, synth_root))
    assert code == 0, text[-2000:]
    assert re.search(rf"^{EPOCH.format(1)}{SCORES}$", text, re.MULTILINE)
    bars = [line for line in text.splitlines() if line.startswith("Epoch 1:")]
    assert re.search(r"loss=\d\.\d{3}, frames/s=\d+, left=\d:\d\d:\d\d", bars[3])
    assert re.search(r"best=-?\d\.\d{3}", bars[-1])
    assert max(map(len, text.splitlines())) <= 250
    assert "network: " in text
