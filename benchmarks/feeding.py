"""Speed of loading clips, features and windows relative to straightforward implementations."""

import os
import random
import time
import tracemalloc
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from abaw.data.features import FeatureStore
from abaw.data.formats.features import features_path, write_features
from abaw.data.frames import RawFolder
from abaw.data.index import Index, build_index
from abaw.data.labels import image_name
from abaw.data.layout import DataSource
from abaw.data.processes import available_cores
from abaw.data.synth.writer import write_dataset
from abaw.loading.dataset import Draw
from abaw.loading.loaders import LoaderFactory, TrainLoader
from abaw.loading.masking import RandomFrameMasking
from abaw.loading.sampling import training_windows
from abaw.loading.transforms import ClipAugmentation
from abaw.tasks import TASKS
from abaw.training.throughput import loader_parts, time_parts
from benchmarks.rows import Row, in_turns, ratio

LENGTH, BATCH = 32, 8


class Replay:
    """The paper's augmentation with ReplayCompose: drawn at the first frame, replayed on the others."""

    def __init__(self) -> None:
        import albumentations as A

        self.draw = A.ReplayCompose(
            [
                A.RandomBrightnessContrast(0.2, 0.2, p=0.3),
                A.HorizontalFlip(p=0.5),
                A.GaussianBlur(blur_limit=(3, 7), p=0.3),
                A.Sharpen(p=0.3),
            ]
        )

    def prepare(self) -> None:
        """Does nothing: albumentations is imported."""

    def __call__(self, clip: NDArray[np.uint8], seed: int) -> NDArray[np.uint8]:
        """The augmented clip, equal to that of `ClipAugmentation`."""
        self.draw.set_random_state(np.random.default_rng(seed), random.Random(seed))
        first = self.draw(image=clip[0])
        return np.stack(
            [first["image"], *(self.draw.replay(first["replay"], image=frame)["image"] for frame in clip[1:])]
        )


def loader(folder: Path, *, root: Path | None = None, rounds: int = 24, seconds: float = 2.0) -> list[Row]:
    """The loader of image clips, from the data set at `root` or a generated one."""
    if root is None:
        root = folder / "faces"
        write_dataset(root, videos=32, frames=150, jobs=2, preset="real", progress=False)
    index = build_index(DataSource(root, cache_dir=folder / "cache"))
    ours, replay = ClipAugmentation(), Replay()
    loaders = {
        name: _loader(index, augmentation) for name, augmentation in (("our", ours), ("naive", replay))
    }
    slots = list(loaders["our"].sampler)
    data: Any = loaders["our"].dataset
    batches = {name: iter(each) for name, each in loaders.items()}
    rounds = min(rounds, len(loaders["our"]) - 1)
    clips: dict[int, list[NDArray[np.uint8]]] = {}
    seeds = [Draw.keyed(0, slot, LENGTH).seed for slot in slots]

    def places(number: int) -> range:
        return range(number * BATCH, (number + 1) * BATCH)

    def decode(number: int) -> None:
        windows = [data.windows[slots[place].window] for place in places(number)]
        clips[number] = [data.source.read(window.video, window.frames).pixels for window in windows]

    def augment(number: int) -> list[NDArray[np.uint8]]:
        return [ours(clip, seeds[place]) for clip, place in zip(clips[number], places(number), strict=True)]

    def replayed(number: int) -> list[NDArray[np.uint8]]:
        clips_now = clips.pop(number)
        return [replay(clip, seeds[place]) for clip, place in zip(clips_now, places(number), strict=True)]

    works = (decode, augment, replayed, lambda _: next(batches["our"]), lambda _: next(batches["naive"]))
    t_decode, t_augment, t_replay, t_ours, t_naive = in_turns(rounds, *works)
    alone = [a + b for a, b in zip(t_decode, t_augment, strict=True)]
    taken = {"decode": t_decode, "augment": t_augment, "replay": t_replay, "alone": alone}
    taken |= {"ours": t_ours, "naive": t_naive}
    rate = {name: LENGTH * BATCH / median(of_rounds) for name, of_rounds in taken.items()}
    on = f"clips of {LENGTH} × 112 × 112, batches of {BATCH}, one thread"
    return [
        Row(
            what="Decode and augmentation alone, of the time of the loader without workers (which adds"
            " labels, masks and collate)",
            value=ratio(alone, t_ours),
            at_least=0.9,
            unit="%",
            how=on,
            rates={"loader": rate["ours"], "alone": rate["alone"], "decode": rate["decode"]},
        ),
        Row(
            what="Clip augmentation against ReplayCompose frame by frame, same clips and draws",
            value=ratio(t_replay, t_augment),
            at_least=5,
            how=on,
            rates={"ours": rate["augment"], "replay": rate["replay"]},
        ),
        Row(
            what="The loader against itself with ReplayCompose",
            value=ratio(t_naive, t_ours),
            at_least=3.5,
            how=on,
            rates={"ours": rate["ours"], "replay": rate["naive"]},
        ),
        _masked(index, rounds),
        _workers(index, seconds),
    ]


