"""A new training that starts from the weights of another one's checkpoint, as far as they fit."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from lightning.pytorch import Callback, Trainer

from abaw.__main__ import main
from abaw.cli.trainer_commands import AbawCLI
from abaw.model.checkpoints import load_checkpoint
from abaw.training.checkpointing import current_option, with_current_options
from tests.support.tiny_run import tiny_config

NO_BACKBONE = ["--model.backbone=null", "--model.dim=192"]
Words = Callable[..., list[str]]


@pytest.fixture(scope="module")
def words(synth_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Words:
    """Trains all tasks: `words(run, "--more", "words")`."""
    configs = tiny_config(
        tmp_path_factory.mktemp("config"),
        over=None,
        model={"backbone": {"frozen": "all"}},
        trainer={
            "devices": 1,
            "limit_train_batches": 2,
            "limit_val_batches": 1,
            "num_sanity_val_steps": 0,
            "callbacks": [{"class_path": "abaw.training.callbacks.EMA", "init_args": {"decay": 0.5}}],
        },
    )
    return lambda run, *more: ["fit", *configs, f"--data.root={synth_root}", f"--run={run}", *more]


@pytest.fixture(scope="module")
def features(words: Words, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The option that takes cached features of the backbone."""
    option = f"--data.features=[{tmp_path_factory.mktemp('features')}]"
    assert main(["extract", *words(tmp_path_factory.mktemp("runs") / "extract", option)[1:]]) == 0
    return option


