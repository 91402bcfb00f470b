"""Trains every row of docs/ablation.md, evaluates it with faces removed, and writes the results to that page.

`make ablation` runs it. Results are stored in `runs/ablation/<row>/seed-<seed>/removed-<percent>.json`;
existing ones are skipped.
"""

import argparse
import json
import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from matplotlib import pyplot as plt

from abaw.__main__ import main as abaw

DOCS = Path(__file__).parent
RUNS = Path("runs/ablation")
PAGE, FIGURE = DOCS / "ablation.md", DOCS / "ablation.png"
FEATURES, IMAGES = "configs/ablation.yaml", "configs/demo.yaml"
REMOVED = (0, 25, 50, 75)
TASKS = {"va": "VA (CCC)", "expr": "EXPR (F1)", "au": "AU (F1)"}


@dataclass(frozen=True)
class Row:
    """A row of the table: changed settings, configuration and data."""

    name: str
    label: str
    change: dict[str, object] = field(default_factory=dict)
    config: str = FEATURES
    preset: str = "demo"
    task: str | None = None
    """The task, of a network for a single one."""


NO_MASK = {"model.masking": "null"}
ONE_FRAME = {"model.temporal.layers": 0, "model.temporal.width": "null"} | NO_MASK
PAPER_TOKEN = {"model.temporal.mask_token": "zero", "model.temporal.attend_masked": True}
CROSS_ENTROPY = {"model.loss.expr": "ce", "model.loss.au": "bce"}
SHORT = {"data.windows.stride": 16, "trainer.max_epochs": 8, "trainer.check_val_every_n_epoch": 8}
SEQUENCE = ("one-frame", "p0", "p25", "p50", "p75")  # drawn in the figure
ROWS = [
    Row("one-frame", "one frame", ONE_FRAME),
    Row("p0", "transformer, p = 0", NO_MASK),
    Row("p25", "p = .25", {"model.masking.ratio": 0.25}),
    Row("p50", "**p = .5**, the base of the other rows"),
    Row("p75", "p = .75", {"model.masking.ratio": 0.75}),
    Row("zero", "zero mask token", {"model.temporal.mask_token": "zero"}),
    Row("paper-token", "zero mask token, attended, as in the paper", PAPER_TOKEN),
    Row("span", "spans of 8 frames", {"model.masking.span": 8}),
    Row("mse", "VA by MSE", {"model.loss.va": "mse"}),
    *(Row(f"only-{task}", "one network per task", {"data.tasks": f"[{task}]"}, task=task) for task in TASKS),
    Row("focal", "imbalanced: focal", preset="real"),
    Row("ce", "imbalanced: cross-entropy", CROSS_ENTROPY, preset="real"),
    Row("images-p0", "on images, p = 0", SHORT | NO_MASK, config=IMAGES),
    Row("images-p50", "on images, p = .5", SHORT | {"model.masking.ratio": 0.5}, config=IMAGES),
]


def call(*words: object) -> None:
    """Runs `abaw`, and exits if it fails."""
    print("abaw", *words, flush=True)
    if code := abaw([str(word) for word in words]):
        sys.exit(code)


def prepare(preset: str, videos: int, frames: int) -> None:
    """Generates videos of new people, and caches features of the demo's backbone."""
    data = RUNS / f"data-{preset}"
    if not data.exists():
        call("synth", data, "--preset", preset, "--videos", videos, "--frames", frames, "--seed", 1000)
    call("extract", "--config", FEATURES, *where(preset, FEATURES), "--data.evaluation.predict_split", "all")


def where(preset: str, config: str) -> list[object]:
    """Options for the data set and its features."""
    options: list[object] = ["--data.root", RUNS / f"data-{preset}"]
    return options + (["--data.features", f"[{RUNS}/features-{preset}]"] if config == FEATURES else [])


def work(row: Row, seed: int) -> None:
    """Trains a row with one seed and evaluates its best epoch; existing results are skipped."""
    run = RUNS / row.name / f"seed-{seed}"
    data = where(row.preset, row.config)
    change = [word for name, value in row.change.items() for word in (f"--{name}", value)]
    for percent in REMOVED:
        result = run / f"removed-{percent}.json"
        if result.exists():
            continue
        scores = run / ("scores-val.json" if percent else "scores.json")
        if percent:
            call("validate", "--run", run, "--data.evaluation.drop_frames", percent / 100)
        else:
            options = ["--config", row.config, *data, *change, "--seed_everything", seed]
            call("fit", *options, "--run", run, "--ckpt_path", "last")
        scores.replace(result)


