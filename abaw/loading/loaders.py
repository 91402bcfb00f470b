"""DataLoaders: a stateful one for training, and the factory that makes all of one process."""

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
from abaw.data.frames import FrameSource, open_frames
from abaw.data.index import Index
from abaw.errors import AbawError
from abaw.loading.dataset import ClipDataset
from abaw.loading.sampling import EvalSampler, TrainSampler
from abaw.loading.transforms import ClipAugmentation
from abaw.loading.workers import PREFETCH, SharedRing, defer_interrupt, keep_freed_memory, start_worker
from abaw.tasks import Task
from abaw.windows import WindowTable


def loader_options(*, workers: int, pin_memory: bool) -> dict[str, Any]:
    """Arguments every DataLoader of this package is made with.

    Workers are forked on Linux: they start in milliseconds, share the index and imports with the
    trainer and notice its death; a fork server costs seconds and would keep them alive as orphans.
    """
    return {
        "collate_fn": Batch.cat,
        "num_workers": workers,
        "prefetch_factor": PREFETCH if workers else None,
        "persistent_workers": workers > 0,
        "worker_init_fn": start_worker,
        "multiprocessing_context": "fork" if workers and sys.platform == "linux" else None,
        "pin_memory": pin_memory,
        "generator": torch.Generator(),  # else every pass would draw a number from the global stream
    }


def refuse_other_batches(
    state: Mapping[str, int], *, batch_size: int, world_size: int, windows: int, seed: int
) -> None:
    """Compares what decides which windows a batch is made of, besides its place, with a loader's state.

    Raises:
        AbawError: They differ, so the place in the data would mean something else.
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
            f"{'; '.join(changes)}.\nA resumed run keeps its place in the data: restore it, or start a new"
            " run from these weights with --init_from CKPT --run NEW"
        )


class ClipLoader(DataLoader[Batch]):
    """A DataLoader that leaves its workers their memory, and in which their errors read like any other.

    What it hands out is a copy, in page-locked memory or in plain one; see `SharedRing`.
    """

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override] # the DataLoader's own is no generator
        keep_freed_memory()
        # and so with what the loader processes share
        recent: deque[Batch] = deque(maxlen=self.num_workers * (PREFETCH + 1))
        try:
            with defer_interrupt():
                batches = super().__iter__()  # forks the loader processes
            for batch in batches:
                recent.append(batch)
                yield batch.copied() if self.num_workers and not self.pin_memory else batch
        except AbawError as error:  # a worker's message is its whole traceback, whose last line it was
            kind = type(error)
            message = str(error).rpartition(f"{kind.__module__}.{kind.__qualname__}: ")[2].strip()
            raise kind(message) from error


class TrainLoader(ClipLoader):
    """Hands out the training batches of one epoch per pass and knows how far it has come.

    Its state counts the batches that were handed out, not those fetched ahead, and does not depend on the
    rank: the state of rank 0 continues all of them. Lightning saves and restores it with the run.

    Args:
        dataset: Gives the clip of a `Slot`.
        sampler: Gives the slots of this rank.
        workers: Loader processes; 0 loads in this one.
        pin_memory: Whether batches are put into page-locked memory; only of use with an accelerator.
        limit: Where the trainer ends an epoch, as its limit_train_batches: a number of batches, or a share.
    """

    def __init__(
        self,
        dataset: Dataset[Batch],
        *,
        sampler: TrainSampler,
        workers: int = 0,
        pin_memory: bool = False,
        limit: int | float = 1.0,
    ) -> None:
        options = loader_options(workers=workers, pin_memory=pin_memory)
        super().__init__(dataset, batch_size=sampler.batch_size, sampler=sampler, **options)
        self._slots = sampler
        n_batches = sampler.n_batches
        self._epoch_batches = min(limit, n_batches) if isinstance(limit, int) else int(limit * n_batches)
        self._epoch = self._n_handed_out = 0

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        # All this happens at the first batch, not before: Lightning makes the iterator, then sets the epoch.
        self._epoch, self._n_handed_out = self._slots.epoch, self._slots.first_batch
        for batch in super().__iter__():
            self._n_handed_out += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """Where the next batch stands: `epoch`, `batches` handed out of it, and what its meaning rests on."""
        over = self._n_handed_out >= self._epoch_batches
        place = (self._epoch + 1, 0) if over else (self._epoch, self._n_handed_out)
        return dict(zip(("epoch", "batches"), place, strict=True)) | self._conditions()

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Lets the next pass go on where the state was taken.

        Raises:
            AbawError: Batches are made differently now, so the place would mean something else.
        """
        refuse_other_batches(state, **self._conditions())
        self._epoch, self._n_handed_out = state["epoch"], state["batches"]
        self._slots.start_at(self._epoch, self._n_handed_out)

    def _conditions(self) -> dict[str, int]:
        """What decides which windows a batch is made of, besides its place."""
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
class LoaderFactory:
    """Where clips come from, and the place of this process among those that share them.

    Attributes:
        index: The data set.
        source: Its pixels or cached features.
        seed: Keys all that is random.
        drop_frames: Share of each video's visible frames that is made invisible outside training.
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
    drop_frames: float = 0.0
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
