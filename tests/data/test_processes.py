"""Work in several processes: order, errors, and Ctrl-C at any moment."""

import os
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from abaw.data.processes import in_processes
from abaw.errors import AbawError
from abaw.files import atomic_path

METHODS = ["fork", "spawn"]


def nothing() -> None:
    """The initializer of the processes."""


def square(number: int, seconds: float = 0.0) -> int:
    time.sleep(seconds)
    return number * number


def ignores_interrupts() -> bool:
    return signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def leave(folder: Path, number: int) -> None:
    with atomic_path(folder / str(number)) as temporary:
        temporary.touch()
        time.sleep(0.2)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("method", METHODS)
def test_results_come_in_the_order_of_the_tasks(method) -> None:
    tasks = [(3, 0.2), (2,), (1,)]
    assert list(in_processes(square, tasks, jobs=2, method=method, initializer=nothing)) == [9, 4, 1]
    ignored = in_processes(ignores_interrupts, [()], jobs=1, method=method, initializer=nothing)
    assert list(ignored) == [True]


def test_a_process_that_is_killed_is_one_message() -> None:
    with pytest.raises(AbawError, match=r"was killed.*--jobs 1"):
        list(in_processes(die, [()], jobs=1, method="fork", initializer=nothing))


@pytest.mark.parametrize("method", METHODS)
def test_an_early_end_ends_the_processes_in_order(method, tmp_path: Path) -> None:
    tasks = [(tmp_path, number) for number in range(30)]
    with closing(in_processes(leave, tasks, jobs=2, method=method, initializer=nothing)) as results:
        next(results)
    left = {path.name for path in tmp_path.iterdir()}
    assert "0" in left
    assert len(left) < 10
    assert not any(name.endswith(".tmp") for name in left)
    time.sleep(0.4)
    assert {path.name for path in tmp_path.iterdir()} == left


@pytest.mark.parametrize("method", METHODS)
def test_ctrl_c_while_processes_start_reaches_the_parent_alone(method) -> None:
    """A signal to the whole group, as a terminal sends it, as soon as the first process exists."""
    code = (
        "import os, signal, time, test_processes as t\n"
        "from abaw.data import processes\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "class Pool(processes.ProcessPoolExecutor):\n"
        "    def submit(self, *args):\n"
        "        future = super().submit(*args)\n"
        "        os.killpg(0, signal.SIGINT)\n"
        "        return future\n"
        "processes.ProcessPoolExecutor = Pool\n"
        "try:\n"
        f"    list(processes.in_processes(t.square, [(1,)] * 3, jobs=2, method={method!r},"
        " initializer=t.nothing))\n"
        "except KeyboardInterrupt:\n"
        "    print('interrupted')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parent, capture_output=True, text=True, timeout=600, start_new_session=True,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "interrupted\n", "")


@pytest.mark.parametrize(
    "seconds", [0.7, *(pytest.param(after, marks=pytest.mark.slow) for after in (0.4, 1.0, 1.5, 2.5))]
)
def test_ctrl_c_ends_synth_quietly_and_leaves_nothing(seconds: float, tmp_path: Path) -> None:
    heeded = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"  # also in the background
    )
    command = [sys.executable, "-c", f"{heeded}; from abaw.__main__ import main; raise SystemExit(main())"]
    words = ["synth", str(tmp_path / "data"), "--videos", "40", "--frames", "300", "--jobs", "4"]
    with subprocess.Popen(
        [*command, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        time.sleep(seconds)
        os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=600)
    assert (process.returncode, out, err) == (130, "", "abaw: interrupted\n")
    assert list(tmp_path.iterdir()) == []
