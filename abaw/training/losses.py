"""Training losses: one per task over the labelled frames of all devices, and their weighted sum.

Every loss is divided by its number of valid labels on all devices, so the gradient that DDP averages is
that of one process with the whole batch. With gradient accumulation this holds per micro-batch.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, cast

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from abaw.batch import Batch
from abaw.errors import AbawError, UsageError, check_settings
from abaw.tasks import AU, EXPR, TASKS, Task, import_object

Weighting = Literal["none", "complement", "inverse"]


@dataclass(frozen=True, kw_only=True)
class LossSettings:
    """Losses and weights of the tasks.

    A loss is a name, or the import path of a function of `LossInputs`, such as my_losses.wing.
    """

    va: str = "ccc"
    """Valence and arousal: ccc (1 - CCC), mse (mean squared error), or an import path."""
    expr: str = "focal"
    """Expressions: focal (on the softmax), ce (cross-entropy), or an import path."""
    au: str = "focal"
    """Action units: focal (on each sigmoid), bce (binary cross-entropy), or an import path."""
    gamma: float = 2.0
    """Focal loss: exponent that reduces the loss of confident correct predictions; 0 is cross-entropy."""
    alpha: float | None = 0.25
    """Focal loss: constant factor, as in the paper; null is 1."""
    expr_weights: Weighting = "complement"
    """Class weights by the number n of training labels: 1 - n/sum (the paper), or sum/(8 n)."""
    au_weights: Weighting = "complement"
    """`complement`: weight 1 - n/sum by the number n of positives of an AU; `inverse`: equal total weight of
    the absent and present frames of each AU."""
    label_smoothing: float = 0.0
    """Share of each EXPR and AU target that is distributed evenly over its classes."""
    ccc_eps: float = 1e-6
    """Added to the denominator of the CCC: bounds the gradient for constant predictions."""
    gather_ccc: bool = True
    """Compute the CCC over the batches of all devices together, instead of per device."""
    task_weights: dict[str, float] | Literal["uncertainty"] = field(
        default_factory=lambda: {"va": 1.0, "expr": 1.0, "au": 1.0}
    )
    """Fixed factors per task (default 1), or learned ones by the tasks' uncertainty."""

    def loss(self, task: Task) -> str | Callable[..., Any]:
        """The name of a task's loss, or a function.

        Raises:
            UsageError: There is no function at its import path.
        """
        loss = {"va": self.va, "expr": self.expr, "au": self.au}.get(task.name, task.loss)
        if isinstance(loss, str) and "." in loss:
            found = import_object(loss, f"model.loss.{task}", "a function")
            if not callable(found):
                raise UsageError(f"model.loss.{task}: {loss} is a {type(found).__name__}, not a function")
            return cast(Callable[..., Any], found)
        return loss

    def weighting(self, task: Task) -> Weighting:
        """The class weighting of a task."""
        by_name: dict[str, Weighting] = {"va": "none", "expr": self.expr_weights, "au": self.au_weights}
        return by_name.get(task.name, "none")

    def __post_init__(self) -> None:
        weights, weightings = self.task_weights, ("none", "complement", "inverse")
        factors = isinstance(weights, dict) and min(weights.values(), default=0) >= 0
        rules = {
            "va": (self.va in ("ccc", "mse") or "." in self.va, "ccc, mse or the import path of a function"),
            "expr": (self.expr in ("focal", "ce") or "." in self.expr, "focal, ce or an import path"),
            "au": (self.au in ("focal", "bce") or "." in self.au, "focal, bce or an import path"),
            "gamma": (self.gamma >= 0, "0 or more"),
            "alpha": (self.alpha is None or self.alpha > 0, "a positive factor, or null"),
            "expr_weights": (self.expr_weights in weightings, "none, complement or inverse"),
            "au_weights": (self.au_weights in weightings, "none, complement or inverse"),
            "label_smoothing": (0 <= self.label_smoothing < 1, "a share in [0, 1)"),
            "ccc_eps": (self.ccc_eps > 0, "a small positive number"),
            "task_weights": (
                factors or weights == "uncertainty",
                "uncertainty, or a factor of 0 or more per task",
            ),
        }
        check_settings("model.loss", self, rules)


