"""Pages in a headless browser, where there is one."""

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

CHROMIUM = shutil.which("chromium")

needs_browser = pytest.mark.skipif(
    CHROMIUM is None and not os.environ.get("ABAW_NEEDS_BROWSER"),
    reason="chromium is not installed; with ABAW_NEEDS_BROWSER set that is a failure",
)


@dataclass(frozen=True)
class Drawn:
    """A page after its scripts ran.

    Attributes:
        html: The document.
        console: What was written to the console, one message each.
        log: All that the browser printed.
    """

    html: str
    console: list[str]
    log: str


def draw(page: Path, script: str = "", *, seconds: float = 8) -> Drawn:
    """Opens a page without network, with a script of the test at its end.

    Args:
        page: HTML file.
        script: JavaScript, run after the page's own.
        seconds: Time of the page's clock until the document is taken.
    """
    assert CHROMIUM is not None, "chromium is missing: apt-get install chromium"
    start, _, end = page.read_text(encoding="utf-8").rpartition("</body>")
    tested = page.with_name(f"tested-{page.name}")
    tested.write_text(f"{start}<script>{script}</script></body>{end}", encoding="utf-8")
    done = subprocess.run(
        [
            CHROMIUM,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--host-resolver-rules=MAP * ~NOTFOUND",
            f"--virtual-time-budget={round(1000 * seconds)}",
            "--enable-logging=stderr",
            "--dump-dom",
            tested.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    return Drawn(done.stdout, re.findall("CONSOLE.*", done.stderr), done.stderr)
