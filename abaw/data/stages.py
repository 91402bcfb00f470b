"""Which videos each stage of a run is about."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from abaw.data.annotations import constant_label
from abaw.data.index import Index
from abaw.errors import AbawError, did_you_mean
from abaw.tasks import Task

Stage = Literal["validate", "test", "predict"]
TestSplit = Literal["auto", "train", "val", "test"]
PredictSplit = Literal["auto", "train", "val", "test", "all"]


@dataclass(frozen=True, kw_only=True)
class Stages:
    """Finds the videos of a stage in an index.

    Attributes:
        index: The data set.
        tasks: Whose annotations count.
        test_split: Which videos `test` scores; auto takes those annotated for the test. A test split in which
            all labels of a task are one value holds placeholders, and is not annotated.
        predict_split: Which videos `predict` is for; auto takes val, and all where nothing is annotated.
            test takes those without an annotation for one of the tasks where none is annotated for the test.
        predict_videos: List of videos, or a sample submission with their images, instead of a split.
    """

    index: Index
    tasks: tuple[Task, ...]
    test_split: TestSplit = "auto"
    predict_split: PredictSplit = "auto"
    predict_videos: Path | None = None

    def split(self, stage: Stage) -> str | None:
        """The split a stage is about; None where it is about videos of any."""
        if stage == "validate":
            return "val"
        if stage == "test":
            return "test" if self.test_split == "auto" else self.test_split
        if self.predict_videos is not None or self.predict_split == "all":
            return None
        if self.predict_split == "auto":
            return "val" if self._annotated("val") else None
        return self.predict_split

    def videos(self, stage: Stage) -> list[int]:
        """The videos of a stage, by name.

        Raises:
            AbawError: There is none, or one that is listed does not exist.
        """
        split = self.split(stage)
        if stage == "predict" and self.predict_videos is not None:
            videos, what = self._listed(self.predict_videos), f"in {self.predict_videos}"
        elif split is None:
            videos, what = self._with_images(), "with images"
        elif stage == "predict" and split == "test" and not self._annotated("test"):
            # the organisers keep the labels of the test videos, so those are known by having none; each
            # task has its own, and those of one may be annotated for another
            videos = [v for v in self._with_images() if set(self.tasks) - self.index.splits(v).keys()]
            what = f"with images and without annotation for one of {', '.join(self.tasks)}"
        elif stage == "test" and self.test_split == "auto" and not self._test_is_labelled:
            videos, what = [], ""
        else:
            videos, what = self._annotated(split), f"annotated for {', '.join(self.tasks)} in {split}"
        if not videos and stage == "test" and split == "test":
            raise AbawError(
                f"there are no test labels of {', '.join(self.tasks)} in this data set, or only placeholders,"
                " so nothing to score: `abaw validate` scores the validation videos, as --data.test_split val"
                " does; `abaw predict --data.predict_split test` predicts those of the test"
            )
        if not videos:
            raise AbawError(
                f"there is no video {what} to {stage}; correct data.root, data.annotations or the choice of"
                f" videos (data.{'predict' if stage == 'predict' else 'test'}_split, data.folds)"
            )
        return videos

    @cached_property
    def _test_is_labelled(self) -> bool:
        """Whether a task has labels of the test, which placeholders of one value are not."""
        for task in self.tasks:
            videos = self.index.annotated("test", [task])
            labels = [self.index.labels(video, "test").labelled(task) for video in videos]
            if any(map(len, labels)) and constant_label(labels) is None:
                return True
        return False

    def _with_images(self) -> list[int]:
        return [video for video in range(len(self.index)) if self.index.visible(video).any()]

    def _annotated(self, split: str) -> list[int]:
        return self.index.annotated(split, self.tasks)

    def _listed(self, path: Path) -> list[int]:
        try:
            lines = path.read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise AbawError(f"{path}: cannot be read ({error}); correct data.predict_videos") from error
        cells = {line.partition(",")[0].strip(' "') for line in lines} - {"", "image", "image_location"}
        names = {cell.partition("/")[0].removesuffix(".txt") for cell in cells}
        if unknown := sorted(names - set(self.index.videos)):
            hint = did_you_mean(unknown[0], self.index.videos)
            raise AbawError(f"{path}: the data set has no video {unknown[0]!r}{hint}; correct the list")
        return [video for video, name in enumerate(self.index.videos) if name in names]
