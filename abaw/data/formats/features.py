"""Features of one video on disk: one file that describes itself, and a note about the folder it lies in.

A file is a `.safetensors` with the tensors `features` (N, D) and `visible` (N,), row k being frame k from 0.
Features made elsewhere, of sound for instance, need no more than that; `write_features` makes such a file.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from abaw.errors import AbawError
from abaw.files import atomic_path

FORMAT = 1
"""Goes up when features of the same description become other numbers or other files."""

SUFFIX = ".safetensors"

_NOTE = "store.json"

_ABOUT = "abaw"  # one entry only: the library writes several in an order that changes from run to run


@dataclass(frozen=True, eq=False)
class VideoFeatures:
    """Features of all frames of one video, mapped into memory: only what is read comes from the disk.

    Attributes:
        features: float16 or float32 (N, D).
        visible: bool (N,), True where there was something to see.
        about: What the file says of itself: `key`, `video`, `images`; empty for files made elsewhere.
    """

    features: NDArray[np.floating]
    visible: NDArray[np.bool_]
    about: Mapping[str, Any]


def features_path(folder: Path, video: str) -> Path:
    """The file of a video, by its name."""
    return folder / f"{video}{SUFFIX}"


def write_features(
    path: Path,
    *,
    features: NDArray[np.floating],
    visible: NDArray[np.bool_] | None = None,
    about: Mapping[str, Any] | None = None,
) -> None:
    """Writes the features of one video; equal arguments give equal bytes.

    Args:
        path: `features_path(folder, video)`; replaced as a whole or not at all.
        features: float16 or float32 (N, D), row k being frame k from 0; anything where not visible.
        visible: bool (N,), True where the frame has features; None: everywhere.
        about: Plain values that travel along; None for features made elsewhere than by `abaw extract`.

    Raises:
        AbawError: The arrays do not fit, a feature is not finite, or the file cannot be written.
    """
    visible = np.ones(len(features), bool) if visible is None else np.asarray(visible, bool)
    _check(path, features, visible)
    features = np.where(visible[:, None], features, features.dtype.type(0))
    if not np.isfinite(features).all():
        raise AbawError(f"{path}: a feature is not finite in {features.dtype}; check what made it")
    tensors: dict[str, NDArray[Any]] = {
        "features": np.ascontiguousarray(features),
        "visible": visible.astype(np.uint8),
    }
    with atomic_path(path) as temporary:
        # not safetensors' own file writer, which turns a full disk into an error of its own kind
        temporary.write_bytes(save(tensors, {_ABOUT: json.dumps(about or {}, sort_keys=True)}))


def open_features(path: Path) -> VideoFeatures:
    """Maps the features of one video into memory.

    Raises:
        AbawError: There is no such file, or it does not hold the two tensors in a shape that fits.
    """
    if not path.is_file():
        raise AbawError(
            f"{path}: the features of this video are missing; `abaw extract` makes what is missing in its"
            " folder, features made elsewhere need a file for every video"
        )
    try:
        with safe_open(path, framework="pt") as file:  # torch's tensors lie in the file, NumPy's are copies
            features, visible = (file.get_tensor(name).numpy() for name in ("features", "visible"))
            about = json.loads((file.metadata() or {}).get(_ABOUT, "{}"))
    except (SafetensorError, TypeError, ValueError, OSError) as error:
        raise AbawError(
            f"{path}: not a file of features ({error}); delete it and make it anew, with the tensors"
            " `features` (N, D) in float16 or float32 and `visible` (N,)"
        ) from error
    _check(path, features, visible)
    features.flags.writeable = False
    return VideoFeatures(features, visible.astype(bool), about)


def _check(path: Path, features: NDArray[Any], visible: NDArray[Any]) -> None:
    fits = features.ndim == 2 and features.size > 0 and visible.shape == features.shape[:1]
    if not fits or features.dtype not in (np.float16, np.float32):
        raise AbawError(
            f"{path}: features {features.shape} in {features.dtype} and visible {visible.shape}; they must be"
            " (N, D) in float16 or float32, and (N,), with N and D at least 1"
        )


def fingerprint_of(parts: Mapping[str, Any]) -> str:
    """A short name of a description: equal for equal `parts`, in whatever order."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def write_parts(folder: Path, parts: Mapping[str, Any]) -> None:
    """Leaves a note in the folder that says what its features were made with."""
    with atomic_path(folder / _NOTE) as temporary:
        temporary.write_text(json.dumps(parts, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def read_parts(folder: Path) -> dict[str, Any] | None:
    """What the features of a folder were made with; None where they were made elsewhere.

    Raises:
        AbawError: The note is damaged.
    """
    path = folder / _NOTE
    if not path.is_file():
        return None
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise AbawError(f"{path}: damaged ({error}); delete {folder} and run `abaw extract` again") from error


def differences(cached: Mapping[str, Any], expected: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Every value in which two descriptions differ, as `part.name cached, now expected`.

    Of the parts, only those that `expected` names are compared.
    """
    found: list[str] = []
    for name, value in expected.items():
        had = cached.get(name)
        if isinstance(value, Mapping) and isinstance(had, Mapping):
            found += differences(had, {**dict.fromkeys(had), **value}, f"{prefix}{name}.")
        elif had != value:
            found.append(f"{prefix}{name} {_short(had)}, now {_short(value)}")
    return found


def _short(value: Any) -> str:
    """A value for a message; of a hash the beginning."""
    return f"{value[:12]}…" if isinstance(value, str) and len(value) == 64 else str(value)
