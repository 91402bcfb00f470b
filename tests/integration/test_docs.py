"""The pages: they build without a warning, and name no subcommand and no option that does not exist."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from abaw.cli.commands import SUBCOMMANDS
from abaw.cli.help import CONFIGURED
from abaw.cli.parser import parser_of, with_underscores
from tests.support.project import PROJECT

PAGES = [PROJECT / "README.md", *sorted((PROJECT / "docs").glob("*.md"))]


def blocks(page: Path) -> list[str]:
    """The blocks of a page that are for a shell."""
    return re.findall(r"^```(?:sh|bash)\n(.*?)^```$", page.read_text(encoding="utf-8"), re.M | re.S)


def commands(page: Path) -> list[list[str]]:
    """The words of every command of abaw in the blocks of a page."""
    lines = "\n".join(blocks(page)).replace("\\\n", " ").splitlines()
    words = [shlex.split(line, comments=True) for line in lines]
    return [each[each.index("abaw") :] for each in words if "abaw" in each]


def known_options(subcommand: str) -> set[str]:
    """Its options, with the dots of nested ones."""
    if subcommand in SUBCOMMANDS:
        return {
            name
            for action in parser_of(subcommand, SUBCOMMANDS[subcommand])._actions
            for name in action.option_strings
        }
    lines = (PROJECT / "abaw/cli/options.txt").read_text(encoding="utf-8").split()
    return {f"--{name.lstrip('-')}" for name in lines} | {
        "--config",
        "--run",
        "--ckpt_path",
        "--help",
        "--help-all",
    }


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_command_names_what_does_not_exist(page: Path) -> None:
    for _, subcommand, *words in commands(page):
        assert subcommand in {*SUBCOMMANDS, *CONFIGURED}, f"{page.name}: abaw {subcommand}"
        known = known_options(subcommand)
        for word in words:
            option = with_underscores(word).partition("=")[0]
            if option.startswith("--"):
                parent = option.rpartition(".")[0]  # of an option of a group that may be null
                assert option in known or parent in known, f"{page.name}: abaw {subcommand} {option}"


def test_the_pages_have_commands() -> None:
    assert sum(len(commands(page)) for page in PAGES) > 30


@pytest.mark.slow
def test_the_pages_build_without_a_warning(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", "docs", str(tmp_path)],
        cwd=PROJECT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    assert "masking.ratio" in (tmp_path / "configuration.html").read_text(encoding="utf-8")
    assert "predict_video" in (tmp_path / "api.html").read_text(encoding="utf-8")
