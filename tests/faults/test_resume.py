"""A training that breaks off anywhere and goes on ends as the one that was left alone, to the bit."""

import json
import os
import re
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer

from abaw.__main__ import main
from abaw.cli.trainer_commands import AbawCLI
from abaw.errors import UsageError
from abaw.evaluation.metrics import OfficialScores
from abaw.model.checkpoints import load_checkpoint
from abaw.training.checkpointing import BestCheckpoint, LastCheckpoint
from tests.faults.kill_and_resume import differences, kill_and_resume
from tests.support.tiny_run import tiny_config

N_BATCHES, N_EPOCHS = 4, 3
Words = Callable[..., list[str]]


@pytest.fixture(scope="module")
def words(synth_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Words:
    """The demo's configuration, tiny: `words(run, "--more", "words")`."""
    trainer = {"max_epochs": N_EPOCHS, "limit_train_batches": N_BATCHES}
    configs = tiny_config(tmp_path_factory.mktemp("config"), trainer=trainer)
    return lambda run, *more: ["fit", *configs, f"--data.root={synth_root}", f"--run={run}", *more]


def content(run: Path, name: str = "last") -> dict[str, Any]:
    return load_checkpoint(run / f"checkpoints/{name}.ckpt")


@pytest.fixture(scope="module")
def alone(words: Words, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing disturbed."""
    run = tmp_path_factory.mktemp("runs") / "alone"
    assert main(words(run)) == 0
    assert content(run)["global_step"] == N_BATCHES * N_EPOCHS
    return run


class Broken(Exception):  # noqa: N818
    """Where a run breaks off, without a chance to save anything."""


class BreakOff(Callback):
    """Raises in one hook, at one step, before the other callbacks are asked."""

    def __init__(self, hook: str, step: int) -> None:
        def raises(trainer: Trainer, *args: Any, **kwargs: Any) -> None:
            if trainer.global_step == step and not trainer.sanity_checking:
                raise Broken

        setattr(self, hook, raises)


@pytest.mark.parametrize(
    ("hook", "step", "goes_on_from"),
    [
        ("on_train_batch_start", 3, 3),  # in the first epoch
        ("on_train_batch_end", 7, 6),  # at the end of a step, in the second
        ("on_validation_batch_start", 4, 3),  # in the first validation: what comes before it is saved
        ("on_validation_end", 8, 7),  # before the best is saved
        ("on_train_epoch_end", 8, 7),  # after that
        ("on_train_epoch_start", 8, 8),
    ],
)
def test_it_may_break_off_anywhere(
    hook: str,
    step: int,
    goes_on_from: int,
    words: Words,
    alone: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    every_step = words(tmp_path / "run", "--checkpoint.every_n_steps=1")
    obligatory = AbawCLI._required_callbacks
    with monkeypatch.context() as patch:
        patch.setattr(
            AbawCLI,
            "_required_callbacks",
            lambda *args: [BreakOff(hook, step), *obligatory(*args)],
            raising=True,
        )
        with pytest.raises(Broken):
            main(every_step)
    assert content(tmp_path / "run")["global_step"] == goes_on_from
    assert main([*every_step, "--ckpt_path=last"]) == 0
    for name in ("last", "best"):
        assert not list(differences(content(tmp_path / "run", name), content(alone, name)))
    assert (tmp_path / "run/scores.json").read_bytes() == (alone / "scores.json").read_bytes()


def test_a_broken_off_write_is_no_checkpoint(
    words: Words, alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    link = os.link

    def broken_link(source: Path, target: Path) -> None:
        if "step-000000003" in str(source):
            raise Broken
        link(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "link", broken_link)  # the checkpoint is written, but is not yet the last
        with pytest.raises(Broken):
            main(words(run, "--checkpoint.every_n_steps=1"))
    (run / "checkpoints/.last.ckpt.123.tmp").write_bytes(b"half")
    assert content(run)["global_step"] == 2
    assert main(words(run, "--ckpt_path=last")) == 0
    assert not list(differences(content(run), content(alone)))
    assert not list((run / "checkpoints").glob(".*"))


@pytest.mark.parametrize(
    ("number", "hook", "saved"),
    [
        (signal.SIGUSR1, "on_sanity_check_end", 1),
        (signal.SIGTERM, "on_train_batch_start", 1),
        (signal.SIGTERM, "on_validation_batch_start", N_BATCHES - 1),
    ],
)
def test_told_to_end_it_saves_itself(
    number: signal.Signals,
    hook: str,
    saved: int,
    words: Words,
    alone: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Without any periodic checkpoint."""
    run, obligatory = tmp_path / "run", AbawCLI._required_callbacks
    tell, n_sanity = Callback(), int("sanity" in hook)
    setattr(tell, hook, lambda *args, **kwargs: os.kill(os.getpid(), number))
    with monkeypatch.context() as patch:
        patch.setattr(AbawCLI, "_required_callbacks", lambda *args: [tell, *obligatory(*args)])
        assert main(words(run, f"--trainer.num_sanity_val_steps={n_sanity}")) == 75
    said = capfd.readouterr().err
    assert re.search(rf"preempted by {number.name}; continue with.* --ckpt_path last$", said, re.MULTILINE)
    assert content(run)["global_step"] == saved
    assert main(words(run, "--ckpt_path=last")) == 0
    assert not list(differences(content(run), content(alone)))


@pytest.mark.parametrize("subcommand", ["validate", "predict"])
def test_an_evaluation_told_to_end_does(
    subcommand: str,
    words: Words,
    alone: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    obligatory = AbawCLI._required_callbacks
    tell = Callback()
    hook = "on_predict_batch_start" if subcommand == "predict" else "on_validation_batch_start"
    setattr(tell, hook, lambda *args, **kwargs: os.kill(os.getpid(), signal.SIGTERM))
    monkeypatch.setattr(AbawCLI, "_required_callbacks", lambda *args: [tell, *obligatory(*args)])
    assert main([subcommand, f"--run={alone}"]) == 75
    assert "preempted by SIGTERM; start the same command again" in capfd.readouterr().err
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_run_cut_short_goes_on_in_mid_epoch(words: Words, alone: Path, tmp_path: Path) -> None:
    plain = ["--model.optimizer.schedule=constant", "--model.optimizer.warmup=0"]  # of no length
    assert main(words(tmp_path / "whole", *plain, "--trainer.max_epochs=2")) == 0
    assert main(words(tmp_path / "run", *plain, "--trainer.max_steps=2")) == 0
    assert content(tmp_path / "run")["global_step"] == 2
    assert main(words(tmp_path / "run", *plain, "--trainer.max_epochs=2", "--ckpt_path=last")) == 0
    weights = content(tmp_path / "run"), content(tmp_path / "whole")
    assert weights[0]["global_step"] == 2 * N_BATCHES
    for part in ("state_dict", "current_model_state", "optimizer_states"):
        assert not list(differences(weights[0][part], weights[1][part]))


def test_the_newest_are_kept_whatever_their_step(words: Words, tmp_path: Path) -> None:
    """A run that goes on from an earlier step writes files of lower steps than those that are there."""
    more = ["--checkpoint.every_n_steps=1", "--checkpoint.keep=2", "--trainer.limit_val_batches=0"]
    run = tmp_path / "run"
    assert main(words(run, *more, "--trainer.max_epochs=1")) == 0
    names = {path.name for path in (run / "checkpoints").glob("step*")}
    assert names == {"step-000000003.ckpt", "step-000000004.ckpt"}
    first = run / "checkpoints/step-000000003.ckpt"
    first.rename(run / "checkpoints/mine.ckpt")
    more += [f"--ckpt_path={run / 'checkpoints/mine.ckpt'}", "--checkpoint.keep=1", "--trainer.max_epochs=2"]
    assert main(words(run, *more, "--trainer.max_steps=6")) == 0
    assert [path.name for path in (run / "checkpoints").glob("step*")] == ["step-000000006.ckpt"]
    assert content(run)["global_step"] == 6


def test_micro_batches_are_saved_between_steps(words: Words, tmp_path: Path) -> None:
    """Four batches in steps of three: the first epoch's last step but one is after the third batch."""
    more = ["--trainer.accumulate_grad_batches=3", "--trainer.max_epochs=1"]
    assert main(words(tmp_path / "run", *more)) == 0
    saved = {path.name for path in (tmp_path / "run/checkpoints").glob("step*")}
    assert saved == {"step-000000001.ckpt", "step-000000002.ckpt"}


@pytest.fixture
def totals(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What the validations to come score, in order."""
    coming: list[float] = []
    compute = OfficialScores.compute
    monkeypatch.setattr(OfficialScores, "compute", lambda self: compute(self) | {"total": coming.pop(0)})
    return coming


def speak_of(run: Path) -> tuple[int, float, float]:
    """The step of `best.ckpt`, its score, and that of `scores.json`."""
    best = content(run, "best")
    scores = json.loads((run / "scores.json").read_text())
    return best["global_step"], best["abaw"]["scores"]["total"], scores["total"]


@pytest.mark.parametrize("moving", [shutil.move, shutil.copytree])
def test_a_run_that_was_moved_or_copied_keeps_its_best(
    moving: Callable[[Path, Path], object], words: Words, tmp_path: Path, totals: list[float]
) -> None:
    totals += [0.9, 0.5, 1.2]
    assert main(words(tmp_path / "run", "--trainer.max_epochs=1")) == 0
    moving(tmp_path / "run", tmp_path / "new")
    for epochs, expected in ((2, (N_BATCHES, 0.9, 0.9)), (3, (3 * N_BATCHES, 1.2, 1.2))):
        assert main(words(tmp_path / "new", "--ckpt_path=last", f"--trainer.max_epochs={epochs}")) == 0
        assert speak_of(tmp_path / "new") == expected
    assert moving is shutil.move or speak_of(tmp_path / "run") == (N_BATCHES, 0.9, 0.9)


def test_another_run_s_best_is_not_inherited(words: Words, tmp_path: Path, totals: list[float]) -> None:
    totals += [0.9, 0.5]
    assert main(words(tmp_path / "run", "--trainer.max_epochs=1")) == 0
    other = f"--ckpt_path={tmp_path / 'run/checkpoints/best.ckpt'}"
    assert main(words(tmp_path / "new", other, "--trainer.max_epochs=2")) == 0
    assert speak_of(tmp_path / "new") == (2 * N_BATCHES, 0.5, 0.5)


def test_scores_that_differ_by_less_than_a_tensor_holds_are_one(
    words: Words, tmp_path: Path, totals: list[float]
) -> None:
    totals += [0.5, 0.5 + 1e-9]
    assert main(words(tmp_path / "run", "--trainer.max_epochs=2")) == 0
    assert speak_of(tmp_path / "run") == (N_BATCHES, 0.5, 0.5)


def test_a_kill_between_best_and_scores_is_mended(
    words: Words, tmp_path: Path, totals: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    totals += [0.5, 0.7]
    run, told = tmp_path / "run", []
    obligatory = AbawCLI._required_callbacks
    save = BestCheckpoint._save_checkpoint

    def broken(self: BestCheckpoint, trainer: Trainer, path: str) -> None:
        if trainer.global_step == 2 * N_BATCHES:
            raise Broken
        save(self, trainer, path)

    with monkeypatch.context() as patch:
        patch.setattr(BestCheckpoint, "_save_checkpoint", broken)
        with pytest.raises(Broken):
            main(words(run))
    look = Callback()
    look.on_train_start = lambda *args: told.append(speak_of(run))  # type: ignore[method-assign]
    monkeypatch.setattr(AbawCLI, "_required_callbacks", lambda *args: [*obligatory(*args), look])
    totals += [0.7, 0.6]
    assert main(words(run, "--ckpt_path=last")) == 0
    assert told == [(N_BATCHES, 0.5, 0.5)]
    assert speak_of(run) == (2 * N_BATCHES, 0.7, 0.7)


@pytest.fixture(scope="module")
def trained(words: Words, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a checkpoint of every step of its first epoch."""
    run = tmp_path_factory.mktemp("runs") / "trained"
    keep = ["--checkpoint.every_n_steps=1", "--checkpoint.keep=9"]
    assert main(words(run, *keep, "--trainer.max_epochs=1")) == 0
    return run


def snapshot(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Every file of a run: what it holds and when it was written."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


CHANGES = {  # option: what the message says of it
    "--model.optimizer.lr=0.01": "model.optimizer.lr: the run was trained with 0.001, now it is 0.01",
    "--model.optimizer.schedule=constant": 'schedule: the run was trained with "cosine", now',
    "--model.optimizer.warmup=0.2": "model.optimizer.warmup",
    "--model.optimizer.weight_decay=0.5": "model.optimizer.weight_decay",
    "--model.loss.expr_weights=inverse": "model.loss.expr_weights",
    "--model.loss.task_weights={va: 2}": "model.loss.task_weights",
    "--data.batch_size=1": "data.batch_size: the run was trained with 2, now it is 1",
    "--seed_everything=1": "seed_everything",
    "--data.windows.balance=0.5": "data.windows.balance",
    "--data.windows.jitter=false": "data.windows.jitter: the run was trained with true, now it is false",
    "--data.windows.stride=8": "data.windows.stride",
    "--model.masking=null": 'model.masking: the run was trained with {"ratio": 0.75, ',
    "--model.temporal.layers=2": "model.temporal.layers",
    "--trainer.accumulate_grad_batches=2": "trainer.accumulate_grad_batches",
    "--trainer.precision=bf16-mixed": "trainer.precision",
    "--trainer.callbacks.decay=0.5": "trainer.callbacks.EMA.decay",
}


@pytest.mark.parametrize("place", ["in mid-epoch", "at the end of an epoch"])
@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_setting_is_refused_and_changes_nothing(
    change: str, place: str, words: Words, trained: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    checkpoint = trained / f"checkpoints/step-{2 if 'mid' in place else N_BATCHES:09d}.ckpt"
    before = snapshot(trained)
    assert main(words(trained, change, f"--ckpt_path={checkpoint}")) == 2
    assert snapshot(trained) == before
    said = capfd.readouterr().err
    assert CHANGES[change] in said
    assert f"--init_from {checkpoint}" in said
    assert len(said.strip().splitlines()) <= 3


def relabelled(root: Path, folder: Path, *, fewer: bool) -> str:
    """The option that takes other annotations: one training video fewer, or other expressions."""
    paths = sorted(path.relative_to(root) for path in root.rglob("*.txt") if "Set" in str(path))
    dropped = next(path.name for path in paths if "Train" in str(path))
    for path in paths:
        lines = (root / path).read_text().splitlines()
        if "Train" in str(path) and "EXPR" in str(path) and not fewer:
            lines[1:] = [{"0": "1", "1": "0"}.get(line.strip(), line) for line in lines[1:]]
        if fewer and path.name == dropped:
            continue
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text("\n".join(lines) + "\n")
    return f"--data.source.annotations={folder}"


@pytest.mark.parametrize("place", ["in mid-epoch", "at the end of an epoch"])
@pytest.mark.parametrize("other", ["labels", "windows", "processes"])
def test_other_data_is_refused_and_changes_nothing(
    other: str,
    place: str,
    words: Words,
    trained: Path,
    synth_root: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """What no setting tells: class weights, the number of windows and that of processes."""
    run = shutil.copytree(trained, tmp_path / "run")
    path = run / f"checkpoints/step-{2 if 'mid' in place else N_BATCHES:09d}.ckpt"
    more, says = [], "trainer.devices, the number of processes of all nodes: the run was trained with 2, now"
    if other == "processes":
        checkpoint = load_checkpoint(path)
        checkpoint["loops"]["fit_loop"]["state_dict"]["combined_loader"][0]["world_size"] = 2
        torch.save(checkpoint, path)
    else:
        more = [relabelled(synth_root, tmp_path / "labels", fewer=other == "windows")]
        says = "model.loss.expr_weights" if other == "labels" else "the number of training windows"
    before = snapshot(run)
    assert main(words(run, *more, f"--ckpt_path={path}")) == 1
    assert snapshot(run) == before
    said = capfd.readouterr().err
    assert says in said
    assert "--init_from" in said


def test_a_checkpoint_without_settings_is_compared_with_its_run_s_configuration(
    words: Words, trained: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = shutil.copytree(trained, tmp_path / "run")
    checkpoint = load_checkpoint(run / "checkpoints/last.ckpt")
    del checkpoint["abaw"]["settings"]
    torch.save(checkpoint, run / "checkpoints/last.ckpt")
    assert main(words(run, "--ckpt_path=last", "--model.optimizer.lr=0.01")) == 2
    assert "model.optimizer.lr" in capfd.readouterr().err
    assert main(words(run, "--ckpt_path=last", "--trainer.max_epochs=2")) == 0


@pytest.mark.parametrize(
    ("end", "says"),
    [
        ("--trainer.max_epochs=0", "has begun epoch 1 already, and the training is to end after 0"),
        ("--trainer.max_steps=1", f"has made step {N_BATCHES} already, and the training is to end after 1"),
    ],
)
def test_an_end_that_is_past_is_refused(
    end: str, says: str, words: Words, trained: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = snapshot(trained)
    assert main(words(trained, end, "--ckpt_path=last")) == 2
    assert says in capfd.readouterr().err
    assert snapshot(trained) == before


@pytest.mark.parametrize("bad", [{"every_n_steps": 0}, {"every_n_minutes": 0}, {"keep": 0}])
def test_settings_out_of_range_are_named(bad: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=rf"checkpoint\.{next(iter(bad))} is "):
        LastCheckpoint("folder", **bad)


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"w": torch.ones(3)}, "/w"),
        ({"w": torch.zeros(3, dtype=torch.float64)}, "/w"),
        ({"more": 1}, ": ['more']"),
        ({"steps": [1, 3]}, "/steps/1"),
    ],
)
def test_differences_are_found(change: dict[str, Any], found: str) -> None:
    """What all of this rests on."""
    one = {"w": torch.zeros(3), "steps": [1, 2], "dirpath": "a"}
    assert not list(differences(one, one | {"dirpath": "b"}))
    assert list(differences(one | change, one)) == [found]


@pytest.mark.slow
def test_a_killed_training_ends_as_one_left_alone(
    words: Words, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A short form of `python -m tests.faults.kill_and_resume`."""
    long = [
        "--data.workers=2",
        "--data.windows.stride=1",
        "--data.batch_size=1",
        "--trainer.limit_train_batches=60",
    ]
    options = words(tmp_path, *long, "--checkpoint.every_n_steps=2")[1:]
    assert kill_and_resume(options, tmp_path, runs=3) > 0
    print(capsys.readouterr().out)
