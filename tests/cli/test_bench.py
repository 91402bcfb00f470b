import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from abaw.__main__ import main
from abaw.cli.bench import END_TO_END, Report, Setting, scaling_table
from tests.support.tiny_run import tiny_config


def report(**changes: float | int) -> Report:
    """One GPU on a large machine, where nothing waits, but for the changes."""
    rates = {
        "loader": 30_000.0,
        "decode": 15_000.0,
        "augment": 12_000.0,
        "training p=0.5": 10_000.0,
        END_TO_END: 9_500.0,
        "matmul": 5e14,
    }
    setting = Setting(
        device="A GPU",
        accelerated=True,
        devices=1,
        precision="bf16-mixed",
        cores=16,
        workers=2,
        clips=8,
        frames=64,
        ratio=0.5,
        network="vit_base_patch16_224",
    )
    facts = {name: value for name, value in changes.items() if hasattr(setting, name)}
    rates |= {name: value for name, value in changes.items() if name not in facts}
    return Report(
        setting=replace(setting, **facts),
        rates={part: [rate * 0.9, rate, rate * 5] for part, rate in rates.items()},
        flop={"training p=0.5": 2.5e10},
        logging=[0.001, 0.004, 0.9],
        memory={"process": 2**31},
    )


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {},
            r"^network-bound: the loader reads 30,000 frames/s, 3\.0 times as many as training \(10,000\)$",
        ),
        (
            {"loader": 5000.0, END_TO_END: 4900.0},
            r"^loader-bound: .* 5,000 .* 10,000; 4 workers would serve this device \(now 2\)$",
        ),
        (
            {"loader": 5000.0, "training p=0.5": 39_000.0, "cores": 4, END_TO_END: 4900.0},
            r"16 workers would serve this device \(now 2\), but this machine has 4 cores: .*`abaw extract`$",
        ),
        ({"loader": 9000.0, "workers": 0}, r"2 workers would serve this device \(now 0\)$"),
        ({END_TO_END: 5000.0}, r"end to end reaches 5,000 of 10,000 possible"),
        ({END_TO_END: 7400.0, "accelerated": False}, r"\(10,000\)$"),  # 7,500 is possible on shared cores
        ({END_TO_END: 7400.0, "workers": 0}, r"\(10,000\)$"),
        ({END_TO_END: 9900.0, "devices": 2}, r"reaches 9,900 of 20,000 possible"),
    ],
)
def test_the_verdict_names_what_the_rest_waits_for(changes: dict, said: str) -> None:
    assert re.search(said, report(**changes).verdict)


def test_the_report_gives_medians_and_shares() -> None:
    figures = json.loads(report().to_json())
    assert figures["frames_per_second"]["loader"] == {"median": 30_000, "min": 27_000, "max": 150_000}
    assert figures["share_of_matmul"] == {"training p=0.5": 0.5}
    assert figures["share_of_logging"] == 0.004
    table = report().table()
    assert table.splitlines()[-1] == figures["verdict"]
    assert "50%" in table
    assert "500.00 TFLOP/s" in table
    assert "2.00 GiB" in table
    assert "0.40% of the time" in table


def test_scaling_is_told_against_one_device() -> None:
    reports = {
        n: json.loads(report(**{END_TO_END: 9_500.0 * rate}).to_json()) for n, rate in ((1, 1), (4, 3))
    }
    lines = scaling_table(reports).splitlines()
    assert lines[1].split() == ["1", "9,500", "9,500", "100%"]
    assert lines[2].split() == ["4", "28,500", "7,125", "75%"]
    assert lines[-1].startswith("4: network-bound")


def words(root: Path, folder: Path, *more: str) -> list[str]:
    ends = [
        {"class_path": f"lightning.pytorch.callbacks.{name}", "init_args": {"monitor": "val/score"}}
        for name in ("EarlyStopping", "ModelCheckpoint")
    ]
    trainer = {
        "precision": "bf16-mixed",
        "limit_train_batches": 2,  # epochs end, though none is validated
        "max_epochs": ...,
        "check_val_every_n_epoch": ...,
        "callbacks+": ends,
    }
    configs = tiny_config(folder, model={"masking": {"ratio": 0.5}}, trainer=trainer)
    return [*configs, f"--run={folder / 'run'}", f"--data.root={root}", "--seconds=0.05", "--rounds=2", *more]


def test_a_configuration_is_timed_and_nothing_is_left_behind(
    synth_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["bench", *words(synth_root, tmp_path, "--json")]) == 0
    figures = json.loads(capsys.readouterr().out)
    parts = {
        "loader", "decode", "augment", "inference", "training p=0", "training p=0.5", END_TO_END,
    }  # fmt: skip
    assert set(figures["frames_per_second"]) == parts
    assert all(rate["min"] > 0 for rate in figures["frames_per_second"].values())
    assert set(figures["share_of_matmul"]) == {"inference", "training p=0", "training p=0.5"}
    assert figures["setting"]["precision"] == "bf16-mixed"
    assert 0 < figures["share_of_logging"] < 0.5
    assert figures["memory_bytes"]["process"] > 2**27
    assert {path.name for path in tmp_path.iterdir()} == {"tiny.yaml"}


@pytest.mark.parametrize("option", ["--seconds=0", "--rounds=0"])
def test_there_must_be_time_to_measure(
    option: str, synth_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", *words(synth_root, tmp_path, option)]) == 2
    assert "--seconds must be positive and --rounds at least 1" in capsys.readouterr().err


def test_devices_are_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--config=demo.yaml", "--devices=all"]) == 2
    assert "--devices takes numbers such as 1,2,4, got 'all'" in capsys.readouterr().err


@pytest.mark.slow
def test_one_and_two_devices_are_compared(
    synth_root: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", *words(synth_root, tmp_path, "--devices=1,2", "--json")]) == 0
    reports = json.loads(capfd.readouterr().out)
    assert [reports[n]["setting"]["devices"] for n in "12"] == [1, 2]
    assert all(report["frames_per_second"][END_TO_END]["min"] > 0 for report in reports.values())
