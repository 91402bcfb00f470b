"""Writer of generated data sets in the official layout of Aff-Wild2."""

import os
import shutil
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import starmap
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from abaw.data.formats.annotations import MTL_HEADER, write_mtl_file, write_task_file
from abaw.data.labels import Labels, image_name
from abaw.data.processes import available_cores, in_processes
from abaw.data.progress import Progress
from abaw.data.synth.animation import animate
from abaw.data.synth.camera import Camera
from abaw.data.synth.face import Face
from abaw.data.synth.identity import draw_identity
from abaw.data.synth.landmarks import MOVEMENTS
from abaw.data.synth.presets import PRESETS, Preset, VideoSpec, plan_videos
from abaw.errors import AbawError, UsageError
from abaw.files import not_written
from abaw.tasks import AU, EXPR, TASKS, VA, Task, TaskLabels

ANNOTATIONS = "6th_ABAW_Annotations"
TEST_LISTS = "test_set"
IMAGE_ROOTS = ("cropped_aligned", "cropped_aligned_new_50_vids")

TASK_FOLDERS = {
    VA: "VA_Estimation_Challenge",
    EXPR: "EXPR_Recognition_Challenge",
    AU: "AU_Detection_Challenge",
}

SPLIT_FOLDERS = {"train": "Train_Set", "val": "Validation_Set"}
_MTL_FILES = {"train": "train_set.txt", "val": "validation_set.txt"}
_MISSING, _BURST = 0.02, 9  # share of the frames without a crop, and mean length of such a gap
_JPEG = (cv2.IMWRITE_JPEG_QUALITY, 88)  # about 5 KB a frame


@dataclass(frozen=True, kw_only=True)
class Summary:
    """Folder of a written data set, and its numbers of videos, frames and images."""

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
    """Writes a generated data set in the layout of Aff-Wild2, atomically.

    Args:
        out: Output folder; must be empty or not exist.
        videos: Number of videos in train, validation and test together, at least 2.
        frames: Mean number of frames of a video, at least 10.
        seed: The same seed gives the same bytes, whatever `jobs` is.
        jobs: Number of processes; defaults to the number of available cores.
        preset: `demo`, easy and balanced, or `real`, as imbalanced as Aff-Wild2.
        progress: Whether to show a progress bar.

    Raises:
        UsageError: An argument is invalid.
        AbawError: `out` is not empty, or cannot be written.
    """
    limits = (("videos", videos, 2), ("frames", frames, 10), ("seed", seed, 0), ("jobs", jobs, 1))
    for name, value, least in limits:
        if value is not None and value < least:
            raise UsageError(f"{name}: {value} is too small; give at least {least}")
    if preset not in PRESETS:
        raise UsageError(f"preset: {preset!r} is unknown; choose one of {', '.join(PRESETS)}")
    with _atomic_folder(Path(out)) as root:
        specs = plan_videos(videos=videos, frames=frames, seed=seed, preset=PRESETS[preset])
        n_frames = sum(spec.n_frames for spec in specs)
        n_images = _write_videos(specs, root, preset, jobs or available_cores(), progress)
        write_test_lists(root / TEST_LISTS, specs)
        _add_stray_files(root, specs)
        command = f"abaw synth --videos {videos} --frames {frames} --seed {seed} --preset {preset}"
        (root / "README.txt").write_text(f"Generated people, not Aff-Wild2: {command}\n")
    return Summary(root=Path(out), videos=videos, frames=n_frames, images=n_images)