def results(row: Row, seeds: int) -> dict[str, np.ndarray]:
    """Scores of a row by task, (seeds, removed), of completed seeds."""
    runs = [RUNS / row.name / f"seed-{seed}" for seed in range(seeds)]
    done = [[run / f"removed-{percent}.json" for percent in REMOVED] for run in runs]
    read = [[json.loads(path.read_text()) for path in paths] for paths in done if paths[-1].exists()]
    tasks = [row.task] if row.task else list(TASKS)
    return {task: np.array([[scores[task]["score"] for scores in run] for run in read]) for task in tasks}


def show(values: np.ndarray) -> str:
    """Mean ± standard deviation over the seeds."""
    return f"{values.mean():.3f} ± {values.std(ddof=1):.3f}"


def tables(found: dict[str, dict[str, np.ndarray]]) -> list[str]:
    """One table per task."""
    lines: list[str] = []
    for task, title in TASKS.items():
        heads = [f"{percent} % removed" for percent in REMOVED]
        lines += ["", f"| {title} | backbone | seeds | " + " | ".join(heads) + " |", "|---" * 7 + "|"]
        for row in ROWS:
            scores = found[row.name].get(task, np.empty(0))
            if len(scores) > 1:
                trained = "frozen" if row.config == FEATURES else "trained"
                cells = [row.label, trained, str(len(scores)), *map(show, scores.T)]
                lines.append("| " + " | ".join(cells) + " |")
    return lines


def verdict(found: dict[str, dict[str, np.ndarray]], without: str, masked: str) -> list[str]:
    """The share of the clean score that is kept with half of the frames, with and without masking."""
    half = REMOVED.index(50)
    lines = ["", f"| kept with 50 % removed | `{without}` | `{masked}` | difference |", "|---|---|---|---|"]
    wins = 0
    for task, title in TASKS.items():
        kept = [found[name][task][:, half] / found[name][task][:, 0] for name in (without, masked)]
        gain = kept[1].mean() - kept[0].mean()
        clear = gain > max(part.std(ddof=1) for part in kept)
        wins += clear
        cells = [title, *map(show, kept), f"{gain:+.3f}" + (" (beyond one sd)" if clear else "")]
        lines.append("| " + " | ".join(cells) + " |")
    said = (
        "keeps more of its clean score, beyond one standard deviation," if wins >= 2 else "is **not** ahead"
    )
    return [*lines, "", f"Training with masking {said} on {wins} of {len(TASKS)} tasks."]


def draw(found: dict[str, dict[str, np.ndarray]]) -> None:
    """Score against the share of removed frames, a panel per task."""
    figure, panels = plt.subplots(1, len(TASKS), figsize=(11, 3.6), layout="constrained")
    rows = [row for row in ROWS if row.name in SEQUENCE]
    for panel, (task, title) in zip(panels, TASKS.items(), strict=True):
        for place, row in enumerate(rows):
            scores = found[row.name][task]
            if len(scores) > 1:
                at = np.array(REMOVED) + place - len(rows) / 2  # side by side
                label = row.label.removeprefix("transformer, ").split(",")[0].strip("*")
                panel.errorbar(at, scores.mean(0), scores.std(0, ddof=1), label=label, marker=".", capsize=3)
        panel.set(title=title, xlabel="% of faces removed at validation", xticks=REMOVED)
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("official score, mean ± sd")
    panels[-1].legend(title="trained with")
    figure.savefig(FIGURE, dpi=110)


def report(seeds: int) -> None:
    """Writes the figure, and the results between the markers of the page."""
    found = {row.name: results(row, seeds) for row in ROWS}
    draw(found)
    lines = verdict(found, "p0", "p50") + tables(found)
    before, rest = PAGE.read_text().split("<!-- results -->\n")
    after = rest.split("<!-- end -->\n")[1]
    PAGE.write_text(before + "<!-- results -->\n" + "\n".join(lines).strip() + "\n<!-- end -->\n" + after)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=3, help="trainings per row")
    parser.add_argument("--videos", type=int, default=100, help="generated videos per preset")
    parser.add_argument("--frames", type=int, default=240, help="mean number of frames of a video")
    parser.add_argument("--rows", nargs="*", help="names of rows to train; default: all")
    asked = parser.parse_args()
    for name in ("demo", "real"):
        prepare(name, asked.videos, asked.frames)
    for number in range(asked.seeds):
        for one in (row for row in ROWS if not asked.rows or row.name in asked.rows):
            work(one, number)
    report(asked.seeds)
