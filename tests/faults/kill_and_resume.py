"""Kills trainings at random moments, lets each go on, and compares its end with one that was left alone.

    python -m tests.faults.kill_and_resume --runs 20 --steps 60

Trains the demo's configuration (EMA, random masking, dropout) with two loader processes on generated data, a
checkpoint every other step. Each run is killed with SIGKILL up to three times, at moments drawn from the
time that the undisturbed run took: with its loader processes, or alone so that they must notice. Then every
file under a checkpoint's name must load, no process may be left, and `--ckpt_path last` goes on. At the
end all that a checkpoint holds must be the same to the bit: weights, their average, optimizer, schedule.
"""

import argparse
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from abaw.model.checkpoints import load_checkpoint
from tests.support.project import PROJECT

N_EPOCHS = 3
# where a run lies, and what Lightning does not restore although nothing depends on it
NOT_COMPARED = {"best_model_path", "dirpath", "kth_best_model_path", "last_model_path", "best_k_models"}
NOT_COMPARED |= {"current_score"}


@dataclass(frozen=True)
class Training:
    """One training that can be started again and again; `words` are its options besides the directory."""

    words: Sequence[str]
    run: Path

    @property
    def checkpoints(self) -> Path:
        return self.run / "checkpoints"

    @property
    def log(self) -> Path:
        return self.run.with_suffix(".log")

    def start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "abaw", "fit", *self.words, f"--run={self.run}", "--ckpt_path=last"]
        with self.log.open("ab") as log:
            return subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)

    def finish(self) -> None:
        if self.start().wait() != 0:
            raise AssertionError(f"{self.run} failed:\n{self.log.read_text()}")

    def run_for(self, seconds: float, whole_group: bool) -> bool:
        """Kills the training after that time; false where it was over before."""
        process = self.start()
        try:
            code = process.wait(seconds)
        except subprocess.TimeoutExpired:
            (os.killpg if whole_group else os.kill)(process.pid, signal.SIGKILL)
            process.wait()
            wait_for_end_of_group(process.pid)
            return True
        assert code == 0, self.log.read_text()
        return False

    def step(self) -> int:
        """The step that the newest checkpoint is of, 0 without any. Every checkpoint must load."""
        steps = [load_checkpoint(path)["global_step"] for path in self.checkpoints.glob("*.ckpt")]
        return max(steps, default=0)


def wait_for_end_of_group(group: int, seconds: float = 10) -> None:
    """Waits until no process of a group is left, which loader processes need a few seconds for."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    raise AssertionError(f"processes of group {group} outlived their training by {seconds} seconds")


def differences(left: Any, right: Any, where: str = "") -> Iterator[str]:
    """Where two checkpoints are not the same to the bit."""
    if isinstance(left, torch.Tensor):
        same = left.dtype == right.dtype and torch.equal(left, right)
    elif isinstance(left, Mapping):
        if left.keys() != right.keys():
            yield f"{where}: {sorted(map(str, left.keys() ^ right.keys()))}"
        for key in left.keys() & right.keys() - NOT_COMPARED:
            name = re.sub(r"\{.*", "", str(key))  # of a callback without its settings
            yield from differences(left[key], right[key], f"{where}/{name}")
        return
    elif isinstance(left, list | tuple) and len(left) == len(right):
        for k, (one, other) in enumerate(zip(left, right, strict=True)):
            yield from differences(one, other, f"{where}/{k}")
        return
    else:
        same = left == right
    if not same:
        yield where


def words_of(data: Path, steps: int) -> list[str]:
    """The demo's configuration, short: three epochs, each with its validation."""
    return [
        f"--config={PROJECT / 'configs/demo.yaml'}",
        f"--data.root={data}",
        "--data.workers=2",
        f"--trainer.max_epochs={N_EPOCHS}",
        f"--trainer.limit_train_batches={steps // N_EPOCHS}",
        "--trainer.check_val_every_n_epoch=1",
        "--checkpoint.every_n_steps=2",
    ]


def write_data(folder: Path, videos: int, frames: int) -> Path:
    sizes = [f"--videos={videos}", f"--frames={frames}"]
    subprocess.run([sys.executable, "-m", "abaw", "synth", str(folder), *sizes], check=True)
    return folder


def kill_and_resume(words: Sequence[str], folder: Path, runs: int, seed: int = 0, kills: int = 3) -> int:
    """Compares `runs` disturbed trainings with one left alone; gives the number of kills."""
    alone = Training(words, folder / "alone")
    start = time.monotonic()
    alone.finish()
    duration = time.monotonic() - start
    expected = load_checkpoint(alone.checkpoints / "last.ckpt")
    print(f"left alone: {expected['global_step']} steps in {duration:.0f} s", flush=True)
    rng, n_kills = random.Random(seed), 0
    for number in range(runs):
        training, told = Training(words, folder / f"run{number}"), []
        for _ in range(rng.randint(1, kills)):
            seconds, whole_group = rng.uniform(0, duration), rng.random() < 0.5
            start = time.monotonic()
            if not training.run_for(seconds, whole_group):
                duration = time.monotonic() - start  # shorter than was thought: the next is killed earlier
                break
            told.append(f"after {seconds:.1f} s, went on from step {training.step()}")
        n_kills += len(told)
        training.finish()
        assert "damaged" not in training.log.read_text()
        for name in ("last.ckpt", "best.ckpt"):
            reached = load_checkpoint(training.checkpoints / name)
            wanted = load_checkpoint(alone.checkpoints / name)
            assert not (found := list(differences(reached, wanted))), f"run {number}, {name}: {found}"
        assert (training.run / "scores.json").read_bytes() == (alone.run / "scores.json").read_bytes()
        print(f"run {number}: killed {'; '.join(told) or 'too late'}: identical", flush=True)
        shutil.rmtree(training.run)
    return n_kills


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        os.environ["ABAW_CACHE"] = str(folder / "cache")
        words = words_of(write_data(folder / "data", videos=80, frames=150), options.steps)
        n_kills = kill_and_resume(words, folder, options.runs, options.seed)
    print(f"{options.runs} of {options.runs} runs end as the one left alone, after {n_kills} kills")


if __name__ == "__main__":
    main()
