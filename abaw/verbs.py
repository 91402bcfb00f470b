"""The plain verbs: typed functions whose signature and docstring make the command line."""

from collections.abc import Callable
from pathlib import Path
from typing import Literal


def synth(
    out: Path,
    *,
    videos: int = 32,
    frames: int = 300,
    seed: int = 0,
    jobs: int | None = None,
    preset: Literal["demo", "real"] = "demo",
) -> None:
    """Write generated videos and labels in the official layout.

    Args:
        out: Folder to make; it must not hold anything yet.
        videos: How many videos, over training, validation and test.
        frames: Mean number of frames of a video.
        seed: The same seed gives the same bytes.
        jobs: Processes that draw; null takes one per core.
        preset: `demo` is mild and quickly learnt, `real` as imbalanced as Aff-Wild2.
    """
    from abaw.data.synthetic import write_dataset

    done = write_dataset(out, videos=videos, frames=frames, seed=seed, jobs=jobs, preset=preset)
    print(f"{done.root}: {done.videos} videos, {done.frames:,} frames, {done.images:,} with a face")


VERBS: dict[str, Callable[..., int | None]] = {"synth": synth}
