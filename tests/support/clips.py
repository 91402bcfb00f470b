"""Random batches, for tests of what eats them, their images, and what a gradient says of them."""

from dataclasses import replace

import torch
from torch import Tensor

from abaw.batch import Batch
from abaw.tasks import Task
from abaw.windows import Window
from tests.support.label_arrays import by_task


def random_batch(
    b: int = 2,
    t: int = 6,
    *,
    dim: int | None = None,
    size: int = 32,
    visible: Tensor | None = None,
    present: Tensor | None = None,
    labelled: float = 1.0,
    seed: int = 0,
) -> Batch:
    """B clips of T frames of noise, or with `dim` of features; a share of all labels is valid."""
    g = torch.Generator().manual_seed(seed)

    def some(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=g) < labelled

    frames = torch.randint(0, 256, (b, t, size, size, 3), generator=g, dtype=torch.uint8)
    everything = torch.ones(b, t, dtype=torch.bool)
    present = everything if present is None else present
    visible = present if visible is None else visible
    return Batch(
        frames=frames[visible] if dim is None else None,
        features=None if dim is None else torch.randn(b, t, dim, generator=g),
        present=present,
        visible=visible,
        labels=by_task(
            va=torch.rand(b, t, 2, generator=g) * 2 - 1,
            va_valid=some(b, t),
            expr=torch.randint(0, 8, (b, t), generator=g),
            expr_valid=some(b, t),
            au=(torch.rand(b, t, 12, generator=g) < 0.4).float(),
            au_valid=some(b, t, 12),
        ),
        where=tuple(Window(k, 0, t) for k in range(b)),
        n_bad_frames=torch.zeros(b, dtype=torch.long),
    )


def images_of(batch: Batch) -> Tensor:
    """The images at their places, uint8 (B, T, H, W, 3); zeros where there is none."""
    assert batch.frames is not None
    assert batch.keep is not None
    images = batch.frames.new_zeros((batch.visible.numel(), *batch.frames.shape[1:]))
    return images.index_copy(0, batch.keep, batch.frames).unflatten(0, batch.visible.shape)


def masked(batch: Batch, visible: Tensor) -> Batch:
    """A copy in which only the frames `visible`, bool (B, T), are visible."""
    if batch.frames is None:
        return replace(batch, visible=visible, complete=None)
    return replace(batch, visible=visible, frames=images_of(batch)[visible], keep=None, complete=None)


def relabelled(batch: Batch, task: Task, **changes: Tensor) -> Batch:
    """A copy with other `values` or `valid` of a task."""
    return replace(batch, labels={**batch.labels, task: batch.labels[task]._replace(**changes)})


def touched(gradient: Tensor) -> Tensor:
    """Bool, where a gradient is there; it is either exactly zero or too large to be an effect of rounding."""
    size = gradient.abs()
    there = size > 1e-4 * size.max()
    assert not size[~there].any(), "some of the gradient is neither zero nor clear of rounding"
    return there
