"""Writes generated videos and labels in the official layout, gaps, oddities and all."""

import os
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from abaw.data.annotations import Labels, image_name, write_mtl_file, write_task_file
from abaw.data.behaviour import Playwright, Script, Society, play, shares
from abaw.data.faces import Face
from abaw.data.filming import Camera, Weather
from abaw.data.portraits import draw_identity
from abaw.data.rig import MOVEMENTS
from abaw.errors import AbawError, UsageError
from abaw.tasks import Task

ANNOTATIONS = "6th_ABAW_Annotations"
IMAGE_ROOTS = ("cropped_aligned", "cropped_aligned_new_50_vids")
TASK_FOLDERS = {
    Task.VA: "VA_Estimation_Challenge",
    Task.EXPR: "EXPR_Recognition_Challenge",
    Task.AU: "AU_Detection_Challenge",
}
SPLIT_FOLDERS = {"train": "Train_Set", "val": "Validation_Set"}
_MTL_FILES = {"train": "train_set.txt", "val": "validation_set.txt"}


@dataclass(frozen=True, kw_only=True)
class Preset:
    """One kind of generated data set.

    Attributes:
        society: Who does what, how often.
        weather: What the camera makes of it.
        variation: How far people differ from the mean face.
        annotated: Share of the videos with labels of each task.
        unlabelled: Share of the rows of an annotated video without a label, per task.
        splits: Share of the videos in train, val and test.
    """

    society: Society
    weather: Weather
    variation: float
    annotated: dict[Task, float]
    unlabelled: dict[Task, float]
    splits: tuple[float, float, float]


