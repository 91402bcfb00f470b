"""What version 0.1.0 left on disk still works: tests/data/v0_1/README.md says how it was made."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from pydoc import locate

import numpy as np
import pandas as pd
import pytest

import abaw
from abaw.__main__ import main
from abaw.data.frames import open_frames
from abaw.data.index import build_index
from abaw.data.layout import DataSource
from abaw.evaluation.tracks import read_track
from abaw.model.checkpoints import load_checkpoint
from abaw.training.checkpointing import CLASS_PATHS, by_current_class, with_current_class_paths
from tests.support.project import PROJECT
from tests.support.tiny_set import brightness, write_tiny_set

OLD = PROJECT / "tests" / "data" / "v0_1"
TRAINED = OLD / "run" / "checkpoints" / "last.ckpt"
Words = Callable[..., list[str]]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The data set that all of it was made from."""
    return write_tiny_set(tmp_path / "set")


@pytest.fixture
def words(root: Path, tmp_path: Path) -> Words:
    """A subcommand on a copy of the run, whose data set lies elsewhere by now."""
    run = shutil.copytree(OLD / "run", tmp_path / "run")
    places = [f"--run={run}", f"--data.root={root}", f"--data.cache_dir={tmp_path / 'cache'}"]
    return lambda verb, *more: [verb, *more, *places, "--ckpt_path=last"]


def test_a_checkpoint_predicts_what_it_did() -> None:
    frames = np.random.default_rng(0).integers(0, 256, (20, 16, 16, 3), dtype=np.uint8)
    found = abaw.load(TRAINED).predict_frames(frames)
    expected = pd.read_csv(OLD / "predict_frames.csv")
    assert list(found.columns) == [*expected.columns, "expression"]  # which is new
    np.testing.assert_allclose(found[list(expected)].to_numpy(float), expected.to_numpy(float), atol=1e-4)


def test_predict_writes_the_track_it_did(words: Words, tmp_path: Path) -> None:
    assert main(words("predict")) == 0
    found, expected = (pd.read_parquet(folder / "d_val.parquet") for folder in (tmp_path / "run/tracks", OLD))
    assert list(found.columns) == list(expected.columns)
    np.testing.assert_allclose(found.to_numpy(float), expected.to_numpy(float), atol=1e-4)
    assert read_track(OLD / "d_val.parquet").video == "d_val"


def test_validate_finds_the_scores_it_did(words: Words, tmp_path: Path) -> None:
    assert main(words("validate")) == 0
    found = json.loads((tmp_path / "run/scores-val.json").read_text())
    assert found["total"] == pytest.approx(
        json.loads((OLD / "run/scores.json").read_text())["total"], abs=1e-4
    )
    assert set(found["settings"]) == {"data.root", "data.cache_dir"}  # the class path says the same as before


def test_a_run_goes_on_with_its_average(words: Words, tmp_path: Path) -> None:
    more = ["--trainer.max_epochs=3", "--checkpoint.every_n_steps=1", "--checkpoint.keep=9"]
    with pytest.warns(UserWarning, match="was written by an earlier version"):
        assert main(words("fit", *more)) == 0
    before = load_checkpoint(TRAINED)
    after = load_checkpoint(tmp_path / "run/checkpoints/step-000000005.ckpt")
    for name, average in before["state_dict"].items():
        if name.startswith("network."):
            expected = average.lerp(after["current_model_state"][name], 0.1)
            np.testing.assert_allclose(after["state_dict"][name], expected, atol=1e-6)


@pytest.mark.parametrize("with_images", [True, False])
def test_a_training_reads_its_features(with_images: bool, root: Path, words: Words, tmp_path: Path) -> None:
    if not with_images:
        shutil.rmtree(root / "cropped_aligned")
    run, config = tmp_path / "new", OLD / "run/config.yaml"
    features = [f"--data.features=[{OLD / 'features'}]", "--model.backbone.frozen=all"]
    start = [f"--config={config}", f"--init_from={TRAINED}", "--trainer.max_epochs=1"]
    assert main([*words("fit", *start, *features), f"--run={run}"]) == 0
    assert load_checkpoint(run / "checkpoints/last.ckpt")["global_step"] == 2


def test_a_pack_shows_its_images(root: Path, tmp_path: Path) -> None:
    shutil.rmtree(root / "cropped_aligned")
    index = build_index(DataSource(root, image_roots=[OLD / "pack"], cache_dir=tmp_path / "cache"))
    frames = open_frames(index, size=16)
    for name, n_frames in (("b_train", 7), ("d_val", 5)):
        found = frames.read(index.videos.index(name), range(n_frames))
        assert found.visible.all()
        np.testing.assert_allclose(
            found.pixels.mean((1, 2, 3)), [brightness(k) for k in range(n_frames)], atol=3
        )


@pytest.mark.parametrize(("old", "new"), CLASS_PATHS.items())
def test_a_class_is_found_under_its_new_path(old: str, new: str) -> None:
    assert isinstance(locate(new), type)
    assert locate(old) is None
    assert (
        with_current_class_paths(f"- class_path: {old} # a remark\n") == f"- class_path: {new} # a remark\n"
    )


@pytest.mark.parametrize(
    "text",
    [
        "--run=runs/abaw.averaging.MovingAverage",
        "my.abaw.averaging.MovingAverage",
        "abaw.averaging.MovingAverages",
        "abaw.averaging.MovingAverage.decay",
        "lightning.pytorch.loggers.CSVLogger",
    ],
)
def test_other_text_stays(text: str) -> None:
    assert with_current_class_paths(text) == text


def test_states_stand_under_the_current_class() -> None:
    states = {"MovingAverage": {"latest_update_step": 4}, "EarlyStopping{'monitor': 'x'}": {}}
    assert by_current_class(states) == {"EMA": states["MovingAverage"], "EarlyStopping{'monitor': 'x'}": {}}
