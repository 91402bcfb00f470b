"""The size of the real thing: 600 videos of 4,500 frames scored, a million rows submitted, each in 2 GB."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from abaw.data.formats.annotations import write_task_file
from abaw.data.labels import image_name
from abaw.evaluation.submission.formats import FORMS
from abaw.evaluation.tracks import Track, write_track
from abaw.tasks import AU, EXPR, TASKS, VA
from tests.support.label_arrays import labels_from
from tests.support.processes import run_measured

pytestmark = pytest.mark.slow

VIDEOS, FRAMES, ROWS = 600, 4500, 1_000_000
FOLDERS = {"va": "VA_Set", "expr": "EXPR_Set", "au": "AU_Set"}


@pytest.fixture(scope="module")
def real_size(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Annotations and tracks of all videos; every video has the same labels and its own predictions."""
    folder, rng = tmp_path_factory.mktemp("scale"), np.random.default_rng(0)
    valid = rng.random(FRAMES + 1) < 0.9
    labels = labels_from(
        va=rng.uniform(-1, 1, (FRAMES + 1, 2)).astype(np.float32),
        va_valid=valid,
        expr=rng.integers(0, 8, FRAMES + 1),
        expr_valid=valid,
        au=(rng.random((FRAMES + 1, 12)) < 0.3).astype(np.float32),
        au_valid=np.repeat(valid[:, None], 12, axis=1),
    )
    for task in TASKS:
        place = folder / "data" / FOLDERS[task.name] / "Validation_Set"
        write_task_file(place / "v0.txt", task, labels)
        for number in range(1, VIDEOS):
            os.link(place / "v0.txt", place / f"v{number}.txt")
    right = {VA: labels[VA].values, EXPR: 2.0 * np.eye(8)[labels[EXPR].values], AU: 0.5 * labels[AU].values}
    for number in range(VIDEOS):
        said = {
            task: values[:FRAMES] + 0.5 * rng.random((FRAMES, values.shape[1]))
            for task, values in right.items()
        }
        said[EXPR] /= said[EXPR].sum(1, keepdims=True)
        values = {task: array.astype(np.float32).clip(-1, 1) for task, array in said.items()}
        write_track(
            Track(video=f"v{number}", seen=rng.random(FRAMES) < 0.98, values=values), folder / "tracks"
        )
    images = "".join(f"v{row // FRAMES}/{image_name(row % FRAMES + 1)},\n" for row in range(ROWS))
    for name in ("va", "mtl"):
        (folder / f"{name}_sample.txt").write_text(f"{FORMS[name].header}\n{images}")
    return folder


def test_scoring_all_of_a_set_of_the_real_size(real_size: Path) -> None:
    words = ("score", f"{real_size}/tracks", f"{real_size}/data", "--json")
    first, peak = run_measured(*words)
    assert peak < 2
    again, peak = run_measured(*words)  # the index is in the cache
    assert peak < 2
    assert again == first
    scores = json.loads(again)
    assert scores["va"]["frames"] > 0.85 * VIDEOS * FRAMES
    for task in TASKS:
        low, high = scores[task.name]["interval"]
        assert low <= scores[task.name]["score"] <= high


@pytest.mark.parametrize("task", ["va", "mtl"])
def test_a_submission_of_a_million_rows(real_size: Path, task: str) -> None:
    sample, out = real_size / f"{task}_sample.txt", real_size / f"{task}.txt"
    words = ("submit", f"{real_size}/tracks", str(out), f"--sample={sample}", f"--task={task}", "--json")
    said, peak = run_measured(*words)
    assert peak < 2
    assert json.loads(said)["rows"] == ROWS
    said, peak = run_measured("verify", str(out), f"--sample={sample}")
    assert peak < 2
    assert said.endswith("valid\n")
    with sample.open() as asked, out.open() as filled:
        assert all(row.startswith(wish.rstrip("\n")) for wish, row in zip(asked, filled, strict=True))
