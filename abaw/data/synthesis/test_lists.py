"""What the organisers send for a test set: sample submissions, and a list of its videos."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from abaw.data.annotations import MTL_HEADER, image_name
from abaw.data.synthesis.casting import Shot
from abaw.tasks import Task

_MTL_STEP = 8  # of a video, the multi-task challenge takes single frames


def write_test_lists(folder: Path, shots: Sequence[Shot]) -> None:
    """Writes a sample of every task and one of the multi-task challenge, and the 3rd edition's list.

    Args:
        folder: Made where there is anything to write.
        shots: Of the data set; only those of the test split are asked for, not by every task.
    """
    test = [shot for shot in shots if shot.split == "test"]
    if not test:
        return
    folder.mkdir(parents=True)
    for place, task in enumerate(Task):
        asked = [shot for k, shot in enumerate(test) if k % 4 != place or len(test) == 1]
        _write_sample(folder / f"{task.upper()}_sample.txt", ("image_location", *task.names), asked)
    _write_sample(folder / "MTL_sample.txt", MTL_HEADER, test, _MTL_STEP)
    _write_lines(folder / "videos.txt", [shot.video for shot in test])


def _write_sample(path: Path, header: Iterable[str], shots: Sequence[Shot], step: int = 1) -> None:
    """A row for every frame of the video, whether it has a crop or not."""
    images = (f"{s.video}/{image_name(n)}," for s in shots for n in range(1, s.n_frames + 1, step))
    _write_lines(path, [",".join(header), *images])


def _write_lines(path: Path, lines: Sequence[str]) -> None:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")
