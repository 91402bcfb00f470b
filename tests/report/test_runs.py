"""`abaw report` on runs and on folders of tracks."""

import json
import re
import time
from pathlib import Path

import pytest

from abaw.__main__ import main
from abaw.tasks import EXPR
from tests.support.predicted_runs import write_runs
from tests.support.processes import run_measured


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("report")
    write_runs(found, {"quiet": 0.5, "loud": 2.0})
    (found / "broken").mkdir()
    (found / "broken/config.yaml").write_text("data: [")
    (found / "broken/v0_left.parquet").write_bytes(b"")  # not reached
    return found


def scores(page: Path) -> dict:
    text = page.read_text(encoding="utf-8")
    return json.loads(re.findall(r'<script id="scores" type="application/json">(.*?)</script>', text)[0])


def test_the_numbers_are_those_of_score(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, data = folder / "runs/quiet", folder / "data"
    assert main(["report", str(run), "--draws", "50"]) == 0
    assert f"{run / 'report.html'}: report of quiet" in capsys.readouterr().out
    assert main(["score", str(run / "tracks"), str(data), "--draws", "50", "--json"]) == 0
    assert scores(run / "report.html")["quiet"] == json.loads(capsys.readouterr().out)


def test_the_configuration_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    data = write_runs(tmp_path, {"old": 1.0}, n_videos=2, tasks=[EXPR])
    (tmp_path / "empty").mkdir()
    options = f"data: {{root: {tmp_path / 'empty'}, annotations: {data}, label_set: challenge}}\n"
    (tmp_path / "runs/old/config.yaml").write_text(options)
    assert main(["report", str(tmp_path / "runs/old"), "--draws=0"]) == 0


@pytest.mark.slow
def test_several_runs_are_compared_and_figures_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_runs(tmp_path, {"quiet": 0.5, "loud": 2.0}, n_videos=4, tasks=[EXPR])
    words = [str(tmp_path / "runs/quiet"), str(tmp_path / "runs/loud/tracks"), "--draws=50"]
    words += [f"--root={data}", f"--out={tmp_path / 'r.html'}", f"--figures={tmp_path / 'figures'}"]
    assert main(["report", *words]) == 0
    assert "files of figures" in capsys.readouterr().out
    assert list(scores(tmp_path / "r.html")) == ["quiet", "tracks"]
    assert "tracks compared with quiet" in (tmp_path / "r.html").read_text(encoding="utf-8")
    assert (tmp_path / "figures/scores.pdf").stat().st_size
    assert (tmp_path / "figures/quiet/learning-curves.svg").stat().st_size


def test_a_calibration_stands_beside_the_scores(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, data = folder / "runs/loud", folder / "data"
    chosen = tmp_path / "calibration.json"
    assert main(["calibrate", str(run / "tracks"), str(data), "--out", str(chosen), "--folds", "3"]) == 0
    words = ["report", str(run), f"--calibration={chosen}", "--draws=50", f"--out={tmp_path / 'r.html'}"]
    assert main(words) == 0
    text = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "loud calibrated" in text
    for task in ("VA", "EXPR", "AU"):
        assert f"of each label of {task} without and with the calibration" in text
    assert "optimistic" in text


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["{folder}/runs/none"], "{folder}/runs/none: no such folder"),
        (
            ["{folder}/data"],
            "{folder}/data: holds no tracks; write them with `abaw predict --run {folder}/data`",
        ),
        (["{folder}/runs/quiet/tracks"], "there is no data: name the folder"),
        (["{folder}/runs/quiet", "--root", "{folder}/nowhere"], "{folder}/nowhere: no such folder"),
        (["{folder}/runs/quiet", "{folder}/runs/quiet"], "{folder}/runs/quiet is named twice"),
        (["{folder}/broken"], "{folder}/broken/config.yaml: not a configuration"),
        (["{folder}/runs/quiet", "--draws=9", "--figures", "{folder}/runs/quiet/metrics.csv"], "metrics.csv"),
        ([], "runs"),
    ],
)
def test_a_mistake_is_named(
    folder: Path,
    words: list[str],
    told: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("ABAW_ROOT", raising=False)
    assert main(["report", *(word.format(folder=folder) for word in words)]) in (1, 2)
    error = capsys.readouterr().err
    assert told.format(folder=folder) in error
    assert error.strip().count("\n") < 3


@pytest.mark.slow
def test_a_hundred_long_videos_take_less_than_a_minute_and_two_gigabytes(tmp_path: Path) -> None:
    write_runs(tmp_path, {"large": 1.0}, n_videos=100, frames=(4500, 4501))
    start = time.monotonic()
    _, peak = run_measured("report", str(tmp_path / "runs/large"))
    assert time.monotonic() - start < 60
    assert peak < 2
    assert (tmp_path / "runs/large/report.html").stat().st_size < 5e6
