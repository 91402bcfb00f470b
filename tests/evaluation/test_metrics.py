import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score

from abaw.evaluation.metrics import CCC, ActionUnitF1, ExpressionF1, OfficialScores
from abaw.evaluation.stitching import Stitched
from abaw.tasks import Task
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
        Task.VA: torch.from_numpy(0.6 * va + 0.1 + 0.3 * rng.normal(size=va.shape)).float().tanh(),
        Task.EXPR: logits.softmax(1),
        Task.AU: torch.from_numpy(0.3 * au + 0.5 * rng.random(au.shape)).float(),
    }
    targets = {Task.VA: va, Task.EXPR: expr, Task.AU: au}
    valid = {Task.VA: rng.random(N) < 0.7, Task.EXPR: rng.random(N) < 0.7, Task.AU: rng.random((N, 12)) < 0.7}
    for task in Task:
        targets[task][~valid[task]] = 0
        predictions[task] = predictions[task].bfloat16()
    return predictions, targets, valid


def independent(rows):
    predictions, targets, valid = (
        {t: np.asarray(x[t].float()) if torch.is_tensor(x[t]) else x[t] for t in Task} for x in rows
    )
    ok = valid[Task.VA]
    va = np.mean([plain_ccc(predictions[Task.VA][ok, k], targets[Task.VA][ok, k]) for k in range(2)])
    ok = valid[Task.EXPR]
    classes = predictions[Task.EXPR].argmax(1)
    expr = f1_score(targets[Task.EXPR][ok], classes[ok], labels=range(8), average="macro", zero_division=0)
    present, au, ok = predictions[Task.AU] >= 0.5, targets[Task.AU], valid[Task.AU]
    aus = np.mean([f1_score(au[ok[:, k], k], present[ok[:, k], k], zero_division=0) for k in range(12)])
    return {Task.VA: va, Task.EXPR: expr, Task.AU: aus}


METRICS = {Task.VA: CCC, Task.EXPR: ExpressionF1, Task.AU: ActionUnitF1}


@pytest.mark.parametrize("n_batches", [1, 7, 1000])
def test_equals_numpy_and_scikit_learn_in_any_batching(rows, n_batches):
    want = independent(rows)
    predictions, targets, valid = rows
    edges = np.unique(np.random.default_rng(n_batches).integers(0, N, n_batches - 1))
    for task in Task:
        metric = METRICS[task]()
        for part in np.split(np.arange(N), edges):
            where = slice(part[0], part[-1] + 1) if len(part) else slice(0, 0)
            metric.update(
                predictions[task][where],
                torch.from_numpy(targets[task][where]),
                torch.from_numpy(valid[task][where]),
            )
        assert float(metric.compute()) == pytest.approx(want[task], abs=1e-6)


def labels_of(targets, valid, where=slice(None)):
    return SimpleNamespace(values=lambda task: targets[task][where], valid=lambda task: valid[task][where])


def stitched(predictions, where=slice(None), covered=None):
    values = {task: values[where].float() for task, values in predictions.items()}
    n = len(values[Task.VA])
    everywhere = torch.ones(n, dtype=torch.bool)
    return Stitched(0, values, seen=everywhere, covered=everywhere if covered is None else covered)


def test_official_scores_add_up_over_videos(rows):
    predictions, targets, valid = rows
    want = independent(rows)
    metric = OfficialScores(list(Task), ["a", "b", "c"], draws=20)
    for position, where in enumerate([slice(0, 10), slice(10, 300_000), slice(300_000, N)]):
        metric.update(position, stitched(predictions, where), labels_of(targets, valid, where))
    scores = metric.compute()
    for task in Task:
        assert scores[task]["score"] == pytest.approx(want[task], abs=1e-6)
    assert scores["va"]["frames"] == valid[Task.VA].sum()
    assert scores["total"] == pytest.approx(sum(want.values()), abs=1e-6)
    assert scores["va"]["interval"][0] <= scores["va"]["score"]


