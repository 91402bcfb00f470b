import numpy as np
import pytest
from torch.utils.data.distributed import DistributedSampler

from abaw.data.samplers import EvalSampler, Slot, TrainSampler
from abaw.errors import AbawError


def train(rank=0, world_size=1, batch_size=2, n_windows=23, **kwargs):
    return TrainSampler(
        n_windows=n_windows, batch_size=batch_size, rank=rank, world_size=world_size, seed=7, **kwargs
    )


def global_batches(world_size, batch_size, epoch=0, start=0):
    """What all ranks together see in each batch, in slot order."""
    samplers = [train(rank, world_size, batch_size) for rank in range(world_size)]
    for sampler in samplers:
        sampler.start_at(epoch, start)
    per_rank = [list(sampler) for sampler in samplers]
    assert len({len(slots) for slots in per_rank}) == 1
    n_batches = len(per_rank[0]) // batch_size
    return [
        sorted(slot for slots in per_rank for slot in slots[k * batch_size : (k + 1) * batch_size])
        for k in range(n_batches)
    ]


def test_every_window_once_in_shuffled_order():
    slots = list(train(batch_size=1))
    assert [slot.slot for slot in slots] == list(range(23))
    order = [slot.window for slot in slots]
    assert sorted(order) == list(range(23))
    assert order != sorted(order)


@pytest.mark.parametrize(("world_size", "batch_size"), [(1, 4), (2, 2), (4, 1)])
@pytest.mark.parametrize("epoch", [0, 3])
def test_batches_do_not_depend_on_the_split(world_size, batch_size, epoch):
    batches = global_batches(world_size, batch_size, epoch)
    assert batches == global_batches(1, 4, epoch)
    assert len(batches) == 23 // 4
    assert [slot.slot for batch in batches for slot in batch] == list(range(20))


def test_order_is_that_of_seed_and_epoch():
    sampler = train()
    first = list(sampler)
    assert list(sampler) == first  # no state but the epoch
    sampler.set_epoch(1)
    second = list(sampler)
    assert second != first
    assert {slot.epoch for slot in second} == {1}
    sampler.set_epoch(0)
    assert list(sampler) == first
    other = TrainSampler(n_windows=23, batch_size=2, seed=8)
    assert list(other) != first


@pytest.mark.parametrize("world_size", [1, 2])
def test_a_pass_can_begin_in_the_middle(world_size):
    for rank in range(world_size):
        sampler = train(rank, world_size)
        whole = list(train(rank, world_size))
        sampler.start_at(0, 3)
        sampler.set_epoch(0)  # what Lightning says before the pass
        assert list(sampler) == whole[3 * 2 :]
        assert list(sampler) == whole  # only the next pass
        assert len(sampler) == len(whole)
    sampler.start_at(0, 3)
    sampler.set_epoch(1)
    assert next(iter(sampler)).slot == rank


def test_weights_draw_with_replacement_in_proportion():
    weights = np.array([1.0] * 500 + [4.0] * 500)
    sampler = train(n_windows=1000, weights=weights)
    drawn = np.array([slot.window for slot in sampler])
    assert len(drawn) == 1000
    assert 0.74 < (drawn >= 500).mean() < 0.86
    assert len(set(drawn.tolist())) < 800
    again = train(n_windows=1000, weights=weights)
    assert [slot.window for slot in again] == drawn.tolist()


def test_weight_zero_is_never_drawn():
    sampler = train(n_windows=400, weights=np.arange(400) % 2.0)
    assert all(slot.window % 2 for slot in sampler)


def test_too_few_windows_are_named():
    with pytest.raises(AbawError, match="3 training windows do not fill one batch of 2 on each of 2"):
        train(world_size=2, n_windows=3)


def evaluate(counts, world_size, batch_size):
    video = np.repeat(np.arange(len(counts), dtype=np.int32) * 3, counts)  # numbers with gaps
    samplers = [
        EvalSampler(video=video, batch_size=batch_size, rank=rank, world_size=world_size)
        for rank in range(world_size)
    ]
    return video, [list(sampler) for sampler in samplers], samplers


COUNTS = [[5, 1, 9, 3, 3, 2], [1, 1], [40, 1, 1, 1], [7], [6, 6, 6, 6]]


@pytest.mark.parametrize("counts", COUNTS)
@pytest.mark.parametrize("world_size", [1, 2, 3, 5])
@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_eval_sees_every_window_once_and_no_video_is_split(counts, world_size, batch_size):
    video, ranks, samplers = evaluate(counts, world_size, batch_size)
    real = [[window for window in windows if window >= 0] for windows in ranks]
    assert sorted(window for windows in real for window in windows) == list(range(len(video)))
    assert all(windows == sorted(windows) for windows in real)
    owners = [{int(video[window]) for window in windows} for windows in real]
    assert sum(len(owner) for owner in owners) == len(counts)
    assert len({-(-len(windows) // batch_size) for windows in ranks}) == 1  # as many batches everywhere
    assert all(len(sampler) == len(windows) for sampler, windows in zip(samplers, ranks, strict=True))
    # padding stands at the end and fills no more than is needed
    assert all(windows[: len(kept)] == kept for windows, kept in zip(ranks, real, strict=True))
    assert all(len(windows) == len(kept) or len(windows) % batch_size in (0, 1)
               for windows, kept in zip(ranks, real, strict=True))  # fmt: skip


def test_one_rank_takes_the_table_as_it_is():
    video, (windows,), _ = evaluate([5, 1, 9], 1, 4)
    assert windows == list(range(len(video)))


def test_ranks_are_balanced():
    rng = np.random.default_rng(0)
    counts = rng.integers(5, 300, 76).tolist()
    _, ranks, _ = evaluate(counts, 4, 8)
    loads = [sum(window >= 0 for window in windows) for windows in ranks]
    assert max(loads) - min(loads) <= 8


def test_samplers_are_left_alone_by_lightning():
    assert isinstance(train(), DistributedSampler)
    assert issubclass(EvalSampler, DistributedSampler)
    assert Slot(1, 2, 3).window == 3
