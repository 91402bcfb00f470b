"""A training loader over clips that carry nothing but their slot, for tests of order and resume."""

import torch
from torch.utils.data import Dataset

from abaw.batch import Batch
from abaw.loading.loaders import TrainLoader
from abaw.loading.sampling import Slot, TrainSampler
from abaw.windows import Window


def clip_of(slot: Slot) -> Batch:
    """A batch of one clip that carries its slot: epoch, slot and window as a Window's numbers."""
    one = torch.zeros(1, 1, dtype=torch.bool)
    return Batch(
        features=torch.full((1, 1, 1), float(slot.slot)),
        present=one, visible=one,
        where=(Window(slot.epoch, slot.slot, slot.slot + slot.window, 1),), n_bad_frames=torch.zeros(1),
    )  # fmt: skip


class Slots(Dataset):
    def __getitem__(self, slot):
        return clip_of(slot)


def slots_of(batch):
    return [(window.video, window.start, window.stop - window.start) for window in batch.where]


def make_loader(workers=0, rank=0, world_size=1, batch_size=2, n_windows=11, seed=3, **kwargs):
    sampler = TrainSampler(
        n_windows=n_windows, batch_size=batch_size, rank=rank, world_size=world_size, seed=seed, **kwargs
    )
    return TrainLoader(Slots(), sampler=sampler, workers=workers)
