import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from abaw.batch import Batch
from abaw.errors import UsageError
from abaw.tasks import AU, EXPR, TASKS, VA, Task
from abaw.training.losses import LossInputs, LossSettings, TaskLosses, concordance, focal, masked_mean
from tests.support.clips import random_batch, relabelled, touched
from tests.support.project import PROJECT

ALL = TASKS
PLAIN = LossSettings(expr="ce", au="bce", expr_weights="none", au_weights="none")
COUNTS = {EXPR: np.arange(1, 9) * 10, AU: np.stack([np.full(12, 90), np.arange(1, 13)], 1), VA: np.array(5)}


def losses(**change: Any) -> TaskLosses:
    module = TaskLosses(replace(PLAIN, **change), ALL)
    module.set_label_counts(COUNTS)
    return module


def some_outputs(b: int = 2, t: int = 6, seed: int = 7) -> dict[Task, Tensor]:
    g = torch.Generator().manual_seed(seed)
    raw = {task: torch.randn(b, t, task.size, generator=g) for task in ALL}
    raw[VA] = raw[VA].tanh()
    return {task: values.requires_grad_() for task, values in raw.items()}


def no_labels(batch: Batch, *tasks: Task) -> Batch:
    for task in tasks:
        batch = relabelled(batch, task, valid=torch.zeros_like(batch.labels[task].valid))
    return batch


def plain_error(x: LossInputs) -> Tensor:
    """A loss from outside of the package."""
    return (x.output - x.target).abs().mean(-1)


def test_a_loss_of_ones_own_is_named_by_its_import_path() -> None:
    batch, values = random_batch(b=2, t=6, labelled=0.7), some_outputs()
    valid = batch.labels[VA].valid
    error = (values[VA] - batch.labels[VA].values).abs().mean(-1)[valid].mean()
    _, per_task = losses(va=f"{__name__}.plain_error")(values, batch)
    assert per_task[VA].item() == pytest.approx(error.item(), rel=1e-6)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"va": "cce"}, "model.loss.va is ccc, mse or the import path of a function, got 'cce'"),
        ({"expr": "bce"}, "model.loss.expr is focal, ce or an import path, got 'bce'"),
        ({"au": "nowhere.loss"}, "model.loss.au: nowhere.loss cannot be imported"),
        ({"au": f"{__name__}.ALL"}, "ALL is a tuple, not a function"),
    ],
)
def test_a_loss_that_does_not_exist_is_named(change: dict[str, str], told: str) -> None:
    with pytest.raises(UsageError, match=re.escape(told)):
        losses(**change)


# -- the formulas


def test_masked_mean_divides_by_the_valid_values() -> None:
    values = torch.tensor([1.0, 3.0, torch.nan, torch.inf], requires_grad=True)
    mean = masked_mean(values, torch.tensor([True, True, False, False]))
    mean.backward()
    assert mean.item() == 2.0
    assert values.grad is not None
    assert values.grad.tolist() == [0.5, 0.5, 0.0, 0.0]
    assert masked_mean(values, torch.zeros(4, dtype=torch.bool)).item() == 0.0


