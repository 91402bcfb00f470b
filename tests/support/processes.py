"""Training processes of a test: starting them in several ways, telling them apart, finding all there are."""

import os
import secrets
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

MARK = "ABAW_TEST_MARK"  # in the environment, which every descendant inherits
MEASURED = """
import sys
from pathlib import Path
from abaw.__main__ import main
code = main(sys.argv[1:])
status = Path("/proc/self/status").read_text()  # getrusage counts pages of parent and siblings
print(status.partition("VmHWM:")[2].split()[0], file=sys.stderr)
sys.exit(code)
"""


def run_measured(*words: str) -> tuple[str, float]:
    """What `abaw` prints in a process of its own, which must end well, and the peak of its memory in GB."""
    start = time.monotonic()
    process = subprocess.run([sys.executable, "-c", MEASURED, *words], capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    peak = int(process.stderr.split()[-1]) / 1e6  # in kB
    print(f"abaw {words[0]}: {time.monotonic() - start:.1f} s, peak {peak:.2f} GB")  # `pytest -s` shows it
    return process.stdout, peak


@dataclass
class Job:
    """One start of the command line, with everything that it started in turn.

    Attributes:
        words: What follows `abaw`.
        launcher: What comes before it, such as `python -m torch.distributed.run`'s words; empty for none.
        log: File that takes all that is said.
    """

    words: Sequence[str]
    log: Path
    launcher: Sequence[str] = ()
    mark: str = field(default_factory=lambda: secrets.token_hex(8))

    def __post_init__(self) -> None:
        # behind "--" a launcher does not take our options for abbreviations of its own
        abaw = ["-m", "--", "abaw"] if self.launcher else ["-m", "abaw"]
        command = [sys.executable, *self.launcher, *abaw, *self.words]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                command, stdout=log, stderr=log, env=os.environ | {MARK: self.mark}, start_new_session=True
            )

    def pids(self) -> list[int]:
        """All processes that are alive."""
        return [int(path.parent.name) for path in Path("/proc").glob("[0-9]*/environ") if self._holds(path)]

    def _holds(self, path: Path) -> bool:
        try:
            return f"{MARK}={self.mark}".encode() in path.read_bytes().split(b"\0")
        except OSError:  # it has ended
            return False

    def rank(self, number: int) -> int:
        """The process of a rank; rank 0 is the one that was started, unless a launcher was."""
        if number == 0 and not self.launcher:
            return self.process.pid
        found = [pid for pid in self.pids() if f"LOCAL_RANK={number}" in _environment(pid)]
        return next(pid for pid in found if _parent(pid) not in found)  # the others are its loaders

    def wait_until_trained(self, table: Path, steps: int = 5) -> None:
        """Waits until a run's table has some steps."""
        while not (table.exists() and table.read_text().count("\n") > steps):
            assert self.process.poll() is None, self.log.read_text()
            time.sleep(0.05)

    def seconds_until_gone(self, limit: float) -> float:
        """Waits for the end of all processes, and kills what is left at the limit."""
        start = time.monotonic()
        while self.process.poll() is None or self.pids():
            if time.monotonic() - start > limit:
                left = self.pids()
                for pid in left:
                    os.kill(pid, 9)
                raise AssertionError(f"{left} were left after {limit} s:\n{self.log.read_text()}")
            time.sleep(0.05)
        return time.monotonic() - start


def _environment(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace").split("\0")


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
