"""Checks of image files; results are cached until a file changes."""

import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from abaw.data.cache import writing_cache
from abaw.data.check.kinds import DataFinding
from abaw.data.formats.arrays import DamagedFileError, open_arrays, write_arrays
from abaw.data.formats.flat_shards import is_packed, open_packed
from abaw.data.frames import BadFrameError, decode_image
from abaw.data.labels import IMAGE_NAME, image_name
from abaw.data.processes import available_cores, in_processes
from abaw.data.progress import Progress

_STDERR = 2
LITTER = {".DS_Store", "Thumbs.db", "desktop.ini", ".directory"}


@dataclass(frozen=True, eq=False)
class FolderCheck:
    """Check results for the images of one folder.

    Attributes:
        folder: Folder of a video below an image root.
        numbers: int64 (n,), sorted image numbers, from 1.
        fingerprints: int64 (n,), equal for images of equal content; 0 for unusable ones.
        findings: Findings in this folder.
        n_read: Number of images that were read, the others being cached.
    """

    folder: Path
    numbers: NDArray[np.int64]
    fingerprints: NDArray[np.int64]
    findings: list[DataFinding]
    n_read: int


def check_images(
    folders: Sequence[Path], size: int, cache: Path, jobs: int | None = None, progress: bool = False
) -> list[FolderCheck]:
    """Checks the images of all folders in several processes.

    Args:
        folders: Video folders below image roots.
        size: Expected height and width of all images, in pixels.
        cache: Folder of the cached results.
        jobs: Number of processes; None: one per core.
        progress: Whether to show a progress bar on stderr.
    """
    if not folders:
        return []
    keys = [hashlib.sha256(os.fsencode(folder)).hexdigest()[:24] for folder in folders]
    tasks = [(folder, size, cache / f"{key}.safetensors") for folder, key in zip(folders, keys, strict=True)]
    jobs = jobs or available_cores()
    # fork on Linux: faster, and the caller's script needs no `if __name__ == "__main__"`
    method: Literal["fork", "spawn"] = "fork" if sys.platform == "linux" else "spawn"
    checks = in_processes(check_folder, tasks, jobs=jobs, method=method, initializer=_redirect_stderr)
    with closing(checks):
        return list(Progress(checks, desc="images", total=len(folders), unit="folder", show=progress))


def _redirect_stderr() -> None:
    """Redirects stderr to a file, as decoders report corrupt data only there."""
    with tempfile.TemporaryFile() as log:
        os.dup2(log.fileno(), _STDERR)


def check_folder(folder: Path, size: int, cache: Path) -> FolderCheck:
    """Checks the images of a folder that are new or changed since the last check.

    Args:
        folder: Folder of a video.
        size: Expected height and width of all images.
        cache: File with the cached results, by image number, size and modification time.
    """
    if is_packed(folder):  # verified at packing
        numbers = open_packed(folder).numbers
        return FolderCheck(folder, numbers, np.zeros_like(numbers), [], 0)
    try:
        present, findings = _list(folder)
    except OSError as error:
        nothing = np.empty(0, np.int64)
        finding = DataFinding("missing images", folder, f"the folder cannot be listed ({error.strerror})")
        return FolderCheck(folder, nothing, nothing, [finding], 0)
    cached, bad = _read_cache(cache, size)
    unchanged = dict.fromkeys(map(tuple, cached[:, :3].tolist()))
    before = dict(zip(cached[:, 0].tolist(), cached[:, 3].tolist(), strict=True))
    rows, defects, n_read = [], {}, 0
    for number, n_bytes, time in present:
        if (number, n_bytes, time) in unchanged:
            fingerprint, defect = before[number], bad.get(str(number))
        else:
            fingerprint, defect = _check_image(folder / image_name(number), size)
            n_read += 1
        rows.append((number, n_bytes, time, fingerprint))
        if defect is not None:
            defects[str(number)] = kind, detail = defect
            findings.append(DataFinding(kind, folder / image_name(number), detail))
    table = np.array(rows, np.int64).reshape(-1, 4)
    if n_read or len(table) != len(cached):
        with writing_cache():
            write_arrays(cache, {"images": [table]}, json.dumps({"size": size, "bad": defects}))
    return FolderCheck(folder, table[:, 0], table[:, 3], findings, n_read)


def _list(folder: Path) -> tuple[list[tuple[int, int, int]], list[DataFinding]]:
    """Number, size and modification time of every image, sorted, and findings for other files."""
    present, findings = [], []
    with os.scandir(folder) as entries:
        for entry in entries:
            match = IMAGE_NAME.fullmatch(entry.name)
            number = int(match[1]) if match and entry.is_file() else 0
            if number:
                status = entry.stat()
                present.append((number, status.st_size, status.st_mtime_ns))
            elif entry.name in LITTER or entry.name.startswith("._"):
                findings.append(DataFinding("litter", folder / entry.name, "left by the operating system"))
            else:
                findings.append(DataFinding("stray file", folder / entry.name, "not an image 00001.jpg, …"))
    return sorted(present), findings


def _read_cache(cache: Path, size: int) -> tuple[NDArray[np.int64], dict[str, Any]]:
    """Cached rows of number, size, time and fingerprint (n, 4), and the results for bad images by number."""
    try:
        arrays, metadata = open_arrays(cache, verify=True)
        known = json.loads(metadata)
        table = arrays["images"]
        if known["size"] == size and table.ndim == 2 and table.shape[1] == 4:
            return table, dict(known["bad"])
    except (OSError, DamagedFileError, KeyError, TypeError, ValueError):
        pass  # no valid cache: all images are checked
    return np.empty((0, 4), np.int64), {}


def _check_image(path: Path, size: int) -> tuple[int, tuple[str, str] | None]:
    """Fingerprint of an image's content and None, or 0 and the kind and detail of the defect."""
    n_logged = os.fstat(_STDERR).st_size
    try:
        data = path.read_bytes()
        decode_image(data, size, "image")
    except OSError as error:
        return 0, ("unreadable image", f"cannot be read ({error.strerror})")
    except BadFrameError as error:
        return 0, (error.kind, str(error).removeprefix("image: ").partition("; ")[0])
    if os.fstat(_STDERR).st_size > n_logged:
        logged = os.pread(_STDERR, 200, n_logged).decode(errors="replace").partition("\n")[0]
        return 0, ("damaged image", f"decoder warning: {logged}")
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little", signed=True), None
