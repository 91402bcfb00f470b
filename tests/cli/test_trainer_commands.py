"""The trainer subcommands from end to end, on generated data, through the command line."""

import ast
import csv
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import torch
import yaml
from lightning.fabric.plugins.environments import SLURMEnvironment
from lightning.pytorch import Trainer
from lightning.pytorch.cli import LightningCLI

import abaw
from abaw.__main__ import main
from abaw.cli import trainer_commands
from abaw.cli.trainer_commands import AbawCLI
from abaw.errors import UsageError
from abaw.evaluation.track_metadata import read_metadata
from abaw.model.checkpoints import load_checkpoint, network_weights, weights_fingerprint
from abaw.training.module import AffectModule
from abaw.training.run_directory import SaveConfig
from abaw.training.run_files import Run
from tests.support.project import PROJECT
from tests.support.tiny_run import tiny_config

Command = Callable[..., list[str]]


@pytest.fixture(scope="module")
def command(synth_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Command:
    """Makes the words of a tiny training: `command("fit", run, "--more", "words")`."""
    configs = tiny_config(tmp_path_factory.mktemp("config"), trainer={"limit_train_batches": 3})

    def make(subcommand: str, run: Path, *more: str) -> list[str]:
        return [subcommand, *configs, f"--run={run}", f"--data.root={synth_root}", *more]

    return make


@pytest.fixture(scope="module")
def run(command: Command, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run; tests add results to it but train nothing there."""
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    assert main(command("fit", folder)) == 0
    return folder


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Trainer]]:
    """`fit` stops where training would begin; the trainers that were made are here."""
    trainers: list[Trainer] = []
    monkeypatch.setattr(AbawCLI, "_run_subcommand", lambda cli, _: trainers.append(cli.trainer))
    return trainers


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_run_directory_holds_what_is_promised(run: Path) -> None:
    names = {str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()}
    assert {"config.yaml", "metrics.csv", "scores.json"} <= names
    assert {"checkpoints/best.ckpt", "checkpoints/last.ckpt"} <= names
    assert not any(name.endswith(".tmp") or "version_" in name for name in names)
    scores = json.loads((run / "scores.json").read_text())
    assert {"va", "expr", "au", "total"} <= set(scores)
    logged = rows(run / "metrics.csv")
    assert {"train/loss", "val/score", "val/va", "val/expr", "val/au"} <= set(logged[0])
    assert [row["val/score"] for row in logged if row["val/score"]]
    assert any(name.startswith("lr-") for name in logged[0])


def test_the_saved_configuration_is_whole_and_serves_again(
    run: Path, built: list[Trainer], tmp_path: Path
) -> None:
    saved = yaml.safe_load((run / "config.yaml").read_text())
    assert saved["data"]["tasks"] == ["va", "expr", "au"]
    assert saved["run"] == str(run)
    assert saved["ckpt_path"] is None
    assert main(["fit", f"--config={run / 'config.yaml'}", f"--run={tmp_path / 'again'}"]) == 0
    assert len(built) == 1


@pytest.mark.parametrize("subcommand", ["validate", "test"])
def test_scoring_uses_the_best_checkpoint_and_the_run_s_own_configuration(
    run: Path, subcommand: str, capfd: pytest.CaptureFixture[str]
) -> None:
    before, n_rows = (run / "scores.json").read_bytes(), len(rows(run / "metrics.csv"))
    changed = {"data.evaluation.test_split": "val"} if subcommand == "test" else {}
    words = [f"--{name}={value}" for name, value in changed.items()]
    assert main([subcommand, f"--run={run}", *words]) == 0
    own = json.loads((run / f"scores-{'val' if subcommand == 'validate' else subcommand}.json").read_text())
    assert own["total"] == pytest.approx(json.loads(before)["total"], abs=1e-6)
    assert f"{own['total']:.4f}" in capfd.readouterr().out
    assert set(own) - set(json.loads(before)) == {"split", "checkpoint", "settings"}
    assert (own["split"], own["settings"]) == ("val", changed)
    assert own["checkpoint"] == str(run / "checkpoints/best.ckpt")
    assert len(rows(run / "metrics.csv")) == n_rows  # the curves and the best scores are the training's
    assert (run / "scores.json").read_bytes() == before


def test_scores_under_other_settings_say_so_and_leave_those_of_the_training(run: Path) -> None:
    before = (run / "scores.json").read_bytes()
    assert main(["validate", f"--run={run}", "--data.evaluation.drop_frames=0.5"]) == 0
    own = json.loads((run / "scores-val.json").read_text())
    assert own["settings"] == {"data.evaluation.drop_frames": 0.5}
    assert own["total"] != json.loads(before)["total"]
    assert (run / "scores.json").read_bytes() == before


def test_a_test_without_test_labels_is_refused(run: Path, capfd: pytest.CaptureFixture[str]) -> None:
    before = {path: path.read_bytes() for path in run.glob("*.json")}
    assert main(["test", f"--run={run}"]) == 1
    assert "no test labels of va, expr, au in this data set" in capfd.readouterr().err
    assert {path: path.read_bytes() for path in run.glob("*.json")} == before


def test_predict_writes_a_track_per_video(run: Path) -> None:
    assert main(["predict", f"--run={run}"]) == 0
    tracks = sorted((run / "tracks").glob("*.parquet"))
    assert tracks
    table = pd.read_parquet(tracks[0])
    assert list(table["frame"]) == list(range(1, len(table) + 1))
    assert {"seen", "valence", "arousal", "expr_Neutral", "AU26"} <= set(table.columns)


def test_a_taken_directory_is_refused_with_both_cures(
    run: Path, command: Command, capfd: pytest.CaptureFixture[str]
) -> None:
    before = (run / "checkpoints/last.ckpt").read_bytes()
    assert main(command("fit", run)) == 2
    said = capfd.readouterr().err
    assert "--run" in said
    assert "--ckpt_path last" in said
    assert main(command("fit", run, f"--ckpt_path={run.parent / 'elsewhere.ckpt'}")) == 1
    assert (run / "checkpoints/last.ckpt").read_bytes() == before


def test_last_starts_and_continues(
    command: Command, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    once = command("fit", tmp_path / "run", "--ckpt_path=last")
    assert main(once) == 0  # nothing there yet: a job's script need not tell the first start from the next
    said = f"{tmp_path / 'run'}: holds no checkpoint; starting a new training"
    assert caplog.messages.count(said) == 1
    first = rows(tmp_path / "run/metrics.csv")
    assert main([*once, "--trainer.max_epochs=2"]) == 0
    both = rows(tmp_path / "run/metrics.csv")
    assert [row["step"] for row in both[: len(first)]] == [row["step"] for row in first]
    assert len(both) > len(first)
    assert caplog.messages.count(said) == 1
    assert max(int(row["epoch"]) for row in both if row["epoch"]) == 1
    saved = yaml.safe_load((tmp_path / "run/config.yaml").read_text())
    assert saved["trainer"]["max_epochs"] == 2


def test_a_damaged_last_falls_back(command: Command, run: Path, tmp_path: Path) -> None:
    for name in ("checkpoints", "checkpoints/step"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
    folder = tmp_path / "run" / "checkpoints"
    folder.mkdir(parents=True)
    whole = (run / "checkpoints/last.ckpt").read_bytes()
    (folder / "step-000000003.ckpt").write_bytes(whole)
    (folder / "last.ckpt").write_bytes(whole[: len(whole) // 2])
    with pytest.warns(UserWarning, match=r"last\.ckpt: damaged"):
        assert main(command("fit", tmp_path / "run", "--ckpt_path=last", "--trainer.max_epochs=2")) == 0


def test_the_command_line_beats_the_checkpoint(
    command: Command, run: Path, built: list[Trainer], tmp_path: Path
) -> None:
    """Lightning would parse a checkpoint's settings over the command line, unless its path is taken out."""
    assert callable(LightningCLI._parse_ckpt_path)
    planted = torch.load(run / "checkpoints/best.ckpt", weights_only=True)
    planted["hyper_parameters"] = {"optimizer": {"lr": 0.123}}
    del planted["abaw"]["settings"]  # as of an older version, of which nothing is refused
    torch.save(planted, tmp_path / "planted.ckpt")
    words = command(
        "fit", tmp_path / "run", f"--ckpt_path={tmp_path / 'planted.ckpt'}", "--model.optimizer.lr=0.5"
    )
    with pytest.warns(UserWarning, match="holds no settings to compare with those given"):
        assert main(words) == 0
    assert built[0].callbacks  # built, not refused
    record = next(callback for callback in built[0].callbacks if isinstance(callback, SaveConfig))
    assert yaml.safe_load(record.config)["model"]["optimizer"]["lr"] == 0.5


MISTAKES = {
    "a misspelt option": (
        ["--data.batch_szie=3"],
        2,
        ["--data.batch_szie", "did you mean --data.batch_size?"],
    ),
    "a misspelt key in a file": (["--config={typo}"], 2, ["model.optimizer.lrr", "model.optimizer.lr?"]),
    "a misspelt key of a part that may be null": (
        ["--model.masking.ration=0.5"],
        2,
        ["abaw: fit: there is no option 'model.masking.ration'; did you mean ratio?"],
    ),
    "a seed that generators refuse": (["--seed_everything=-3"], 2, ["seed_everything", "-3"]),
    "a missing file": (["--config=nowhere.yaml"], 2, ["nowhere.yaml"]),
    "no YAML": (["--config={broken}"], 2, ["broken.yaml:2: is not YAML"]),
    "a value of the wrong kind": (["--model.optimizer.lr=fast"], 2, ["model.optimizer.lr", "fast"]),
    "a value out of range": (["--model.masking.ratio=1.5"], 2, ["masking.ratio", "1.5"]),
    "an unknown task": (["--data.tasks=[va,emotion]"], 2, ["emotion", "va, expr, au"]),
    "one task, not in a list": (["--data.tasks=va"], 2, ["data.tasks: takes a list, such as [va]; got va"]),
    "no network and no length": (["--model.backbone=null"], 2, ["abaw: model.backbone is null", "model.dim"]),
    "a fact given twice": (["--model.tasks=[va]"], 2, ["data.tasks"]),
    "a precision that cannot train": (["--trainer.precision=bf16-true"], 2, ["bf16-mixed"]),
    "an average that is lost": (
        ["--trainer.callbacks=StochasticWeightAveraging", "--trainer.callbacks.swa_lrs=0.1"],
        2,
        ["StochasticWeightAveraging", "abaw.training.callbacks.EMA"],
    ),
    "an unknown strategy": (["--trainer.strategy=fast"], 2, ["fast", "ddp"]),
    "a missing folder": (["--data.root={missing}"], 1, ["missing", "no such"]),
    "no folder": (["--data.root=null"], 2, ["--data.root", "ABAW_ROOT"]),
    "a missing checkpoint": (["--ckpt_path={missing}/a.ckpt"], 1, ["a.ckpt", "no such checkpoint"]),
    "no checkpoint": (["--ckpt_path={typo}"], 1, ["typo.yaml", "not a checkpoint"]),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_get_one_message_and_no_traceback(
    name: str, command: Command, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words, code, says = MISTAKES[name]
    files = {
        "typo": tmp_path / "typo.yaml",
        "broken": tmp_path / "broken.yaml",
        "missing": tmp_path / "missing",
    }
    files["typo"].write_text("model: {optimizer: {lrr: 1.0e-3}}\n")
    files["broken"].write_text("model: [\n")
    assert main(command("fit", tmp_path / "run", *(word.format(**files) for word in words))) == code
    error = capfd.readouterr().err
    message = error[error.index("abaw: ") :]
    assert "Traceback" not in error
    assert len(message.splitlines()) <= 6, message
    for word in says:
        assert word in message


@pytest.mark.parametrize("subcommand", ["validate", "test", "predict"])
def test_without_a_checkpoint_there_is_nothing_to_evaluate(
    subcommand: str, command: Command, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(command(subcommand, tmp_path / "run")) == 1
    assert "best.ckpt" in capfd.readouterr().err
    assert main([subcommand, "--data.root", "x"]) == 2
    assert "--config" in capfd.readouterr().err


def test_a_checkpoint_of_another_network_is_refused(
    run: Path, command: Command, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(command("validate", run, "--model.temporal.width=32")) == 2
    error = capfd.readouterr().err
    assert "another network" in error
    assert "Traceback" not in error


def test_ctrl_c_is_130(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(AffectModule, "training_step", interrupted)
    assert main(command("fit", tmp_path / "run")) == 130
    command_again = f"abaw: interrupted; continue with: abaw fit --run {tmp_path}/run --ckpt_path last"
    assert capfd.readouterr().err.rstrip().endswith(command_again)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sent", "code", "says"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 75, "--ckpt_path last")]
)
def test_a_signal_ends_a_run_in_order(
    sent: signal.Signals, code: int, says: str, command: Command, tmp_path: Path
) -> None:
    words = command("fit", tmp_path / "run", "--trainer.max_epochs=1000", "--data.workers=2")
    heeded = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # a shell's background jobs ignore it
    with subprocess.Popen(
        [sys.executable, "-m", "abaw", *words], stderr=subprocess.PIPE, text=True, preexec_fn=heeded
    ) as process:
        while not (tmp_path / "run/checkpoints/last.ckpt").exists():
            assert process.poll() is None
            time.sleep(0.2)
        process.send_signal(sent)
        _, error = process.communicate(timeout=600)
    assert process.returncode == code
    assert says in error.splitlines()[-1]
    assert "Traceback" not in error


def test_a_run_has_its_callbacks_whatever_the_configuration_says(
    command: Command, built: list[Trainer], tmp_path: Path
) -> None:
    assert main(command("fit", tmp_path / "run", "--trainer.use_distributed_sampler=true")) == 0
    (trainer,) = built
    names = {type(callback).__name__ for callback in trainer.callbacks}
    wanted = {"BestCheckpoint", "LastCheckpoint", "ScoreWriter", "LearningRateMonitor", "SaveConfig"}
    assert wanted | {"NonFiniteGuard", "FeatureCheck"} <= names
    assert "EMA" in names  # the file's own stays
    assert trainer._accelerator_connector.use_distributed_sampler is False
    assert trainer.default_root_dir == str(tmp_path / "run")
    assert type(trainer.strategy.checkpoint_io).__name__ == "AtomicCheckpointIO"


@pytest.mark.parametrize(("given", "kind"), [("1", int), ("1.0", float)])
def test_one_batch_is_not_all_of_them(
    given: str, kind: type, command: Command, built: list[Trainer], tmp_path: Path
) -> None:
    assert main(command("fit", tmp_path / "run", f"--trainer.limit_val_batches={given}")) == 0
    assert type(built[0].limit_val_batches) is kind


def test_fast_dev_run_leaves_nothing_behind(command: Command, tmp_path: Path) -> None:
    assert main(command("fit", tmp_path / "run", "--trainer.fast_dev_run=true")) == 0
    assert not (tmp_path / "run").exists()


def test_under_slurm_the_job_script_requeues(
    command: Command, built: list[Trainer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slurm = {"NTASKS": "1", "NTASKS_PER_NODE": "1", "JOB_ID": "7", "JOB_NAME": "train", "PROCID": "0"}
    slurm |= {"LOCALID": "0", "NODEID": "0", "NODELIST": "node1"}
    for name, value in slurm.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    assert main(command("fit", tmp_path / "run")) == 0
    environment = built[0]._accelerator_connector.cluster_environment
    assert isinstance(environment, SLURMEnvironment)
    assert environment.auto_requeue is False


def test_fewer_processes_than_devices_are_refused(tmp_path: Path) -> None:
    trainer: Any = SimpleNamespace(num_nodes=2, num_devices=4, world_size=1)
    with pytest.raises(UsageError, match=r"4 devices on 2 nodes .* 1 processes .*--ntasks-per-node=4"):
        SaveConfig(Run(tmp_path), "{}").setup(trainer, None, "fit")  # type: ignore[arg-type]


@pytest.mark.slow
def test_two_processes_train_and_validate_as_one(command: Command, tmp_path: Path) -> None:
    two = [f"--config={PROJECT / 'configs/ddp.yaml'}", "--trainer.accelerator=cpu", "--trainer.devices=2"]
    totals = []
    for subcommand, more in (("fit", two), ("validate", two), ("validate", [])):
        words = command(subcommand, tmp_path / "run", *more)
        done = subprocess.run(
            [sys.executable, "-m", "abaw", *words], capture_output=True, text=True, timeout=600
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("\ntotal ") == 1  # one process speaks
        file = f"scores{'' if subcommand == 'fit' else '-val'}.json"
        totals.append(json.loads((tmp_path / "run" / file).read_text())["total"])
    assert totals == pytest.approx([totals[0]] * 3, abs=1e-6)


def test_tracks_on_disk_score_as_validation_did(
    run: Path, synth_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["validate", f"--run={run}"]) == 0
    assert main(["predict", f"--run={run}"]) == 0
    capsys.readouterr()
    assert main(["score", str(run / "tracks"), str(synth_root), "--json"]) == 0
    scored = json.loads(capsys.readouterr().out)
    validated = json.loads((run / "scores-val.json").read_text())
    assert scored["total"] == pytest.approx(validated["total"], abs=1e-6)
    assert scored["va"]["frames"] == validated["va"]["frames"]
    mean = tmp_path / "mean"
    assert main(["ensemble", str(run / "tracks"), str(run / "tracks"), str(mean), "--weights", "1", "3"]) == 0
    capsys.readouterr()
    assert main(["score", str(mean), str(synth_root), "--draws=0", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["total"] == pytest.approx(scored["total"], abs=1e-6)


@pytest.fixture
def other_weights(run: Path, tmp_path: Path) -> Path:
    """A checkpoint of the run's network with other weights."""
    content = load_checkpoint(run / "checkpoints/best.ckpt")
    content["state_dict"] = {
        name: tensor * 1.01 if tensor.is_floating_point() else tensor
        for name, tensor in content["state_dict"].items()
    }
    torch.save(content, tmp_path / "other.ckpt")
    return tmp_path / "other.ckpt"


def test_a_folder_takes_the_tracks_of_one_checkpoint(
    run: Path, other_weights: Path, synth_root: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["predict", f"--run={run}"]) == 0
    files = {path: path.read_bytes() for path in (run / "tracks").iterdir()}
    first = min(files)
    made_by = read_metadata(first)
    assert made_by is not None
    content = load_checkpoint(run / "checkpoints/best.ckpt")
    assert made_by.weights == weights_fingerprint(network_weights(content))
    assert (made_by.run, made_by.version) == (str(run), abaw.__version__)
    assert made_by.settings == {**content["abaw"]["windows"], "drop_frames": 0}
    for change in (f"--ckpt_path={other_weights}", "--data.evaluation.drop_frames=0.5"):
        capfd.readouterr()
        assert main(["predict", f"--run={run}", change]) == 1
        error = capfd.readouterr().err
        assert f"{first.stem} of {run} (weights {made_by.weights[:12]}, " in error
        assert "remove or rename the folder first" in error
        assert {path: path.read_bytes() for path in (run / "tracks").iterdir()} == files
    tracks, root = str(run / "tracks"), str(synth_root)
    assert main(["calibrate", tracks, root, f"--ckpt={other_weights}"]) == 1
    assert f"not of {other_weights} (weights " in capfd.readouterr().err
    assert "calibration" not in load_checkpoint(other_weights)["abaw"]
    other = tmp_path / "run"
    options = [f"--config={run / 'config.yaml'}", f"--run={other}", f"--ckpt_path={other_weights}"]
    assert main(["predict", *options]) == 0
    (other / "tracks" / first.name).write_bytes(files[first])
    for words in (["score", str(other / "tracks"), root], ["calibrate", str(other / "tracks"), root]):
        capfd.readouterr()
        assert main(words) == 1
        assert f"holds tracks of different checkpoints or settings: {first.stem} of" in capfd.readouterr().err


def test_a_calibration_is_stored_with_the_checkpoint_and_applied_on_request(
    run: Path, synth_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["predict", f"--run={run}"]) == 0
    tracks, root, checkpoint = str(run / "tracks"), str(synth_root), tmp_path / "best.ckpt"
    checkpoint.write_bytes((run / "checkpoints/best.ckpt").read_bytes())
    assert main(["score", tracks, root, f"--calibration={checkpoint}"]) == 1
    assert "abaw calibrate" in capsys.readouterr().err
    kept = tmp_path / "calibration.json"
    assert main(["calibrate", tracks, root, f"--ckpt={checkpoint}", f"--out={kept}", "--folds=2"]) == 0
    assert load_checkpoint(checkpoint)["abaw"]["calibration"] == json.loads(kept.read_text())
    capsys.readouterr()
    scores: list[dict[str, Any]] = []
    validated = sorted(json.loads(kept.read_text())["chosen_on"])
    assert validated
    for stored in (checkpoint, kept):
        assert main(["score", tracks, root, f"--calibration={stored}", "--json", "--draws=0"]) == 0
        scores.append(json.loads(capsys.readouterr().out))
        assert scores[-1].pop("calibration") == {"path": str(stored), "chosen_on": validated}
    assert scores[0] == scores[1]
    assert main(["score", tracks, root, f"--calibration={kept}", f"--against={tracks}", "--draws=9"]) == 0
    said = capsys.readouterr().out
    n_videos = len(validated)
    assert f"optimistic: the calibration was fitted on {n_videos} of these {n_videos} videos" in said
    assert f"{tracks} calibrated" in said
    assert main(["score", tracks, root, f"--against={tracks}", "--draws=9"]) == 0
    assert "optimistic" not in capsys.readouterr().out


def test_private_names_of_other_packages_are_listed() -> None:
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in (PROJECT / "abaw").rglob("*.py")]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    attributes = [node for node in nodes if isinstance(node, ast.Attribute)]
    private = {node.attr for node in attributes if node.attr.startswith("_") and node.attr[1] != "_"}
    ours = {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    ours |= {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    ours |= {
        node.attr
        for node in attributes
        if isinstance(node.ctx, ast.Store) and isinstance(node.value, ast.Name) and node.value.id == "self"
    }
    listed = set((trainer_commands.__doc__ or "").replace(",", " ").split())
    assert private - ours - {"_exit"} <= listed  # os._exit is documented
    assert {"_parser", "_typehint"} <= private - ours
