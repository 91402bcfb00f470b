import pytest
import torch
from tiny_set import SIZE, write_tiny_set
from torch.utils.data import DistributedSampler

from abaw.data.feeding import Feeding
from abaw.data.frames import RawFolder
from abaw.data.index import build_index
from abaw.data.selection import training_windows
from abaw.tasks import Task
from abaw.windows import cut_videos

ALL = tuple(Task)


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    return build_index(write_tiny_set(tmp_path_factory.mktemp("set")))


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("batch_size", [1, 4])
def test_ranks_together_evaluate_every_window_once(index, world_size, batch_size):
    table = cut_videos(index.n_frames, range(len(index)), 8, 4)
    windows, lengths, owners = [], set(), []
    for rank in range(world_size):
        feeding = Feeding(index=index, source=RawFolder(index, SIZE), rank=rank, world_size=world_size)
        loader = feeding.eval_loader(table, ALL, split=None, batch_size=batch_size)
        assert isinstance(loader.sampler, DistributedSampler)
        batches = list(loader)
        mine = [window for batch in batches for window in batch.where if window.video >= 0]
        lengths.add(len(batches))
        owners += sorted({window.video for window in mine})
        windows += mine
    assert sorted(windows, key=str) == sorted((table[k] for k in range(len(table))), key=str)
    assert len(lengths) == 1
    assert len(owners) == len(set(owners)) == 5


def test_more_ranks_than_videos(index):
    table = cut_videos(index.n_frames, [0], 8, 4)
    feeding = Feeding(index=index, source=RawFolder(index, SIZE), rank=1, world_size=2)
    batches = list(feeding.eval_loader(table, ALL, split=None, batch_size=4))
    assert len(batches) == -(-len(table) // 4)
    assert not any(batch.present.any() for batch in batches)


def test_training_starts_at_the_epoch_asked_for(index):
    table = training_windows(index, ALL, length=8, stride=4)
    feeding = Feeding(index=index, source=RawFolder(index, SIZE))

    def windows(epoch):
        loader = feeding.train_loader(table, ALL, batch_size=2, epoch=epoch)
        return [batch.where for batch in loader]

    assert windows(1) != windows(0)
    assert windows(1) == windows(1)


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork.*")
def test_batches_stay_what_they_were_while_workers_use_their_memory_again(index, workers):
    table = training_windows(index, ALL, length=4, stride=1)

    def batches(workers):
        feeding = Feeding(index=index, source=RawFolder(index, SIZE), workers=workers)
        loader = feeding.train_loader(table, ALL, batch_size=2)
        return [batch for _ in range(2) for batch in loader]  # the second pass goes on with the same workers

    alone, fed = batches(0), batches(workers)
    assert len(fed) > 8 * workers
    for one, other in zip(alone, fed, strict=True):
        assert one.where == other.where
        for name in ("frames", "visible", "au", "mask_noise"):
            assert torch.equal(getattr(one, name), getattr(other, name))
