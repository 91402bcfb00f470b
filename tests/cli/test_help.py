"""The short help pages, which need no heavy library."""

import subprocess
import sys

import pytest

from abaw.__main__ import main
from abaw.cli.commands import SUBCOMMANDS
from abaw.cli.help import CONFIGURED

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
