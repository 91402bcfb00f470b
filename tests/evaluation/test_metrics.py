import subprocess
import sys

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score

from abaw.evaluation.metrics import OfficialScores
from abaw.evaluation.stitching import Stitched
from abaw.tasks import AU, EXPR, TASKS, VA, TaskLabels
from tests.support.scores import plain_ccc

N = 400_000


@pytest.fixture(scope="module")
def rows():
    """Predictions in bf16 with labels: unlabelled rows, an absent class, an AU never present, odd targets."""
    rng = np.random.default_rng(0)
    va = rng.uniform(-1, 1, (N, 2)).astype(np.float32)
    va[:, 1] = 0.3  # constant target
    expr = rng.integers(0, 7, N)  # class 7 absent
    au = (rng.random((N, 12)) < 0.2).astype(np.float32)
    au[:, 4] = 0
    right = rng.random(N) < 0.4
    logits = torch.from_numpy(rng.normal(size=(N, 8)) + 3.0 * (np.eye(8)[expr] * right[:, None])).float()
    predictions = {
        VA: torch.from_numpy(0.6 * va + 0.1 + 0.3 * rng.normal(size=va.shape)).float().tanh(),
        EXPR: logits.softmax(1),
        AU: torch.from_numpy(0.3 * au + 0.5 * rng.random(au.shape)).float(),
    }
    targets = {VA: va, EXPR: expr, AU: au}
    valid = {VA: rng.random(N) < 0.7, EXPR: rng.random(N) < 0.7, AU: rng.random((N, 12)) < 0.7}
    for task in TASKS:
        targets[task][~valid[task]] = 0
        predictions[task] = predictions[task].bfloat16()
    return predictions, targets, valid


def independent(rows):
    predictions, targets, valid = (
        {t: np.asarray(x[t].float()) if torch.is_tensor(x[t]) else x[t] for t in TASKS} for x in rows
    )
    ok = valid[VA]
    va = np.mean([plain_ccc(predictions[VA][ok, k], targets[VA][ok, k]) for k in range(2)])
    ok = valid[EXPR]
    classes = predictions[EXPR].argmax(1)
    expr = f1_score(targets[EXPR][ok], classes[ok], labels=range(8), average="macro", zero_division=0)
    present, au, ok = predictions[AU] >= 0.5, targets[AU], valid[AU]
    aus = np.mean([f1_score(au[ok[:, k], k], present[ok[:, k], k], zero_division=0) for k in range(12)])
    return {VA: va, EXPR: expr, AU: aus}


def of_one_task(task, parts):
    """The official score of frames in parts, each a video: predictions, labels and their mask."""
    metric = OfficialScores([task], [f"v{k}" for k in range(len(parts))], draws=0)
    for position, (prediction, target, valid) in enumerate(parts):
        every = torch.ones(len(prediction), dtype=torch.bool)
        video = Stitched(position, {task: prediction}, every, every)
        metric.update(position, video, {task: TaskLabels(np.asarray(target), np.asarray(valid))})
    scores = metric.compute()
    return scores[task.name]["score"] if task.name in scores else scores["total"]


@pytest.mark.parametrize("n_batches", [1, 7, 1000])
def test_equals_numpy_and_scikit_learn_in_any_batching(rows, n_batches):
    want = independent(rows)
    predictions, targets, valid = rows
    edges = np.unique(np.random.default_rng(n_batches).integers(0, N, n_batches - 1))
    for task in TASKS:
        wheres = [
            slice(part[0], part[-1] + 1) if len(part) else slice(0, 0)
            for part in np.split(np.arange(N), edges)
        ]
        parts = [(predictions[task][w], targets[task][w], valid[task][w]) for w in wheres]
        assert of_one_task(task, parts) == pytest.approx(want[task], abs=1e-6)


def labels_of(targets, valid, where=slice(None)):
    return {task: TaskLabels(targets[task][where], valid[task][where]) for task in targets}


def stitched(predictions, where=slice(None), covered=None):
    values = {task: values[where].float() for task, values in predictions.items()}
    n = len(values[VA])
    everywhere = torch.ones(n, dtype=torch.bool)
    return Stitched(0, values, seen=everywhere, covered=everywhere if covered is None else covered)


def test_official_scores_add_up_over_videos(rows):
    predictions, targets, valid = rows
    want = independent(rows)
    metric = OfficialScores(list(TASKS), ["a", "b", "c"], draws=20)
    for position, where in enumerate([slice(0, 10), slice(10, 300_000), slice(300_000, N)]):
        metric.update(position, stitched(predictions, where), labels_of(targets, valid, where))
    scores = metric.compute()
    for task in TASKS:
        assert scores[task.name]["score"] == pytest.approx(want[task], abs=1e-6)
    assert scores["va"]["frames"] == valid[VA].sum()
    assert scores["total"] == pytest.approx(sum(want.values()), abs=1e-6)
    assert scores["va"]["interval"][0] <= scores["va"]["score"]


