"""Writer of generated data sets in the official layout."""

import os
import shutil
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from itertools import starmap
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from abaw.data.formats.annotations import MTL_HEADER, write_mtl_file, write_task_file
from abaw.data.labels import Labels, image_name
from abaw.data.processes import available_cores, in_processes
from abaw.data.synth.animation import play
from abaw.data.synth.camera import Camera
from abaw.data.synth.face import Face
from abaw.data.synth.identity import draw_identity
from abaw.data.synth.landmarks import MOVEMENTS
from abaw.data.synth.presets import PRESETS, Preset, Shot, plan
from abaw.errors import AbawError, UsageError
from abaw.files import not_written
from abaw.tasks import Task

ANNOTATIONS = "6th_ABAW_Annotations"

TEST_LISTS = "test_set"

IMAGE_ROOTS = ("cropped_aligned", "cropped_aligned_new_50_vids")

TASK_FOLDERS = {
    Task.VA: "VA_Estimation_Challenge",
    Task.EXPR: "EXPR_Recognition_Challenge",
    Task.AU: "AU_Detection_Challenge",
}

SPLIT_FOLDERS = {"train": "Train_Set", "val": "Validation_Set"}

_MTL_FILES = {"train": "train_set.txt", "val": "validation_set.txt"}

_MISSING, _BURST = 0.02, 9  # share of the frames without a crop, and about how many go together

