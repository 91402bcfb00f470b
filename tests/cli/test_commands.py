"""The plain subcommands: their options, and what is said of wrong ones."""

from pathlib import Path

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
        (["synth", "out", "--videos", "x"], "--videos takes int; got x"),
        (["synth", "out", "--preset", "x"], "--preset takes demo or real"),
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


def test_folds_are_never_replaced_by_others(
    synth_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "folds.json"
    assert main(["folds", str(synth_root), str(out), "--k=3"]) == 0
    assert f"use it with: abaw fit --config FILE --data.folds {out} --data.fold 0" in capsys.readouterr().out
    before = out.read_bytes()
    assert main(["folds", str(synth_root), str(out), "--k=3"]) == 0  # the same ones
    assert main(["folds", str(synth_root), str(out), "--k=2"]) == 2
    assert "holds other folds" in capsys.readouterr().err
    assert out.read_bytes() == before


def test_a_pack_names_the_option_that_uses_it(
    synth_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "pack"
    assert main(["pack", str(synth_root), str(out)]) == 0
    option = f"--data.root {synth_root} --data.source.image_roots '[{out}]'"
    assert option in capsys.readouterr().out


def test_check_takes_the_folder_of_the_environment(
    synth_root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check"]) == 2
    assert "ABAW_ROOT" in capsys.readouterr().err
    monkeypatch.setenv("ABAW_ROOT", str(synth_root / "none"))
    assert main(["check"]) == 1
    assert "the environment variable ABAW_ROOT: " in capsys.readouterr().err
    monkeypatch.setenv("ABAW_ROOT", str(synth_root))
    assert main(["check"]) in (0, 1)
    assert "no such folder" not in capsys.readouterr().err
