"""Private memory of a process that indexes and samples millions of frames.

`python -m benchmarks.memory ROOT CACHE` prints the figures of one fresh process and its workers as JSON.
"""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.rows import Row

VIDEOS, FRAMES, DIM = 600, 4500, 8


def private_bytes(pid: int | str = "self") -> int:
    """Private memory of a process in bytes."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return sum(1024 * int(size) for size in re.findall(r"Private_\w+:\s+(\d+) kB", text))


def anonymous_bytes() -> int:
    """Anonymous memory of this process in bytes, including pages still shared with forked processes."""
    found = re.search(r"^Anonymous:\s+(\d+) kB", Path("/proc/self/smaps_rollup").read_text(), re.MULTILINE)
    assert found is not None
    return 1024 * int(found[1])


def memory(folder: Path, *, videos: int = VIDEOS, frames: int = FRAMES) -> list[Row]:
    """Memory of index and sampling, with the frames of Aff-Wild2, all labelled for all tasks."""
    root, cache = folder / "data", folder / "features"
    write_large_set(root, cache, videos=videos, frames=frames, dim=DIM)
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.memory", str(root), str(cache)],
        check=True,
        capture_output=True,
        text=True,
    )
    found = json.loads(done.stdout)
    on = f"{videos * frames:,} frames with all labels; the index is a map of {found['index'] / 1e6:.0f} MB"
    return [
        Row(
            what="Private memory of a training process beyond its state after imports",
            value=found["main"] / 1e6,
            at_most=200,
            unit="MB",
            how=f"{on}; windows, class weights, an epoch's order, 200 clips",
        ),
        Row(
            what="Private memory of a loader worker, in total",
            value=max(found["workers"]) / 1e6,
            at_most=200,
            unit="MB",
            how=f"{on}, which both workers share",
        ),
    ]


def write_large_set(root: Path, cache: Path, *, videos: int, frames: int, dim: int) -> None:
    """Writes labels of all tasks and cached features; all videos are hard links to one file."""
    from abaw.data.formats.annotations import write_task_file
    from abaw.data.formats.features import features_path, write_features
    from abaw.data.labels import Labels
    from abaw.tasks import AU, EXPR, TASKS, VA, TaskLabels

    rng = np.random.default_rng(0)
    everything = np.ones(frames + 1, bool)
    by_task = {
        VA: TaskLabels(rng.uniform(-1, 1, (frames + 1, 2)).astype(np.float32), everything),
        EXPR: TaskLabels(rng.integers(0, 8, frames + 1), everything),
        AU: TaskLabels(
            rng.integers(0, 2, (frames + 1, 12)).astype(np.float32), np.ones((frames + 1, 12), bool)
        ),
    }
    labels = Labels(frames + 1, by_task)
    paths = {task: root / f"{task.name.upper()}_Set" / "Train_Set" for task in TASKS}
    for task, folder in paths.items():
        folder.mkdir(parents=True)
        write_task_file(folder / "video0.txt", task, labels)
    features = rng.normal(size=(frames, dim)).astype(np.float16)
    write_features(features_path(cache, "video0"), features=features)
    for number in range(1, videos):
        features_path(cache, f"video{number}").hardlink_to(features_path(cache, "video0"))
        for folder in paths.values():
            (folder / f"video{number}.txt").hardlink_to(folder / "video0.txt")


def _measure(root: Path, cache: Path) -> dict[str, Any]:
    import multiprocessing

    from abaw.loading.datamodule import AffectDataModule, WindowSettings

    data = AffectDataModule(
        root=str(root),
        features=[str(cache)],
        window=100,
        batch_size=10,
        workers=2,
        windows=WindowSettings(balance=0.5),
        cache_dir=str(cache.parent / "cache"),
    )
    before = anonymous_bytes()
    data.prepare_data()
    data.setup("fit")
    loader = data.train_dataloader()
    batches = iter(loader)
    for _ in range(20):
        next(batches)
    workers = [private_bytes(child.pid or 0) for child in multiprocessing.active_children()]
    index = data.index.path.stat().st_size
    return {"main": anonymous_bytes() - before, "workers": workers, "index": index}


if __name__ == "__main__":
    print(json.dumps(_measure(Path(sys.argv[1]), Path(sys.argv[2]))))
