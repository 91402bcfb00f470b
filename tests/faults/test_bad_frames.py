"""A data set in which every twentieth image is cut short: skipped and counted, or refused by name."""

import os
import random
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest

from abaw.__main__ import main
from abaw.data.check.check import check_dataset
from abaw.data.frames import BadFrameLog
from abaw.data.layout import DataSource
from abaw.errors import AbawError
from tests.support.tiny_run import tiny_config


@pytest.fixture
def broken(synth_root: Path, tmp_path: Path) -> tuple[Path, set[str]]:
    """The data set, and its damaged images."""
    root = tmp_path / "data"
    shutil.copytree(synth_root, root, copy_function=os.link)
    images = sorted(root.glob("cropped_aligned*/*/*.jpg"))
    bad = random.Random(0).sample(images, len(images) // 20)
    for path in bad:
        content = path.read_bytes()
        path.unlink()  # the original is the same file
        path.write_bytes(content[: len(content) // 2])
    return root, {str(path) for path in bad}


@pytest.fixture
def words(broken: tuple[Path, set[str]], tmp_path: Path) -> list[str]:
    windows = {"stride": 16, "step": 1, "jitter": False}
    data = {"window": 16, "windows": windows, "batch_size": 1, "workers": 2}
    configs = tiny_config(tmp_path, data=data)
    return ["fit", *configs, f"--data.root={broken[0]}", f"--run={tmp_path / 'run'}"]


def test_skipping_counts_every_damaged_image(
    words: list[str], broken: tuple[Path, set[str]], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root, bad = broken
    in_use = {path.stem for path in root.glob("*/*/*_Set/*.txt")} - {"Train_Set", "Validation_Set"}
    expected = {path for path in bad if Path(path).parent.name in in_use}
    everything = "--model.masking=null"  # masked frames are not read
    assert main([*words, everything, "--data.loading.on_bad_frame=skip"]) == 0
    log = tmp_path / "run/bad_frames.txt"
    assert set(log.read_text().splitlines()) == expected
    curves = pd.read_csv(tmp_path / "run/metrics.csv")
    assert curves["bad_frames"].dropna().tolist() == [len(expected)]
    assert curves["train/loss"].notna().any()
    (said,) = (record.getMessage() for record in caplog.records if "could not be read" in record.getMessage())
    assert re.match(rf"{len(expected)} images .*{log}", said)
    report = check_dataset(DataSource(root), jobs=1, progress=False)
    found = {str(finding.path) for finding in report.findings if finding.kind == "truncated image"}
    assert found == bad  # the doctor finds them beforehand, in all videos


@pytest.mark.parametrize("workers", [0, 2])
def test_raising_stops_with_the_name_of_a_damaged_image(
    words: list[str], broken: tuple[Path, set[str]], workers: int, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main([*words, f"--data.workers={workers}"]) == 1
    error = capfd.readouterr().err
    message = error[error.index("abaw: ") :]
    assert len(message.splitlines()) == 1, message
    assert message.removeprefix("abaw: ").partition(": the file is cut short")[0] in broken[1]
    assert "Traceback" not in error


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("in the way")
    with pytest.raises(AbawError, match=r"run/bad_frames\.txt: cannot take .*--run"):
        BadFrameLog(tmp_path / "run/bad_frames.txt").add(["a"])
