"""Curves of a training, from its table `metrics.csv`."""

from collections.abc import Sequence
from pathlib import Path

import altair as alt
import pandas as pd

from abaw.errors import AbawError
from abaw.report.style import COLOURS, WIDTH, Chart
from abaw.tasks import Task


def read_metrics(path: Path) -> pd.DataFrame:
    """The table of a run's metrics: `epoch`, `step`, and columns such as `train/loss` and `val/score`.

    Raises:
        AbawError: The file cannot be read as such a table.
    """
    try:
        rows = pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise AbawError(f"{path}: cannot be read as a table of metrics ({error})") from error
    if "step" not in rows:
        raise AbawError(f"{path}: has no column 'step'; it is not a table of metrics of a run")
    return rows


def learning_curves(rows: pd.DataFrame, tasks: Sequence[Task]) -> Chart | None:
    """Loss and official scores over the steps of a training; None without either.

    Args:
        rows: From `read_metrics`.
        tasks: Tasks whose scores are shown.
    """
    loss = [name for name in ("train/loss", "val/loss") if name in rows]
    scores = [name for name in (f"val/{task}" for task in tasks) if name in rows]
    charts = [
        _lines(rows, names, axis)
        for names, axis in ((loss, "loss"), (scores, "official score (validation)"))
        if names and rows[names].notna().to_numpy().any()
    ]
    if not charts:
        return None
    text = "Loss and official scores over the steps of the training."
    return alt.hconcat(*charts).resolve_scale(color="independent").properties(description=text)


def _lines(rows: pd.DataFrame, names: list[str], axis: str) -> Chart:
    long = rows.melt(id_vars=["step"], value_vars=names, var_name="curve").dropna()
    return (
        alt.Chart(long)
        .mark_line(point=alt.OverlayMarkDef(size=18))
        .encode(
            x=alt.X("step:Q", title="optimizer step"),
            y=alt.Y("value:Q", title=axis, scale=alt.Scale(zero=False)),
            color=alt.Color(
                "curve:N",
                sort=names,
                scale=alt.Scale(domain=names, range=list(COLOURS[: len(names)])),
                title=None,
            ),
            tooltip=["curve:N", "step:Q", alt.Tooltip("value:Q", format=".4f")],
        )
        .properties(width=WIDTH // 2 + 40, height=200)
    )
