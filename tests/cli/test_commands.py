"""The plain subcommands: their options, and what is said of wrong ones."""

import pytest

from abaw.__main__ import main
from abaw.cli.commands import SUBCOMMANDS
from abaw.cli.parser import parser_of


@pytest.mark.parametrize("subcommand", SUBCOMMANDS)
def test_every_subcommand_explains_every_option(subcommand: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([subcommand, "--help"]) == 0
    page = capsys.readouterr().out
    for action in parser_of(subcommand, SUBCOMMANDS[subcommand])._actions:
        assert action.help, f"{subcommand}: {action.dest} has no help"
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
