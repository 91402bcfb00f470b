"""Progress: a bar at a terminal, a line a minute elsewhere, nothing when it is quick."""

import re
from collections.abc import Iterator

import pytest

from abaw.data import progress
from abaw.data.progress import Progress


def test_quick_work_prints_nothing_without_a_terminal(capsys: pytest.CaptureFixture) -> None:
    assert list(Progress(range(5), desc="images", unit="file")) == [0, 1, 2, 3, 4]
    assert capsys.readouterr().err == ""


@pytest.fixture
def quick_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "SECONDS", 1e-9)


@pytest.mark.usefixtures("quick_minute")
def test_long_work_prints_lines(capsys: pytest.CaptureFixture) -> None:
    for _ in Progress(range(3), desc="images", unit="file"):
        pass
    lines = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"images: 1 of 3 files, \d\d:\d\d left", lines[0])
    assert lines[-1].startswith("images: 3 of 3 files")
    assert "\r" not in "".join(lines)


@pytest.mark.usefixtures("quick_minute")
def test_work_of_unknown_length(capsys: pytest.CaptureFixture) -> None:
    def some() -> Iterator[int]:
        yield from range(2)

    assert list(Progress(some(), unit="frame")) == [0, 1]
    assert capsys.readouterr().err.splitlines()[-1] == "2 frames"


@pytest.mark.usefixtures("quick_minute")
def test_nothing_is_shown_if_not_asked_for(capsys: pytest.CaptureFixture) -> None:
    assert len(list(Progress(range(3), show=False))) == 3
    assert capsys.readouterr().err == ""


def test_a_terminal_shows_a_bar(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    assert len(list(Progress(range(3), desc="images", mininterval=0))) == 3
    assert "images: 100%" in capsys.readouterr().err