class TaskLosses(nn.Module):
    """Computes the loss of every task and their weighted sum, in float32 also under autocast.

    All labelled frames of a video count, also masked and missing ones; padding does not. A task without
    labels in the batch has loss 0 and a zero gradient. In evaluation mode there is no communication between
    processes.

    Args:
        settings: Losses and weights.
        tasks: The trained tasks.

    Raises:
        UsageError: A task or a loss that the settings name does not exist.
    """

    def __init__(self, settings: LossSettings, tasks: Sequence[Task]) -> None:
        super().__init__()
        known = [task.name for task in dict.fromkeys((*TASKS, *tasks))]
        weights = settings.task_weights
        if weights != "uncertainty" and (unknown := sorted(weights.keys() - set(known))):
            raise UsageError(
                f"model.loss.task_weights: {unknown[0]!r} is not a task; choose from {', '.join(known)}"
            )
        self.loss_of = {task: settings.loss(task) for task in tasks}  # names, or functions
        for task, loss in self.loss_of.items():
            if isinstance(loss, str) and loss != "ccc" and loss not in LOSSES:
                raise UsageError(f"task {task}: {loss!r} is not a loss; choose from ccc, {', '.join(LOSSES)}")
        self.settings = settings
        self.tasks = tuple(tasks)
        self._counted = False
        # weights of the classes, or of absence and presence of each binary label; saved in checkpoints
        for task in dict.fromkeys((*TASKS, *tasks)):
            if task.kind != "real":
                shape = (task.size,) if task.kind == "class" else (task.size, 2)
                self.register_buffer(f"{task.name}_weight", torch.ones(shape))
        learned = self.tasks if settings.task_weights == "uncertainty" else ()
        self.log_variance = nn.ParameterDict({task.name: nn.Parameter(torch.zeros(())) for task in learned})

    def set_label_counts(self, counts: Mapping[Task, NDArray[np.int64]]) -> None:
        """Sets the class weights by the number of training labels per class.

        Args:
            counts: Per class task (K,); per binary task (K, 2), absent and present. Others are ignored.
        """
        for task, n in counts.items():
            kind = self.settings.weighting(task)
            if task.kind == "class":
                weights = _class_weights(n, kind)
            elif task.kind == "binary":
                positives = kind == "complement"  # compares labels; others compare absence and presence
                weights = _class_weights(n[:, 1:].T, kind).T if positives else _class_weights(n, kind)
            if task.kind != "real":
                self._weight(task).copy_(torch.from_numpy(weights))
        self._counted = True

    def _weight(self, task: Task) -> Tensor:
        return self.get_buffer(f"{task.name}_weight")

    def check_resumed(self, state: Mapping[str, Tensor]) -> None:
        """Compares the class weights with those of a training that is to be resumed.

        Args:
            state: The weights of the whole module, from a checkpoint.

        Raises:
            AbawError: They differ.
        """
        for name, buffer in self.named_buffers():
            if not torch.allclose(state[f"losses.{name}"].to(buffer), buffer):
                raise AbawError(
                    f"model.loss.{name}s: the class weights, which depend on the number of training labels,"
                    " differ from those that the run was trained with.\n"
                    "A resumed run keeps its data: restore it, or start a new run from these weights with"
                    " --init_from CKPT --run NEW"
                )

    def forward(self, outputs: Mapping[Task, Tensor], batch: Batch) -> tuple[Tensor, dict[Task, Tensor]]:
        """Returns the loss to minimise and the loss of each task.

        Args:
            outputs: Per task (B, T, K), from `Network`: VA values, EXPR and AU logits.
            batch: The labels.

        Returns:
            The weighted sum and the loss of each task, scalars. With several processes their means over the
            processes are the losses of the whole batch.
        """
        weighted = any(self.settings.weighting(t) != "none" for t in (EXPR, AU, *self.tasks))
        if self.training and weighted and not self._counted:
            raise RuntimeError("training with class weights needs set_label_counts() first")
        with torch.autocast(batch.present.device.type, enabled=False):
            valid = {task: _supervised(task, batch) for task in self.tasks}
            counts = torch.stack([mask.sum() for mask in valid.values()])
            world = _n_processes() if self.training else 1
            if world > 1:
                dist.all_reduce(counts)
            # number of labels per process: the mean over the processes is then that over all labels
            n = dict(zip(self.tasks, counts.clamp(min=1) / world, strict=True))
            losses = {
                task: self._loss(task, outputs[task].float(), batch.labels[task].values, valid[task], n[task])
                for task in self.tasks
            }
            return self.weighted_sum(losses, dict(zip(self.tasks, counts > 0, strict=True))), losses

    def _loss(self, task: Task, output: Tensor, target: Tensor, valid: Tensor, n: Tensor) -> Tensor:
        """The loss of a task, from outputs (B, T, K), labels and their mask; divided by `n`."""
        if task.per == "clip":  # one output and label for all frames
            output, target, valid = output[:, :1], target[:, :1], valid[:, :1]
        if self.loss_of[task] == "ccc":
            shared = self.training and self.settings.gather_ccc and _n_processes() > 1
            ccc, n_valid = concordance(output, target, valid, eps=self.settings.ccc_eps, shared=shared)
            return torch.where(n_valid > 0, 1 - ccc.mean(), 0.0).float()
        return masked_mean(self.elements(task, output, target, valid), valid, n)

    def elements(self, task: Task, output: Tensor, target: Tensor, valid: Tensor) -> Tensor:
        """The loss of every label of a task, unless that is `ccc`.

        Args:
            task: The task.
            output: float32 (B, T, K), from `Network`.
            target: Labels as in `TaskLabels`; any value where unlabelled.
            valid: Mask of the labels.

        Returns:
            float32, the shape of the mask; any finite value where unlabelled.
        """
        known = valid[..., None] if target.ndim > valid.ndim else valid
        target = torch.where(known, target, 0)
        loss = self.loss_of[task]
        weight = output.new_ones(()) if task.kind == "real" else self._weight(task)
        compute = LOSSES[loss] if isinstance(loss, str) else loss
        return cast(Tensor, compute(LossInputs(task, output, target, weight, self.settings)))

    def weighted_sum(self, losses: Mapping[Task, Tensor], labelled: Mapping[Task, Tensor]) -> Tensor:
        """The loss to minimise, a scalar, from the loss of each task and whether it had a label.

        Learned weights are as in Kendall et al. (2018), with which it may be negative.
        """
        weights = self.settings.task_weights
        if weights != "uncertainty":
            return torch.stack([weights.get(task.name, 1.0) * loss for task, loss in losses.items()]).sum()
        total = torch.zeros_like(next(iter(losses.values())))
        for task, loss in losses.items():
            s = self.log_variance[task.name]
            # a task without labels does not change its uncertainty
            total = total + torch.where(labelled[task], torch.exp(-s) * loss + s / 2, 0.0)
        return total


