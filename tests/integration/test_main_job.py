"""The main job through the command line: every labelled frame counts once, however the work is divided."""

import json
import math
import os
import shutil
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from abaw.__main__ import main
from abaw.batch import Batch
from abaw.model.checkpoints import load_checkpoint
from abaw.tasks import task_named
from abaw.training.module import AffectModule
from tests.support.tiny_run import tiny_config

STILL = (
    "data: {window: 1, windows: {stride: 1}}\nmodel: {temporal: {layers: 0, width: null}}\n"  # no sequence
)
FOLDERS = {
    "va": "VA_Estimation_Challenge",
    "expr": "EXPR_Recognition_Challenge",
    "au": "AU_Detection_Challenge",
}
UNLABELLED = {"va": "-5,-5", "expr": "-1", "au": ",".join(["-1"] * 12)}
TASKS = tuple(FOLDERS)

Fit = Callable[..., Path]


@pytest.fixture(scope="module")
def fit(synth_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Fit:
    """Trains for three steps: `run = fit("--more", "words")`."""
    folder = tmp_path_factory.mktemp("config")

    def train(*more: str, config: str = "demo.yaml") -> Path:
        run = tmp_path_factory.mktemp("runs") / "run"
        configs = tiny_config(folder, over=config, trainer={"limit_train_batches": 3})
        assert main(["fit", *configs, f"--run={run}", f"--data.root={synth_root}", *more]) == 0
        return run

    return train


@pytest.fixture(scope="module")
def run(fit: Fit) -> Path:
    """A finished run; tests add results to it but train nothing there."""
    return fit()


@pytest.fixture(scope="module")
def baseline(run: Path) -> dict[str, Any]:
    """What the training itself says about its best weights."""
    return read_scores(run)


def read_scores(run: Path, file: str = "scores.json") -> dict[str, Any]:
    scores: dict[str, Any] = json.loads((run / file).read_text())
    return scores


def same_scores(left: dict[str, Any], right: dict[str, Any]) -> None:
    """All official numbers agree; the bootstrap intervals are not official."""
    flat = [pd.json_normalize(scores).drop(columns=["total_interval"]).iloc[0] for scores in (left, right)]
    flat = [numbers[[name for name in numbers.index if "interval" not in name]] for numbers in flat]
    assert set(flat[0].index) == set(flat[1].index)
    assert flat[0].to_dict() == pytest.approx(flat[1].to_dict(), abs=1e-6)


def validate_and_predict(
    run: Path, root: Path, capsys: pytest.CaptureFixture[str], *more: str, score: tuple[str, ...] = ()
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The scores of `validate`, and those of `predict` and `score`."""
    shutil.rmtree(run / "tracks", ignore_errors=True)
    for subcommand in ("validate", "predict"):
        assert main([subcommand, f"--run={run}", f"--data.root={root}", *more]) == 0
    capsys.readouterr()
    assert main(["score", str(run / "tracks"), str(root), "--json", *score]) == 0
    validated = read_scores(run, "scores-val.json")
    assert (validated.pop("split"), Path(validated.pop("checkpoint")).name) == ("val", "best.ckpt")
    validated.pop("settings")
    return validated, json.loads(capsys.readouterr().out)


def copy_of(root: Path, target: Path) -> Path:
    """A copy whose files may be removed or replaced, not written into: they are links."""
    shutil.copytree(root, target, copy_function=os.link)
    return target


def images_of(root: Path) -> dict[str, dict[int, Path]]:
    """The images of every video by number, from 1."""
    found: dict[str, dict[int, Path]] = {}
    for path in root.glob("cropped_aligned*/*/*.jpg"):
        found.setdefault(path.parent.name, {})[int(path.stem)] = path
    return found


def label_rows(root: Path, task: str, split: str = "Validation_Set") -> dict[str, np.ndarray]:
    """The label rows of every video as they stand in the files, markers included, float64 (R, K)."""
    files = (root / "6th_ABAW_Annotations" / FOLDERS[task] / split).glob("*.txt")
    return {path.stem: np.loadtxt(path, delimiter=",", skiprows=1, ndmin=2) for path in files}


def labelled(task: str, rows: np.ndarray) -> np.ndarray:
    """Which rows are labelled, bool (R,), for AU (R, 12)."""
    valid: np.ndarray = rows != (-5 if task == "va" else -1)
    return valid if task == "au" else np.asarray(valid.all(1))


def count_labelled(root: Path) -> dict[str, int]:
    counts = {}
    for task in TASKS:
        of_videos = [labelled(task, rows).sum(0) for rows in label_rows(root, task).values()]
        counts[task] = int(np.max(np.sum(of_videos, axis=0)))
    return counts


def split_over_two_roots(root: Path, by: str) -> list[str]:
    """Moves every other video, or of every video two of three images, to a second folder."""
    second = root / "elsewhere"
    for place, (video, images) in enumerate(sorted(images_of(root).items())):
        for number, path in images.items():
            if place % 2 if by == "videos" else number % 3:
                (second / video).mkdir(parents=True, exist_ok=True)
                path.replace(second / video / path.name)
    return [str(root / "cropped_aligned"), str(second), str(root / "cropped_aligned_new_50_vids")]


@pytest.mark.parametrize(
    ("batch_size", "workers", "split_by"),
    [
        (1, 0, None),
        (8, 2, None),
        pytest.param(1, 2, "videos", marks=pytest.mark.slow),
        (8, 0, "videos"),
        pytest.param(1, 2, "frames", marks=pytest.mark.slow),
        (8, 0, "frames"),
    ],
)
def test_however_the_work_is_divided_the_scores_are_the_same(
    run: Path,
    baseline: dict[str, Any],
    synth_root: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    batch_size: int,
    workers: int,
    split_by: str | None,
) -> None:
    words = [f"--data.evaluation.batch_size={batch_size}", f"--data.workers={workers}"]
    root = synth_root
    if split_by is not None:
        root = copy_of(synth_root, tmp_path / "data")
        words.append(f"--data.source.image_roots={json.dumps(split_over_two_roots(root, split_by))}")
    validated, scored = validate_and_predict(run, root, capsys, *words)
    assert {"va", "expr", "au", "total"} <= set(validated)
    same_scores(validated, scored)
    same_scores(validated, baseline)


@pytest.fixture(scope="module")
def gappy_root(synth_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Without the first image of validation videos, the last ones, a window's worth, and all of one video."""
    root = copy_of(synth_root, tmp_path_factory.mktemp("gappy") / "data")
    videos = sorted({video for task in TASKS for video in label_rows(root, task)})
    images = images_of(root)
    for place, video in enumerate(videos):
        last = max(images[video])
        gone = {1, *range(8, 27), *range(last - 5, last + 1)}
        for number, path in images[video].items():
            if number in gone or place == 0:
                path.unlink()
    return root


def official_by_hand(root: Path, tracks: dict[str, pd.DataFrame]) -> dict[str, float]:
    """The official scores from the annotation files and the tracks, frame by frame."""
    result = {}
    for task in TASKS:
        predicted, target = [], []
        for video, rows in label_rows(root, task).items():
            table = tracks[video]
            columns = {"va": ["valence", "arousal"], "expr": [c for c in table if str(c).startswith("expr_")]}
            columns["au"] = [c for c in table if str(c).startswith("AU")]
            values = table[columns[task]].to_numpy()
            predicted.append(values[[min(row, len(values) - 1) for row in range(len(rows))]])
            target.append(rows)
        x, y = np.concatenate(predicted).astype(np.float64), np.concatenate(target)
        valid = labelled(task, y)
        if task == "va":
            x, y = x[valid], y[valid]
            spread = x.var(0) + y.var(0) + (x.mean(0) - y.mean(0)) ** 2
            parts = 2 * ((x - x.mean(0)) * (y - y.mean(0))).mean(0) / spread
        else:
            if task == "expr":
                p, t = x[valid].argmax(1)[:, None] == np.arange(8), y[valid] == np.arange(8)
            else:
                p, t = (x >= 0.5) & valid, (y == 1) & valid
            hits, either = (p & t).sum(0), p.sum(0) + t.sum(0)
            parts = np.where(either > 0, 2 * hits / np.maximum(either, 1), 0)
        result[task] = float(parts.mean())
    return result


@pytest.mark.parametrize("data", ["synth_root", "gappy_root"])
def test_every_labelled_frame_is_scored_once(
    data: str, run: Path, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    root: Path = request.getfixturevalue(data)
    validated, scored = validate_and_predict(run, root, capsys)
    same_scores(validated, scored)
    assert {task: validated[task]["frames"] for task in TASKS} == count_labelled(root)
    tracks = {path.stem: pd.read_parquet(path) for path in (run / "tracks").glob("*.parquet")}
    n_rows = {task: {v: len(rows) for v, rows in label_rows(root, task).items()} for task in TASKS}
    assert set(tracks) == {video for of_task in n_rows.values() for video in of_task}
    images = images_of(root)
    for video, table in tracks.items():
        here = images.get(video, {})
        n_frames = max([*here, *(of_task[video] - 1 for of_task in n_rows.values() if video in of_task)])
        assert table["frame"].tolist() == list(range(1, n_frames + 1))
        assert table["frame"][table["seen"]].tolist() == sorted(here)
    by_hand = official_by_hand(root, tracks)
    assert {task: validated[task]["score"] for task in TASKS} == pytest.approx(by_hand, abs=1e-6)
    assert validated["total"] == pytest.approx(sum(by_hand.values()), abs=1e-6)


def check_training(run: Path, tasks: tuple[str, ...]) -> None:
    """Finite weights, finite losses, and the scores of just these tasks."""
    for name in ("best", "last"):
        for key, value in weights(run, name).items():
            assert torch.isfinite(value).all(), key
    curves = pd.read_csv(run / "metrics.csv")
    losses = curves["train/loss"].dropna()
    assert len(losses) == 3
    assert losses.map(math.isfinite).all()
    assert set(read_scores(run)) == {*tasks, "total", "total_interval"}


def weights(run: Path, name: str = "last") -> dict[str, Tensor]:
    state: dict[str, Tensor] = load_checkpoint(run / f"checkpoints/{name}.ckpt")["state_dict"]
    assert state
    return state


SUBSETS = [tasks for n in (1, 2, 3) for tasks in combinations(TASKS, n)]


@pytest.mark.parametrize("tasks", SUBSETS, ids="+".join)
def test_any_subset_of_the_tasks_trains(tasks: tuple[str, ...], fit: Fit) -> None:
    run = fit(f"--data.tasks=[{','.join(tasks)}]")
    check_training(run, tasks)


@pytest.mark.parametrize("tasks", [("expr",), TASKS], ids="+".join)
def test_the_mtl_files_train_on_single_images(
    tasks: tuple[str, ...], fit: Fit, synth_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    still = tmp_path / "still.yaml"
    still.write_text(STILL)
    run = fit(f"--config={still}", f"--data.tasks=[{','.join(tasks)}]", config="mtl_static.yaml")
    check_training(run, tasks)
    validated, scored = validate_and_predict(run, synth_root, capsys, score=("--label_set=mtl",))
    same_scores(validated, scored)
    path = synth_root / "6th_ABAW_Annotations/MTL_Challenge/validation_set.txt"
    cells = np.array([line.split(",")[1:] for line in path.read_text().splitlines()[1:]], np.float64)
    columns = {"va": slice(0, 2), "expr": slice(2, 3), "au": slice(3, 15)}
    for task in tasks:
        assert validated[task]["frames"] == labelled(task, cells[:, columns[task]]).sum(0).max()


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> list[Batch]:
    """The batches that were trained on."""
    seen: list[Batch] = []
    step = AffectModule.training_step

    def watched(module: AffectModule, batch: Batch, batch_idx: int) -> dict[str, Any]:
        seen.append(batch)
        return step(module, batch, batch_idx)

    monkeypatch.setattr(AffectModule, "training_step", watched)
    return seen


def blank_training_labels(root: Path, task: str, keep: slice) -> None:
    """Leaves of a task's training labels only rows `keep` of the first video."""
    folder = root / "6th_ABAW_Annotations" / FOLDERS[task] / "Train_Set"
    for place, path in enumerate(sorted(folder.glob("*.txt"))):
        header, *rows = path.read_text().splitlines()
        blank = [UNLABELLED[task]] * len(rows)
        if place == 0:
            blank[keep] = rows[keep]
        path.unlink()  # the original is the same file
        path.write_text("\n".join([header, *blank]) + "\n")


@pytest.mark.parametrize("task", TASKS)
def test_a_batch_may_lack_the_labels_of_a_task(
    task: str, fit: Fit, synth_root: Path, tmp_path: Path, batches: list[Batch]
) -> None:
    root = copy_of(synth_root, tmp_path / "data")
    blank_training_labels(root, task, slice(None))
    check_training(fit(f"--data.root={root}", "--data.batch_size=1"), TASKS)
    assert len(batches) == 3
    assert not all(batch.labels[task_named(task)].valid.any() for batch in batches)


@pytest.mark.parametrize("task", TASKS)
def test_no_window_without_any_label_is_trained_on(
    task: str, fit: Fit, synth_root: Path, tmp_path: Path, batches: list[Batch]
) -> None:
    """One labelled frame in all: windows begin at random, but only where they hold it."""
    root = copy_of(synth_root, tmp_path / "data")
    blank_training_labels(root, task, slice(16, 17))
    run = fit(
        f"--data.root={root}", f"--data.tasks=[{task}]", "--data.batch_size=1", "--trainer.max_epochs=4"
    )
    assert len(batches) >= 4
    assert all(batch.labels[task_named(task)].valid.any() for batch in batches)
    assert len({batch.where[0].start for batch in batches}) > 1
    assert all(torch.isfinite(value).all() for value in weights(run).values())


def test_a_seed_decides_every_weight(fit: Fit) -> None:
    first = weights(fit("--seed_everything=5"))
    for again in ((), ("--data.workers=2",)):
        other = weights(fit("--seed_everything=5", *again))
        assert set(other) == set(first)
        assert all(torch.equal(other[key], value) for key, value in first.items())
    different = weights(fit("--seed_everything=6"))
    changed = [key for key, value in first.items() if not torch.equal(different[key], value)]
    assert any(key.startswith("network.backbone") for key in changed)
    assert any(key.startswith("network.heads") for key in changed)
