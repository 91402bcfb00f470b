"""What the libraries and the operating system raise becomes one message, and what they cannot mean stays.

The errors are raised by the libraries themselves, so that a new wording of theirs is noticed.
"""

import errno
import multiprocessing
import os
import re
import signal
import socket
from argparse import ArgumentError
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Literal

import pytest
import torch
import torch.distributed as dist
from jsonargparse import ArgumentParser
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Trainer
from torch import nn
from torch.utils.data import DataLoader, Dataset

from abaw import __main__
from abaw.cli.messages import friendly_error, user_message
from abaw.errors import UsageError


def lose_a_process(tmp_path: Path) -> None:
    """Adds up numbers with another process, which is killed."""

    def join(rank: int) -> None:
        dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'meet'}", rank=rank, world_size=2)
        dist.barrier()

    def other() -> None:
        join(1)
        os.kill(os.getpid(), signal.SIGKILL)

    process = multiprocessing.get_context("fork").Process(target=other)
    process.start()
    join(0)
    process.join()
    try:
        dist.all_reduce(torch.ones(3))
    finally:
        dist.destroy_process_group()


def wait_for_nobody(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    dist.TCPStore("127.0.0.1", port, is_master=False, timeout=timedelta(milliseconds=200))


class Killed(Dataset):
    """Ends the process that reads it, as a system without memory does."""

    def __len__(self) -> int:
        return 1

    def __getitem__(self, number: int) -> int:
        os.kill(os.getpid(), signal.SIGKILL)
        return number


def lose_a_loader(tmp_path: Path) -> None:
    next(iter(DataLoader(Killed(), num_workers=1, multiprocessing_context="fork")))


def load_other_shapes(tmp_path: Path) -> None:
    nn.Linear(2, 3).load_state_dict(nn.Linear(2, 4).state_dict())


def load_other_names(tmp_path: Path) -> None:
    nn.Linear(2, 3).load_state_dict(nn.Sequential(nn.Linear(2, 3)).state_dict())


def ask_for_less_than_no_batch(tmp_path: Path) -> None:
    Trainer(accelerator="cpu", logger=False, limit_train_batches=-1)


def multiply_what_does_not_fit(tmp_path: Path) -> None:
    torch.ones(2, 3) @ torch.ones(2, 3)


def read_what_is_not_there(tmp_path: Path) -> None:
    torch.load(tmp_path / "none.ckpt")


@pytest.mark.parametrize(
    ("fail", "says", "is_usage"),
    [
        (lose_a_process, "fit: the connection to another process of the run broke", False),
        (wait_for_nobody, "fit: the connection to another process of the run broke", False),
        (lose_a_loader, "lower data.workers", False),
        (load_other_shapes, "holds another network", True),
        (load_other_names, "holds another network", True),
        (ask_for_less_than_no_batch, "fit: .*limit_train_batches", True),
        (multiply_what_does_not_fit, None, False),
        (read_what_is_not_there, None, False),
    ],
)
def test_what_the_user_can_act_on_is_told(
    fail: Callable[[Path], None], says: str | None, is_usage: bool, tmp_path: Path
) -> None:
    with pytest.raises((RuntimeError, MisconfigurationException, FileNotFoundError)) as raised:
        fail(tmp_path)
    told = user_message(raised.value, "fit")
    if says is None:
        assert told is None
    else:
        assert told is not None, raised.value
        assert re.search(says, str(told)), told
        assert isinstance(told, UsageError) == is_usage


@pytest.mark.parametrize(
    ("number", "cure"),
    [
        (errno.ENOSPC, "free the disk"),
        (errno.EDQUOT, "free the disk"),
        (errno.EFBIG, "free the disk"),
        (errno.EACCES, "change the permissions"),
        (errno.EROFS, "not read-only"),
        (errno.ENOTDIR, "a part of the path is a file"),
        (errno.ENOENT, None),
    ],
)
def test_what_the_system_refuses_is_told_and_other_errors_are_raised(
    number: int, cure: str | None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def folds() -> None:
        raise OSError(number, os.strerror(number), "a/file")

    monkeypatch.setitem(__main__.SUBCOMMANDS, "folds", folds)
    if cure is None:
        with pytest.raises(FileNotFoundError):
            __main__.main(["folds"])
        return
    assert __main__.main(["folds"]) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"abaw: a/file: {os.strerror(number)}; ")
    assert cure in said
    assert len(said.splitlines()) == 1


@dataclass
class Part:
    """A group of settings."""

    ratio: float = 0.5
    mean: tuple[float, float] | None = None


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("--sie=3", "there is no option --sie=3; did you mean size?"),
        ("extra", "there is no option extra"),
        ("--config={sie: 3}", "there is no option 'sie'; did you mean size?"),
        ("--part.ration=3", "there is no option 'part.ration'; did you mean ratio?"),
        ("--size=x", "size: Expected a <class 'int'>; got x"),
        ("--config={size: x}", "size: Expected a <class 'int'>; got x"),
        ("--norm=mid", "norm: Expected a typing.Literal['pre', 'post']; got mid"),
        ("--tasks=va", "tasks: takes a list, such as [va]; got va"),
        ("--roots=a", "roots: takes a list, such as [a]; got a"),
        ("--part.ratio=x", "part.ratio: Expected a <class 'float'>; got x"),
        ("--part.mean=[1]", "part.mean: Expected a tuple with 2 elements; got [1]"),
        (
            "--stop=abaw.Nothing",
            "stop: Problem with given class_path 'abaw.Nothing': module 'abaw' has no attribute 'Nothing';"
            " got abaw.Nothing",
        ),
        ("--config=none.yaml", f"config: File does not exist: '{Path.cwd()}/none.yaml'"),
    ],
)
def test_a_wrong_option_is_one_line(word: str, message: str) -> None:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--config", action="config")
    parser.add_argument("--size", type=int)
    parser.add_argument("--norm", type=Literal["pre", "post"])
    parser.add_argument("--tasks", type=Sequence[str])
    parser.add_argument("--roots", type=list[str] | None)
    parser.add_argument("--part", type=Part | None)
    parser.add_argument("--stop", type=nn.Module | None)
    with pytest.raises(ArgumentError) as raised:
        parser.parse_args([word])
    assert friendly_error(str(raised.value), ["size"]) == message


def test_other_messages_are_unchanged() -> None:
    assert friendly_error("heads (3) must divide\nwidth (8)", ["heads"]) == "heads (3) must divide\nwidth (8)"
