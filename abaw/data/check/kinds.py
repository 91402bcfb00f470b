"""What the data doctor can find: every kind of defect, whether it counts as one, and how to mend it."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Kind:
    """A kind of finding.

    Attributes:
        fails: Whether one such finding makes the data set count as defective.
        hint: What to do about it.
    """

    fails: bool
    hint: str


RECOGNISED = (
    "folders named for the task (VA_Estimation_Challenge, EXPR_Set, AU, …), in them folders for the split"
    " (Train_Set, Validation_Set, Test_Set), in them <video>.txt; or MTL_Challenge/train_set.txt"
)

_FETCH = "fetch it again, or delete it: a frame without a file is legal"

_LABELS = "correct the line, or fetch the annotations again"

_TIDY = "the reader tolerates it, other programs may not; "

KINDS = {
    # images
    "empty image": Kind(True, _FETCH),
    "truncated image": Kind(True, _FETCH),
    "unreadable image": Kind(True, _FETCH),
    "damaged image": Kind(True, "it can be decoded, though parts may be grey or wrong; " + _FETCH),
    "image size": Kind(
        True,
        "use the cropped_aligned images, which are 112×112; or say what size all are, for 224×224: "
        "`abaw check --size 224`, `abaw fit --data.frame_size 224`",
    ),
    "missing images": Kind(True, "fetch the images of this video again; the download seems incomplete"),
    "missing tail": Kind(
        True,
        "fetch the images of this video again; where its end really shows no face: --ignore missing-tail",
    ),
    "labels alone": Kind(False, "training needs images, or features made from them: name their folder"),
    "duplicate image": Kind(True, "keep the copy that belongs there; harmless where a scene stands still"),
    "duplicate video": Kind(True, "remove one of the two, above all where it leaks between splits"),
    "stray file": Kind(True, "move it elsewhere; images are named 00001.jpg, 00002.jpg, …"),
    "litter": Kind(False, "left by the operating system, ignored"),
    "frames without crop": Kind(False, "no face was found there, as in about 2 % of the official frames"),
    "labelled frames without crop": Kind(False, "they count in the scores and are predicted from context"),
    # annotation files
    "no annotations": Kind(
        True,
        f"annotations are read from {RECOGNISED}; where there are none on purpose: --ignore no-annotations",
    ),
    "unrecognised annotation": Kind(
        True, f"annotations are read from {RECOGNISED}; rename the folders, and give the one above them"
    ),
    "encoding": Kind(True, "save it as UTF-8, for instance with `iconv -f UTF-16 -t UTF-8`"),
    "header": Kind(True, "use the official header of the task's folder"),
    "columns": Kind(True, _LABELS),
    "number": Kind(True, _LABELS),
    "range": Kind(True, _LABELS),
    "image": Kind(True, _LABELS),
    "duplicate row": Kind(True, "keep one of the rows"),
    "blank line": Kind(True, "delete the line"),
    "unreadable annotation": Kind(True, "check its permissions, or fetch it again"),
    "empty annotation": Kind(True, "fetch it again, or delete it"),
    "byte-order mark": Kind(True, _TIDY + "save it as UTF-8 without a byte-order mark"),
    "carriage returns": Kind(True, _TIDY + "convert the line ends, for instance with dos2unix"),
    "trailing spaces": Kind(True, _TIDY + "remove the spaces"),
    "half-labelled row": Kind(True, "mark both valence and arousal with -5; it counts as unlabelled"),
    "seven classes": Kind(False, "an EXPR file of 2021; it is read, and never teaches the class Other"),
    "constant labels": Kind(
        False, "these are placeholders, not labels; data.test_split: auto passes over them"
    ),
    # how they fit
    "annotated twice": Kind(True, "keep one of the files, or choose one folder with annotations"),
    "subject in two splits": Kind(
        True, "keep all subjects and parts of a recording in one split: `abaw folds`"
    ),
    "video in two splits": Kind(
        False, "train and val of different tasks; a model of all tasks sees it twice"
    ),
    "length mismatch": Kind(True, "images and annotations are of different versions; fetch both again"),
    # the installation
    "two OpenCV wheels": Kind(
        False,
        "pip uninstall -y opencv-python opencv-python-headless; "
        "pip install --force-reinstall opencv-python-headless",
    ),
}


@dataclass(frozen=True)
class Finding:
    """One thing met.

    Attributes:
        kind: A key of `KINDS`.
        path: The file or folder; None for the installation.
        detail: What was met.
        line: Line in the file, from 1.
    """

    kind: str
    path: Path | None
    detail: str
    line: int | None = None

    @property
    def place(self) -> str:
        """Where: the path, and the line if there is one."""
        return f"{self.path or 'here'}{'' if self.line is None else f':{self.line}'}"