def official_ccc(x: np.ndarray, y: np.ndarray) -> float:
    return 2 * np.mean((x - x.mean()) * (y - y.mean())) / (x.var() + y.var() + (x.mean() - y.mean()) ** 2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_ccc_loss_is_one_minus_the_official_ccc(dtype: torch.dtype) -> None:
    batch = random_batch(b=8, t=50, labelled=0.7)
    values = {**some_outputs(8, 50), VA: (batch.labels[VA].values + 0.3 * torch.randn(8, 50, 2)).to(dtype)}
    x, y, valid = (
        values[VA].double().numpy(),
        batch.labels[VA].values.double().numpy(),
        batch.labels[VA].valid.numpy(),
    )
    want = np.mean([official_ccc(x[valid][:, k], y[valid][:, k]) for k in (0, 1)])
    _, per_task = losses(ccc_eps=1e-9)(values, batch)
    assert per_task[VA].item() == pytest.approx(1 - want, abs=1e-6)


def test_ccc_of_many_rows_far_from_zero_is_exact() -> None:
    g = torch.Generator().manual_seed(0)
    target = 0.9 + 0.01 * torch.randn(200_000, 1, generator=g)
    prediction = target + 0.01 * torch.randn(200_000, 1, generator=g)
    ccc, _ = concordance(prediction, target, torch.ones(200_000, dtype=torch.bool), eps=1e-12)
    want = official_ccc(prediction.double().numpy(), target.double().numpy())
    assert ccc.item() == pytest.approx(want, abs=1e-8)


@pytest.mark.parametrize("prediction", [0.0, 0.3])
@pytest.mark.parametrize("target", [0.0, -0.2])
@pytest.mark.parametrize("n", [1, 40])
def test_ccc_of_what_does_not_vary_is_finite(prediction: float, target: float, n: int) -> None:
    x = torch.full((n, 2), prediction, requires_grad=True)
    ccc, n_valid = concordance(x, torch.full((n, 2), target), torch.ones(n, dtype=torch.bool), eps=1e-6)
    ccc.sum().backward()
    assert n_valid == n
    assert ccc.abs().max() < 1e-6
    assert x.grad is not None
    assert x.grad.isfinite().all()


def test_focal_loss_by_hand() -> None:
    p = torch.tensor([0.7, 0.2, 0.1])
    got = focal(p.log(), torch.tensor([1.0, 0.0, 0.0]), torch.tensor([0.5, 1.0, 1.0]), gamma=2.0)
    assert got.item() == pytest.approx(0.5 * 0.3**2 * -np.log(0.7))


@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_focal_loss_of_a_sure_answer_has_a_finite_gradient(gamma: float) -> None:
    logits = torch.tensor([[60.0, -60.0], [-60.0, 60.0]], requires_grad=True)
    focal(logits.log_softmax(-1), torch.tensor([1.0, 0.0]), torch.ones(()), gamma=gamma).sum().backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


# -- what each task's loss is


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("kind", ["none", "complement", "inverse"])
def test_expression_loss_is_cross_entropy_on_logits(smoothing: float, kind: str) -> None:
    batch, outputs = random_batch(labelled=0.6), some_outputs()
    module = losses(label_smoothing=smoothing, expr_weights=kind)
    weight = {
        "none": torch.ones(8),
        "complement": 1 - torch.arange(1, 9) / 36,
        "inverse": 36 / (8 * torch.arange(1, 9)),
    }[kind]
    valid = batch.labels[EXPR].valid
    want = F.cross_entropy(
        outputs[EXPR][valid],
        batch.labels[EXPR].values[valid],
        weight,
        reduction="none",
        label_smoothing=smoothing,
    )
    _, per_task = module(outputs, batch)
    assert per_task[EXPR].item() == pytest.approx(want.mean().item(), abs=1e-6)


def test_action_unit_loss_is_one_binary_cross_entropy_per_unit() -> None:
    batch, outputs = random_batch(labelled=0.6), some_outputs()
    valid = batch.labels[AU].valid
    want = F.binary_cross_entropy_with_logits(outputs[AU][valid], batch.labels[AU].values[valid])
    total, per_task = losses()(outputs, batch)
    assert per_task[AU].item() == pytest.approx(want.item(), abs=1e-6)
    # no unit, and no frame, has to do with another: neither a softmax over units nor one over time
    (gradient,) = torch.autograd.grad(total, outputs[AU])
    alone = (outputs[AU].sigmoid() - batch.labels[AU].values) / valid.sum()
    torch.testing.assert_close(gradient, torch.where(valid, alone, 0.0))


@pytest.mark.parametrize(("kind", "weight"), [("complement", "row"), ("inverse", "both")])
def test_weights_of_action_units(kind: str, weight: str) -> None:
    got = losses(au_weights=kind).au_weight
    positives = torch.arange(1.0, 13.0)
    if weight == "row":
        want = (1 - positives / 78)[:, None].expand(12, 2)
    else:
        want = torch.stack([(90 + positives) / 180, (90 + positives) / (2 * positives)], 1)
    torch.testing.assert_close(got, want)


def test_focal_with_gamma_0_and_no_alpha_is_cross_entropy() -> None:
    batch, outputs = random_batch(labelled=0.6), some_outputs()
    as_focal = losses(expr="focal", au="focal", gamma=0.0, alpha=None)(outputs, batch)
    as_entropy = losses()(outputs, batch)
    torch.testing.assert_close(as_focal, as_entropy)


def test_alpha_is_a_plain_factor_and_gamma_leaves_the_easy_aside() -> None:
    batch, outputs = random_batch(), some_outputs()
    full = losses(expr="focal", au="focal", alpha=None)(outputs, batch)[1]
    quarter = losses(expr="focal", au="focal", alpha=0.25)(outputs, batch)[1]
    for task in (EXPR, AU):
        assert quarter[task].item() == pytest.approx(0.25 * full[task].item(), rel=1e-5)
    p = outputs[EXPR].softmax(-1).gather(-1, batch.labels[EXPR].values[..., None])
    assert full[EXPR].item() == pytest.approx((-((1 - p) ** 2) * p.log()).mean().item(), rel=1e-5)
    p = torch.where(batch.labels[AU].values > 0, outputs[AU].sigmoid(), 1 - outputs[AU].sigmoid())
    assert full[AU].item() == pytest.approx((-((1 - p) ** 2) * p.log()).mean().item(), rel=1e-5)


def test_mse_is_the_mean_over_labelled_frames() -> None:
    batch, outputs = random_batch(labelled=0.5), some_outputs()
    want = F.mse_loss(outputs[VA][batch.labels[VA].valid], batch.labels[VA].values[batch.labels[VA].valid])
    assert losses(va="mse")(outputs, batch)[1][VA].item() == pytest.approx(want.item(), abs=1e-6)


# -- which frames count


@pytest.mark.parametrize("change", [{}, {"va": "mse", "expr": "focal", "au": "focal"}])
def test_labels_count_where_valid_and_present_also_on_masked_frames(change: dict[str, Any]) -> None:
    present = torch.ones(2, 6, dtype=torch.bool)
    present[1, 4:] = False
    visible = present & (torch.arange(6) % 2 == 0)
    batch = random_batch(labelled=0.7, present=present, visible=visible)
    outputs = some_outputs()
    total, _ = losses(**change)(outputs, batch)
    total.backward()
    for task, mask in (
        (VA, batch.labels[VA].valid),
        (EXPR, batch.labels[EXPR].valid),
        (AU, batch.labels[AU].valid.any(-1)),
    ):
        gradient = outputs[task].grad
        assert gradient is not None
        counted = touched(gradient.abs().sum(-1))
        assert torch.equal(counted, mask & present)
        assert (counted & ~visible).any()


def test_what_stands_under_an_invalid_label_never_matters() -> None:
    batch, outputs = random_batch(labelled=0.5), some_outputs()
    dirty = replace(
        batch,
        labels={
            task: labels._replace(
                values=torch.where(
                    labels.valid[..., None] if task == VA else labels.valid, labels.values, marker
                )
            )
            for (task, labels), marker in zip(batch.labels.items(), (torch.nan, -1, -1.0), strict=True)
        },
    )
    for change in ({}, {"va": "mse", "expr": "focal", "au": "focal", "label_smoothing": 0.1}):
        clean_total, _ = losses(**change)(outputs, batch)
        dirty_total, _ = losses(**change)(outputs, dirty)
        assert clean_total.item() == dirty_total.item()
        gradients = torch.autograd.grad(dirty_total, list(outputs.values()))
        assert all(gradient.isfinite().all() for gradient in gradients)


@pytest.mark.parametrize("weights", ["uncertainty", {"va": 2.0}])
@pytest.mark.parametrize("va", ["ccc", "mse"])
@pytest.mark.parametrize("empty", [(VA,), (EXPR,), (AU,), ALL])
def test_a_task_without_labels_has_loss_0_and_a_gradient_of_zeros(empty: Any, va: str, weights: Any) -> None:
    module = losses(va=va, task_weights=weights)
    outputs, batch = some_outputs(), no_labels(random_batch(), *empty)
    total, per_task = module(outputs, batch)
    total.backward()
    assert total.isfinite()
    for task in ALL:
        gradient = outputs[task].grad
        assert gradient is not None
        assert gradient.isfinite().all()
        assert bool(gradient.any()) == (task not in empty)
        assert (per_task[task].item() == 0) == (task in empty)
    for name, parameter in module.log_variance.items():
        assert parameter.grad is not None
        assert (parameter.grad.item() == 0) == (name in map(str, empty))


def test_bfloat16_outputs_and_autocast_lose_nothing() -> None:
    batch = random_batch(b=4, t=100)
    rough = {task: values.detach().bfloat16() for task, values in some_outputs(4, 100).items()}
    exact = {task: values.float() for task, values in rough.items()}
    module = losses(expr="focal", au="focal")
    with torch.autocast("cpu", torch.bfloat16):
        total, per_task = module(rough, batch)
    assert total.dtype == torch.float32
    torch.testing.assert_close((total, per_task), module(exact, batch), atol=0, rtol=0)


# -- how tasks are weighed


def test_fixed_task_weights() -> None:
    batch, outputs = random_batch(), some_outputs()
    total, per_task = losses(task_weights={"va": 2.0, "au": 0.0})(outputs, batch)
    assert total.item() == pytest.approx((2 * per_task[VA] + per_task[EXPR]).item())


def test_learned_weights_start_at_one_and_follow_the_uncertainty() -> None:
    batch, outputs = random_batch(), some_outputs()
    module = losses(task_weights="uncertainty")
    total, per_task = module(outputs, batch)
    assert total.item() == pytest.approx(sum(loss.item() for loss in per_task.values()))
    optimizer = torch.optim.SGD(module.parameters(), lr=1.0)
    for _ in range(40):
        optimizer.zero_grad()
        module(outputs, batch)[0].backward()
        optimizer.step()
    for task, loss in per_task.items():  # exp(-s) L + s/2 is least at s = log 2L
        assert module.log_variance[task.name].item() == pytest.approx(np.log(2 * loss.item()), abs=1e-2)


@pytest.mark.parametrize("tasks", [(VA,), (EXPR, AU), ALL])
def test_any_subset_of_tasks(tasks: tuple[Task, ...]) -> None:
    outputs = {task: some_outputs()[task] for task in tasks}
    _, per_task = TaskLosses(PLAIN, tasks)(outputs, random_batch())
    assert tuple(per_task) == tasks


def test_class_weights_are_kept_in_the_state_and_never_forgotten() -> None:
    settings = replace(PLAIN, expr_weights="complement")
    fresh = TaskLosses(settings, ALL)
    with pytest.raises(RuntimeError, match="set_label_counts"):
        fresh(some_outputs(), random_batch())
    fresh.eval()(some_outputs(), random_batch())
    fresh.load_state_dict(losses(expr_weights="complement").state_dict())
    torch.testing.assert_close(fresh.expr_weight, 1 - torch.arange(1, 9) / 36)


@pytest.mark.parametrize(
    "wrong",
    [
        {"va": "rmse"}, {"expr": "bce"}, {"au": "ce"}, {"gamma": -1.0}, {"alpha": 0.0}, {"ccc_eps": 0.0},
        {"expr_weights": "auto"}, {"au_weights": "auto"}, {"label_smoothing": 1.0}, {"task_weights": "auto"},
        {"task_weights": {"au": -1.0}}, {"task_weights": {"aus": 1.0}},
    ],
)  # fmt: skip
def test_settings_that_mean_nothing_are_named(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=rf"model\.loss\.{next(iter(wrong))}"):
        TaskLosses(LossSettings(**wrong), ALL)


def test_all_wrong_settings_are_named_at_once() -> None:
    with pytest.raises(UsageError, match=r"model\.loss\.va .*model\.loss\.gamma"):
        LossSettings(va="rmse", gamma=-2.0)  # type: ignore[arg-type]


# -- several processes

WHOLE_BATCH = """
import sys
import torch, torch.distributed as dist
from dataclasses import replace
from torch import nn
from tests.support.clips import random_batch
from tests.training.test_losses import COUNTS, no_labels
from abaw.batch import Batch
from abaw.training.losses import LossSettings, TaskLosses
from abaw.tasks import EXPR, TASKS, VA

rank, rendezvous = int(sys.argv[1]), sys.argv[2]
settings = {
    "default": LossSettings(),
    "plain": LossSettings(va="mse", expr="ce", au="bce", task_weights="uncertainty", label_smoothing=0.1),
}
tasks = TASKS


class Linear(nn.Module):
    def __init__(self):
        super().__init__()
        self.heads = nn.ModuleList([nn.Linear(5, task.size) for task in tasks])

    def forward(self, x):
        outputs = {task: head(x) for task, head in zip(tasks, self.heads)}
        outputs[VA] = outputs[VA].tanh()
        return outputs


def gradients(setting, batches, rank, wrap):
    torch.manual_seed(0)
    net, losses = Linear(), TaskLosses(setting, tasks)
    losses.set_label_counts(COUNTS)
    both = wrap(nn.ModuleDict({"net": net, "losses": losses}))
    total, per_task = both(batches[rank])
    total.backward()
    found = [p.grad for p in (*net.parameters(), *losses.parameters())]
    return total.detach(), torch.stack([per_task[t].detach() for t in tasks]), found


class Step(nn.Module):
    def __init__(self, modules):
        super().__init__()
        self.parts = modules

    def forward(self, batch):
        return self.parts["losses"](self.parts["net"](batch.features), batch)


a = no_labels(random_batch(3, 7, dim=5, labelled=0.9, seed=1), EXPR)
b = random_batch(1, 7, dim=5, labelled=0.2, seed=2)
cases = {
    "unequal": (a, b),
    "one empty": (a, no_labels(b, *tasks)),
    "nothing": (no_labels(a, *tasks), no_labels(b, *tasks)),
}
alone = {
    (name, case): gradients(setting, [Batch.cat(parts)], 0, Step)
    for name, setting in settings.items()
    for case, parts in cases.items()
}
own = LossSettings(gather_ccc=False)
alone_own = gradients(own, [cases["unequal"][rank]], 0, Step)[1]
dist.init_process_group("gloo", init_method="file://" + rendezvous, rank=rank, world_size=2)
for (name, case), (total, per_task, found) in alone.items():
    wrap = lambda modules: nn.parallel.DistributedDataParallel(Step(modules))
    ours, ours_per_task, ours_found = gradients(settings[name], cases[case], rank, wrap)
    for value in (ours, ours_per_task):
        dist.all_reduce(value)
    torch.testing.assert_close(ours / 2, total, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(ours_per_task / 2, per_task, atol=1e-5, rtol=1e-5)
    for mine, whole in zip(ours_found, found, strict=True):
        torch.testing.assert_close(mine, whole, atol=1e-5, rtol=1e-5)
    assert case == "nothing" or any(whole.abs().max() > 1e-3 for whole in found)

# where it is asked for, each process has the CCC of its own batch
wrap = lambda modules: nn.parallel.DistributedDataParallel(Step(modules))
ours_own = gradients(own, cases["unequal"], rank, wrap)[1]
va = tasks.index(VA)
torch.testing.assert_close(ours_own[va], alone_own[va], atol=1e-5, rtol=1e-5)
assert rank == 0 or (ours_own[va] - alone["default", "unequal"][1][va]).abs() > 1e-2  # rank 1 has few rows

# in evaluation mode no process waits for another
if rank == 0:
    step = Step(nn.ModuleDict({"net": Linear(), "losses": TaskLosses(LossSettings(), tasks)})).eval()
    step(a)
dist.barrier()
dist.destroy_process_group()
print("same", len(alone))
"""


@pytest.mark.slow
def test_two_processes_have_the_loss_and_gradients_of_one(tmp_path: Path) -> None:
    script = tmp_path / "rank.py"
    script.write_text(WHOLE_BATCH, encoding="utf-8")
    command = [sys.executable, str(script)]
    environment = os.environ | {"PYTHONPATH": str(PROJECT), "OMP_NUM_THREADS": "1"}
    ranks = [
        subprocess.Popen(
            [*command, str(rank), str(tmp_path / "meet")],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment, cwd=tmp_path,
        )
        for rank in (0, 1)
    ]  # fmt: skip
    try:
        printed = [rank.communicate(timeout=600)[0] for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    assert all(text.endswith("same 6\n") for text in printed), "\n".join(printed)
