"""Asked to go, a run saves itself and leaves with all its processes, whoever of them was asked."""

import os
import signal
import socket
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest

from abaw.model.checkpoints import load_checkpoint, newest_checkpoint
from tests.support.processes import Job
from tests.support.project import PROJECT
from tests.support.tiny_run import tiny_config

BOUND = 30  # seconds, on a machine that may be busy
TWO_NODES = ("-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1", "--master-addr=127.0.0.1")
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds processes in /proc"),
]
Start = Callable[..., Job]


@pytest.fixture
def start(synth_root: Path, tmp_path: Path) -> Start:
    """Starts a subcommand in `tmp_path / "run"`: `job = start("fit", "--more=words", launcher=TORCHRUN)`."""
    data = {"windows": {"stride": 1}, "batch_size": 1, "workers": 2}
    configs = tiny_config(tmp_path, data=data, trainer={"max_epochs": 100})
    numbers = count()

    def job(subcommand: str, *more: str, launcher: tuple[str, ...] = ()) -> Job:
        words = [subcommand, *configs, f"--run={tmp_path / 'run'}", f"--data.root={synth_root}", *more]
        return Job(words, tmp_path / f"log{next(numbers)}", launcher)

    return job


@pytest.fixture
def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize(
    ("launched", "target", "sent"),
    [
        ("alone", "process", signal.SIGTERM),
        ("alone", "group", signal.SIGUSR1),
        ("two", "rank 0", signal.SIGUSR1),
        ("two", "rank 1", signal.SIGTERM),
        ("two", "group", signal.SIGTERM),
        ("torchrun", "rank 0", signal.SIGTERM),
        ("torchrun", "rank 1", signal.SIGUSR1),
        ("torchrun", "group", signal.SIGTERM),
        ("torchrun", "launcher", signal.SIGTERM),
    ],
)
def test_a_signal_saves_and_ends_all(
    launched: str, target: str, sent: signal.Signals, start: Start, tmp_path: Path
) -> None:
    devices = [] if launched == "alone" else ["--trainer.devices=2", "--trainer.strategy=ddp"]
    launcher = TORCHRUN if launched == "torchrun" else ()
    job = start("fit", *devices, launcher=launcher)
    job.wait_until_trained(tmp_path / "run/metrics.csv")
    told = time.time()
    if target == "group":  # as batch systems do
        for pid in job.pids():
            os.kill(pid, sent)
    else:
        os.kill(job.rank(int(target[-1])) if target.startswith("rank") else job.process.pid, sent)
    if launched == "alone":  # told again while it goes
        while "preempted by" not in job.log.read_text():
            time.sleep(0.01)
        time.sleep(0.1)
        job.process.send_signal(sent)
    seconds = job.seconds_until_gone(BOUND)
    said = job.log.read_text()
    assert said.count("--ckpt_path last") == 1, said  # one process speaks
    if launched != "torchrun":  # which reports the end of its processes in its own way
        assert job.process.returncode == 75
        assert "Traceback" not in said
    last = tmp_path / "run/checkpoints/last.ckpt"
    assert last.stat().st_mtime > told
    step = load_checkpoint(last)["global_step"]
    print(f"{launched}, {sent.name} to {target}: gone after {seconds:.1f} s, at step {step}")
    job = start("fit", *devices, f"--trainer.max_steps={step + 2}", "--ckpt_path=last", launcher=launcher)
    assert job.process.wait(600) == 0, job.log.read_text()
    assert load_checkpoint(last)["global_step"] == step + 2


@pytest.mark.parametrize("launched", ["two", "two nodes"])
@pytest.mark.parametrize("lost", [0, 1])
def test_a_rank_that_dies_ends_all_with_one_message(
    launched: str, lost: int, start: Start, tmp_path: Path, free_port: int
) -> None:
    devices = ["--trainer.strategy=ddp", "--checkpoint.every_n_steps=1"]
    if launched == "two":
        devices += ["--trainer.devices=2"]
        jobs = [start("fit", *devices)]
    else:
        devices += ["--trainer.devices=1", "--trainer.num_nodes=2"]
        nodes = [(*TWO_NODES, f"--master-port={free_port}", f"--node-rank={number}") for number in range(2)]
        jobs = [start("fit", *devices, launcher=node) for node in nodes]
    jobs[0].wait_until_trained(tmp_path / "run/metrics.csv")
    os.kill(jobs[lost].rank(0) if launched == "two nodes" else jobs[0].rank(lost), signal.SIGKILL)
    seconds = max(job.seconds_until_gone(BOUND) for job in jobs)
    print(f"{launched}, without rank {lost}: gone after {seconds:.1f} s")
    said = "".join(job.log.read_text() for job in jobs)
    told = "abaw: fit: the connection to another process of the run broke" in said
    if (launched, lost) == ("two", 1):  # Lightning looks after its child processes, and may be first
        told = told or "terminated with code -9. Forcefully terminating all other processes" in said
    assert told, said
    assert str(PROJECT / "abaw") + "/" not in said  # no traceback of ours
    assert load_checkpoint(newest_checkpoint(tmp_path / "run/checkpoints"))
