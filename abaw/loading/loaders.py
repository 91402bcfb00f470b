"""DataLoaders: a stateful one for training, and the factory of all loaders of a process."""

import sys
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from abaw.batch import Batch
from abaw.data.features import FeatureStore
from abaw.data.frames import BadFrameLog, FrameSource, open_frames
from abaw.data.index import Index
from abaw.errors import AbawError
from abaw.loading.dataset import ClipDataset
from abaw.loading.sampling import EvalSampler, TrainSampler
from abaw.loading.workers import PREFETCH, SharedRing, defer_interrupt, keep_freed_memory, start_worker
from abaw.tasks import Task
from abaw.windows import WindowTable


def loader_options(*, workers: int, pin_memory: bool) -> dict[str, Any]:
    """Common arguments of all DataLoaders.

    Workers are forked on Linux: they start in milliseconds, share index and imports with the trainer, and
    end with it. A fork server takes seconds to start, and its workers outlive a killed trainer.
    """
    return {
        "collate_fn": Batch.cat,
        "num_workers": workers,
        "prefetch_factor": PREFETCH if workers else None,
        "persistent_workers": workers > 0,
        "worker_init_fn": start_worker,
        "multiprocessing_context": "fork" if workers and sys.platform == "linux" else None,
        "pin_memory": pin_memory,
        "generator": torch.Generator(),  # else every iteration would advance the global one
    }


def refuse_other_batches(
    state: Mapping[str, int], *, batch_size: int, world_size: int, windows: int, seed: int
) -> None:
    """Compares everything that determines the windows of a batch, besides its number, with a loader's state.

    Raises:
        AbawError: A value differs, so that the position would denote other data.
    """
    now = {
        "batch_size": ("data.batch_size", batch_size),
        "world_size": ("trainer.devices, the number of processes of all nodes", world_size),
        "windows": ("data.root, the number of training windows", windows),
        "seed": ("seed_everything", seed),
    }
    changes = [
        f"{what}: the run was trained with {state[name]}, now it is {value}"
        for name, (what, value) in now.items()
        if state[name] != value
    ]
    if changes:
        raise AbawError(
            f"{'; '.join(changes)}.\nA resumed run continues at its position in the data: restore the value,"
            " or start a new run from these weights with --init_from CKPT --run NEW"
        )


class ClipLoader(DataLoader[Batch]):
    """A DataLoader whose workers reuse shared memory and raise errors with their original message.

    Batches are copied to page-locked or pageable memory, see `SharedRing`.
    """

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override] # not a generator in DataLoader
        keep_freed_memory()
        # also keeps the shared memory of the workers mapped
        recent: deque[Batch] = deque(maxlen=self.num_workers * (PREFETCH + 1))
        try:
            with defer_interrupt():
                batches = super().__iter__()  # forks the loader processes
            for batch in batches:
                recent.append(batch)
                yield batch.copied() if self.num_workers and not self.pin_memory else batch
        except AbawError as error:  # the message of a worker's error is its traceback
            kind = type(error)
            message = str(error).rpartition(f"{kind.__module__}.{kind.__qualname__}: ")[2].strip()
            raise kind(message) from error


