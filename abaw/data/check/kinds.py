"""Kinds of findings of the data set check, whether they count as defects, and how to fix them."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class KindInfo:
    """Properties of a kind of finding.

    Attributes:
        fails: Whether such a finding counts as a defect.
        hint: How to fix it.
    """

    fails: bool
    hint: str


RECOGNISED = (
    "folders named for the task (VA_Estimation_Challenge, EXPR_Set, AU, …), in them folders for the split"
    " (Train_Set, Validation_Set, Test_Set), in them <video>.txt; or MTL_Challenge/train_set.txt"
)

_FETCH = "download it again, or delete it: frames without an image are allowed"
_LABELS = "correct the line, or download the annotations again"
_TIDY = "the reader tolerates it, other programs may not; "

KINDS = {
    # images
    "empty image": KindInfo(True, _FETCH),
    "truncated image": KindInfo(True, _FETCH),
    "unreadable image": KindInfo(True, _FETCH),
    "damaged image": KindInfo(True, "it can be decoded, but parts may be grey or wrong; " + _FETCH),
    "image size": KindInfo(
        True,
        "use the cropped_aligned images, which are 112×112; or give the size of all images, for 224×224: "
        "`abaw check --size 224`, `abaw fit --data.loading.frame_size 224`",
    ),
    "missing images": KindInfo(True, "download the images of this video again; they seem incomplete"),
    "missing tail": KindInfo(
        True, "download the images of this video again; if its end shows no face: --ignore missing-tail"
    ),
    "labels alone": KindInfo(False, "training needs images or cached features: give their folder"),
    "duplicate image": KindInfo(True, "keep the copy that belongs there; harmless in static scenes"),
    "duplicate video": KindInfo(True, "remove one of the two, especially if they are in different splits"),
    "stray file": KindInfo(True, "move it to another folder; images are named 00001.jpg, 00002.jpg, …"),
    "litter": KindInfo(False, "created by the operating system, ignored"),
    "frames without crop": KindInfo(False, "no face was detected, as in about 2 % of the official frames"),
    "labelled frames without crop": KindInfo(False, "they are scored, and predicted from neighbours"),
    # annotation files
    "no annotations": KindInfo(
        True, f"annotations are read from {RECOGNISED}; if there are none on purpose: --ignore no-annotations"
    ),
    "unrecognised annotation": KindInfo(
        True, f"annotations are read from {RECOGNISED}; rename the folders, and give their parent folder"
    ),
    "encoding": KindInfo(True, "save it as UTF-8, for instance with `iconv -f UTF-16 -t UTF-8`"),
    "header": KindInfo(True, "use the official header of the task"),
    "columns": KindInfo(True, _LABELS),
    "number": KindInfo(True, _LABELS),
    "range": KindInfo(True, _LABELS),
    "image": KindInfo(True, _LABELS),
    "duplicate row": KindInfo(True, "keep one of the rows"),
    "blank line": KindInfo(True, "delete the line"),
    "unreadable annotation": KindInfo(True, "check its permissions, or download it again"),
    "empty annotation": KindInfo(True, "download it again, or delete it"),
    "byte-order mark": KindInfo(True, _TIDY + "save it as UTF-8 without a byte-order mark"),
    "carriage returns": KindInfo(True, _TIDY + "convert the line endings, for instance with dos2unix"),
    "trailing spaces": KindInfo(True, _TIDY + "remove the spaces"),
    "half-labelled row": KindInfo(True, "mark both valence and arousal with -5; it counts as unlabelled"),
    "seven classes": KindInfo(False, "an EXPR file of 2021; it has no labels of the class Other"),
    "constant labels": KindInfo(
        False, "placeholders, not labels; data.evaluation.test_split: auto ignores them"
    ),
    # consistency
    "annotated twice": KindInfo(True, "keep one of the files, or choose one annotation folder"),
    "subject in two splits": KindInfo(
        True, "keep all subjects and parts of a recording in one split: `abaw folds`"
    ),
    "video in two splits": KindInfo(
        False, "train and val of different tasks; a multi-task model is validated on a training video"
    ),
    "length mismatch": KindInfo(True, "images and annotations differ in version; download both again"),
    # the installation
    "two OpenCV wheels": KindInfo(
        False,
        "pip uninstall -y opencv-python opencv-python-headless; "
        "pip install --force-reinstall opencv-python-headless",
    ),
}


@dataclass(frozen=True)
class DataFinding:
    """A single finding of the data set check.

    Attributes:
        kind: A key of `KINDS`.
        path: File or folder; None for the installation.
        detail: Description, with the value found.
        line: Line in the file, from 1.
    """

    kind: str
    path: Path | None
    detail: str
    line: int | None = None

    @property
    def place(self) -> str:
        """Location: the path, and the line if there is one."""
        return f"{self.path or 'here'}{'' if self.line is None else f':{self.line}'}"
