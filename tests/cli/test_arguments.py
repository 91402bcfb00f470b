"""Mistakes that are found before PyTorch is imported, within a second."""

import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest

from abaw.cli.arguments import ALIASES, check_arguments, check_options, options_of, shipped
from abaw.errors import AbawError
from tests.support import option_names


def test_the_list_of_options_is_that_of_the_parser() -> None:
    """`python -m tests.support.option_names > abaw/cli/options.txt` writes it."""
    path = Path(check_options.__code__.co_filename).with_name("options.txt")
    assert path.read_text(encoding="utf-8") == option_names.text()


def test_the_names_of_other_programs_lead_to_options_that_exist() -> None:
    check_options("fit", [f"--{name}" for name in ALIASES.values()])
    assert not set(ALIASES) & options_of("fit") - {"data", "seed_everything"}


@pytest.mark.parametrize(
    "words",
    [
        ["--config", "demo.yaml", "--trainer.max_epochs=3"],
        ["--config=demo.yaml", "--data.features+=x", "--data.tasks+", "va"],
        ["-c", "demo.yaml", "--model.backbone.overrides.depth", "3"],
        ["--config=demo.yaml", "--trainer.logger.save_dir=x", "--trainer.callbacks.init_args.decay=0.9"],
        ["--config=demo.yaml", "--model.loss.task_weights.va=2"],
        ["--config={data: {window: 3}}", "--run=x"],
        ["--config=demo.yaml", "--model.masking.ratio", "-1"],
    ],
)
def test_what_the_parser_may_accept_passes(words: list[str], tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    check_arguments("fit", words)


@pytest.mark.parametrize(
    ("subcommand", "words", "says"),
    [
        ("fit", "--lr 1", "there is no option --lr; did you mean --model.optimizer.lr?"),
        ("fit", "--config demo.yaml --max_epochs 3", "did you mean --trainer.max_epochs?"),
        ("fit", "--config demo.yaml --gpus 2", "did you mean --trainer.devices?"),
        ("fit", "--config demo.yaml --data.roo x", "no option --data.roo; did you mean --data.root?"),
        ("fit", "--conf demo.yaml", "did you mean --config?"),
        ("fit", "--config dmo.yaml", "did you mean demo.yaml?"),
        ("fit", "--config demo.yaml --run taken", "taken already holds a run; continue it with --ckpt_path"),
        ("fit", "--config demo.yaml --data.root none", "--data.root none: no such folder"),
        ("fit", "--data.root=.", "name a configuration with --config FILE"),
        ("predict", "--run none", "none/checkpoints/best.ckpt: there is no such checkpoint"),
        ("fit", "--config demo.yaml --rounds 3", "there is no option --rounds"),
        ("bench", "--config", "--config needs a value"),
    ],
)
def test_a_mistake_is_found(subcommand: str, words: str, says: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("taken").mkdir()
    Path("taken/metrics.csv").touch()
    with pytest.raises(AbawError) as refused:
        check_arguments(subcommand, words.split())
    assert says in str(refused.value)
    assert len(str(refused.value).splitlines()) <= 2


def test_a_checkpoint_alone_names_its_run(tmp_path: Path) -> None:
    check_arguments("validate", [f"--ckpt_path={tmp_path}/r/checkpoints/best.ckpt"])
    with pytest.raises(AbawError, match="name a configuration"):
        check_arguments("validate", ["--ckpt_path=best"])


def test_shipped_configurations_are_there() -> None:
    assert (shipped() / "demo.yaml").is_file()


def cpu_seconds(*words: str) -> tuple[float, float, int, str]:
    """CPU seconds of a subcommand, seconds until it said something, its exit code and what it said."""
    return run_counted([sys.executable, "-m", "abaw", *words])


def run_counted(command: list[str]) -> tuple[float, float, int, str]:
    """CPU seconds of a command, seconds until it said something, its exit code and what it said."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.monotonic()
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
        assert process.stderr is not None
        first = process.stderr.readline()
        said_after = time.monotonic() - start
        text = first + process.stderr.read()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return seconds, said_after, process.returncode, text


def test_refusals_need_no_heavy_library() -> None:
    for words in (["fit", "--config=demo.yaml", "--lr=1"], ["train"], ["fit", "--config=nothing.yaml"]):
        seconds, _, code, text = cpu_seconds(*words)
        assert code == 2
        assert seconds < 2 * 0.5, (words, text)


@pytest.mark.slow
def test_a_typo_in_a_backbone_needs_little_more_than_timm(tmp_path: Path) -> None:
    timm = run_counted([sys.executable, "-c", "import timm"])[0]
    words = [
        "fit",
        "--config=demo.yaml",
        f"--run={tmp_path / 'run'}",
        "--model.backbone.name=vit_tiny_patch16_24",
    ]
    seconds, _, code, text = cpu_seconds(*words)
    assert code == 2
    assert "did you mean vit_tiny_patch16_224" in text
    assert seconds < 2 * (timm + 2.0), (timm, text)


def test_the_first_word_comes_in_a_second() -> None:
    _, said_after, _, text = cpu_seconds("fit", "--config=demo.yaml", "--print_config")
    assert text.startswith("abaw fit: loading PyTorch")
    assert said_after < 2 * 1.0


FIRST_STEP = """
import os, sys
from abaw.__main__ import main
from abaw.training.module import AffectModule
def step(self, *batch):
    os._exit(0)
AffectModule.training_step = step
main(sys.argv[1:])
"""


@pytest.mark.slow
def test_a_training_begins_soon_after_its_libraries_are_loaded(synth_root: Path, tmp_path: Path) -> None:
    """Beside the imports it took 7 of 15 CPU seconds once; now 1 of 7."""
    libraries = "import torch, timm, lightning.pytorch, torchmetrics"
    words = ["fit", "--config=demo.yaml", f"--data.root={synth_root}", f"--run={tmp_path / 'run'}"]
    imports, until_step = [], []
    for _ in range(3):
        imports.append(run_counted([sys.executable, "-c", libraries])[0])
        until_step.append(run_counted([sys.executable, "-c", FIRST_STEP, *words])[0])
    assert sorted(until_step)[1] < 1.44 * sorted(imports)[1], (until_step, imports)  # (8 + 3.5) / 8