class TrainLoader(ClipLoader):
    """Stateful DataLoader of the training batches of one epoch per iteration.

    The state counts the batches that were returned, not prefetched ones, and is the same on all ranks.
    Lightning saves it with the checkpoint.

    Args:
        dataset: Map-style dataset that is indexed by a `Slot`.
        sampler: Sampler of the slots of this rank.
        workers: Number of loader processes; 0 loads in this process.
        pin_memory: Whether batches are copied to page-locked memory, for a GPU.
    """

    def __init__(
        self, dataset: Dataset[Batch], *, sampler: TrainSampler, workers: int = 0, pin_memory: bool = False
    ) -> None:
        options = loader_options(workers=workers, pin_memory=pin_memory)
        super().__init__(dataset, batch_size=sampler.batch_size, sampler=sampler, **options)
        self._slots = sampler
        self._epoch = self._n_handed_out = 0

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        # runs at the first batch: Lightning creates the iterator before it sets the epoch
        self._epoch, self._n_handed_out = self._slots.epoch, self._slots.first_batch
        for batch in super().__iter__():
            self._n_handed_out += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """Position of the next batch: `epoch`, number of `batches` before it, and what it depends on."""
        over = self._n_handed_out >= self._slots.n_used
        place = (self._epoch + 1, 0) if over else (self._epoch, self._n_handed_out)
        return dict(zip(("epoch", "batches"), place, strict=True)) | self._conditions()

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Lets the next iteration continue at the position of a state.

        Raises:
            AbawError: See `refuse_other_batches`.
        """
        refuse_other_batches(state, **self._conditions())
        self._epoch, self._n_handed_out = state["epoch"], state["batches"]
        self._slots.start_at(self._epoch, self._n_handed_out)

    def _conditions(self) -> dict[str, int]:
        """Everything that determines the windows of a batch, besides its number."""
        slots = self._slots
        return {
            "batch_size": slots.batch_size,
            "world_size": slots.num_replicas,
            "windows": slots.n_windows,
            "seed": slots.seed,
        }


def open_source(
    index: Index, windows: WindowTable, *, size: int, features: Sequence[Path] = ()
) -> FrameSource | FeatureStore:
    """The source of the frames or features of windows.

    Args:
        index: Index of the data set.
        windows: Windows that will be read.
        size: Height and width of the images, in pixels.
        features: Folders of cached features to read instead of images.

    Raises:
        UsageError: A window of images is longer than a segment of litdata shards.
        AbawError: A video's features are missing, or were extracted from other images.
    """
    span = 1 if features else (windows.length - 1) * windows.step + 1
    images = open_frames(index, size=size, span=span)
    if not features:
        return images
    store = FeatureStore(features, index)
    store.check(np.unique(windows.video).tolist(), images)
    return store


@dataclass(frozen=True, kw_only=True)
class LoaderFactory:
    """Factory of the training and evaluation loaders of a process.

    Attributes:
        index: Index of the data set.
        source: Source of pixels or cached features.
        seed: Seed of all random numbers.
        drop_frames: Share of the visible frames of each video that is dropped outside training.
        rank: Rank of this process.
        world_size: Number of processes.
        workers: Number of loader processes.
        pin_memory: Whether batches are copied to page-locked memory, for a GPU.
        on_bad_frame: Whether to `raise` at an unreadable frame, or `skip` it.
        bad_frame_log: Log of the skipped frames.
    """

    index: Index
    source: FrameSource | FeatureStore
    seed: int = 0
    drop_frames: float = 0.0
    rank: int = 0
    world_size: int = 1
    workers: int = 0
    pin_memory: bool = False
    on_bad_frame: Literal["raise", "skip"] = "raise"
    bad_frame_log: BadFrameLog | None = None

    def train_loader(
        self,
        windows: WindowTable,
        tasks: Sequence[Task],
        *,
        batch_size: int,
        epoch: int = 0,
        weights: NDArray[np.float64] | None = None,
        limit: int | float = 1.0,
        accumulate: int = 1,
        **clips: Any,
    ) -> TrainLoader:
        """Loader of this rank's training windows; see `TrainSampler`, and `ClipDataset` for `clips`.

        Args:
            windows: All training windows.
            tasks: The trained tasks.
            batch_size: Windows per batch and rank.
            epoch: The first epoch.
            weights: float64 (n_windows,), sampling weights of the windows; None: all alike.
            limit: Number of batches per epoch, or with a float their share.
            accumulate: Batches per optimizer step.
            clips: Further arguments of the data set.
        """
        sampler = TrainSampler(
            n_windows=len(windows),
            batch_size=batch_size,
            rank=self.rank,
            world_size=self.world_size,
            seed=self.seed,
            weights=weights,
            limit=limit,
            accumulate=accumulate,
        )
        sampler.set_epoch(epoch)
        dataset = self._clips(windows, tasks, split="train", **clips)
        return TrainLoader(dataset, sampler=sampler, workers=self.workers, pin_memory=self.pin_memory)

    def eval_loader(
        self, windows: WindowTable, tasks: Sequence[Task], *, split: str | None, batch_size: int
    ) -> ClipLoader:
        """Loader of all windows of this rank's videos; see `EvalSampler`."""
        sampler = EvalSampler(
            video=windows.video, batch_size=batch_size, rank=self.rank, world_size=self.world_size
        )
        options = loader_options(workers=self.workers, pin_memory=self.pin_memory)
        clips = self._clips(windows, tasks, split=split, drop_frames=self.drop_frames)
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