PRESETS = {
    "demo": Preset(
        society=Society(
            expressions=(0.20, 0.11, 0.11, 0.10, 0.14, 0.12, 0.11, 0.11),
            units=(0.32, 0.26, 0.34, 0.18, 0.25, 0.18, 0.20, 0.16, 0.14, 0.14, 0.35, 0.18),
            episode=45,
            strength=(0.75, 1.0),
            lag=(8, 14),
        ),
        weather=Weather(pose=0.6, jitter=0.6, spoilt=0.25, bursts=0.05, covered=0.08),
        variation=0.8,
        annotated={Task.VA: 0.75, Task.EXPR: 0.75, Task.AU: 0.75},
        unlabelled={Task.VA: 0.03, Task.EXPR: 0.08, Task.AU: 0.05},
        splits=(0.65, 0.25, 0.10),
    ),
    "real": Preset(
        society=Society(  # label counts of Aff-Wild2's training set
            expressions=shares((177198, 16573, 10771, 9080, 95463, 78751, 31615, 165866)),
            units=shares(
                (160261, 67513, 209982, 362236, 538960, 467113, 332788, 38163, 42787, 34746, 851020, 100978),
                1357376,
            ),
            episode=120,
            strength=(0.5, 1.0),
            lag=(10, 30),
        ),
        weather=Weather(pose=1.0, jitter=0.9, spoilt=0.15, bursts=0.05, covered=0.1),
        variation=1.0,
        annotated={Task.VA: 0.73, Task.EXPR: 0.54, Task.AU: 0.67},
        unlabelled={Task.VA: 0.05, Task.EXPR: 0.5, Task.AU: 0.07},
        splits=(0.62, 0.18, 0.20),
    ),
}
_MISSING, _BURST = 0.02, 9  # share of the frames without a crop, and how many go together
_SIZES = ("30-1280x720", "24-1920x1080", "60-1920x1080", "25-640x480")


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What was written: the tree, and how many videos (stems), frames and images it holds."""

    root: Path
    videos: int
    frames: int
    images: int


@dataclass(frozen=True, kw_only=True)
class _Shot:
    """All that is decided about one video before it is drawn; seeds everything drawn in it."""

    video: str
    split: str
    tasks: tuple[Task, ...]
    n_frames: int
    image_root: str
    scene: int
    script: Script
    seed: tuple[int, int]
    must_miss: bool


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
    out = Path(out)
    for name, value, least in (("videos", videos, 2), ("frames", frames, 10), ("seed", seed, 0), ("jobs", jobs, 1)):
        if value is not None and value < least:
            raise UsageError(f"{name}: {value} is too small; give at least {least}")
    if preset not in PRESETS:
        raise UsageError(f"preset: {preset!r} is none of {', '.join(PRESETS)}")
    jobs = jobs or _cores()
    with _appearing(out) as root:
        shots = _plan(videos, frames, seed, PRESETS[preset])
        with tqdm(total=sum(shot.n_frames for shot in shots), unit="frame", disable=not progress) as bar:
            n_images = 0
            sparse: dict[str, dict[str, Labels]] = {"train": {}, "val": {}}
            for shot, (images, labels) in zip(shots, _work(shots, root, preset, jobs), strict=True):
                n_images += images
                if labels is not None:
                    sparse[shot.split][shot.video] = labels
                bar.update(shot.n_frames)
        for split, labels_of in sparse.items():
            write_mtl_file(root / ANNOTATIONS / "MTL_Challenge" / _MTL_FILES[split], labels_of)
        _litter(root, shots)
        (root / "README.txt").write_text(
            f"Generated, not real: abaw synth --videos {videos} --frames {frames} --seed {seed} --preset {preset}\n"
        )
    return Summary(root=out, videos=videos, frames=sum(shot.n_frames for shot in shots), images=n_images)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def _appearing(out: Path) -> Iterator[Path]:
    """Yields a temporary folder beside `out` that takes its place on success and is removed on failure."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise AbawError(f"{out}: holds something already; name a new folder or remove it first")
    temporary = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    try:
        temporary.mkdir(parents=True)
        yield temporary
        temporary.replace(out)
    except OSError as error:
        raise AbawError(
            f"{out}: could not be written ({error.strerror or error}); free the disk or choose another place"
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _work(shots: Sequence[_Shot], root: Path, preset: str, jobs: int) -> Iterator[tuple[int, Labels | None]]:
    tasks = ((shot, root, preset) for shot in shots)
    if jobs == 1 or len(shots) == 1:
        yield from map(_film, tasks)
        return
    with ProcessPoolExecutor(min(jobs, len(shots)), mp_context=get_context("spawn")) as pool:
        yield from pool.map(_film, tasks)


# What is decided beforehand, for all videos together -------------------------------------------------------


def _plan(videos: int, frames: int, seed: int, preset: Preset) -> list[_Shot]:
    rng = np.random.default_rng((seed, 0))
    recordings = _recordings(rng, videos, preset)
    spread = rng.uniform(0.6, 1.4, len(recordings))
    weights = np.array([len(stems) for _, stems in recordings])
    spread *= videos / (spread * weights).sum()
    annotated = {split: iter(_task_sets(rng, preset, sum(len(stems) for where, stems in recordings if where == split))) for split in SPLIT_FOLDERS}
    writers: dict[object, Playwright] = {}
    shots: list[_Shot] = []
    for (split, stems), factor in zip(recordings, spread, strict=True):
        n_frames, scene = max(round(frames * factor), 8), int(rng.integers(2**31))
        for video in stems:
            tasks = next(annotated[split]) if split in annotated else ()
            writer = writers.setdefault((split, Task.EXPR in tasks), Playwright(rng, preset.society))
            shots.append(
                _Shot(
                    video=video,
                    split=split,
                    tasks=tasks,
                    n_frames=n_frames,
                    image_root=IMAGE_ROOTS[len(shots) % 11 == 1],
                    scene=scene,
                    script=writer.write(n_frames + 1),
                    seed=(seed, len(shots) + 1),
                    must_miss=len(shots) % 8 == 0,
                )
            )
    return shots


def _recordings(rng: np.random.Generator, videos: int, preset: Preset) -> list[tuple[str, list[str]]]:
    """Gives recordings as (split, stems): one person each, or two; nobody is in two recordings."""
    n_val = max(round(videos * preset.splits[1]), 1)
    n_test = round(videos * preset.splits[2]) if videos > 2 else 0
    if videos > 2:
        n_test = max(n_test, 1)
    counts = {"train": videos - n_val - n_test, "val": n_val, "test": n_test}
    numbers = iter(rng.permutation(np.arange(1, 12 * videos + 1)).tolist())
    found: list[tuple[str, list[str]]] = []
    for split, count in counts.items():
        while count:
            number, kind = next(numbers), len(found)
            stem = (f"{number}-{_SIZES[kind % len(_SIZES)]}", f"{number}", f"video{number}_1", f"{number}-30-1920x1080-3")[kind % 4]
            stems = [stem]
            if kind % 6 == 0 and count > 1:
                stems = [stem, f"{stem}_right"] if kind % 12 == 0 else [f"{stem}_left", f"{stem}_right"]
            found.append((split, stems))
            count -= len(stems)
    return found


def _task_sets(rng: np.random.Generator, preset: Preset, count: int) -> list[tuple[Task, ...]]:
    """Gives the tasks each of `count` videos is annotated for: every share kept, no video without any."""
    sets: list[set[Task]] = [set() for _ in range(count)]
    for task, share in preset.annotated.items():
        asked = max(round(share * count), 1)
        order = rng.permutation(count).tolist()
        order.sort(key=lambda k: bool(sets[k]))  # those without a task first
        if task is Task.VA:
            order.sort(key=bool)
        for k in order[:asked]:
            sets[k].add(task)
    for one in sets:
        one |= {Task.VA} if not one else set()
    return [tuple(task for task in Task if task in one) for one in sets]


# One video -------------------------------------------------------------------------------------------------


def _film(job: tuple[_Shot, Path, str]) -> tuple[int, Labels | None]:
    """Draws one video and writes its files; gives the number of images and its rows of the MTL file."""
    shot, root, name = job
    cv2.setNumThreads(1)
    preset = PRESETS[name]
    rng = np.random.default_rng(shot.seed)
    acted = play(shot.script, preset.society, rng)
    face = Face(draw_identity(rng, variation=preset.variation), scene=shot.scene)
    camera = Camera(rng, n_frames=shot.n_frames, weather=preset.weather, skin=face.who.skin)
    missing = _bursts(rng, shot.n_frames, _MISSING, _BURST, at_least=shot.must_miss)
    folder = root / shot.image_root / shot.video
    folder.mkdir(parents=True)
    jaw = acted.moves[:, MOVEMENTS.index("AU26")].tolist()
    for t, canvas in enumerate(face.draw(acted.moves[: shot.n_frames], acted.gaze)):
        if not missing[t]:
            _, data = cv2.imencode(".jpg", camera.shoot(canvas, jaw[t], t), (cv2.IMWRITE_JPEG_QUALITY, 90))
            (folder / image_name(t + 1)).write_bytes(data)
    for task in shot.tasks:
        path = root / ANNOTATIONS / TASK_FOLDERS[task] / SPLIT_FOLDERS[shot.split] / f"{shot.video}.txt"
        write_task_file(path, task, _forget(acted.labels, preset, rng))
    sparse = _sparse(acted.labels, missing, rng) if shot.split in SPLIT_FOLDERS else None
    return int((~missing).sum()), sparse


def _bursts(rng, n: int, share: float, mean: int, *, at_least: bool = False):
    """Gives bool (n,): True in bursts that cover about `share`."""
    hit = np.zeros(n, np.bool_)
    for _ in range(max(int(rng.poisson(share * n / mean)), int(at_least))):
        start = int(rng.integers(0, n))
        hit[start : start + int(rng.geometric(1 / min(mean, max(n // 10, 1))))] = True
    hit[int(rng.integers(n))] = False  # somebody is there at least once
    return hit


def _forget(labels: Labels, preset: Preset, rng: np.random.Generator) -> Labels:
    """Gives the labels with stretches unlabelled, single action units included."""
    n = len(labels)

    def keep(task: Task, part: float = 1.0):
        return ~_bursts(rng, n, part * preset.unlabelled[task], max(min(40, n // 4), 1))

    au = keep(Task.AU, 0.6)[:, None] & np.stack([keep(Task.AU, 0.4) for _ in range(Task.AU.size)], axis=1)
    return replace(labels, va_valid=keep(Task.VA), expr_valid=keep(Task.EXPR), au_valid=au)


def _sparse(labels: Labels, missing, rng: np.random.Generator) -> Labels:
    """Gives single frames with any combination of labels, as the MTL file has them."""
    n = len(missing)
    chosen = np.zeros(len(labels), np.bool_)
    chosen[int(rng.integers(5)) : n : 8] = True
    chosen[:n] &= ~missing
    va, expr, au = (chosen & (rng.random(len(labels)) < share) for share in (0.73, 0.64, 0.73))
    return replace(labels, va_valid=va, expr_valid=expr, au_valid=np.repeat(au[:, None], Task.AU.size, axis=1))


def _litter(root: Path, shots: Sequence[_Shot]) -> None:
    """Leaves the stray files that come with the official archives."""
    for folder in chain((root / ANNOTATIONS, root / IMAGE_ROOTS[0]), [root / shots[0].image_root / shots[0].video]):
        (folder / ".DS_Store").write_bytes(b"\0\0\0\1Bud1\0")
