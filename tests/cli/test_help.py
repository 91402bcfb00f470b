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