@contextmanager
def _atomic_folder(out: Path) -> Iterator[Path]:
    """Yields a temporary folder that is renamed to `out` on success and removed on failure."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise AbawError(f"{out}: is not empty; name a new folder, or remove this one first")
    temporary = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    try:
        temporary.mkdir(parents=True)
        yield temporary
        temporary.replace(out)
    except OSError as error:
        raise not_written(out, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write_videos(specs: Sequence[VideoSpec], root: Path, preset: str, jobs: int, progress: bool) -> int:
    """Writes all videos and the MTL files; returns the number of images."""
    n_images = 0
    sparse: dict[str, dict[str, Labels]] = {split: {} for split in SPLIT_FOLDERS}
    bar = Progress(total=sum(spec.n_frames for spec in specs), desc="frames", unit="frame", show=progress)
    with bar, closing(_run_all(specs, root, preset, jobs)) as results:
        for spec, (of_video, labels) in zip(specs, results, strict=True):
            n_images += of_video
            if spec.split in sparse:
                sparse[spec.split][spec.video] = labels
            bar.update(spec.n_frames)
    for split, labels_of in sparse.items():
        write_mtl_file(root / ANNOTATIONS / "MTL_Challenge" / _MTL_FILES[split], labels_of)
    return n_images


def _run_all(specs: Sequence[VideoSpec], root: Path, preset: str, jobs: int) -> Generator[tuple[int, Labels]]:
    arguments = [(spec, root, preset) for spec in specs]
    if jobs == 1:
        yield from starmap(_write_video, arguments)
        return
    # spawned, as forking a process with threads may deadlock
    yield from in_processes(_write_video, arguments, jobs=jobs, method="spawn", initializer=_use_one_core)


def _use_one_core() -> None:
    cv2.setNumThreads(1)


def _write_video(spec: VideoSpec, root: Path, preset_name: str) -> tuple[int, Labels]:
    """Renders and writes one video; returns its number of images and its labels for the MTL file."""
    preset = PRESETS[preset_name]
    rng = np.random.default_rng(spec.seed)
    animation = animate(spec.script, preset.statistics, rng)
    who = draw_identity(rng, variation=preset.variation)
    face = Face(who, scene=spec.scene)
    camera = Camera(rng, n_frames=spec.n_frames, conditions=preset.conditions, skin=who.skin)
    missing = _bursts(rng, spec.n_frames, _MISSING, _BURST, at_least=int(spec.must_miss))
    missing[0] &= not missing.all()  # every video has at least one image
    folder = root / IMAGE_ROOTS[spec.second_root] / spec.video
    folder.mkdir(parents=True)
    jaw = animation.moves[:, MOVEMENTS.index("AU26")].tolist()
    for t, canvas in enumerate(face.draw(animation.moves[: spec.n_frames], animation.gaze[: spec.n_frames])):
        if not missing[t]:
            _, data = cv2.imencode(".jpg", camera.render(canvas, jaw[t], t), _JPEG)
            (folder / image_name(t + 1)).write_bytes(data.tobytes())
    for task in spec.tasks:
        path = root / ANNOTATIONS / TASK_FOLDERS[task] / SPLIT_FOLDERS[spec.split] / f"{spec.video}.txt"
        write_task_file(path, task, _with_gaps(animation.labels, preset, rng))
    return int((~missing).sum()), _sparse(animation.labels, ~missing, rng)


def _bursts(
    rng: np.random.Generator, n: int, share: float, mean: int, at_least: int = 0
) -> NDArray[np.bool_]:
    """Returns bool (n,): True in random bursts of mean length `mean` that cover about `share`."""
    hit = np.zeros(n, np.bool_)
    mean = max(min(mean, n // 10), 1)
    count = -np.log1p(-share) * n / mean  # corrected for overlapping bursts
    for _ in range(max(int(rng.poisson(count)), at_least)):
        start = int(rng.integers(n))
        hit[start : start + int(rng.geometric(1 / mean))] = True
    return hit


def _with_gaps(labels: Labels, preset: Preset, rng: np.random.Generator) -> Labels:
    """Returns the labels with random gaps; those of action units affect all of them, or one."""

    def keep(share: float) -> NDArray[np.bool_]:
        return ~_bursts(rng, len(labels), share, 40)

    loss = preset.unlabelled
    au = np.stack([keep(loss[AU] / 2) for _ in range(AU.size)], axis=1) & keep(loss[AU] / 2)[:, None]
    return _with_valid(labels, {VA: keep(loss[VA]), EXPR: keep(loss[EXPR]), AU: au})


def _with_valid(labels: Labels, valid: Mapping[Task, NDArray[np.bool_]]) -> Labels:
    return Labels(len(labels), {task: TaskLabels(labels[task].values, mask) for task, mask in valid.items()})


def _sparse(labels: Labels, seen: NDArray[np.bool_], rng: np.random.Generator) -> Labels:
    """Returns labels of single frames with the label combinations and frequencies of s-Aff-Wild2."""
    chosen = np.zeros(len(labels), np.bool_)
    chosen[int(rng.integers(4)) : len(seen) : 8] = True
    chosen[: len(seen)] &= seen
    va, expr, au = (chosen & (rng.random(len(labels)) < share) for share in (0.73, 0.64, 0.73))
    return _with_valid(labels, {VA: va, EXPR: expr, AU: np.repeat(au[:, None], AU.size, axis=1)})


def _add_stray_files(root: Path, specs: Sequence[VideoSpec]) -> None:
    """Writes the stray files that the official archives contain."""
    images = root / IMAGE_ROOTS[specs[0].second_root]
    for folder in (root / ANNOTATIONS, images, images / specs[0].video):
        (folder / ".DS_Store").write_bytes(b"\0\0\0\1Bud1\0")


_MTL_STEP = 8  # the multi-task challenge uses every 8th frame


def write_test_lists(folder: Path, specs: Sequence[VideoSpec]) -> None:
    """Writes the sample submissions of all tasks and the multi-task challenge, and a list of videos.

    Args:
        folder: Output folder, created if there are test videos.
        specs: Videos of the data set; only those of the test split are listed.
    """
    test = [spec for spec in specs if spec.split == "test"]
    if not test:
        return
    folder.mkdir(parents=True)
    for place, task in enumerate(TASKS):
        asked = [spec for k, spec in enumerate(test) if k % 4 != place or len(test) == 1]
        _write_sample(folder / f"{task.name.upper()}_sample.txt", ("image_location", *task.names), asked)
    _write_sample(folder / "MTL_sample.txt", MTL_HEADER, test, _MTL_STEP)
    _write_lines(folder / "videos.txt", [spec.video for spec in test])


def _write_sample(path: Path, header: Iterable[str], specs: Sequence[VideoSpec], step: int = 1) -> None:
    """Writes a row for every `step`-th frame of each video, with or without a crop."""
    images = (f"{s.video}/{image_name(n)}," for s in specs for n in range(1, s.n_frames + 1, step))
    _write_lines(path, [",".join(header), *images])


def _write_lines(path: Path, lines: Sequence[str]) -> None:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")