def test_rows_beyond_the_last_frame_take_the_last_prediction_and_uncovered_ones_none():
    labels = labels_of({EXPR: np.array([1, 2, 3, 3])}, {EXPR: np.ones(4, bool)})
    predictions = {EXPR: torch.eye(8)[[1, 1, 3]]}
    metric = OfficialScores([EXPR], ["a"])
    video = Stitched(0, predictions, torch.ones(3) > 0, covered=torch.tensor([True, False, True]))
    metric.update(0, video, labels)
    confusion = metric.sums.by_task[EXPR][0]
    assert (confusion[1, 1], confusion[3, 3], confusion.sum()) == (1, 2, 3)
    metric.reset()
    metric.update(0, Stitched(0, predictions, torch.ones(3) > 0, torch.tensor([True, True, False])), labels)
    assert metric.sums.by_task[EXPR][0].sum() == 2


def test_nothing_labelled_is_zero_and_finite():
    none = torch.zeros(5, dtype=torch.bool)
    parts = [(torch.randn(n, 2), torch.zeros(n, 2), none[:n]) for n in (5, 0)]
    assert of_one_task(VA, parts) == 0
    scores = OfficialScores([AU], ["a"])
    labels = labels_of({AU: np.zeros((3, 12))}, {AU: np.zeros((3, 12), bool)})
    scores.update(0, Stitched(0, {AU: torch.rand(3, 12)}, none[:3], ~none[:3]), labels)
    assert scores.compute() == {"total": 0.0}


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.half(),
        lambda m: m.set_dtype(torch.bfloat16),
        lambda m: m.float(),
        lambda m: m.to("cpu"),
    ],
)
def test_states_are_never_in_half_precision(change):
    metric = change(OfficialScores(list(TASKS), ["a"]))
    assert all(getattr(metric, task.name).dtype == torch.float64 for task in TASKS)
    metric.reset()
    assert metric.va.dtype == torch.float64


def test_states_follow_to_the_device_but_not_to_one_without_float64():
    assert OfficialScores([VA], ["a"], device="meta").va.device.type == "meta"
    assert OfficialScores([VA], ["a"], device="mps").va.device.type == "cpu"


def test_reset_forgets():
    metric = OfficialScores([VA], ["a"])
    x = torch.rand(9, 2)
    every = torch.ones(9) > 0
    for target, check in ((x, lambda score: score == pytest.approx(1)), (1 - x, lambda score: score < 0)):
        metric.update(0, Stitched(0, {VA: x}, every, every), {VA: TaskLabels(target.numpy(), every.numpy())})
        assert check(metric.compute()["va"]["score"])
        metric.reset()


RANK = """
import json, os, sys
import numpy as np, torch, torch.distributed as dist
from abaw.evaluation.metrics import OfficialScores
from abaw.evaluation.stitching import Stitched
from abaw.tasks import AU, EXPR, TASKS, VA, TaskLabels
rank, world, path = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
if world > 1:
    dist.init_process_group("gloo", init_method=f"file://{path}", rank=rank, world_size=world)
lengths = [300, 7, 45]
rng = np.random.default_rng(0)
metric = OfficialScores(list(TASKS), ["a", "b", "c"], draws=20)
for position, n in enumerate(lengths):
    va, expr, au = rng.uniform(-1, 1, (n, 2)), rng.integers(0, 8, n), rng.integers(0, 2, (n, 12))
    noise = rng.normal(size=(n, 2))
    probabilities = rng.random((n, 8)), rng.random((n, 12))
    if rank == 0:  # all on rank 0, nothing on rank 1
        labels = {VA: va, EXPR: expr, AU: au}
        labels = {t: TaskLabels(v, np.ones((n, *t.valid_shape), bool)) for t, v in labels.items()}
        values = {VA: va + noise, EXPR: probabilities[0], AU: probabilities[1]}
        values = {t: torch.from_numpy(v).float() for t, v in values.items()}
        every = torch.ones(n, dtype=torch.bool)
        metric.update(position, Stitched(position, values, every, every), labels)
print(json.dumps(metric.compute()))
if world > 1:
    dist.destroy_process_group()
"""


@pytest.mark.slow
def test_two_processes_one_of_them_empty_equal_one(tmp_path):
    def start(rank, world):
        command = [sys.executable, "-W", "ignore", "-c", RANK, str(rank), str(world), str(tmp_path / "meet")]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    processes = [start(0, 1), start(0, 2), start(1, 2)]
    try:
        alone, first, second = (process.communicate(timeout=600)[0].splitlines()[-1] for process in processes)
    finally:
        for process in processes:
            process.kill()
    assert first == second == alone
