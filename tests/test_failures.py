"""What the libraries and the operating system raise becomes one message, and what they cannot mean stays."""

import errno
import os

import pytest
from lightning.fabric.utilities.exceptions import MisconfigurationException
from torch.distributed import DistNetworkError

from abaw import __main__
from abaw.errors import UsageError
from abaw.failures import in_words

GLOO = "[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:545] Connection closed by peer [127.0.0.1]:1"


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (RuntimeError(GLOO), "fit: the connection to another process of the run broke"),
        (DistNetworkError("timed out"), "fit: the connection to another process of the run broke"),
        (RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed."), "lower data.workers"),
        (RuntimeError("Error(s) in loading state_dict for AffectModule:"), "holds another network"),
        (MisconfigurationException("no such strategy"), "fit: no such strategy"),
        (RuntimeError("shape mismatch"), None),
    ],
)
def test_what_the_user_can_act_on_is_told(error: Exception, says: str | None) -> None:
    told = in_words(error, "fit")
    assert (told is None) == (says is None)
    assert says is None or says in str(told)
    assert isinstance(told, UsageError) == (says is not None and ("network" in says or "strategy" in says))


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

    monkeypatch.setitem(__main__.VERBS, "folds", folds)
    if cure is None:
        with pytest.raises(FileNotFoundError):
            __main__.main(["folds"])
        return
    assert __main__.main(["folds"]) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"abaw: a/file: {os.strerror(number)}; ")
    assert cure in said
    assert len(said.splitlines()) == 1