def _supervised(task: Task, batch: Batch) -> Tensor:
    """Bool, shape of the task's mask: labels that are not padding; one frame for a label per clip."""
    valid = batch.labels[task].valid
    present = batch.present
    if task.per == "clip":
        present = present & (torch.arange(present.shape[1], device=present.device) == 0)
    return valid & (present[..., None] if valid.ndim > present.ndim else present)


def _class_weights(counts: NDArray[Any], kind: Weighting) -> NDArray[np.float64]:
    """Weights of the classes along the last axis, from their counts."""
    n: NDArray[np.float64] = np.asarray(counts, np.float64)
    total = n.sum(-1, keepdims=True)
    weights = np.ones_like(n)
    if kind == "complement":
        weights -= n / np.maximum(total, 1)
    elif kind == "inverse":
        np.divide(total, n.shape[-1] * n, out=weights, where=n > 0)
    return weights


def _n_processes() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def masked_mean(values: Tensor, mask: Tensor, n: Tensor | None = None) -> Tensor:
    """The mean of the valid values; 0 if there is none.

    Args:
        values: float, any shape; ignored where the mask is False.
        mask: bool, the same shape, True = valid.
        n: Denominator, instead of the number of valid values, at least 1.
    """
    total = torch.where(mask, values, 0.0).sum()
    return total / (mask.sum().clamp(min=1) if n is None else n)