def test_rows_beyond_the_last_frame_take_the_last_prediction_and_uncovered_ones_none():
    labels = labels_of({Task.EXPR: np.array([1, 2, 3, 3])}, {Task.EXPR: np.ones(4, bool)})
    predictions = {Task.EXPR: torch.eye(8)[[1, 1, 3]]}
    metric = OfficialScores([Task.EXPR], ["a"])
    video = Stitched(0, predictions, torch.ones(3) > 0, covered=torch.tensor([True, False, True]))
    metric.update(0, video, labels)
    confusion = metric.sums.expr[0]
    assert (confusion[1, 1], confusion[3, 3], confusion.sum()) == (1, 2, 3)
    metric.reset()
    metric.update(0, Stitched(0, predictions, torch.ones(3) > 0, torch.tensor([True, True, False])), labels)
    assert metric.sums.expr[0].sum() == 2


def test_nothing_labelled_is_zero_and_finite():
    none = torch.zeros(5, dtype=torch.bool)
    metric = CCC()
    metric.update(torch.randn(5, 2), torch.zeros(5, 2), none)
    metric.update(torch.randn(0, 2), torch.zeros(0, 2), none[:0])
    assert float(metric.compute()) == 0
    scores = OfficialScores([Task.AU], ["a"])
    labels = labels_of({Task.AU: np.zeros((3, 12))}, {Task.AU: np.zeros((3, 12), bool)})
    scores.update(0, Stitched(0, {Task.AU: torch.rand(3, 12)}, none[:3], ~none[:3]), labels)
    assert scores.compute() == {"total": 0.0}


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.half(),
        lambda m: m.set_dtype(torch.bfloat16),
        lambda m: m.to(torch.bfloat16),
        lambda m: m.float(),
        lambda m: torch.nn.ModuleDict({"m": m}).to(torch.float16)["m"],
        lambda m: m.to("cpu"),
    ],
)
def test_states_are_never_in_half_precision(change):
    metric = change(OfficialScores(list(Task), ["a"]))
    assert {task: getattr(metric, task).dtype for task in Task} == {
        Task.VA: torch.float64,
        Task.EXPR: torch.int64,
        Task.AU: torch.int64,
    }
    metric.reset()
    assert metric.va.dtype == torch.float64


def test_states_follow_to_the_device_but_not_to_one_without_float64():
    metric = CCC()
    assert metric.to("meta").va.device.type == "meta"
    metric = CCC()
    pretended = SimpleNamespace(device=torch.device("mps"))
    metric._apply(lambda tensor: pretended if tensor.numel() == 0 else tensor)
    assert metric.va.device.type == "cpu"


def test_reset_forgets():
    metric = CCC()
    x = torch.rand(9, 2)
    metric.update(x, x, torch.ones(9) > 0)
    assert float(metric.compute()) == pytest.approx(1)
    metric.reset()
    metric.update(x, 1 - x, torch.ones(9) > 0)
    assert float(metric.compute()) < 0


RANK = """
import json, os, sys
import numpy as np, torch, torch.distributed as dist
from types import SimpleNamespace
from abaw.evaluation.metrics import CCC, OfficialScores
from abaw.evaluation.stitching import Stitched
from abaw.tasks import Task
rank, world, path = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
if world > 1:
    dist.init_process_group("gloo", init_method=f"file://{path}", rank=rank, world_size=world)
lengths = [300, 7, 45]
rng = np.random.default_rng(0)
metric, ccc = OfficialScores(list(Task), ["a", "b", "c"], draws=20), CCC()
for position, n in enumerate(lengths):
    va, expr, au = rng.uniform(-1, 1, (n, 2)), rng.integers(0, 8, n), rng.integers(0, 2, (n, 12))
    noise = rng.normal(size=(n, 2))
    probabilities = rng.random((n, 8)), rng.random((n, 12))
    if rank == 0:  # all on rank 0, nothing on rank 1
        labels = SimpleNamespace(values={Task.VA: va, Task.EXPR: expr, Task.AU: au}.get,
                                 valid=lambda t: np.ones((n, 12) if t is Task.AU else n, bool))
        values = {Task.VA: va + noise, Task.EXPR: probabilities[0], Task.AU: probabilities[1]}
        values = {t: torch.from_numpy(v).float() for t, v in values.items()}
        every = torch.ones(n, dtype=torch.bool)
        metric.update(position, Stitched(position, values, every, every), labels)
        ccc.update(values[Task.VA], torch.from_numpy(va), every)
print(json.dumps([metric.compute(), float(ccc.compute())]))
"""


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
