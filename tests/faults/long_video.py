"""Analyses a long video in a process of its own, kills one in the middle, and watches the memory.

    python -m tests.faults.long_video --frames 36000

The video is the shared clip of one face in a loop, 320 x 180 pixels at 5 frames per second: 36,000 frames are
two hours.
"""

import argparse
import itertools
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from abaw.inference.observations import CHUNK
from abaw.inference.video import VideoFile
from tests.support.shared_media import DETECTOR, ONE_FACE
from tests.support.video_predictor import video_checkpoint
from tests.support.videos import write_video

FPS = 5
TABLE_ONLY = ("--no_overlay", "--no_page")


def looped(n_frames: int) -> Iterator[np.ndarray]:
    """The frames of the clip, forwards and backwards, reduced."""
    small = [
        cv2.resize(f.pixels, (320, 180), interpolation=cv2.INTER_AREA) for f in VideoFile(ONE_FACE).read()
    ]
    return itertools.islice(itertools.cycle([*small, *small[::-1]]), n_frames)


@dataclass
class Watched:
    """A finished or killed process: resident memory in MB over time in seconds."""

    memory: list[tuple[float, float]]
    returncode: int

    @property
    def peak(self) -> float:
        return max(size for _, size in self.memory)

    def growth(self, begin: float) -> float:
        """Growth in MB from the tenth of the time that begins at a share to the last one, of medians."""
        end = self.memory[-1][0]

        def around(share: float) -> float:
            sizes = [size for at, size in self.memory if share * end <= at <= (share + 0.1) * end]
            return float(np.median(sizes))

        return around(0.9) - around(begin)


def watch(command: list[str], kill_if: Callable[[], bool] = lambda: False) -> Watched:
    """Runs a command, and kills it as soon as a condition holds."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    memory, start = [], time.monotonic()
    while process.poll() is None:
        try:
            status = Path(f"/proc/{process.pid}/status").read_text()
            size = next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS"))
            memory.append((time.monotonic() - start, int(size) / 1024))
        except (OSError, StopIteration):
            break
        if kill_if():
            process.send_signal(signal.SIGKILL)
        time.sleep(0.1)
    return Watched(memory, process.wait())


def analyze(video: Path, checkpoint: Path, out: Path, *more: str) -> list[str]:
    words = ["analyze", str(video), f"--ckpt={checkpoint}", f"--detector={DETECTOR}", f"--out={out}"]
    return [sys.executable, "-m", "abaw", *words, "--device=cpu", *more]


def run(folder: Path, n_frames: int) -> dict[str, Any]:
    """Analyses a video undisturbed and killed; returns what was measured.

    Raises:
        AssertionError: The tables differ, or an analysis failed.
    """
    video = write_video(folder / "long.mp4", looped(n_frames), fps=FPS)
    checkpoint = video_checkpoint(folder / "best.ckpt")
    whole = watch(analyze(video, checkpoint, folder / "whole", *TABLE_ONLY))
    drawn = watch(analyze(video, checkpoint, folder / "whole"))
    journal = folder / "killed/.long.unfinished"

    def kept() -> int:
        return len(list(journal.glob("*.safetensors")))

    killed = watch(
        analyze(video, checkpoint, folder / "killed", *TABLE_ONLY), lambda: kept() > n_frames / CHUNK / 2
    )
    n_kept = kept()
    again = watch(analyze(video, checkpoint, folder / "killed", *TABLE_ONLY))
    assert (whole.returncode, drawn.returncode, again.returncode) == (0, 0, 0)
    assert (folder / "killed/long.csv").read_bytes() == (folder / "whole/long.csv").read_bytes()
    summary, rest = (json.loads((folder / name / "long.json").read_text()) for name in ("whole", "killed"))
    return {
        "frames": summary["frames"],
        "frames_per_second": round(summary["frames"] / summary["speed"]["seconds"], 1),
        "peak_mb": round(max(whole.peak, again.peak)),
        "peak_mb_of_overlay_and_page": round(drawn.peak),
        "growth_mb": round(whole.growth(0.3)),
        "killed_with": killed.returncode,
        "chunks_kept": n_kept,
        "frames_after_the_kill": rest["speed"]["frames"],
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--frames", type=int, default=36_000)
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(run(Path(folder), parser.parse_args().frames), indent=2))
