import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.utils.data import Dataset

from abaw.data.processes import available_cores
from abaw.loading.loaders import loader_options
from abaw.loading.workers import default_workers
from tests.support.project import PROJECT
from tests.support.slots import make_loader

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork.*")


def worker_facts(_):
    import cv2

    return torch.tensor([cv2.getNumThreads(), torch.get_num_threads()])


class Facts(Dataset):
    def __getitem__(self, index):
        return worker_facts(index)

    def __len__(self):
        return 2


def test_workers_use_one_core():
    options = loader_options(workers=2, pin_memory=False) | {"collate_fn": torch.stack}
    for facts in torch.utils.data.DataLoader(Facts(), **options):
        assert facts[0].tolist() == [1, 1]


@pytest.fixture
def heeded():
    """Ctrl-C, also in what a shell runs in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heeded")
def test_ctrl_c_while_processes_are_started_is_not_lost(monkeypatch):
    start, n_started = multiprocessing.process.BaseProcess.start, []

    def disturbed(process):
        with contextlib.suppress(KeyboardInterrupt):  # as Python does in the middle of a fork
            signal.raise_signal(signal.SIGINT)
        start(process)
        n_started.append(process)

    monkeypatch.setattr(multiprocessing.process.BaseProcess, "start", disturbed)
    loader = make_loader(2)
    with pytest.raises(KeyboardInterrupt):
        next(iter(loader))
    assert len(n_started) == 2
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


SIGNAL_WORKERS = """
import os, subprocess, sys, multiprocessing
from tests.support.slots import make_loader
loader = make_loader(2)
batches = iter(loader)
next(batches), next(batches)  # one of each, so both are under way
workers = [worker.pid for worker in multiprocessing.active_children()]
subprocess.run(["kill", "-" + sys.argv[1], *map(str, workers)], check=True)  # not by the trainer itself
print(len(list(batches)), *workers)
kept = [loader, batches]  # alive until the interpreter ends
if sys.argv[2] == "error":
    raise RuntimeError
"""


@pytest.mark.parametrize(
    ("number", "end"), [("TERM", "error"), ("TERM", "well"), ("USR1", "error"), ("INT", "well")]
)
def test_workers_outlive_a_signal_and_end_with_the_trainer(number, end):
    command = [sys.executable, "-c", SIGNAL_WORKERS, number, end]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=600)
    n_batches, *workers = map(int, done.stdout.split())
    assert n_batches == 3
    assert len(workers) == 2
    assert not any(Path(f"/proc/{worker}").exists() for worker in workers)


def test_default_workers(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(12)), raising=False)
    assert available_cores() == 12
    assert [default_workers(n) for n in (1, 2, 4, 8, 12, 24)] == [8, 6, 3, 0, 0, 0]
