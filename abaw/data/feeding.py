"""One process's loaders, made from tables of windows."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from abaw.data.dataset import ClipDataset
from abaw.data.features import FeatureStore
from abaw.data.frames import FrameSource
from abaw.data.index import Index
from abaw.data.loader import ClipLoader, TrainLoader, loader_options
from abaw.data.samplers import EvalSampler, TrainSampler
from abaw.data.shards import open_frames
from abaw.data.shared_memory import SharedRing
from abaw.data.transforms import ClipAugmentation
from abaw.tasks import Task
from abaw.windows import WindowTable


def open_source(
    index: Index, windows: WindowTable, *, size: int, features: Sequence[str] | None = None
) -> FrameSource | FeatureStore:
    """Where the clips of some windows come from.

    Args:
        index: The data set.
        windows: What will be read.
        size: Height and width of the images.
        features: Folders of cached features to read instead of images.

    Raises:
        UsageError: A window of images is longer than a segment of a pack.
        AbawError: A video's features are missing, or the images are not those that they were made from.
    """
    span = 1 if features else (windows.length - 1) * windows.step + 1
    images = open_frames(index, size=size, span=span)
    if not features:
        return images
    store = FeatureStore(features, index)
    store.check(np.unique(windows.video).tolist(), images)
    return store


@dataclass(frozen=True, kw_only=True)
class Feeding:
    """Where clips come from, and the place of this process among those that share them.

    Attributes:
        index: The data set.
        source: Its pixels or cached features.
        seed: Keys all that is random.
        hide: Share of each video's visible frames that is made invisible outside training.
        rank: Number of this process.
        world_size: Number of processes.
        workers: Loader processes of this process.
        pin_memory: Whether batches go to a GPU.
        on_bad_frame: What to do about a frame that cannot be read: `raise` or `skip`.
        bad_frame_log: File that names the skipped ones.
    """

    index: Index
    source: FrameSource | FeatureStore
    seed: int = 0
    hide: float = 0.0
    rank: int = 0
    world_size: int = 1
    workers: int = 0
    pin_memory: bool = False
    on_bad_frame: Literal["raise", "skip"] = "raise"
    bad_frame_log: Path | None = None

    def train_loader(
        self,
        windows: WindowTable,
        tasks: Sequence[Task],
        *,
        batch_size: int,
        epoch: int = 0,
        weights: NDArray[np.float64] | None = None,
        augmentation: ClipAugmentation | None = None,
        jitter: int = 0,
        limit: int | float = 1.0,
    ) -> TrainLoader:
        """This process's share of shuffled training windows; see `TrainSampler` and `ClipDataset`."""
        sampler = TrainSampler(
            n_windows=len(windows),
            batch_size=batch_size,
            rank=self.rank,
            world_size=self.world_size,
            seed=self.seed,
            weights=weights,
        )
        sampler.set_epoch(epoch)
        clips = self._clips(windows, tasks, split="train", augmentation=augmentation, jitter=jitter)
        return TrainLoader(
            clips, sampler=sampler, workers=self.workers, pin_memory=self.pin_memory, limit=limit
        )

    def eval_loader(
        self, windows: WindowTable, tasks: Sequence[Task], *, split: str | None, batch_size: int
    ) -> ClipLoader:
        """This process's videos, window after window; see `EvalSampler`."""
        sampler = EvalSampler(
            video=windows.video, batch_size=batch_size, rank=self.rank, world_size=self.world_size
        )
        options = loader_options(workers=self.workers, pin_memory=self.pin_memory)
        clips = self._clips(windows, tasks, split=split, hide=self.hide)
        return ClipLoader(clips, batch_size=batch_size, sampler=sampler, **options)

    def _clips(self, windows: WindowTable, tasks: Sequence[Task], **kwargs: Any) -> ClipDataset:
        return ClipDataset(
            index=self.index,
            source=self.source,
            windows=windows,
            tasks=tasks,
            seed=self.seed,
            on_bad_frame=self.on_bad_frame,
            bad_frame_log=self.bad_frame_log,
            memory=SharedRing(),
            **kwargs,
        )
