"""LightningDataModule for ABAW frame sequences: from the data source to the loaders of every stage."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path
from typing import Literal

from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities import rank_zero_info

from abaw.data.frames import BAD_FRAMES, BadFrameLog
from abaw.data.index import Index, LabelCounts, build_index
from abaw.data.labels import Labels
from abaw.data.layout import DataSource, is_crops_folder, named_root, other_picture
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
from abaw.tasks import TASKS, Task, parse_tasks
from abaw.windows import WindowTable, cut_videos


@dataclass(frozen=True, kw_only=True)
class SourceSettings:
    """Label set, and images and annotations outside the root."""

    label_set: Literal["challenge", "mtl"] = "challenge"
    """challenge: one annotation file per video and task; mtl: the multi-task files."""
    image_roots: list[str] | None = None
    """Folders with one folder of images per video, instead of those found below root; a frame is read from
    the first that has it."""
    annotations: str | None = None
    """Folder with the annotations, instead of those found below root."""


@dataclass(frozen=True, kw_only=True)
class WindowSettings:
    """Length and sampling of training windows."""

    stride: int | None = None
    """Distance between training windows in frames; null: half a window."""
    step: int = 1
    """Distance between the frames of a window, in frames of the video; also outside training."""
    jitter: bool = True
    """Move the start of each training window at random, by up to half a stride."""
    balance: float = 0.0
    """0: every training window once per epoch; above 0: windows are drawn in proportion to the rarity of
    their labels; 1: rare and frequent classes are drawn about equally often."""


@dataclass(frozen=True, kw_only=True)
class LoadingSettings:
    """Reading and augmentation of frames."""

    augmentation: ClipAugmentation | None = field(default_factory=ClipAugmentation)
    """Augmentation of training clips; null: none."""
    frame_size: int = 112
    """Height and width of the images, in pixels."""
    on_bad_frame: Literal["raise", "skip"] = "raise"
    """Unreadable images: raise an error, or skip: not visible, and listed in bad_frames.txt."""


@dataclass(frozen=True, kw_only=True)
class EvaluationSettings:
    """Videos, windows and batches outside training."""

    window: int | None = None
    """Frames per window; null: as in training."""
    stride: int | None = None
    """Distance between windows in frames; overlaps are averaged. null: half a window."""
    batch_size: int | None = None
    """Windows per batch and device; does not change results. null: as in training."""
    drop_frames: float = 0.0
    """Share of the visible frames of each video to drop at random."""
    test_split: TestSplit = "auto"
    """Videos that `test` scores; auto: those annotated for the test, except placeholders of one value."""
    predict_split: PredictSplit = "auto"
    """Videos that `predict` processes; auto: val, or all if none is annotated."""
    predict_videos: str | None = None
    """List of videos, or a sample submission with their images, instead of a split."""


class AffectDataModule(LightningDataModule):
    """LightningDataModule of Aff-Wild2: windows of aligned faces with their labels.

    Args:
        root: Folder with cropped_aligned/ and the annotations; null: environment variable ABAW_ROOT.
        tasks: Tasks: any of va, expr, au, or the import path of another, such as pain.PAIN.
        features: Folders of cached features to read instead of images; `abaw extract` fills the first.
        window: Frames per training window; 1: single images.
        batch_size: Windows per training batch and device.
        workers: Loader processes per device; null: by the number of cores; 0: none.
        folds: File of `abaw folds`, which replaces the official train and val splits.
        fold: The validation fold.
        cache_dir: Folder of the index; null: environment variable ABAW_CACHE, else ~/.cache/abaw.
        seed: Seed of the order of windows, augmentation and masks.
        source: Label set, and images and annotations outside the root.
        windows: Length and sampling of training windows.
        loading: Reading and augmentation of frames.
        evaluation: Videos, windows and batches outside training.
    """

    index: Index

    def __init__(
        self,
        *,
        root: str | None = None,
        tasks: Sequence[str] = ("va", "expr", "au"),
        features: list[str] | None = None,
        window: int = 64,
        batch_size: int = 8,
        workers: int | None = None,
        folds: str | None = None,
        fold: int | None = None,
        cache_dir: str | None = None,
        seed: int = 0,
        source: SourceSettings = SourceSettings(),
        windows: WindowSettings = WindowSettings(),
        loading: LoadingSettings = LoadingSettings(),
        evaluation: EvaluationSettings = EvaluationSettings(),
    ) -> None:
        super().__init__()
        self.tasks = parse_tasks(tasks)
        self.source = DataSource(
            named_root(root, "--data.root DIR", must_exist=False),
            image_roots=None if source.image_roots is None else [Path(path) for path in source.image_roots],
            annotations=None if source.annotations is None else Path(source.annotations),
            label_set=source.label_set,
            features=[Path(folder) for folder in features or ()],
            tasks=tuple(dict.fromkeys((*TASKS, *self.tasks))),
            cache_dir=None if cache_dir is None else Path(cache_dir),
        )
        self.features = self.source.features
        self.window, self.batch_size, self.workers = window, batch_size, workers
        self.folds, self.fold = folds, fold
        self.seed = int(seed)  # a subclass of int from the parser would be pickled into checkpoints
        self.windows, self.loading, self.evaluation = windows, loading, evaluation
        self.stride = max(window // 2, 1) if windows.stride is None else windows.stride
        self.eval_window = window if evaluation.window is None else evaluation.window
        self.eval_stride = max(self.eval_window // 2, 1) if evaluation.stride is None else evaluation.stride
        self.eval_batch_size = batch_size if evaluation.batch_size is None else evaluation.batch_size
        self._resumed: dict[str, int] | None = None  # state of the training loader in a checkpoint
        self._check()

    def _check(self) -> None:
        positive = ["window", "batch_size", "windows.step", "loading.frame_size"]
        positive += ["evaluation.window", "evaluation.batch_size"]
        natural = ["workers", "seed", "windows.balance"]
        rules = {
            name: (value is None or value >= least, f"at least {least}")
            for least, names in ((1, positive), (0, natural))
            for name, value in zip(names, attrgetter(*names)(self), strict=True)
        }
        for name, length in (("windows.stride", self.window), ("evaluation.stride", self.eval_window)):
            stride = attrgetter(name)(self)
            rules[name] = (stride is None or 1 <= stride <= length, f"from 1 to the window's {length}")
        share = self.evaluation.drop_frames
        rules["evaluation.drop_frames"] = (0 <= share <= 1, "a share from 0 to 1")
        if all(task.kind == "real" for task in self.tasks):
            rules["windows.balance"] = (self.windows.balance == 0, "0 unless expr or au is among data.tasks")
        rules["fold"] = ((self.fold is None) == (self.folds is None), "given together with data.folds")
        check_settings("data", self, rules)

    def prepare_data(self) -> None:
        """Builds the index, so that the other processes find it in the cache."""
        build_index(self.source, progress=True)

    def setup(self, stage: str) -> None:
        """Opens the index and, for training, cuts the windows and logs the number of labels.

        Raises:
            AbawError: A folder is missing or empty, an annotation is wrong, or a task has no training label.
        """
        self.index = build_index(self.source)
        if self.folds is not None and self.fold is not None:
            self.index = self.index.with_folds(read_folds(Path(self.folds)), self.fold)
        listed = self.evaluation.predict_videos
        self._selection = SplitSelection(
            index=self.index,
            tasks=self.tasks,
            test_split=self.evaluation.test_split,
            predict_split=self.evaluation.predict_split,
            predict_videos=None if listed is None else Path(listed),
        )
        if stage == "fit":
            counts = self.label_counts()
            if absent := [task for task in self.tasks if not counts[task].any()]:
                root = self.source.root
                raise AbawError(
                    f"{root}: no label of {', '.join(map(str, absent))} to train on; correct data.root or"
                    " data.source.annotations, take another data.source.label_set, or leave it out of"
                    " data.tasks\n"
                    + (
                        f"the folder holds the crops themselves: is it --data.root {root.parent}?"
                        if is_crops_folder(root, self.index.roots)
                        else f"`abaw check {root}` names label files that are not recognised"
                    )
                )
            self._train_windows = training_windows(
                self.index, self.tasks, length=self.window, stride=self.stride, step=self.windows.step
            )
            if not len(self._train_windows):
                lacking = "no video with training labels has images <video>/00001.jpg"
                picture = other_picture(self.source.root)
                met = "" if picture is None else f", but there is {picture}"
                cure = "correct data.root or data.source.image_roots"
                raise AbawError(f"{self.source.root}: {lacking}{met}; {cure}")
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
    def eval_window_sizes(self) -> dict[str, int]:
        """Window, stride and step, in frames, outside training."""
        return {"window": self.eval_window, "stride": self.eval_stride, "step": self.windows.step}

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
        """Lets the next training loader continue at the position of a checkpoint.

        Args:
            state: State of its training loader, see `TrainLoader.state_dict`.

        Raises:
            AbawError: See `refuse_other_batches`.
        """
        refuse_other_batches(
            state,
            batch_size=self.batch_size,
            world_size=self.trainer.world_size if self.trainer else 1,
            windows=len(self._train_windows),
            seed=self.seed,
        )
        self._resumed = dict(state)

    def train_dataloader(self) -> TrainLoader:
        """Training windows, shuffled by seed and epoch, with frames masked as the trained module asks.

        Raises:
            UsageError: The trainer is to overfit batches, which it does with samplers of its own.
        """
        if getattr(self.trainer, "overfit_batches", 0):
            raise UsageError("trainer.overfit_batches: not with our samplers; use limit_train_batches")
        windows, weights = self._train_windows, None
        if self.windows.balance:
            weights = class_weights(self.index, windows, self.tasks, strength=self.windows.balance)
        trainer = self.trainer
        loader = self._loader_factory(windows).train_loader(
            windows,
            self.tasks,
            batch_size=self.batch_size,
            epoch=trainer.current_epoch if trainer else 0,
            weights=weights,
            augmentation=self.loading.augmentation,
            masking=getattr(trainer.lightning_module, "masking", None) if trainer else None,
            jitter=self.stride * self.windows.step if self.windows.jitter else 0,
            limit=trainer.limit_train_batches if trainer else 1.0,
            accumulate=trainer.accumulate_grad_batches if trainer else 1,
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
        step = self.windows.step
        windows = cut_videos(self.index.n_frames, videos, self.eval_window, self.eval_stride, step)
        if tasks and self.source.label_set == "mtl":  # labels a few single frames of every video
            windows = labelled_windows(windows, self.index, tasks, self.eval_split(stage))
        return windows

    def _loader_factory(self, windows: WindowTable) -> LoaderFactory:
        trainer, workers = self.trainer, self.workers
        return LoaderFactory(
            index=self.index,
            source=open_source(self.index, windows, size=self.loading.frame_size, features=self.features),
            seed=self.seed,
            drop_frames=self.evaluation.drop_frames,
            rank=trainer.global_rank if trainer else 0,
            world_size=trainer.world_size if trainer else 1,
            workers=default_workers(trainer.num_devices if trainer else 1) if workers is None else workers,
            pin_memory=trainer is not None and trainer.strategy.root_device.type == "cuda",
            on_bad_frame=self.loading.on_bad_frame,
            bad_frame_log=BadFrameLog(Path(trainer.default_root_dir) / BAD_FRAMES) if trainer else None,
        )
