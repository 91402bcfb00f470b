"""Figures are files for print, and legible on light and dark pages."""

from pathlib import Path

import numpy as np

from abaw.report.figures import confusion_matrix
from abaw.report.style import save_figure, themed
from abaw.tasks import EXPR

CHART = confusion_matrix(EXPR, np.eye(8, dtype=np.int64))


def test_a_figure_is_written_for_print(tmp_path: Path) -> None:
    paths = save_figure(CHART, tmp_path / "confusion.v2")
    assert [path.name for path in paths] == ["confusion.v2.png", "confusion.v2.svg", "confusion.v2.pdf"]
    assert paths[0].read_bytes().startswith(b"\x89PNG")
    assert "Happiness" in paths[1].read_text(encoding="utf-8")
    assert paths[2].read_bytes().startswith(b"%PDF")


def test_print_is_black_on_white_and_a_page_has_neither() -> None:
    printed, shown = themed(CHART, "print"), themed(CHART, "page")
    assert (printed["background"], printed["config"]["axis"]["labelColor"]) == ("white", "#000000")
    assert (shown["background"], shown["config"]["axis"]["labelColor"]) == ("transparent", "#808080")
