"""Settings of Sphinx: `make docs` builds the pages of this folder and the interface in Python."""

import subprocess
import sys
from importlib.metadata import version as version_of
from pathlib import Path

from abaw.data.check.kinds import KINDS

project, author = "abaw", "the authors of abaw"
version = release = version_of("abaw")
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build", "generated", "notebooks/data", "notebooks/runs", "notebooks/analysis"]
default_role = "code"  # of single backticks in docstrings
html_theme = "furo"
html_title = "abaw"
html_show_sphinx = False
smartquotes = False  # options keep their two hyphens
myst_heading_anchors = 3  # of links to headings
nb_execution_mode = "off"  # the tests run the notebooks
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_member_order = "bysource"
napoleon_use_ivar = True

_GENERATED = Path(__file__).parent / "generated"
_GENERATED.mkdir(exist_ok=True)
(_GENERATED / "fit.txt").write_text(
    subprocess.run(
        [sys.executable, "-m", "abaw", "fit", "--help-all"], capture_output=True, text=True, check=True
    ).stdout,
    encoding="utf-8",
)
_ROWS = [
    f"| {kind} | {'defect' if about.fails else 'note'} | {about.hint} |" for kind, about in KINDS.items()
]
(_GENERATED / "kinds.md").write_text(
    "\n".join(["| kind | | cure |", "|---|---|---|", *_ROWS]) + "\n", encoding="utf-8"
)
