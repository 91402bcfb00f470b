"""Looking at every image of a folder once: what was looked at and has not changed is taken on trust."""

import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from abaw.data.cache import writing_cache
from abaw.data.check.kinds import Finding
from abaw.data.discovery import images_in
from abaw.data.formats.arrays import DamagedFileError, open_arrays, write_arrays
from abaw.data.formats.flat_shards import is_packed
from abaw.data.frames import BadFrameError, decode_image
from abaw.data.labels import IMAGE_NAME, image_name
from abaw.data.processes import available_cores, in_processes

_STDERR = 2

LITTER = {".DS_Store", "Thumbs.db", "desktop.ini", ".directory"}


@dataclass(frozen=True, eq=False)
class Examined:
    """The images of one folder.

    Attributes:
        folder: A video's folder below an image root.
        numbers: int64 (n,), sorted image numbers, from 1.
        digests: int64 (n,), equal for images of equal content; 0 for one that cannot be used.
        findings: What is wrong.
        n_read: Images that were looked at this time.
    """

    folder: Path
    numbers: NDArray[np.int64]
    digests: NDArray[np.int64]
    findings: list[Finding]
    n_read: int


def examine_all(
    folders: Sequence[Path], size: int, memory: Path, jobs: int | None = None, progress: bool = False
) -> list[Examined]:
    """Looks at the images of all folders, which are independent of each other, in several processes.

    Args:
        folders: Of videos, below image roots.
        size: Height and width that every image must have.
        memory: Folder with what is remembered from earlier times.
        jobs: Processes; None: one per core.
        progress: Show a progress bar on stderr.
    """
    tasks = [(folder, size, memory / f"{_key(folder)}.safetensors") for folder in folders]
    done: list[Examined] = []
    bar = tqdm(total=len(folders), desc="images", unit="folder", disable=not progress)
    with bar, closing(_examined(tasks, jobs or available_cores())) as examined:
        for result in examined:
            done.append(result)
            bar.update()
    return done


def _key(folder: Path) -> str:
    return hashlib.sha256(os.fsencode(folder)).hexdigest()[:24]


def _examined(tasks: Sequence[tuple[Path, int, Path]], jobs: int) -> Generator[Examined, None, None]:
    # forked on Linux: no second start of the interpreter, and no guard needed in the caller's script
    method: Literal["fork", "spawn"] = "fork" if sys.platform == "linux" else "spawn"
    if tasks:
        yield from in_processes(examine, tasks, jobs=jobs, method=method, initializer=_keep_decoder_messages)


def _keep_decoder_messages() -> None:
    """Lets this process write its stderr to a file: a decoder only complains there about corrupt data."""
    with tempfile.TemporaryFile() as log:
        os.dup2(log.fileno(), _STDERR)


def examine(folder: Path, size: int, memory: Path) -> Examined:
    """Looks at the images of a folder that are new or changed since the last time.

    Args:
        folder: A video's folder.
        size: Height and width that every image must have.
        memory: File that remembers the images of this folder by number, size and time of change.
    """
    if is_packed(folder):  # verified when it was written
        return Examined(folder, images_in(folder), np.zeros(len(images_in(folder)), np.int64), [], 0)
    try:
        present, findings = _list(folder)
    except OSError as error:
        nothing = np.empty(0, np.int64)
        finding = Finding("missing images", folder, f"the folder cannot be listed ({error.strerror})")
        return Examined(folder, nothing, nothing, [finding], 0)
    remembered, bad = _recall(memory, size)
    trusted = dict.fromkeys(map(tuple, remembered[:, :3].tolist()))
    before = dict(zip(remembered[:, 0].tolist(), remembered[:, 3].tolist(), strict=True))
    rows, verdicts, n_read = [], {}, 0
    for number, n_bytes, time in present:
        if (number, n_bytes, time) in trusted:
            digest, verdict = before[number], bad.get(str(number))
        else:
            digest, verdict = _look(folder / image_name(number), size)
            n_read += 1
        rows.append((number, n_bytes, time, digest))
        if verdict is not None:
            verdicts[str(number)] = kind, detail = verdict
            findings.append(Finding(kind, folder / image_name(number), detail))
    table = np.array(rows, np.int64).reshape(-1, 4)
    if n_read or len(table) != len(remembered):
        with writing_cache():
            write_arrays(memory, {"images": [table]}, json.dumps({"size": size, "bad": verdicts}))
    return Examined(folder, table[:, 0], table[:, 3], findings, n_read)


def _list(folder: Path) -> tuple[list[tuple[int, int, int]], list[Finding]]:
    """Number, size and time of every image, by number; and what else lies there."""
    present, findings = [], []
    with os.scandir(folder) as entries:
        for entry in entries:
            match = IMAGE_NAME.fullmatch(entry.name)
            number = int(match[1]) if match and entry.is_file() else 0
            if number:
                status = entry.stat()
                present.append((number, status.st_size, status.st_mtime_ns))
            elif entry.name in LITTER or entry.name.startswith("._"):
                findings.append(Finding("litter", folder / entry.name, "left by the operating system"))
            else:
                findings.append(Finding("stray file", folder / entry.name, "not an image 00001.jpg, …"))
    return sorted(present), findings


def _recall(memory: Path, size: int) -> tuple[NDArray[np.int64], dict[str, Any]]:
    """Rows of number, size, time and digest (n, 4), and the verdicts on the bad ones among them."""
    try:
        arrays, note = open_arrays(memory, verify=True)
        known = json.loads(note)
        table = arrays["images"]
        if known["size"] == size and table.ndim == 2 and table.shape[1] == 4:
            return table, dict(known["bad"])
    except (OSError, DamagedFileError, KeyError, TypeError, ValueError):
        pass  # nothing is remembered, so everything is looked at again
    return np.empty((0, 4), np.int64), {}


def _look(path: Path, size: int) -> tuple[int, tuple[str, str] | None]:
    """The digest of a good image's content; or 0, and kind and detail of what is wrong."""
    n_said = os.fstat(_STDERR).st_size
    try:
        data = path.read_bytes()
        decode_image(data, size, "image")
    except OSError as error:
        return 0, ("unreadable image", f"cannot be read ({error.strerror})")
    except BadFrameError as error:
        return 0, (error.kind, str(error).removeprefix("image: ").partition("; ")[0])
    if os.fstat(_STDERR).st_size > n_said:
        said = os.pread(_STDERR, 200, n_said).decode(errors="replace").partition("\n")[0]
        return 0, ("damaged image", f"the decoder says: {said}")
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little", signed=True), None
