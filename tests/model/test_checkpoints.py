"""Checkpoints: only whole ones of our own are read, and nothing in a file is ever executed."""

import os
from pathlib import Path

import pytest
import torch

from abaw.errors import AbawError
from abaw.model.checkpoints import (
    FORMAT,
    load_checkpoint,
    network_weights,
    newest_checkpoint,
    weights_fingerprint,
)
from abaw.model.network import Network
from abaw.training.checkpointing import AtomicCheckpointIO
from tests.support.project import PROJECT


def content(step: int = 0) -> dict:
    return {"abaw": {"format": FORMAT}, "state_dict": {"network.w": torch.full((1000,), float(step))}}


class Bomb:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.path),)


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    AtomicCheckpointIO().save_checkpoint(content(3), tmp_path / "a.ckpt")
    assert torch.equal(
        load_checkpoint(tmp_path / "a.ckpt")["state_dict"]["network.w"], torch.full((1000,), 3.0)
    )
    assert [path.name for path in tmp_path.iterdir()] == ["a.ckpt"]


def test_a_pickle_bomb_is_refused_unexploded(tmp_path: Path) -> None:
    torch.save({"abaw": {"format": FORMAT}, "state_dict": Bomb(tmp_path / "exploded")}, tmp_path / "b.ckpt")
    with pytest.raises(AbawError, match=r"b\.ckpt"):
        load_checkpoint(tmp_path / "b.ckpt")
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("kept", [0, 10, 2000, -1])
def test_a_cut_file_is_refused(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "c.ckpt"
    torch.save(content(), path)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(AbawError, match=r"c\.ckpt: damaged"):
        load_checkpoint(path)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"state_dict": {}}, "not a checkpoint of abaw"),
        ([1, 2], "not a checkpoint of abaw"),
        ({"abaw": {"format": FORMAT + 1}, "state_dict": {}}, f"format {FORMAT + 1}"),
    ],
)
def test_a_foreign_file_is_named_as_such(tmp_path: Path, wrong: object, says: str) -> None:
    torch.save(wrong, tmp_path / "d.ckpt")
    with pytest.raises(AbawError, match=says):
        load_checkpoint(tmp_path / "d.ckpt")


def test_a_missing_file_says_who_makes_them(tmp_path: Path) -> None:
    with pytest.raises(AbawError, match="abaw fit"):
        load_checkpoint(tmp_path / "none.ckpt")


def test_the_newest_whole_checkpoint_is_taken(tmp_path: Path) -> None:
    for step in (10, 20, 30):
        torch.save(content(step), tmp_path / f"step-{step:09d}.ckpt")
    os.link(tmp_path / "step-000000030.ckpt", tmp_path / "last.ckpt")
    assert newest_checkpoint(tmp_path) == tmp_path / "last.ckpt"
    with (tmp_path / "last.ckpt").open("r+b") as file:
        file.truncate(100)  # both names of it
    with pytest.warns(UserWarning, match=r"last\.ckpt.*the one before"):
        assert newest_checkpoint(tmp_path) == tmp_path / "step-000000020.ckpt"


def test_without_any_checkpoint_the_cure_is_named(tmp_path: Path) -> None:
    with pytest.raises(AbawError, match="without --ckpt_path last"):
        newest_checkpoint(tmp_path)


def test_a_network_of_0_1_0_keeps_its_fingerprint() -> None:
    """Tracks record it: those that one checkpoint wrote before and after a change stay together."""
    content = load_checkpoint(PROJECT / "tests/data/v0_1/run/checkpoints/last.ckpt")
    network = Network.from_description(content["abaw"]["network"])
    network.load_state_dict(network_weights(content))
    made = "bde22b8caa40dd6351fec4de441923b8f5e0764d79975f3448968b949c58a82b"
    assert weights_fingerprint(network.state_dict()) == made