def _masked(index: Index, rounds: int) -> Row:
    loaders = [_loader(index, ClipAugmentation(), masking=RandomFrameMasking(r)) for r in (0.5, 0.0)]
    half, none = (iter(loader) for loader in loaders)
    t_half, t_none = in_turns(rounds, lambda _: next(half), lambda _: next(none))
    return Row(
        what="The loader with half of the frames masked against none, clips/s",
        value=ratio(t_none, t_half),
        at_least=1.7,
        how=f"clips of {LENGTH} × 112 × 112, batches of {BATCH}, one thread",
    )


def _workers(index: Index, seconds: float) -> Row:
    import torch

    parts = {
        str(workers): loader_parts(_loader(index, ClipAugmentation(), workers))["loader"]
        for workers in (0, 2)
    }
    rates = time_parts(parts, seconds=seconds, rounds=5, device=torch.device("cpu"))
    return Row(
        what="Two loader workers against none",
        value=ratio(rates["2"], rates["0"]),
        at_least=1.4,
        how=f"{available_cores()} cores",
        rates={"two": median(rates["2"]), "none": median(rates["0"])},
    )


def _loader(index: Index, augmentation: Any, workers: int = 0, **masking: Any) -> TrainLoader:
    windows = training_windows(index, TASKS, length=LENGTH, stride=LENGTH // 4)
    feeding = LoaderFactory(index=index, source=RawFolder(index), workers=workers)
    return feeding.train_loader(windows, TASKS, batch_size=BATCH, augmentation=augmentation, **masking)


def feature_windows(folder: Path, *, rounds: int = 9) -> list[Row]:
    """Windows of cached features."""
    length, n_frames, dim = 100, 1000, 768
    features = np.random.default_rng(0).normal(size=(n_frames, dim)).astype(np.float16)
    write_features(features_path(folder / "cache", "long"), features=features)
    for number, row in enumerate(features):
        np.save(folder / f"{number:05d}.npy", row.astype(np.float32))
    index = build_index(DataSource(folder, image_roots=[folder / "cache"], cache_dir=folder))
    store = FeatureStore([folder / "cache"], index)
    starts = np.random.default_rng(1).integers(0, n_frames - length, (rounds + 1, 100))

    def stored(number: int) -> None:
        for start in starts[number].tolist():
            store.read(0, range(start, start + length))

    def obvious(number: int) -> None:
        for start in starts[number, :4].tolist():
            np.stack([np.load(folder / f"{frame:05d}.npy") for frame in range(start, start + length)])

    slow, fast = in_turns(rounds, obvious, stored)
    return [
        Row(
            what="Windows of 100 cached features against a .npy file per frame",
            value=ratio(slow, fast) * 25,
            at_least=100,
            how="768 values a frame, one thread, files in the page cache",
            rates={"cache": 100 * length / median(fast), "files": 4 * length / median(slow)},
        )
    ]


def windows(folder: Path, *, videos: int = 200, frames: int = 500, rounds: int = 3) -> list[Row]:
    """All windows of a data set: index and table relative to a list of paths per window."""
    length = 30
    root = folder / "data"
    label = "valence,arousal\n" + "0.1,0.2\n" * (frames + 1)
    for number in range(videos):
        images = root / "cropped_aligned" / f"video{number}"
        images.mkdir(parents=True)
        for frame in range(frames):
            (images / image_name(frame + 1)).touch()
        path = root / "VA_Estimation_Challenge" / "Train_Set" / f"video{number}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(label)
    kept: dict[str, Any] = {}

    def table(_: int) -> None:
        index = build_index(DataSource(root, cache_dir=folder))
        kept["table"] = training_windows(index, TASKS, length=length, stride=1)
        kept["file"] = index.path

    def paths(_: int) -> None:
        kept["paths"] = None
        kept["paths"] = _path_lists(root / "cropped_aligned", length)

    tracemalloc.start()
    paths(0)
    heavy, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    start = time.perf_counter()
    table(0)  # lists the images and reads the annotations
    first = time.perf_counter() - start
    slow, fast = in_turns(rounds, paths, table)
    light = kept["table"].video.nbytes + kept["table"].start.nbytes + kept["file"].stat().st_size
    on = f"{videos * frames:,} frames, windows of {length} at every frame"
    return [
        Row(
            what="Index with all labels and table of windows against a list of paths per window: time",
            value=ratio(slow, fast),
            at_least=20,
            how=f"{on}: {median(fast):.3f} s from the index's cache ({first:.2f} s the first time),"
            f" {median(slow):.2f} s",
        ),
        Row(
            what="The same: memory",
            value=heavy / light,
            at_least=100,
            how=f"{on}: {light / 1e6:.1f} MB, mapped, and {heavy / 1e6:,.0f} MB",
        ),
    ]


def _path_lists(images: Path, length: int) -> list[list[str]]:
    found = []
    for video in sorted(os.listdir(images)):  # noqa: PTH208 - straightforward implementation
        names = sorted(os.listdir(images / video))  # noqa: PTH208
        folder = str(images / video)
        found += [
            [os.path.join(folder, name) for name in names[start : start + length]]  # noqa: PTH118
            for start in range(len(names) - length + 1)
        ]
    return found
