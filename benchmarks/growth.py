"""Growth of the cost with the amount of data and the length of a window."""

from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch

from abaw.batch import Batch
from abaw.loading.datamodule import AffectDataModule
from abaw.model.heads import HeadSettings
from abaw.model.network import Network
from abaw.model.temporal import TemporalSettings
from abaw.tasks import AU, EXPR, TASKS, VA, TaskLabels
from abaw.training.losses import LossSettings, TaskLosses
from abaw.training.module import AffectModule
from abaw.windows import Window
from benchmarks.memory import write_large_set
from benchmarks.network import SMALL, epoch_seconds
from benchmarks.rows import Row, in_turns

DIM = 64
TIMES = (1, 2, 4)
LENGTHS = (32, 64, 128, 256, 512)
FEATURES_CONFIG = TemporalSettings(layers=4, heads=4, width=512, feedforward=512)


def growth(
    folder: Path,
    *,
    videos: int = 20,
    frames: int = 1000,
    batch_frames: int = 2048,
    temporal: TemporalSettings = FEATURES_CONFIG,
) -> tuple[list[Row], dict[str, dict[int, float]]]:
    """Cost by amount of data and by length of a window: the rows, and the points of the figure."""
    for times in TIMES:
        write_large_set(
            folder / f"{times}/data",
            folder / f"{times}/features",
            videos=videos * times,
            frames=frames,
            dim=DIM,
        )
    rounds = [{times: _epoch(folder / str(times)) for times in TIMES} for _ in range(3)]
    epochs = {times: median(seconds[times] for seconds in rounds) for times in TIMES}
    windows = _window_seconds(temporal, batch_frames)
    n = videos * frames
    first, last = LENGTHS[0], LENGTHS[-1]
    rows = [
        Row(
            what="An epoch on four times as much data, against four epochs on once as much",
            value=median(seconds[4] / seconds[1] / 4 for seconds in rounds),
            at_most=1.15,
            how=f"cached features, {n:,}, {2 * n:,} and {4 * n:,} frames: "
            + ", ".join(f"{seconds:.1f}" for seconds in epochs.values())
            + " s",
        ),
        Row(
            what=f"A frame in windows of {last}, against one in windows of {first}: time of a training step",
            value=windows[last] / last / (windows[first] / first),
            at_most=1.5,
            how=f"transformer of {temporal.layers} × {temporal.width}, CPU: "
            + ", ".join(f"{1e3 * seconds:.1f}" for seconds in windows.values())
            + f" ms per window of {', '.join(map(str, LENGTHS))}",
        ),
    ]
    return rows, {"epochs": epochs, "windows": windows}


def _epoch(folder: Path) -> float:
    data = AffectDataModule(
        root=str(folder / "data"),
        features=[str(folder / "features")],
        window=64,
        batch_size=16,
        workers=0,
        cache_dir=str(folder),
    )
    module = AffectModule(tasks=[task.name for task in TASKS], backbone=None, dim=DIM, temporal=SMALL)
    return median(epoch_seconds(module, data, epochs=1))


def _window_seconds(temporal: TemporalSettings, batch_frames: int) -> dict[int, float]:
    """Seconds of a training step per window, by its length, with equally many frames in a batch."""
    network = Network(tasks=TASKS, backbone=None, temporal=temporal, heads=HeadSettings(), dim=DIM)
    losses = TaskLosses(LossSettings(expr_weights="none", au_weights="none"), TASKS)
    batches = [_random(batch_frames // length, length) for length in LENGTHS]

    def train(batch: Batch) -> None:
        losses(network(batch), batch)[0].backward()
        network.zero_grad()

    taken = in_turns(3, *(lambda _, batch=batch: train(batch) for batch in batches))  # type: ignore[misc]
    return {
        length: median(seconds) / len(batch)
        for length, seconds, batch in zip(LENGTHS, taken, batches, strict=True)
    }


def _random(b: int, t: int) -> Batch:
    everything = torch.ones(b, t, dtype=torch.bool)
    return Batch(
        features=torch.randn(b, t, DIM),
        present=everything,
        visible=torch.rand(b, t) < 0.5,
        labels={
            VA: TaskLabels(torch.rand(b, t, 2), everything),
            EXPR: TaskLabels(torch.randint(8, (b, t)), everything),
            AU: TaskLabels(torch.randint(2, (b, t, 12)).float(), everything[..., None].expand(b, t, 12)),
        },
        where=tuple(Window(k, 0, t) for k in range(b)),
        n_bad_frames=torch.zeros(b, dtype=torch.long),
    )


def draw(points: dict[str, dict[int, float]], path: Path) -> None:
    """Draws both curves beside the straight line through their first point."""
    from matplotlib import pyplot as plt

    figure, panels = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
    labels = {
        "epochs": ("data, multiples", "seconds per epoch"),
        "windows": ("frames in a window", "seconds per window"),
    }
    for panel, (name, (along, up)) in zip(panels, labels.items(), strict=True):
        x, y = zip(*points[name].items(), strict=True)
        _line(panel, x, y)
        panel.set(xlabel=along, ylabel=up, xscale="log", yscale="log", xticks=x, xticklabels=x)
        panel.set_yticks(y, [f"{seconds:.2g}" for seconds in y])
        panel.minorticks_off()
        panel.legend(frameon=False)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _line(panel: Any, x: Sequence[int], y: Sequence[float]) -> None:
    panel.plot(x, y, "o-", label="measured")
    panel.plot(x, [y[0] * n / x[0] for n in x], "--", color="0.6", label="linear")
