"""Presets of generated data sets, and the splits, names and scripts of their videos."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from abaw.data.synth.camera import CaptureConditions
from abaw.data.synth.script import LabelStatistics, Script, ScriptSampler
from abaw.tasks import AU, EXPR, TASKS, VA, Task


@dataclass(frozen=True, kw_only=True)
class Preset:
    """One kind of generated data set.

    Attributes:
        statistics: Frequencies of expressions and action units.
        conditions: Severity of the image degradations.
        variation: Scale of the deviation of people from the mean face.
        annotated: Share of the videos with labels of each task.
        unlabelled: Share of the rows of an annotated video without a label, per task.
        splits: Share of the videos in train, val and test.
    """

    statistics: LabelStatistics
    conditions: CaptureConditions
    variation: float
    annotated: dict[Task, float]
    unlabelled: dict[Task, float]
    splits: tuple[float, float, float]


def _shares(counts: Sequence[int], total: int | None = None) -> tuple[float, ...]:
    """Returns counts divided by their sum, or by `total`."""
    whole = total or sum(counts)
    return tuple(count / whole for count in counts)


PRESETS = {
    "demo": Preset(
        statistics=LabelStatistics(
            expressions=(0.20, 0.11, 0.11, 0.10, 0.14, 0.12, 0.11, 0.11),
            units=(0.28, 0.22, 0.28, 0.16, 0.20, 0.16, 0.20, 0.14, 0.13, 0.13, 0.32, 0.16),
            episode=50,
            strength=(0.85, 1.0),
            lag=(8, 14),
        ),
        conditions=CaptureConditions(pose=0.4, jitter=0.4, degraded=0.35, bursts=0.05, occluded=0.08),
        variation=0.5,
        annotated={VA: 0.75, EXPR: 0.75, AU: 0.75},
        unlabelled={VA: 0.03, EXPR: 0.08, AU: 0.05},
        splits=(0.65, 0.25, 0.10),
    ),
    "real": Preset(
        statistics=LabelStatistics(  # label counts of Aff-Wild2's training set
            expressions=_shares((177198, 16573, 10771, 9080, 95463, 78751, 31615, 165866)),
            units=_shares(
                (160261, 67513, 209982, 362236, 538960, 467113, 332788, 38163, 42787, 34746, 851020, 100978),
                1357376,
            ),
            episode=120,
            strength=(0.5, 1.0),
            lag=(10, 30),
        ),
        conditions=CaptureConditions(pose=1.0, jitter=0.9, degraded=0.15, bursts=0.05, occluded=0.1),
        variation=1.0,
        annotated={VA: 0.73, EXPR: 0.54, AU: 0.67},
        unlabelled={VA: 0.05, EXPR: 0.5, AU: 0.07},
        splits=(0.62, 0.18, 0.20),
    ),
}
"""Available presets: `demo` is easy and balanced, `real` as imbalanced as Aff-Wild2."""

_SIZES = ("30-1280x720", "24-1920x1080", "60-1920x1080", "25-640x480")


@dataclass(frozen=True, kw_only=True)
class VideoSpec:
    """Specification of one generated video; everything else follows from its seed.

    Attributes:
        video: Name of the video.
        split: `train`, `val` or `test`.
        tasks: Annotated tasks; none in the test split.
        n_frames: Frames of the decoded video.
        second_root: Whether its images are written to the second image root.
        scene: Seed of the background, shared by the people of one recording.
        script: Expressions and movements, one row more than frames.
        seed: Seed of everything random in the video.
        must_miss: Whether at least one burst of frames has no crop.
    """

    video: str
    split: str
    tasks: tuple[Task, ...]
    n_frames: int
    second_root: bool
    scene: int
    script: Script
    seed: tuple[int, int]
    must_miss: bool


def plan_videos(*, videos: int, frames: int, seed: int, preset: Preset) -> list[VideoSpec]:
    """Returns the specifications of all videos of a data set, those of train first.

    Args:
        videos: Number of videos, at least 2.
        frames: Mean number of frames of a video.
        seed: Seed of the specification.
        preset: Preset of the data set.
    """
    rng = np.random.default_rng((seed, 0))
    recordings = _recordings(rng, videos, preset)
    lengths = rng.uniform(0.6, 1.4, len(recordings))
    lengths *= frames * videos / (lengths * [len(stems) for _, stems in recordings]).sum()
    annotated = {
        split: iter(_task_sets(rng, preset, sum(len(stems) for where, stems in recordings if where == split)))
        for split in ("train", "val")
    }
    samplers: dict[tuple[str, bool], ScriptSampler] = {}
    specs: list[VideoSpec] = []
    for (split, stems), length in zip(recordings, lengths.tolist(), strict=True):
        n_frames, scene = max(round(length), 8), int(rng.integers(2**31))
        for video in stems:
            tasks = next(annotated[split]) if split in annotated else ()
            key = (split, EXPR in tasks)  # so that the statistics hold in each split
            sampler = samplers.setdefault(key, ScriptSampler(rng, preset.statistics))
            specs.append(
                VideoSpec(
                    video=video,
                    split=split,
                    tasks=tasks,
                    n_frames=n_frames,
                    second_root=len(specs) % 11 == 1,
                    scene=scene,
                    script=sampler.sample(n_frames + 1),
                    seed=(seed, len(specs) + 1),
                    must_miss=len(specs) % 8 == 0,
                )
            )
    return specs


def _recordings(rng: np.random.Generator, videos: int, preset: Preset) -> list[tuple[str, list[str]]]:
    """Returns recordings as (split, video names), of one or two people each."""
    n_val = max(round(videos * preset.splits[1]), 1)
    n_test = max(round(videos * preset.splits[2]), 1) if videos > 2 else 0
    counts = {"train": videos - n_val - n_test, "val": n_val, "test": n_test}
    numbers = iter(rng.permutation(np.arange(1, 12 * videos + 1)).tolist())
    found: list[tuple[str, list[str]]] = []
    for split, left in counts.items():
        while left:
            number, k = next(numbers), len(found)
            names = (
                f"{number}-{_SIZES[k // 4 % 4]}",
                f"{number}",
                f"video{number}_1",
                f"{number}-30-1920x1080-3",
            )
            stems = [names[k % 4]]
            if k % 6 == 0 and left > 1:  # two people: `_left` and `_right`, or no suffix and `_right`
                stems = [stems[0] + "_left" * (k % 12 == 6), stems[0] + "_right"]
            found.append((split, stems))
            left -= len(stems)
    return found


def _task_sets(rng: np.random.Generator, preset: Preset, count: int) -> list[tuple[Task, ...]]:
    """Returns the annotated tasks of `count` videos, at least one each, with the shares of the preset."""
    sets: list[set[Task]] = [set() for _ in range(count)]
    for task, share in preset.annotated.items():
        order = sorted(rng.permutation(count).tolist(), key=lambda k: len(sets[k]) > 0)  # empty sets first
        for k in order[: max(round(share * count), 1)]:
            sets[k].add(task)
    return [tuple(task for task in TASKS if task in chosen) or (VA,) for chosen in sets]
