"""The page with a video beside curves: complete without a network, few points, drawn by a browser."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from abaw.report.intervals import POINTS
from abaw.report.timeline import face_curves, write_page
from tests.report.test_overlay import grey, table
from tests.support.browser import draw, needs_browser
from tests.support.videos import write_video


def data(page: Path) -> dict:
    (text,) = re.findall(
        r'<script id="data" type="application/json">(.*?)</script>', page.read_text(encoding="utf-8")
    )
    return json.loads(text)


def test_the_page_needs_no_other_file_and_no_network(tmp_path: Path) -> None:
    video = write_video(tmp_path / "a.mp4", grey(5))
    write_page(table(tmp_path / "a.csv"), video, tmp_path / "a.html", title="<clip> & co")
    text = (tmp_path / "a.html").read_text(encoding="utf-8")
    assert "<title>&lt;clip&gt; &amp; co</title>" in text
    assert 'src="data:video/mp4;base64,' in text
    own = text.replace(re.search(r"<script>.*?</script>", text, re.DOTALL)[0], "")  # without Vega-Lite
    addresses = set(re.findall(r"https?://[^\"' ]+", own))
    assert all("vega.github.io/schema" in address for address in addresses)  # a name, never fetched
    assert len(text) < 5_000_000


def test_the_curves_are_those_of_the_table(tmp_path: Path) -> None:
    write_page(table(tmp_path / "a.csv", lost=(4, 5)), None, tmp_path / "a.html", title="a")
    found = data(tmp_path / "a.html")
    assert list(found["curves"]) == ["0"]
    points = found["curves"]["0"]
    assert len(points) == 20
    np.testing.assert_allclose([p["seconds"] for p in points], np.arange(20) / 25, atol=1e-4)
    assert [p["context"] for p in points] == [float(k in (4, 5)) for k in range(20)]
    assert {p["valence"] for p in points} == {1.0}
    assert {p["AU01"] for p in points} == {0.9}
    assert [spec["title"] for spec in found["specs"]] == [
        "Valence and arousal",
        "Expressions",
        "Action units",
    ]
    assert "<video" not in (tmp_path / "a.html").read_text(encoding="utf-8").split("</style>")[1][:2000]


def test_a_long_curve_has_few_points_with_the_means_of_its_parts() -> None:
    n = 36_000
    rows = pd.DataFrame(
        {
            "seconds": np.arange(n) / 5,
            "success": 1,
            "valence": np.sin(np.arange(n) / 3000),
            "arousal": np.arange(n) % 2,
        }
    )
    points = face_curves(rows)
    assert len(points) == POINTS
    np.testing.assert_allclose([p["arousal"] for p in points], 0.5, atol=0.01)
    seconds = np.array([p["seconds"] for p in points])
    np.testing.assert_allclose([p["valence"] for p in points], np.sin(seconds * 5 / 3000), atol=1e-3)
    np.testing.assert_allclose([p["width"] for p in points], n / 5 / POINTS, rtol=0.05)


def test_a_video_without_faces_says_so(tmp_path: Path) -> None:
    write_page(table(tmp_path / "a.csv", absent=tuple(range(20))), None, tmp_path / "a.html", title="a")
    assert "No face was found in this video." in (tmp_path / "a.html").read_text(encoding="utf-8")


def test_a_large_video_is_a_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("abaw.report.timeline._EMBEDDED", 10)
    video = write_video(tmp_path / "a.mp4", grey(5))
    write_page(table(tmp_path / "a.csv"), video, tmp_path / "a.html", title="a")
    assert 'src="a.mp4"' in (tmp_path / "a.html").read_text(encoding="utf-8")


@needs_browser
@pytest.mark.slow
def test_a_browser_draws_it_and_seeks(tmp_path: Path) -> None:
    video = write_video(tmp_path / "a.mp4", grey(20))
    write_page(table(tmp_path / "a.csv", lost=(4, 5)), video, tmp_path / "a.html", title="a")
    page = tmp_path / "a.html"
    click = """window.ready.then(views => {
      const at = views[0].container().getBoundingClientRect();
      const target = views[0].container().querySelector("svg");
      const x = at.left + views[0].padding().left + views[0].origin()[0] + views[0].scale("x")(0.4);
      target.dispatchEvent(new MouseEvent("click", {clientX: x, clientY: at.top + 60, bubbles: true}));
      const seconds = () => document.getElementById("video").currentTime.toFixed(2);
      const rule = () => document.querySelector("line[stroke='#C00000']").getBoundingClientRect().x - x;
      setTimeout(() => { document.title = "at " + seconds() + ", off by " + Math.round(rule()); }, 500);
    });"""
    drawn = draw(page, click)
    assert len(re.findall(r'<svg [^>]*class="marks"', drawn.html)) == 3, drawn.log[-2000:]
    assert re.search(r"<title>at 0\.40, off by -?[01]</title>", drawn.html), re.findall(
        "<title>.*</title>", drawn.html
    )
    assert not drawn.console
