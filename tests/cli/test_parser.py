"""The front door: help, exit codes, messages, and how a function becomes a verb."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Literal

import pytest

from abaw.__main__ import main
from abaw.cli.commands import VERBS
from abaw.cli.help import CONFIGURED
from abaw.cli.parser import parser_of
from abaw.errors import AbawError, UsageError

HEAVY = ["torch", "lightning", "timm", "torchmetrics", "albumentations", "cv2", "pandas", "numpy"]


@pytest.mark.parametrize(
    "args", [[], ["--help"], ["--version"], *([verb, "--help"] for verb in (*CONFIGURED, *VERBS))], ids=str
)
def test_help_imports_nothing_heavy(args: list[str]) -> None:
    code = (
        "import sys; from abaw.__main__ import main\n"
        f"code = main({args!r}); print(sorted(set({HEAVY!r}) & set(sys.modules)), file=sys.stderr)\n"
        "sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600)
    assert (done.returncode, done.stderr) == (0, "[]\n")
    assert done.stdout


def test_the_front_page_names_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    page = capsys.readouterr().out
    assert all(f"  {verb} " in page for verb in (*CONFIGURED, *VERBS))
    assert all(len(line) <= 110 for line in page.splitlines())


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_every_option(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([verb, "--help"]) == 0
    page = capsys.readouterr().out
    for action in parser_of(verb, VERBS[verb])._actions:
        assert action.help, f"{verb}: {action.dest} has no help"
        assert "<class" not in page


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["fot"], "did you mean fit?"),
        (["zzzzzz"], "abaw --help"),
        (["--config", "x.yaml", "fit"], "options come after the subcommand: abaw fit --config"),
        (["--frob"], "options come after the subcommand"),
        (["synth"], "required: out"),
        (["synth", "out", "--vidoes", "3"], "did you mean --videos?"),
        (["synth", "out", "--videos", "x"], "Expected a int. Got value: x"),
        (["synth", "out", "--preset", "x"], "Literal['demo', 'real']"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_usage_errors_are_one_message(args: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(args) == 2
    printed = capsys.readouterr()
    assert says in printed.err
    assert "Traceback" not in printed.err
    assert len(printed.err.splitlines()) <= 4
    assert printed.out == ""


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
    def verb() -> None:
        """Fails."""
        raise BrokenPipeError

    monkeypatch.setitem(VERBS, "verb", verb)
    with pytest.raises(BrokenPipeError):
        main(["verb"])


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
    def verb() -> None:
        """Fails."""
        raise error

    monkeypatch.setitem(VERBS, "verb", verb)
    assert main(["verb"]) == code
    printed = capsys.readouterr().err
    assert "Traceback" not in printed
    assert ("x.txt:3: bad" in printed) == (str(error) == "x.txt:3: bad")
    monkeypatch.setenv("ABAW_DEBUG", "1")
    main(["verb"])
    assert ("Traceback" in capsys.readouterr().err) == (not isinstance(error, SystemExit) or code == 1)


def test_a_fault_of_ours_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def verb() -> None:
        """Fails."""
        raise ZeroDivisionError

    monkeypatch.setitem(VERBS, "verb", verb)
    with pytest.raises(ZeroDivisionError):
        main(["verb"])


def test_a_signature_becomes_a_command_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def verb(
        tracks: list[Path],
        out: Path,
        *,
        split: Literal["train", "val"] = "val",
        weights: list[float] | None = None,
        ratio: float | None = None,
        json: bool = False,
    ) -> int:
        """Do a thing.

        Args:
            tracks: Folders.
            out: Folder.
            split: Which.
            weights: One per folder.
            ratio: A share.
            json: For programs.
        """
        print(globals()["json"].dumps([[str(t) for t in tracks], str(out), split, weights, ratio, json]))
        return 1

    monkeypatch.setitem(VERBS, "verb", verb)
    words = ["verb", "a", "b", "c", "--json", "--weights", "1", "2.5", "--split", "train"]
    argv = list(sys.argv)
    assert main(words) == 1
    assert json.loads(capsys.readouterr().out) == [["a", "b"], "c", "train", [1.0, 2.5], None, True]
    assert sys.argv == argv  # training on several devices starts the process again from it
    assert words[0] == "verb"


def test_the_package_is_light_and_has_one_door() -> None:
    code = "import abaw, sys; print(abaw.__version__, 'torch' in sys.modules, callable(abaw.load))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600)
    assert done.stdout.split()[1:] == ["False", "True"], done.stderr
    with pytest.raises(AttributeError, match="no attribute 'laod'"):
        __import__("abaw").laod  # noqa: B018
