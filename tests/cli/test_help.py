"""The short help pages, which need no heavy library."""

import re
import subprocess
import sys
from dataclasses import fields
from typing import Any

import pytest

from abaw.__main__ import main
from abaw.cli.commands import SUBCOMMANDS
from abaw.cli.help import CONFIGURED
from abaw.cli.trainer_commands import AbawCLI
from abaw.loading.masking import RandomFrameMasking
from abaw.model.backbone import BackboneSettings

HEAVY = ["torch", "lightning", "timm", "torchmetrics", "albumentations", "cv2", "pandas", "numpy"]


@pytest.mark.parametrize(
    "args",
    [[], ["--help"], ["--version"], *([subcommand, "--help"] for subcommand in (*CONFIGURED, *SUBCOMMANDS))],
    ids=str,
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


def test_the_front_page_names_every_subcommand(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    page = capsys.readouterr().out
    assert all(f"  {subcommand} " in page for subcommand in (*CONFIGURED, *SUBCOMMANDS))
    assert all(len(line) <= 110 for line in page.splitlines())


def test_help_all_shows_the_sentences_under_the_fields(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "--help-all"]) == 0
    page = " ".join(capsys.readouterr().out.split())
    for option, says in {
        "--data.window": "Frames per training window; 1: single images.",
        "--data.source.annotations": "Folder with the annotations, instead of those found below root.",
        "--data.windows.stride": "Distance between training windows in frames; null: half a window.",
        "--data.loading.frame_size": "Height and width of the images, in pixels.",
        "--data.evaluation.drop_frames": "Share of the visible frames of each video to drop at random.",
        "--model.heads.hidden": "Width of a hidden layer; null: no hidden layer.",
    }.items():
        name = option.rpartition(".")[2].upper()
        assert f" {option} {name} {says} (type: " in page


def test_no_option_is_without_a_text(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "--help-all"]) == 0
    page = capsys.readouterr().out
    for kind in (RandomFrameMasking, BackboneSettings):
        for field in fields(kind):
            (text,) = re.findall(
                rf"^  --model\.\w+\.{field.name}\n      (.+) \(default: ", page, re.MULTILINE
            )
            assert len(text) > 10
    lacking = []

    def collect(self: AbawCLI, parser: Any, args: Any) -> None:
        for action in self._subcommand_parsers["fit"]._actions:
            text = re.sub(r"\(type:.*", "", str(action.help or ""), flags=re.DOTALL).strip()
            lacking.extend(action.option_strings if len(text) < 8 else [])
        raise KeyboardInterrupt

    kind = type("Collecting", (AbawCLI,), {"parse_arguments": collect})
    with pytest.raises(KeyboardInterrupt):
        kind("fit", [])
    assert lacking == []


def test_the_page_of_fit_shows_masking(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "--help"]) == 0
    page = capsys.readouterr().out
    for name in ("ratio", "span", "start_ratio"):
        assert f"--model.masking.{name} " in page
