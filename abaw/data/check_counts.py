"""Counting a data set: frames, rows and labels of every video, and how often each label occurs."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from abaw.data.annotations import Labels, constant_label
from abaw.tasks import Task


@dataclass
class VideoCounts:
    """One video in numbers.

    Attributes:
        name: Of the video.
        images: Frames that have a crop.
        frames: The number of the last image or row, a video's own file has one row too many; or of the last
            image that a sample submission asks for.
        splits: By kind of annotation (`va`, `expr`, `au`, `mtl`): where it is annotated.
        rows: By kind of annotation: label rows.
        labelled: By kind of annotation: frames with at least one label.
        labelled_without_crop: Those among them whose crop is missing, the row too many not counted.
        constant: By kind of annotation but `mtl`: the value that all its labels have, if only one.
    """

    name: str
    images: int = 0
    frames: int = 0
    splits: dict[str, str] = field(default_factory=dict)
    rows: dict[str, int] = field(default_factory=dict)
    labelled: dict[str, int] = field(default_factory=dict)
    labelled_without_crop: dict[str, int] = field(default_factory=dict)
    constant: dict[str, tuple[float, ...]] = field(default_factory=dict)

    def add(self, task: Task | None, split: str, labels: Labels, numbers: NDArray[np.int64]) -> None:
        """Counts an annotation of a task, None: of all; `numbers` (n,) are those of the images, from 1."""
        kind = "mtl" if task is None else str(task)
        n_rows = len(labels)
        labelled = labels.va_valid | labels.expr_valid | labels.au_valid.any(1)
        seen = np.zeros(n_rows, np.bool_)
        seen[numbers[numbers <= n_rows] - 1] = True
        n_frames = n_rows if task is None else n_rows - 1
        self.frames = max(self.frames, n_frames)
        self.splits[kind] = split
        self.rows[kind] = n_rows
        self.labelled[kind] = int(labelled.sum())
        self.labelled_without_crop[kind] = int((labelled & ~seen)[:n_frames].sum())
        if task is not None and (constant := constant_label([labels.labelled(task)])) is not None:
            self.constant[kind] = constant


@dataclass
class Balance:
    """How often each label occurs in one split of one label set.

    Attributes:
        va: int64 (10, 10), frames by valence (rows) and arousal in steps of 0.2 from -1 to 1.
        expr: int64 (8,), frames by class.
        au: int64 (12, 2), frames without and with the action unit.
    """

    va: NDArray[np.int64] = field(default_factory=lambda: np.zeros((10, 10), np.int64))
    expr: NDArray[np.int64] = field(default_factory=lambda: np.zeros(8, np.int64))
    au: NDArray[np.int64] = field(default_factory=lambda: np.zeros((12, 2), np.int64))

    def add(self, labels: Labels) -> None:
        """Counts the labels of a video."""
        steps = np.clip(((labels.va[labels.va_valid] + 1) * 5).astype(np.int64), 0, 9)
        np.add.at(self.va, (steps[:, 0], steps[:, 1]), 1)
        self.expr += np.bincount(labels.expr[labels.expr_valid], minlength=8)
        present = (labels.au == 1).sum(0)
        self.au += np.stack([labels.au_valid.sum(0) - present, present], axis=1)

    def described(self) -> dict[str, Any]:
        """Plain values: counts by name, and the two marginal histograms of VA."""
        return {
            "va": {
                "frames": int(self.va.sum()),
                "valence": self.va.sum(1).tolist(),
                "arousal": self.va.sum(0).tolist(),
            },
            "expr": dict(zip(Task.EXPR.names, self.expr.tolist(), strict=True)),
            "au": {
                name: {"absent": absent, "present": present}
                for name, (absent, present) in zip(Task.AU.names, self.au.tolist(), strict=True)
            },
        }