def concordance(
    prediction: Tensor, target: Tensor, valid: Tensor, *, eps: float, shared: bool = False
) -> tuple[Tensor, Tensor]:
    """The CCC of each column over all valid rows, from population statistics as in the official score.

    Args:
        prediction: float (..., K).
        target: float (..., K), finite.
        valid: bool (...), True = the row counts.
        eps: Added to the denominator.
        shared: Whether to pool the rows of all processes, as a collective call.

    Returns:
        CCC (K,), 0 without variance, and the number of valid rows; float64 if the device supports it.
    """
    sums = concordance_sums(prediction, target, valid)
    if shared:
        sums = cast(Tensor, _SumOverProcesses.apply(sums))  # type: ignore[no-untyped-call]
    return ccc_of_sums(sums, eps), sums[0, 0]


def concordance_sums(prediction: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """Sums (6, K) of n, x, y, xx, yy, xy over all valid rows, arguments as of `concordance`."""
    exact = torch.float32 if prediction.device.type == "mps" else torch.float64
    x = torch.where(valid[..., None], prediction, 0.0).to(exact)
    y = torch.where(valid[..., None], target, 0.0).to(exact)
    n = valid[..., None].to(exact).expand_as(x)
    return torch.stack([n, x, y, x * x, y * y, x * y]).flatten(1, -2).sum(1)


def ccc_of_sums(sums: Tensor, eps: float) -> Tensor:
    """CCC (K,) from sums (6, K), with `eps` added to the denominator."""
    _, x, y, xx, yy, xy = sums / sums[0, 0].clamp(min=1)
    return 2 * (xy - x * y) / ((xx - x * x) + (yy - y * y) + (x - y) ** 2 + eps)


def focal(log_p: Tensor, target: Tensor, weight: Tensor, *, gamma: float) -> Tensor:
    """Focal loss: cross-entropy with less weight on confident outcomes; plain if `gamma` is 0.

    Args:
        log_p: float (..., K), logarithms of probabilities.
        target: float (..., K), target distribution over the outcomes, sums to 1.
        weight: float, broadcastable, the weight of each outcome.
        gamma: Exponent of 1 - p.

    Returns:
        float (...). Source: Lin et al., "Focal Loss for Dense Object Detection" (2017).
    """
    missing = (-torch.expm1(log_p)).clamp(min=1e-9) ** gamma if gamma else 1.0
    return -(weight * target * missing * log_p).sum(-1)


class LossInputs(NamedTuple):
    """Arguments of a loss function.

    Attributes:
        task: The task.
        output: float32 (B, T, K), values of a `real` task, else logits.
        target: Labels as in `TaskLabels`; 0 where unlabelled.
        weight: Weights of the classes (K,), or of absence and presence (K, 2); ones for a `real` task.
        settings: The settings.
    """

    task: Task
    output: Tensor
    target: Tensor
    weight: Tensor
    settings: LossSettings


def _squared_error(x: LossInputs) -> Tensor:
    return (x.output - x.target).square().mean(-1)


def _entropy(x: LossInputs, gamma: float = 0.0) -> Tensor:
    """Cross-entropy of classes, or of each binary label; focal loss with `gamma`."""
    if x.task.kind == "class":
        truth = (x.target[..., None] == torch.arange(x.task.size, device=x.target.device)).float()
        log_p = x.output.log_softmax(-1)  # (B, T, K)
    else:
        truth = torch.stack([1 - x.target, x.target], -1)  # (B, T, K, 2): absent, present
        log_p = F.logsigmoid(torch.stack([-x.output, x.output], -1))
    smoothing = x.settings.label_smoothing
    truth = truth * (1 - smoothing) + smoothing / truth.shape[-1]
    return focal(log_p, truth, x.weight, gamma=gamma)


def _focal(x: LossInputs) -> Tensor:
    alpha = 1.0 if x.settings.alpha is None else x.settings.alpha
    return alpha * _entropy(x, x.settings.gamma)


LOSSES: dict[str, Callable[[LossInputs], Tensor]] = {
    "mse": _squared_error,
    "focal": _focal,
    "ce": _entropy,
    "bce": _entropy,
}
"""Losses by name, besides `ccc`: functions that return the loss of every label, in the shape of its mask."""


class _SumOverProcesses(torch.autograd.Function):
    """All-reduce (sum) with gradient; torch's own `all_reduce` with gradient is deprecated."""

    @staticmethod
    def forward(ctx: Any, local: Tensor) -> Tensor:
        total = local.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        total = grads[0].clone()
        dist.all_reduce(total)
        return total
