"""How a typed function becomes a command line."""

import json
import sys
from pathlib import Path
from typing import Literal

import pytest

from abaw.__main__ import main
from abaw.cli.commands import SUBCOMMANDS
from abaw.cli.parser import with_underscores


def test_a_signature_becomes_a_command_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def subcommand(
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

    monkeypatch.setitem(SUBCOMMANDS, "subcommand", subcommand)
    words = ["subcommand", "a", "b", "c", "--json", "--weights", "1", "2.5", "--split", "train"]
    argv = list(sys.argv)
    assert main(words) == 1
    assert json.loads(capsys.readouterr().out) == [["a", "b"], "c", "train", [1.0, 2.5], None, True]
    assert sys.argv == argv  # training on several devices starts the process again from it
    assert words[0] == "subcommand"


@pytest.mark.parametrize(
    ("given", "spelt"),
    [
        ("--per-video", "--per_video"),
        ("--out=a-b.txt", "--out=a-b.txt"),
        ("--image-roots=a-b", "--image_roots=a-b"),
        ("a-b", "a-b"),
        ("-v", "-v"),
    ],
)
def test_options_may_be_spelt_with_hyphens(given: str, spelt: str) -> None:
    assert with_underscores(given) == spelt
