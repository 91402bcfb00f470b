"""LightningDataModule for ABAW frame sequences: from the data source to the loaders of every stage."""

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities import rank_zero_info

from abaw.data.frames import BAD_FRAMES
from abaw.data.index import Index, LabelCounts, build_index
from abaw.data.labels import Labels
from abaw.data.layout import DataSource, is_crops_folder, other_picture
from abaw.errors import AbawError, UsageError, check_settings
from abaw.loading.loaders import ClipLoader, LoaderFactory, TrainLoader, open_source, refuse_other_batches
from abaw.loading.sampling import (
    class_weights,
    describe_split,
    labelled_windows,
    training_windows,
    warn_of_unseen,
)
from abaw.loading.splits import PredictSplit, SplitSelection, Stage, TestSplit, read_folds
from abaw.loading.transforms import ClipAugmentation
from abaw.loading.workers import default_workers
from abaw.tasks import Task, parse_tasks
from abaw.windows import WindowTable, cut_videos

_PAPER = ClipAugmentation()


class AffectDataModule(LightningDataModule):
    """LightningDataModule of Aff-Wild2 as downloaded: windows of aligned faces with their labels.

    Args:
        root: Folder with cropped_aligned/ and the annotations; null takes the variable ABAW_ROOT.
        tasks: Whose labels are used: any of va, expr, au.
        label_set: challenge: one annotation file per video and task; mtl: the multi-task files.
        image_roots: Folders with one folder of images per video, instead of those found below root; of two
            that hold a frame the first wins.
        annotations: Folder with the annotations, instead of what is found below root.
        features: Folders of cached features to read instead of images; `abaw extract` fills the first.
        window: Frames in a training window; 1 trains on single images.
        stride: Frames from one training window to the next; null is half a window.
        step: Distance between the frames of a window, in frames of the video.
        jitter: Begin each training window at random, up to half a stride earlier or later.
        balance: 0 takes every training window once per epoch; above 0 windows are drawn in proportion to
            how rare their labels are; 1 draws rare and frequent classes about equally often.
        augmentation: Random changes of training clips; null makes none.
        batch_size: Windows per device and training batch.
        eval_window: Frames in a window outside training; null is the same as in training.
        eval_stride: Frames from one such window to the next; overlaps are averaged. Null is half a window.
        eval_batch_size: Windows per device and batch outside training; changes no result. Null: as in it.
        hide_frames: Share of each video's visible frames that is hidden, at random, outside training.
        test_split: Which videos `test` scores; auto takes those annotated for the test, placeholders of one
            value being no annotation.
        predict_split: Which videos `predict` is for; auto takes val, and all where nothing is annotated.
        predict_videos: List of videos, or a sample submission with their images, instead of a split.
        folds: File written by `abaw folds`, which divides the videos of train and val again.
        fold: The fold to validate on.
        on_bad_frame: At an unreadable image: raise, or skip (it is not visible; bad_frames.txt names it).
        frame_size: Height and width of the images, in pixels.
        workers: Loader processes per device; null chooses by the machine, 0 loads in the training process.
        cache_dir: Where the index is kept; null takes ABAW_CACHE, else ~/.cache/abaw.
        seed: Seed of the order of windows, augmentation and masks.
    """

    index: Index

    def __init__(
        self,
        *,
        root: str | None = None,
        tasks: Sequence[str] = ("va", "expr", "au"),
        label_set: Literal["challenge", "mtl"] = "challenge",
        image_roots: list[str] | None = None,
        annotations: str | None = None,
        features: list[str] | None = None,
        window: int = 64,
        stride: int | None = None,
        step: int = 1,
        jitter: bool = True,
        balance: float = 0.0,
        augmentation: ClipAugmentation | None = _PAPER,
        batch_size: int = 8,
        eval_window: int | None = None,
        eval_stride: int | None = None,
        eval_batch_size: int | None = None,
        hide_frames: float = 0.0,
        test_split: TestSplit = "auto",
        predict_split: PredictSplit = "auto",
        predict_videos: str | None = None,
        folds: str | None = None,
        fold: int | None = None,
        on_bad_frame: Literal["raise", "skip"] = "raise",
        frame_size: int = 112,
        workers: int | None = None,
        cache_dir: str | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if not (root := root or os.environ.get("ABAW_ROOT")):
            raise UsageError(
                "there is no data: name the folder that holds cropped_aligned/ and the annotations with"
                " --data.root DIR or in the environment variable ABAW_ROOT"
            )
        self.source = DataSource(
            Path(root),
            image_roots=None if image_roots is None else [Path(folder) for folder in image_roots],
            annotations=None if annotations is None else Path(annotations),
            label_set=label_set,
            features=[Path(folder) for folder in features or ()],
            cache_dir=None if cache_dir is None else Path(cache_dir),
        )
        self.features = self.source.features
        self.tasks = parse_tasks(tasks)
        self._choice: dict[str, Any] = {
            "test_split": test_split,
            "predict_split": predict_split,
            "predict_videos": None if predict_videos is None else Path(predict_videos),
        }
        self.window = window
        self.stride = max(window // 2, 1) if stride is None else stride
        self.step, self.jitter = step, jitter
        self.balance = balance
        self.augmentation = augmentation
        self.batch_size = batch_size
        self.eval_window = window if eval_window is None else eval_window
        self.eval_stride = max(self.eval_window // 2, 1) if eval_stride is None else eval_stride
        self.eval_batch_size = batch_size if eval_batch_size is None else eval_batch_size
        self.hide_frames = hide_frames
        self.folds, self.fold = folds, fold
        self.on_bad_frame: Literal["raise", "skip"] = on_bad_frame
        self.frame_size = frame_size
        self.workers = workers
        self.seed = int(seed)  # a parser may give a kind of its own, which no checkpoint should hold
        self._resumed: dict[str, int] | None = None  # state of the training loader in a checkpoint
        self._check()

    def _check(self) -> None:
        positive = ("window", "step", "eval_window", "batch_size", "eval_batch_size", "frame_size")
        natural = ("balance", "seed", "workers")
        rules = {name: (getattr(self, name) >= 1, "at least 1") for name in positive}
        rules |= {name: ((getattr(self, name) or 0) >= 0, "at least 0") for name in natural}
        rules["hide_frames"] = (0 <= self.hide_frames <= 1, "a share from 0 to 1")
        for kind in ("", "eval_"):
            length, stride = getattr(self, f"{kind}window"), getattr(self, f"{kind}stride")
            rules[f"{kind}stride"] = (1 <= stride <= length, f"from 1 to the window's {length}")
        if self.tasks == (Task.VA,):
            rules["balance"] = (self.balance == 0, "0 unless expr or au is among data.tasks")
        rules["fold"] = ((self.fold is None) == (self.folds is None), "given together with data.folds")
        check_settings("data", self, rules)

    def prepare_data(self) -> None:
        """Builds the index, so that the other processes find it in the cache."""
        build_index(self.source, progress=sys.stderr.isatty())

    def setup(self, stage: str) -> None:
        """Opens the index and, for training, cuts the windows and logs the number of labels.

        Raises:
            AbawError: A folder is missing or empty, an annotation is wrong, or a task has no training label.
        """
        self.index = build_index(self.source)
        if self.folds is not None and self.fold is not None:
            self.index = self.index.with_folds(read_folds(Path(self.folds)), self.fold)
        self._selection = SplitSelection(index=self.index, tasks=self.tasks, **self._choice)
        if stage == "fit":
            counts = self.label_counts()
            if absent := [task for task in self.tasks if not np.sum(counts[task.value])]:
                root = self.source.root
                raise AbawError(
                    f"{root}: no label of {', '.join(absent)} to train on; correct data.root or"
                    " data.annotations, take another data.label_set, or leave it out of data.tasks\n"
                    + (
                        f"the folder holds the crops themselves: is it --data.root {root.parent}?"
                        if is_crops_folder(root, self.index.roots)
                        else f"`abaw check {root}` names label files that are not recognised"
                    )
                )
            self._train_windows = training_windows(
                self.index, self.tasks, length=self.window, stride=self.stride, step=self.step
            )
            if not len(self._train_windows):
                lacking = "no video with training labels has images <video>/00001.jpg"
                picture = other_picture(self.source.root)
                met = "" if picture is None else f", but there is {picture}"
                raise AbawError(f"{self.source.root}: {lacking}{met}; correct data.root or data.image_roots")
            if self.trainer is None or self.trainer.state.fn != "fit":  # `bench` asks for a setup of its own
                return
            self._tell("train", self._train_windows)
            if self.index.annotated("val", self.tasks):
                self._tell("val", self._eval_windows("validate", self.tasks))

    def _tell(self, split: str, windows: WindowTable) -> None:
        rank_zero_info(describe_split(self.index, split, self.tasks, windows))
        if (warning := warn_of_unseen(self.index, split, self.tasks)) is not None:
            rank_zero_info(warning)

    @property
    def windows(self) -> dict[str, int]:
        """Window, stride and step, in frames, outside training."""
        return {"window": self.eval_window, "stride": self.eval_stride, "step": self.step}

    def label_counts(self) -> LabelCounts:
        """Number of training frames per label."""
        return self.index.label_counts("train", self.tasks)

    def eval_split(self, stage: Stage) -> str | None:
        """The split of a stage; None: videos of any split."""
        return self._selection.split(stage)

    def eval_videos(self, stage: Stage) -> list[int]:
        """Numbers of the videos of a stage, sorted by name; at least one."""
        return self._selection.videos(stage)

    def video_name(self, video: int) -> str:
        """The name of a video."""
        return self.index.videos[video]

    def n_frames(self, video: int) -> int:
        """Number of frames of a video (N)."""
        return int(self.index.n_frames[video])

    def labels(self, video: int, stage: Stage) -> Labels:
        """All label rows of a video in a stage, including those beyond its last frame."""
        return self.index.labels(video, self.eval_split(stage))

    def resume(self, state: Mapping[str, int]) -> None:
        """Lets the next training loader continue where a checkpoint was saved.

        Args:
            state: Of the training loader; see `TrainLoader.state_dict`.

        Raises:
            AbawError: Batches are made differently now.
        """
        world_size = self.trainer.world_size if self.trainer else 1
        refuse_other_batches(
            state,
            batch_size=self.batch_size,
            world_size=world_size,
            windows=len(self._train_windows),
            seed=self.seed,
        )
        self._resumed = dict(state)

    def train_dataloader(self) -> TrainLoader:
        """Training windows, shuffled by seed and epoch."""
        if getattr(self.trainer, "overfit_batches", 0):
            raise UsageError("trainer.overfit_batches: not with our samplers; use limit_train_batches")
        windows, weights = self._train_windows, None
        if self.balance:
            weights = class_weights(self.index, windows, self.tasks, strength=self.balance)
        loader = self._loader_factory(windows).train_loader(
            windows,
            self.tasks,
            batch_size=self.batch_size,
            epoch=self.trainer.current_epoch if self.trainer else 0,
            weights=weights,
            augmentation=self.augmentation,
            jitter=self.stride * self.step if self.jitter else 0,
            limit=self.trainer.limit_train_batches if self.trainer else 1.0,
        )
        if self._resumed is not None:
            loader.load_state_dict(self._resumed)
            self._resumed = None
        return loader

    def val_dataloader(self) -> ClipLoader:
        """Windows that cover all frames of the validation videos; of the MTL set, all labelled frames."""
        return self._eval_loader("validate", self.tasks)

    def test_dataloader(self) -> ClipLoader:
        """As for validation."""
        return self._eval_loader("test", self.tasks)

    def predict_dataloader(self) -> ClipLoader:
        """Windows that cover all frames of the selected videos, without labels."""
        return self._eval_loader("predict", ())

    def _eval_loader(self, stage: Stage, tasks: Sequence[Task]) -> ClipLoader:
        windows = self._eval_windows(stage, tasks)
        factory = self._loader_factory(windows)
        split = self.eval_split(stage)
        return factory.eval_loader(windows, tasks, split=split, batch_size=self.eval_batch_size)

    def _eval_windows(self, stage: Stage, tasks: Sequence[Task]) -> WindowTable:
        videos = self.eval_videos(stage)
        windows = cut_videos(self.index.n_frames, videos, self.eval_window, self.eval_stride, self.step)
        if tasks and self.source.label_set == "mtl":  # labels a few single frames of every video
            windows = labelled_windows(windows, self.index, tasks, self.eval_split(stage))
        return windows

    def _loader_factory(self, windows: WindowTable) -> LoaderFactory:
        trainer, workers = self.trainer, self.workers
        return LoaderFactory(
            index=self.index,
            source=open_source(self.index, windows, size=self.frame_size, features=self.features),
            seed=self.seed,
            hide=self.hide_frames,
            rank=trainer.global_rank if trainer else 0,
            world_size=trainer.world_size if trainer else 1,
            workers=default_workers(trainer.num_devices if trainer else 1) if workers is None else workers,
            pin_memory=trainer is not None and trainer.strategy.root_device.type == "cuda",
            on_bad_frame=self.on_bad_frame,
            bad_frame_log=Path(trainer.default_root_dir) / BAD_FRAMES if trainer else None,
        )
