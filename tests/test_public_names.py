"""`import abaw` is light and offers what users need; torch is imported with the first name that needs it."""

import subprocess
import sys

import pytest

import abaw
from abaw.batch import Batch
from abaw.inference.predictor import Predictor, load
from abaw.tasks import Task

PUBLIC = {"Batch": Batch, "Predictor": Predictor, "Task": Task, "load": load}


@pytest.mark.parametrize("name", PUBLIC)
def test_a_public_name_is_offered_and_found(name: str) -> None:
    assert name in dir(abaw)
    assert getattr(abaw, name) is PUBLIC[name]


def test_only_public_names_are_listed_and_help_teaches_in_30_lines() -> None:
    assert sorted(dir(abaw)) == ["Batch", "Predictor", "Task", "__version__", "load"]
    text = str(abaw.__doc__)
    assert len(text.splitlines()) <= 30
    for word in ("abaw.load(", "predict_video(", "stream_video(", "predict_frames(", "abaw --help"):
        assert word in text


def test_the_version_is_that_of_the_package() -> None:
    assert "__version__" in dir(abaw)
    assert abaw.__version__.count(".") == 2


def test_another_name_is_refused() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Prdictor'"):
        _ = abaw.Prdictor  # type: ignore[attr-defined]


def test_importing_loads_no_library_and_takes_a_tenth_of_a_second() -> None:
    code = (
        "import sys, time; start = time.process_time(); import abaw;"
        " took = time.process_time() - start; dir(abaw); abaw.Task; abaw.__version__;"
        " print(took, [name for name in ('torch', 'numpy', 'lightning', 'pandas') if name in sys.modules])"
    )
    seconds, _, loaded = subprocess.check_output([sys.executable, "-c", code], text=True).partition(" ")
    assert loaded.strip() == "[]"
    assert float(seconds) < 0.1
