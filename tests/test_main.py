"""The front door: exit codes, closed pipes, and what importing the package loads."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from abaw.__main__ import main
from abaw.cli.commands import SUBCOMMANDS
from abaw.errors import AbawError, UsageError


@pytest.mark.parametrize("streams", ["stdout", "stdout and stderr"])
@pytest.mark.parametrize(
    "words", ["check {root}", "check {root} --json", "check {root}/none", "--help", "fit --help"]
)
def test_a_reader_that_has_gone_ends_the_command_quietly(words: str, streams: str, synth_root: Path) -> None:
    """As `| head` does, for output longer than a pipe's buffer or short."""
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "abaw", *words.format(root=synth_root).split()]
    error = writer if streams == "stdout and stderr" else subprocess.PIPE
    done = subprocess.run(command, stdout=writer, stderr=error, text=True, timeout=600)
    os.close(writer)
    assert done.returncode == 1
    if error is subprocess.PIPE:
        assert len(done.stderr.splitlines()) == ("none" in words), done.stderr


def test_a_broken_pipe_elsewhere_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def subcommand() -> None:
        """Fails."""
        raise BrokenPipeError

    monkeypatch.setitem(SUBCOMMANDS, "subcommand", subcommand)
    with pytest.raises(BrokenPipeError):
        main(["subcommand"])


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (AbawError("x.txt:3: bad"), 1),
        (UsageError("x.txt:3: bad"), 2),
        (KeyboardInterrupt(), 130),
        (SystemExit(75), 75),
        (SystemExit(), 0),
        (SystemExit("x.txt:3: bad"), 1),
    ],
    ids=repr,
)
def test_outcomes_are_exit_codes(
    error: BaseException, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def subcommand() -> None:
        """Fails."""
        raise error

    monkeypatch.setitem(SUBCOMMANDS, "subcommand", subcommand)
    assert main(["subcommand"]) == code
    printed = capsys.readouterr().err
    assert "Traceback" not in printed
    assert ("x.txt:3: bad" in printed) == (str(error) == "x.txt:3: bad")
    monkeypatch.setenv("ABAW_DEBUG", "1")
    main(["subcommand"])
    assert ("Traceback" in capsys.readouterr().err) == (not isinstance(error, SystemExit) or code == 1)


def test_a_fault_of_ours_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def subcommand() -> None:
        """Fails."""
        raise ZeroDivisionError

    monkeypatch.setitem(SUBCOMMANDS, "subcommand", subcommand)
    with pytest.raises(ZeroDivisionError):
        main(["subcommand"])


def test_the_package_is_light_and_has_one_door() -> None:
    code = "import abaw, sys; print(abaw.__version__, 'torch' in sys.modules, callable(abaw.load))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600)
    assert done.stdout.split()[1:] == ["False", "True"], done.stderr
    with pytest.raises(AttributeError, match="no attribute 'laod'"):
        __import__("abaw").laod  # noqa: B018
