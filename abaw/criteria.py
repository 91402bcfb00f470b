"""The formulas of the losses, on plain tensors: masked mean, concordance, focal loss."""

from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor


def masked_mean(values: Tensor, mask: Tensor, n: Tensor | None = None) -> Tensor:
    """The mean of the valid values; 0 if there is none.

    Args:
        values: float, any shape; what stands under a False is ignored.
        mask: bool, the same shape, True = valid.
        n: What to divide by instead of the number of valid values, at least 1.
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
        shared: The rows of all processes count together; all of them must then make this call.

    Returns:
        CCC (K,), 0 where nothing varies, and the number of valid rows; float64 where the device has it.
    """
    exact = torch.float32 if prediction.device.type == "mps" else torch.float64
    x = torch.where(valid[..., None], prediction, 0.0).to(exact)
    y = torch.where(valid[..., None], target, 0.0).to(exact)
    n = valid[..., None].to(exact).expand_as(x)
    sums = torch.stack([n, x, y, x * x, y * y, x * y]).flatten(1, -2).sum(1)  # (6, K)
    if shared:
        sums = cast(Tensor, _SumOverProcesses.apply(sums))  # type: ignore[no-untyped-call]
    n_valid = sums[0, 0]
    _, x, y, xx, yy, xy = sums / n_valid.clamp(min=1)
    ccc = 2 * (xy - x * y) / ((xx - x * x) + (yy - y * y) + (x - y) ** 2 + eps)
    return ccc, n_valid


def focal(log_p: Tensor, target: Tensor, weight: Tensor, *, gamma: float) -> Tensor:
    """Cross-entropy in which an outcome counts less the surer it is already; plain where `gamma` is 0.

    Args:
        log_p: float (..., K), logarithms of probabilities.
        target: float (..., K), how much of the truth each outcome is; sums to 1.
        weight: float, broadcastable, the weight of each outcome.
        gamma: Exponent of the probability that is missing.

    Returns:
        float (...). Source: Lin et al., "Focal Loss for Dense Object Detection" (2017).
    """
    missing = (-torch.expm1(log_p)).clamp(min=1e-9) ** gamma if gamma else 1.0
    return -(weight * target * missing * log_p).sum(-1)


class _SumOverProcesses(torch.autograd.Function):
    """The sum over all processes, which each of them has, and whose gradient each sends back to all."""

    @staticmethod
    def forward(ctx: Any, local: Tensor) -> Tensor:  # noqa: ARG004
        total = local.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:  # noqa: ARG004
        total = grads[0].clone()
        dist.all_reduce(total)
        return total
