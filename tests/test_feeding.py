import time

import cv2
import numpy as np
import pytest
from tiny_set import SIZE, labels_of, write_labels, write_tiny_set
from torch.utils.data import DistributedSampler

from abaw.batch import Batch
from abaw.data.dataset import Draw
from abaw.data.feeding import Feeding
from abaw.data.frames import RawFolder
from abaw.data.index import build_index
from abaw.data.selection import training_windows
from abaw.data.transforms import ClipAugmentation
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


def test_feeding_costs_little_beside_decoding_and_augmentation(tmp_path):
    """Measured in one process, interleaved; 90 % on a quiet machine."""
    root = tmp_path / "set"
    rng = np.random.default_rng(0)
    folder = root / "cropped_aligned" / "v"
    folder.mkdir(parents=True)
    for frame in range(256):
        face = cv2.resize(
            rng.integers(0, 256, (8, 8, 3), np.uint8), (112, 112), interpolation=cv2.INTER_CUBIC
        )
        noisy = (face + rng.normal(0, 6, face.shape)).clip(0, 255).astype(np.uint8)
        cv2.imwrite(str(folder / f"{frame + 1:05d}.jpg"), noisy, [cv2.IMWRITE_JPEG_QUALITY, 90])
    write_labels(root, "v", "train", ALL, labels_of(257))
    index = build_index(root)
    source, augment = RawFolder(index), ClipAugmentation()
    table = training_windows(index, ALL, length=32, stride=16)
    loader = Feeding(index=index, source=source).train_loader(
        table, ALL, batch_size=4, augmentation=augment, jitter=16
    )
    clips, slots = loader.dataset, list(loader.sampler)[:12]

    def fed(chosen):
        return Batch.cat([clips[slot] for slot in chosen])

    def alone(chosen):
        for slot, window in zip(chosen, fed(chosen).where, strict=True):
            start = time.process_time()
            augment(source.read(window.video, window.frames).pixels, Draw.keyed(0, slot, 32).seed)
            seconds["alone"] += time.process_time() - start

    seconds = {"alone": 0.0, "fed": 0.0}
    alone(slots[:4])  # imports, page cache
    seconds["alone"] = 0.0
    for _ in range(2):
        for k in range(0, 12, 4):
            alone(slots[k : k + 4])
            start = time.process_time()
            fed(slots[k : k + 4])
            seconds["fed"] += time.process_time() - start
    assert seconds["alone"] > 0.7 * seconds["fed"]
