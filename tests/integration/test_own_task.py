"""Tasks that the package does not know: pain from 0 to 16 on every frame, and yes or no for a whole clip."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch.nn.functional as F

import abaw
from abaw.__main__ import main
from abaw.errors import UsageError
from abaw.tasks import Task
from tests.support.tiny_run import tiny_config

PAIN = Task(name="pain", kind="real", names=("pain",), high=16.0, loss="ccc", scores=("ccc", "mae"))
BCE = lambda x: F.binary_cross_entropy_with_logits(x.output, x.target, reduction="none")  # noqa: E731
YES = Task(name="yes", kind="binary", names=("yes",), per="clip", loss=BCE, scores=("binary_f1",))
TASKS = f"[va,expr,au,{__name__}.PAIN,{__name__}.YES]"


def annotate(root: Path) -> tuple[int, int]:
    """Labels all videos of val, two in three of train; returns the labelled frames and clips of val."""
    rng = np.random.default_rng(0)
    for split in ("Train_Set", "Validation_Set"):
        n_frames, n_clips = 0, 0
        for number, path in enumerate(sorted(root.glob(f"6th_ABAW_Annotations/VA*/{split}/*.txt"))):
            n_rows = len(path.read_text().splitlines()) - 1
            pain = np.where(rng.random(n_rows) < 0.2, -1, (rng.random(n_rows) * 16).round(1))
            texts = {"Pain_Estimation": ["pain", *map(str, pain)], "Yes": ["yes", str(number % 2)]}
            n_frames, n_clips = n_frames + int((pain >= 0).sum()), n_clips + 1
            for place, (folder, lines) in enumerate(texts.items()):
                if split != "Train_Set" or number % 3 != place:
                    (root / folder / split).mkdir(parents=True, exist_ok=True)
                    (root / folder / split / path.name).write_text("\n".join(lines) + "\n")
    return n_frames, n_clips


def test_unknown_tasks_are_trained_stitched_tracked_scored_and_saved(synth_root, tmp_path, capsys):
    root, run = shutil.copytree(synth_root, tmp_path / "data"), tmp_path / "run"
    labelled = annotate(root)
    options = [*tiny_config(tmp_path), f"--data.root={root}", f"--data.tasks={TASKS}", f"--run={run}"]
    assert [main([subcommand, *options]) for subcommand in ("fit", "predict")] == [0, 0]
    scores = json.loads((run / "scores.json").read_text())
    assert (scores["pain"]["frames"], scores["yes"]["frames"]) == labelled
    assert 0 < scores["pain"]["mae"]["score"] < 16
    assert scores["pain"]["interval"][0] <= scores["pain"]["score"] <= scores["pain"]["interval"][1]
    tables = [pd.read_parquet(path) for path in (run / "tracks").glob("*.parquet")]
    assert all(0 <= table["pain"].min() <= table["pain"].max() <= 16 for table in tables)
    capsys.readouterr()
    assert main(["score", str(run / "tracks"), str(root), "--json", "--trust_code"]) == 0
    assert json.loads(capsys.readouterr().out)["total"] == pytest.approx(scores["total"], abs=1e-6)
    best = run / "checkpoints" / "best.ckpt"
    with pytest.raises(UsageError, match=rf"best\.ckpt: the task {__name__}\.YES is code"):
        abaw.load(best)
    assert abaw.load(best, trust_code=True).tasks[-2:] == (PAIN, YES)
