"""The curves of a training are those of its table."""

from pathlib import Path

import pytest

from abaw.errors import AbawError
from abaw.report.curves import learning_curves, read_metrics
from abaw.tasks import TASKS
from tests.support.predicted_runs import METRICS


def test_the_curves_have_loss_and_scores_by_step(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text(METRICS)
    chart = learning_curves(read_metrics(tmp_path / "metrics.csv"), TASKS)
    assert chart is not None
    spec = chart.to_dict()
    shown = [row for values in spec["datasets"].values() for row in values]
    assert {row["curve"] for row in shown} == {"train/loss", "val/loss", "val/va", "val/expr", "val/au"}
    assert [row["value"] for row in shown if row["curve"] == "val/va"] == [0.1, 0.3]
    assert [row["step"] for row in shown if row["curve"] == "train/loss"] == [9, 28]


def test_a_table_without_either_has_no_curves(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("step,lr\n1,0.1\n")
    assert learning_curves(read_metrics(tmp_path / "metrics.csv"), TASKS) is None


@pytest.mark.parametrize("content", ["", "epoch,loss\n0,1\n"])
def test_another_file_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "metrics.csv").write_text(content)
    with pytest.raises(AbawError, match=r"metrics\.csv"):
        read_metrics(tmp_path / "metrics.csv")
