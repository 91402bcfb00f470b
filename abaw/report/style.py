"""The style of figures: colours, sizes, and files for print.

Colours are those of Okabe and Ito, and viridis: distinct for colour-blind readers and in grey.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import vl_convert

from abaw.files import atomic_path

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442", "#999999")
NEUTRAL = "#808080"
"""Grey that is legible on light and on dark."""
WIDTH = 440
"""Width of a figure, in pixels of a page."""

Chart = Any
"""An Altair chart of any kind."""


def themed(chart: Chart, where: Literal["page", "print"]) -> dict[str, Any]:
    """The Vega-Lite specification of a chart with the colours of its text.

    Args:
        chart: A chart.
        where: `page`: greys legible on light and dark; `print`: black on white.
    """
    ink = NEUTRAL if where == "page" else "#000000"
    lines = "#80808040" if where == "page" else "#dddddd"
    spec: dict[str, Any] = chart.to_dict()
    spec["background"] = "transparent" if where == "page" else "white"
    text = {"labelColor": ink, "titleColor": ink}
    spec["config"] = {
        "axis": text
        | {"gridColor": lines, "domainColor": ink, "tickColor": ink, "titleFontWeight": "normal"},
        "legend": text | {"orient": "bottom", "columns": 4, "titleFontWeight": "normal"},
        "header": text | {"titleFontWeight": "normal"},
        "title": {"color": ink, "anchor": "start"},
        "view": {"stroke": lines},
        "text": {"color": ink},
        "rule": {"color": ink},
    }
    return spec


_FORMATS: dict[str, Callable[[Any], bytes]] = {
    ".png": lambda spec: vl_convert.vegalite_to_png(spec, scale=2),
    ".svg": lambda spec: vl_convert.vegalite_to_svg(spec).encode(),
    ".pdf": vl_convert.vegalite_to_pdf,
}


def save_figure(chart: Chart, stem: Path, suffixes: Sequence[str] = tuple(_FORMATS)) -> list[Path]:
    """Writes PNG (2 pixels per unit), SVG and PDF beside each other; returns their paths.

    Args:
        chart: A chart.
        stem: Path without suffix.
        suffixes: The suffixes of the formats to write.

    Raises:
        AbawError: A file cannot be written.
    """
    spec = themed(chart, "print")
    paths = []
    for suffix in suffixes:
        paths.append(stem.with_name(stem.name + suffix))
        with atomic_path(paths[-1]) as temporary:
            temporary.write_bytes(_FORMATS[suffix](spec))
    return paths