_JPEG = (cv2.IMWRITE_JPEG_QUALITY, 88)  # about 5 KB a frame


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What was written: where, and how many videos (stems), frames and images it holds."""

    root: Path
    videos: int
    frames: int
    images: int


def write_dataset(
    out: Path | str,
    *,
    videos: int = 32,
    frames: int = 300,
    seed: int = 0,
    jobs: int | None = None,
    preset: str = "demo",
    progress: bool = True,
) -> Summary:
    """Writes a data set in the layout of Aff-Wild2; the tree appears whole or not at all.

    Args:
        out: Folder to make; it must not hold anything yet.
        videos: Number of videos (stems) over train, validation and test, at least 2.
        frames: Mean number of frames of a video, at least 10.
        seed: The same seed gives the same bytes, whatever `jobs` is.
        jobs: Processes; by default one for every core this process may use.
        preset: `demo`, mild and quickly learnt, or `real`, as imbalanced as Aff-Wild2.
        progress: Shows a bar.

    Raises:
        UsageError: An argument cannot mean anything.
        AbawError: `out` holds something already, or cannot be written.
    """
    limits = (("videos", videos, 2), ("frames", frames, 10), ("seed", seed, 0), ("jobs", jobs, 1))
    for name, value, least in limits:
        if value is not None and value < least:
            raise UsageError(f"{name}: {value} is too small; give at least {least}")
    if preset not in PRESETS:
        raise UsageError(f"preset: {preset!r} is unknown; choose one of {', '.join(PRESETS)}")
    with _appearing(Path(out)) as root:
        shots = plan(videos=videos, frames=frames, seed=seed, preset=PRESETS[preset])
        n_frames = sum(shot.n_frames for shot in shots)
        n_images = _film_all(shots, root, preset, jobs or available_cores(), progress)
        write_test_lists(root / TEST_LISTS, shots)
        _litter(root, shots)
        order = f"abaw synth --videos {videos} --frames {frames} --seed {seed} --preset {preset}"
        (root / "README.txt").write_text(f"Generated people, not Aff-Wild2: {order}\n")
    return Summary(root=Path(out), videos=videos, frames=n_frames, images=n_images)


@contextmanager
def _appearing(out: Path) -> Iterator[Path]:
    """Yields a temporary folder beside `out` that takes its place on success and is removed on failure."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise AbawError(f"{out}: holds something already; name a new folder, or remove this one first")
    temporary = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    try:
        temporary.mkdir(parents=True)
        yield temporary
        temporary.replace(out)
    except OSError as error:
        raise not_written(out, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _film_all(shots: Sequence[Shot], root: Path, preset: str, jobs: int, progress: bool) -> int:
    """Writes all videos and the MTL files; gives the number of images."""
    n_images = 0
    sparse: dict[str, dict[str, Labels]] = {split: {} for split in SPLIT_FOLDERS}
    bar = tqdm(total=sum(shot.n_frames for shot in shots), unit="frame", disable=not progress)
    with bar, closing(_films(shots, root, preset, jobs)) as films:
        for shot, (of_video, labels) in zip(shots, films, strict=True):
            n_images += of_video
            if shot.split in sparse:
                sparse[shot.split][shot.video] = labels
            bar.update(shot.n_frames)
    for split, labels_of in sparse.items():
        write_mtl_file(root / ANNOTATIONS / "MTL_Challenge" / _MTL_FILES[split], labels_of)
    return n_images


def _films(shots: Sequence[Shot], root: Path, preset: str, jobs: int) -> Generator[tuple[int, Labels]]:
    orders = [(shot, root, preset) for shot in shots]
    if jobs == 1:
        yield from starmap(_film, orders)
        return
    # spawned, as a fork of a process with threads may hang
    yield from in_processes(_film, orders, jobs=jobs, method="spawn", initializer=_use_one_core)


def _use_one_core() -> None:
    cv2.setNumThreads(1)


def _film(shot: Shot, root: Path, preset_name: str) -> tuple[int, Labels]:
    """Draws one video and writes its files; gives the number of images and its labels in the MTL file."""
    preset = PRESETS[preset_name]
    rng = np.random.default_rng(shot.seed)
    acted = play(shot.script, preset.society, rng)
    who = draw_identity(rng, variation=preset.variation)
    face = Face(who, scene=shot.scene)
    camera = Camera(rng, n_frames=shot.n_frames, weather=preset.weather, skin=who.skin)
    missing = _bursts(rng, shot.n_frames, _MISSING, _BURST, at_least=int(shot.must_miss))
    missing[0] &= not missing.all()  # a video has an image at least
    folder = root / IMAGE_ROOTS[shot.second_root] / shot.video
    folder.mkdir(parents=True)
    jaw = acted.moves[:, MOVEMENTS.index("AU26")].tolist()
    for t, canvas in enumerate(face.draw(acted.moves[: shot.n_frames], acted.gaze[: shot.n_frames])):
        if not missing[t]:
            _, data = cv2.imencode(".jpg", camera.shoot(canvas, jaw[t], t), _JPEG)
            (folder / image_name(t + 1)).write_bytes(data.tobytes())
    for task in shot.tasks:
        path = root / ANNOTATIONS / TASK_FOLDERS[task] / SPLIT_FOLDERS[shot.split] / f"{shot.video}.txt"
        write_task_file(path, task, _with_gaps(acted.labels, preset, rng))
    return int((~missing).sum()), _sparse(acted.labels, ~missing, rng)


def _bursts(
    rng: np.random.Generator, n: int, share: float, mean: int, at_least: int = 0
) -> NDArray[np.bool_]:
    """Gives bool (n,): True in bursts of about `mean` that cover about `share`."""
    hit = np.zeros(n, np.bool_)
    mean = max(min(mean, n // 10), 1)
    count = -np.log1p(-share) * n / mean  # as bursts placed at random overlap
    for _ in range(max(int(rng.poisson(count)), at_least)):
        start = int(rng.integers(n))
        hit[start : start + int(rng.geometric(1 / mean))] = True
    return hit


def _with_gaps(labels: Labels, preset: Preset, rng: np.random.Generator) -> Labels:
    """Gives the labels with stretches unlabelled; of action units all together, or one alone."""

    def keep(share: float) -> NDArray[np.bool_]:
        return ~_bursts(rng, len(labels), share, 40)

    loss = preset.unlabelled
    au = (
        np.stack([keep(loss[Task.AU] / 2) for _ in range(Task.AU.size)], axis=1)
        & keep(loss[Task.AU] / 2)[:, None]
    )
    return replace(labels, va_valid=keep(loss[Task.VA]), expr_valid=keep(loss[Task.EXPR]), au_valid=au)


def _sparse(labels: Labels, seen: NDArray[np.bool_], rng: np.random.Generator) -> Labels:
    """Gives single frames with any combination of labels, as many of each as s-Aff-Wild2 has."""
    chosen = np.zeros(len(labels), np.bool_)
    chosen[int(rng.integers(4)) : len(seen) : 8] = True
    chosen[: len(seen)] &= seen
    va, expr, au = (chosen & (rng.random(len(labels)) < share) for share in (0.73, 0.64, 0.73))
    return replace(
        labels, va_valid=va, expr_valid=expr, au_valid=np.repeat(au[:, None], Task.AU.size, axis=1)
    )


def _litter(root: Path, shots: Sequence[Shot]) -> None:
    """Leaves the stray files that come with the official archives."""
    images = root / IMAGE_ROOTS[shots[0].second_root]
    for folder in (root / ANNOTATIONS, images, images / shots[0].video):
        (folder / ".DS_Store").write_bytes(b"\0\0\0\1Bud1\0")


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
