"""Which settings a resumed training keeps, and how a changed one is named."""

import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch

from abaw.data.index import build_index
from abaw.data.layout import DataSource
from abaw.errors import AbawError, UsageError
from abaw.training.run_directory import (
    changed_settings,
    fixed_settings,
    git_state,
    provenance,
    refuse_changes,
    trained_settings,
)

EMA: dict[str, Any] = {"class_path": "abaw.training.callbacks.EMA", "init_args": {"decay": 0.5}}
BAR: dict[str, Any] = {"class_path": "lightning.pytorch.callbacks.TQDMProgressBar"}


def changed(trained: dict[str, Any], now: dict[str, Any], default: dict[str, Any] | None = None) -> str:
    """The first line of the message; empty where nothing is refused."""
    try:
        refuse_changes(
            Path("a.ckpt"), fixed_settings(trained), fixed_settings(now), fixed_settings(default or {})
        )
    except UsageError as error:
        return str(error).splitlines()[0]
    return ""


@pytest.mark.parametrize(
    ("trained", "now"),
    [
        (
            {"run": "a", "data": {"root": "a", "workers": 1}},
            {"run": "b", "data": {"root": "b", "workers": 2}},
        ),
        ({"trainer": {"max_epochs": 1}}, {"trainer": {"max_epochs": 2}}),
        ({"data": {"features": ["a", "b"]}}, {"data": {"features": ["c", "d"]}}),
        ({"trainer": {"callbacks": [EMA]}}, {"trainer": {"callbacks": [BAR, EMA]}}),
        ({"trainer": {"callbacks": EMA}}, {"trainer": {"callbacks": [EMA]}}),
        ({"nonfinite": {"action": "stop"}}, {"nonfinite": {"action": "skip"}}),
        ({"data": {"gone": 1}}, {"data": {}}),  # options that only one version has
        ({"data": {}}, {"data": {"unheard_of": 1}}),
    ],
)
def test_what_may_change(trained: dict[str, Any], now: dict[str, Any]) -> None:
    assert not changed(trained, now)


@pytest.mark.parametrize(
    ("trained", "now", "named"),
    [
        ({"a": 1}, {"a": 2}, "a: the run was trained with 1, now it is 2"),
        (
            {"a": {"b": None}},
            {"a": {"b": {"c": 1}}},
            'a.b: the run was trained with null, now it is {"c": 1}',
        ),
        (
            {"trainer": {"limit_train_batches": 1}},
            {"trainer": {"limit_train_batches": 1.0}},
            "with 1, now it is 1.0",
        ),
        ({"data": {"features": None}}, {"data": {"features": ["a"]}}, "data.features: "),
        ({"data": {"features": ["a", "b"]}}, {"data": {"features": ["a"]}}, "data.features: "),
        (
            {"trainer": {"callbacks": [EMA]}},
            {"trainer": {"callbacks": None}},
            "trainer.callbacks.EMA: ",
        ),
        ({"trainer": {"callbacks": None}}, {"trainer": {"callbacks": [EMA]}}, "with none at all"),
        ({"trainer": {"callbacks": [EMA]}}, {"trainer": {"callbacks": [EMA, EMA]}}, "EMA 2: "),
        (
            {"model": {"backbone": {"overrides": {"depth": 1}}}},
            {"model": {"backbone": {"overrides": {}}}},
            'model.backbone.overrides: the run was trained with {"depth": 1}, now it is {}',
        ),
    ],
)
def test_what_is_refused(trained: dict[str, Any], now: dict[str, Any], named: str) -> None:
    assert named in changed(trained, now)


@pytest.mark.parametrize(
    ("now", "named"), [(0, ""), (1, "data.new: the run was trained with 0, now it is 1")]
)
def test_an_option_that_the_checkpoint_does_not_know_had_its_default(now: int, named: str) -> None:
    assert named in changed({"data": {}}, {"data": {"new": now}}, {"data": {"new": 0}})
    assert bool(named) == bool(changed({"data": {}}, {"data": {"new": now}}, {"data": {"new": 0}}))


def test_many_changes_are_counted() -> None:
    many = {str(n): 0 for n in range(9)}
    said = changed(many, dict.fromkeys(many, 1))
    assert said.count("the run was trained with") == 5
    assert "and 4 more" in said


def test_settings_under_earlier_names_are_the_same() -> None:
    given = {"window": 8, "stride": 4, "eval_window": None, "hide_frames": 0.0}
    stored = {"data": given, "trainer": {"callbacks": {}}}
    data = {"window": 8, "windows": {"stride": 4}, "evaluation": {"window": None, "drop_frames": 0.0}}
    trained = trained_settings(Path("a.ckpt"), {"abaw": {"settings": stored}})
    assert trained == fixed_settings({"data": data, "trainer": {"callbacks": None}})
    assert given["stride"] == 4  # the checkpoint itself stays


def test_settings_that_name_a_callback_by_its_earlier_name_are_the_same() -> None:
    stored = {"seed_everything": 0, "trainer": {"callbacks": {"MovingAverage": {"decay": 0.5}}}}
    trained = trained_settings(Path("a.ckpt"), {"abaw": {"settings": stored}})
    assert trained == fixed_settings({"seed_everything": 0, "trainer": {"callbacks": [EMA]}})


def test_an_evaluation_names_the_settings_that_the_run_was_not_trained_with(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(
        "run: a\ndata: {root: a, window: 3, features: null}\ntrainer: {limit_test_batches: 1}\n"
    )
    now = {"run": "b", "data": {"root": "b", "window": 3, "new": 0, "newer": 2, "features": ["c"]}}
    now |= {"trainer": {"limit_test_batches": 1.0}}
    default = {"data": {"new": 0, "newer": 1}}
    changed = {"data.root": "b", "data.features": ["c"], "data.newer": 2, "trainer.limit_test_batches": 1.0}
    assert changed_settings(config, now, default) == changed
    assert changed_settings(tmp_path / "none.yaml", now, default) is None


@pytest.mark.parametrize("text", ["- a", "a: [1", "a: \udcff", ""])
def test_a_configuration_that_cannot_be_read_is_named(text: str, tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(AbawError, match=r"config\.yaml: not a configuration .*; restore it, or remove it"):
        changed_settings(config, {}, {})


# -- what it ran on


def git(*words: str) -> None:
    author = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    subprocess.run(["git", *author, *words], check=True, capture_output=True)


def test_the_state_of_a_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.chdir(tmp_path)
    assert git_state() is None
    git("init")
    assert git_state() is None  # no commit
    Path("train.py").write_text("one")
    git("add", "train.py")
    git("commit", "-m", "first")
    state = git_state()
    assert state is not None
    assert len(state["commit"]) == 40
    assert state["changed"] == 0
    Path("train.py").write_text("two")
    Path("notes.txt").write_text("not followed")
    assert git_state() == state | {"changed": 1}
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git_state() is None  # no git


def test_versions_and_data(synth_root: Path) -> None:
    index = build_index(DataSource(synth_root))
    found = provenance(index, torch.device("cpu"))
    assert found["versions"]["torch"] == torch.__version__.partition("+")[0]
    assert found["data"] == {
        "fingerprint": index.fingerprint(),
        "videos": len(index),
        "frames": index.n_frames.sum(),
    }
    assert found["device"]
