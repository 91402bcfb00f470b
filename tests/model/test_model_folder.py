"""Model folders: the same predictions as the checkpoint, no code inside, clear errors."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import abaw
from abaw.errors import AbawError, UsageError
from abaw.evaluation.calibration import Calibration, Smoothing, store_calibration
from abaw.model.checkpoints import load_checkpoint
from abaw.model.model_folder import (
    CONFIG,
    WEIGHTS,
    is_hub_name,
    is_model_folder,
    read_model_folder,
    write_model_folder,
)
from abaw.tasks import VA
from tests.support.hub import hub_of
from tests.support.project import PROJECT
from tests.support.video_predictor import SIZE, video_checkpoint


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = video_checkpoint(tmp_path_factory.mktemp("model") / "best.ckpt")
    store_calibration(Calibration(smoothing={VA: Smoothing("box", 2)}), path)
    return path


@pytest.fixture
def folder(checkpoint: Path, tmp_path: Path) -> Path:
    loaded = load_checkpoint(checkpoint)
    loaded["abaw"]["settings"] = {"data": {"root": "/home/me"}}
    write_model_folder(loaded, tmp_path / "model", "# card\n")
    return tmp_path / "model"


def crops(n: int = 20) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, SIZE, SIZE, 3), dtype=np.uint8)


@pytest.mark.parametrize("calibrated", [False, True])
def test_it_predicts_as_the_checkpoint(checkpoint: Path, folder: Path, calibrated: bool) -> None:
    one, other = (
        abaw.load(path, device="cpu", calibrated=calibrated).predict_frames(crops())
        for path in (checkpoint, folder)
    )
    pd.testing.assert_frame_equal(one, other, check_exact=True)


def test_it_holds_plain_files_and_nothing_of_the_machine(folder: Path) -> None:
    assert {path.name for path in folder.iterdir()} == {"README.md", WEIGHTS, CONFIG}
    assert is_model_folder(folder)
    text = (folder / CONFIG).read_text(encoding="utf-8")
    assert "/home/me" not in text
    assert json.loads(text)["abaw"]["windows"]["window"] == 8
    header = int.from_bytes((folder / WEIGHTS).read_bytes()[:8], "little")
    assert "heads" in json.loads((folder / WEIGHTS).read_bytes()[8 : 8 + header]).__str__()


def test_a_folder_with_files_is_left_alone(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="already exists; name another folder"):
        write_model_folder(load_checkpoint(checkpoint), tmp_path, "")
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_an_attempt_that_failed_leaves_nothing(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*words: Any, **more: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "rename", full)
    with pytest.raises(AbawError, match="free the disk"):
        write_model_folder(load_checkpoint(checkpoint), tmp_path / "model", "")
    assert not list(tmp_path.iterdir())


def damaged(folder: Path, file: str, content: bytes) -> Path:
    (folder / file).write_bytes(content)
    return folder


@pytest.mark.parametrize(
    ("file", "content", "told"),
    [
        (CONFIG, b"{", f"{CONFIG}: not of a model of abaw"),
        (CONFIG, b'{"model_type": "bert"}', f"{CONFIG}: not of a model of abaw"),
        (CONFIG, b'{"abaw": {"format": 99}}', "has format 99, this abaw reads 1"),
        (WEIGHTS, b"nothing", f"{WEIGHTS}: missing or damaged"),
    ],
)
def test_a_damaged_folder_is_named(folder: Path, file: str, content: bytes, told: str) -> None:
    with pytest.raises(AbawError, match=told):
        read_model_folder(damaged(folder, file, content))


def test_a_name_is_of_the_hub_only_if_nothing_here_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert is_hub_name("lab/vit-b_affect.v2")
    for name in ("best.ckpt", "runs/mtl/best.ckpt", "/lab/model", "../model", "./model", "lab/"):
        assert not is_hub_name(name), name
    (tmp_path / "lab/model").mkdir(parents=True)
    assert not is_hub_name("lab/model")


def test_without_a_network_one_message_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*names: object, **more: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", unreachable)
    with pytest.raises(AbawError, match=r"lab/model: there is no such file or folder here.*no route to host"):
        abaw.load("lab/model")


@pytest.mark.slow
def test_a_model_of_the_hub_is_downloaded_once(folder: Path, tmp_path: Path) -> None:
    code = (
        "import abaw, numpy as np;"
        f"table = abaw.load('lab/model').predict_frames(np.full((9, {SIZE}, {SIZE}, 3), 90, np.uint8));"
        "print(table['valence'].sum())"
    )
    here = {"HF_HOME": str(tmp_path / "cache"), "PYTHONPATH": str(PROJECT), "HF_HUB_DISABLE_XET": "1"}
    here |= {"HF_HUB_OFFLINE": "0"}
    said = []
    with hub_of(folder, "lab/model") as address:
        for more in ({"HF_ENDPOINT": address}, {"HF_ENDPOINT": "http://127.0.0.1:9"}):
            done = subprocess.run(
                [sys.executable, "-c", code], env=os.environ | here | more, capture_output=True, text=True
            )
            assert done.returncode == 0, done.stderr
            said.append(done.stdout)
        strange = subprocess.run(
            [sys.executable, "-c", code.replace("lab/model", "lab/other")],
            env=os.environ | here | {"HF_ENDPOINT": address},
            capture_output=True,
            text=True,
        )
    assert said[0] == said[1]
    here_now = abaw.load(folder, device="cpu").predict_frames(np.full((9, SIZE, SIZE, 3), 90, np.uint8))
    assert float(said[0]) == pytest.approx(here_now["valence"].sum(), abs=1e-4)
    assert "lab/other: there is no such file or folder here" in strange.stderr


def test_the_tensors_are_those_of_the_network_alone(checkpoint: Path, folder: Path) -> None:
    names = {name.removeprefix("network.") for name in read_model_folder(folder)["state_dict"]}
    assert names == set(abaw.load(checkpoint, device="cpu").network.state_dict())
    assert all(isinstance(value, torch.Tensor) for value in read_model_folder(folder)["state_dict"].values())