@pytest.fixture(scope="module")
def trained(words: Words, features: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A checkpoint of each kind."""
    runs = tmp_path_factory.mktemp("trained")
    kinds = {"images": [], "features": [features], "features alone": [features, *NO_BACKBONE]}
    for kind, more in kinds.items():
        assert main(words(runs / kind, *more)) == 0
    return {kind: runs / kind / "checkpoints/last.ckpt" for kind in kinds}


@pytest.fixture
def first_weights(monkeypatch: pytest.MonkeyPatch) -> dict[str, torch.Tensor]:
    """The weights of the network as training began."""
    weights: dict[str, torch.Tensor] = {}
    obligatory = AbawCLI._required_callbacks
    look = Callback()

    def note(trainer: Trainer, module: Any) -> None:
        if trainer.ckpt_path is None:
            assert trainer.global_step == trainer.current_epoch == 0
            assert not trainer.optimizers[0].state
        weights.update({f"network.{name}": w.clone() for name, w in module.network.state_dict().items()})

    look.on_train_start = note  # type: ignore[method-assign]
    monkeypatch.setattr(AbawCLI, "_required_callbacks", lambda *args: [look, *obligatory(*args)])
    return weights


CASES = {  # from, options, what is new, what is said
    "the same": ("images", [], (), ["tensors loaded: "]),
    "other tasks": (
        "images",
        ["--data.tasks=[au]"],
        (),
        ["heads.au 2", "not in the network: heads.va 2 (1.weight, 1.bias), heads.expr 2"],
    ),
    "another window": ("images", ["--data.window=12", "--data.windows.step=2"], (), []),
    "another head": (
        "images",
        ["--model.heads.hidden=5"],
        ("network.heads.",),
        ["of another shape, not loaded: heads.va 2", "not in the checkpoint: heads.va 2 (4.weight, 4.bias)"],
    ),
    "features on features": ("features", ["{features}"], (), ["tensors loaded: "]),
    "features on images": ("features", [], (), ["backbone "]),
    "features without backbone on images": (
        "features alone",
        [],
        ("network.backbone.",),
        ["not in the checkpoint: backbone 18 (", "and 14 more"],
    ),
    "images on features": ("images", ["{features}"], (), ["backbone "]),
    "images on features without backbone": (
        "images",
        ["{features}", *NO_BACKBONE],
        (),
        ["not in the network: backbone 18 ("],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_training_starts_from_a_checkpoint(
    case: str,
    words: Words,
    trained: dict[str, Path],
    features: str,
    first_weights: dict[str, torch.Tensor],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    source, more, new, said = CASES[case]
    path = trained[source]
    more = [features if word == "{features}" else word for word in more]
    assert main(words(tmp_path, *more, "--seed_everything=1", f"--init_from={path}")) == 0
    given, told = load_checkpoint(path)["state_dict"], caplog.text
    assert first_weights
    for name, weight in first_weights.items():
        same = name in given and torch.equal(weight, given[name])
        assert same != name.startswith(new), name
    for words_ in (f"{path}: ", *said):
        assert words_ in told
    assert told.count(f"{path}: ") == 1
    assert yaml.safe_load((tmp_path / "config.yaml").read_text())["init_from"] == str(path)
    assert load_checkpoint(tmp_path / "checkpoints/last.ckpt")["global_step"] == 2


def test_a_resumed_training_looks_for_no_other_weights(
    words: Words, trained: dict[str, Path], tmp_path: Path
) -> None:
    weights = tmp_path / "weights.ckpt"
    weights.write_bytes(trained["images"].read_bytes())
    run = words(tmp_path / "run", f"--model.backbone.weights={weights}")
    assert main(run) == 0
    weights.unlink()
    assert main([*run, "--ckpt_path=last", "--trainer.max_epochs=2"]) == 0


def test_pretrained_weights_are_asked_for_only_where_the_checkpoint_has_none(
    words: Words, trained: dict[str, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    nowhere = "--model.backbone.weights=nowhere.pt"
    assert main(words(tmp_path / "a", nowhere, f"--init_from={trained['images']}")) == 0
    assert main(words(tmp_path / "b", nowhere, f"--init_from={trained['features alone']}")) == 1
    assert "model.backbone.weights: no file nowhere.pt" in capfd.readouterr().err


@pytest.mark.parametrize("kind", ["not ours", "damaged", "missing", "other sizes"])
def test_what_cannot_be_started_from_is_refused(
    kind: str, words: Words, trained: dict[str, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.ckpt"
    if kind == "not ours":
        torch.save({"state_dict": {"network.a": torch.zeros(1)}}, path)
    elif kind == "damaged":
        path.write_bytes(trained["images"].read_bytes()[:1000])
    elif kind == "other sizes":
        checkpoint = load_checkpoint(trained["images"])
        checkpoint["state_dict"] = {n: w[None] for n, w in checkpoint["state_dict"].items()}
        torch.save(checkpoint, path)
    said = {"not ours": "not a checkpoint of abaw", "other sizes": "none of its 41 tensors matches"}
    assert main(words(tmp_path / "run", f"--init_from={path}")) == 1
    told = capfd.readouterr().err
    assert f"{path}: {said.get(kind, '')}" in told
    assert not (tmp_path / "run/config.yaml").exists()


@pytest.mark.parametrize(
    ("command", "more", "says"),
    [
        ("fit", ["--ckpt_path={path}"], "give one of them"),
        ("validate", ["--ckpt_path={path}"], "validate: --init_from is for fit"),
        ("extract", [], "extract: --init_from is for fit"),
    ],
)
def test_only_a_new_training_starts_from_weights(
    command: str,
    more: list[str],
    says: str,
    words: Words,
    trained: dict[str, Path],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    path = trained["images"]
    options = words(tmp_path, f"--init_from={path}", *(word.format(path=path) for word in more))[1:]
    assert main([command, *options]) == 2
    assert says in capfd.readouterr().err


def test_a_job_s_script_starts_from_weights_once(
    words: Words, trained: dict[str, Path], first_weights: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    """`--init_from FILE --ckpt_path last`: the second start resumes, and may leave the file out."""
    path = tmp_path / "a.ckpt"
    path.write_bytes(trained["images"].read_bytes())
    run, last, initial = tmp_path / "run", "--ckpt_path=last", f"--init_from={path}"
    assert main(words(run, last, initial)) == 0
    assert first_weights
    path.unlink()
    for epochs, more in ((2, [initial]), (3, [])):
        assert main(words(run, last, *more, f"--trainer.max_epochs={epochs}")) == 0
        assert load_checkpoint(run / "checkpoints/last.ckpt")["global_step"] == 2 * epochs
        assert yaml.safe_load((run / "config.yaml").read_text())["init_from"] == str(path)
    assert main(words(run, last, "--init_from=another.ckpt", "--trainer.max_epochs=4")) == 2


@pytest.mark.parametrize(
    ("settings", "current"),
    [
        ({"data": {"stride": 4, "window": 8}}, {"data": {"window": 8, "windows": {"stride": 4}}}),
        ({"data": {"augmentation": {"p_flip": 1}}}, {"data": {"loading": {"augmentation": {"p_flip": 1}}}}),
        ({"data": {"stride": 4, "windows": {"stride": 2}}}, {"data": {"windows": {"stride": 2}}}),
        ({"data": {"stride": 4, "windows": None}}, {"data": {"windows": None}}),
        ({"data": None, "stride": 1}, {"data": None, "stride": 1}),
        ({"seed_everything": 0}, {"seed_everything": 0}),
        ("text", "text"),
    ],
)
def test_settings_get_their_current_names(settings: Any, current: Any) -> None:
    assert with_current_options(settings) == current


@pytest.mark.parametrize(
    ("name", "current"),
    [
        ("data.eval_window", "data.evaluation.window"),
        ("data.augmentation.p_flip", "data.loading.augmentation.p_flip"),
        ("data.step", "data.windows.step"),
        ("data.window", "data.window"),
        ("data.steps", "data.steps"),
        ("data", "data"),
    ],
)
def test_options_get_their_current_names(name: str, current: str) -> None:
    assert current_option(name) == current
