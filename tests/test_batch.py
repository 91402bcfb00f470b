"""A batch of clips: its shapes, joining, masking, and the way between processes."""

import pickle
from dataclasses import fields, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from abaw.batch import Batch
from abaw.tasks import AU, VA, TaskLabels
from tests.support.clips import images_of, masked, random_batch


def assert_equal(one: Batch, other: Batch) -> None:
    for field in fields(Batch):
        a, b = getattr(one, field.name), getattr(other, field.name)
        if field.name == "labels":
            assert a.keys() == b.keys()
            assert all(torch.equal(x, y) for task in a for x, y in zip(a[task], b[task], strict=True))
        else:
            assert torch.equal(a, b) if isinstance(a, Tensor) else a == b, field.name


@pytest.mark.parametrize(
    "change",
    [
        {"labels": {VA: TaskLabels(torch.zeros(2, 6, 3), torch.ones(2, 6, dtype=torch.bool))}},
        {"labels": {AU: TaskLabels(torch.zeros(2, 6, 12), torch.ones(2, 5, 12, dtype=torch.bool))}},
        {"visible": torch.ones(2, 5, dtype=torch.bool)},
        {"keep": torch.arange(11)},
        {"where": ()},
        {"frames": None},
        {"features": torch.zeros(2, 6, 4)},
        {"frames": torch.zeros(10, 32, 32, 3, dtype=torch.uint8)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_shape_that_does_not_fit_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"batch\.|holds either|must hold 2 clips of 6 frames"):
        replace(random_batch(2, 6), **change)


@pytest.mark.parametrize("dim", [None, 5])
def test_joined_clips_stand_one_after_the_other(dim: int | None) -> None:
    first, second = random_batch(2, 4, dim=dim, seed=1), random_batch(1, 4, dim=dim, seed=2)
    both = Batch.cat([first, second])
    assert len(both) == 3
    assert both.where == (*first.where, *second.where)
    assert torch.equal(both.labels[VA].values[:2], first.labels[VA].values)
    assert torch.equal(both.labels[VA].values[2:], second.labels[VA].values)
    assert (both.frames is None) == (dim is not None)
    if dim is None:
        assert torch.equal(images_of(both), torch.cat([images_of(first), images_of(second)]))
    assert Batch.cat([first]) is first


def test_visible_frames_are_kept_by_their_places() -> None:
    visible = torch.tensor([[True, False, True], [False, False, True]])
    batch = masked(random_batch(2, 3), visible)
    assert torch.equal(batch.visible, visible)
    assert batch.keep is not None
    assert batch.keep.tolist() == [0, 2, 5]
    assert not batch.complete
    assert torch.equal(images_of(batch)[visible], images_of(random_batch(2, 3))[visible])
    less = masked(batch, visible & torch.tensor([[False], [True]]))
    assert less.keep is not None
    assert less.keep.tolist() == [5]
    assert torch.equal(images_of(less)[1, 2], images_of(batch)[1, 2])
    assert random_batch(2, 3).complete


@pytest.mark.parametrize("dim", [None, 5])
def test_a_batch_comes_back_from_another_process_as_it_was(dim: int | None) -> None:
    batch = random_batch(2, 3, dim=dim)
    batch = masked(batch, batch.present)
    assert_equal(pickle.loads(pickle.dumps(batch)), batch)


def test_copies_share_no_memory() -> None:
    batch = random_batch(2, 3)
    copy = batch.copied()
    assert_equal(copy, batch)
    copy.labels[VA].values.zero_()
    assert batch.labels[VA].values.any()
    assert_equal(batch.to("cpu"), batch)
