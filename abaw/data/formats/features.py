"""Feature caches: one file per video, and a `store.json` with the metadata of the folder.

A file is a `.safetensors` with the tensors `features` (N, D) and `visible` (N,), row k being frame k from 0.
Features made elsewhere, for instance audio features, need no metadata; `write_features` writes such a file.
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
"""Format version, increased when features of the same metadata change in value or layout."""

SUFFIX = ".safetensors"
_METADATA_FILE = "store.json"
_METADATA_KEY = "abaw"  # a single entry, as safetensors writes several in random order


@dataclass(frozen=True, eq=False)
class VideoFeatures:
    """Memory-mapped features of all frames of one video.

    Attributes:
        features: float16 or float32 (N, D).
        visible: bool (N,), True where the frame has features.
        metadata: Metadata of the file: `key`, `video`, `images`; empty for files made elsewhere.
    """

    features: NDArray[np.floating]
    visible: NDArray[np.bool_]
    metadata: Mapping[str, Any]


def features_path(folder: Path, video: str) -> Path:
    """The path of a video's file."""
    return folder / f"{video}{SUFFIX}"


def write_features(
    path: Path,
    *,
    features: NDArray[np.floating],
    visible: NDArray[np.bool_] | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> None:
    """Writes the features of one video; equal arguments give identical files.

    Args:
        path: `features_path(folder, video)`, replaced atomically.
        features: float16 or float32 (N, D), row k being frame k from 0; ignored where not visible.
        visible: bool (N,), True where the frame has features; None: all frames.
        metadata: Plain values stored with the features; None if not made by `abaw extract`.

    Raises:
        AbawError: Shapes or dtypes are invalid, a feature is NaN or infinite, or the file cannot be written.
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
        # not safetensors.numpy.save_file, which does not raise OSError on a full disk
        temporary.write_bytes(save(tensors, {_METADATA_KEY: json.dumps(metadata or {}, sort_keys=True)}))


def open_features(path: Path) -> VideoFeatures:
    """The memory-mapped features of one video.

    Raises:
        AbawError: The file does not exist, or does not contain the two tensors in valid shapes.
    """
    if not path.is_file():
        raise AbawError(
            f"{path}: the features of this video are missing; `abaw extract` makes what is missing in its"
            " folder, features made elsewhere need a file for every video"
        )
    try:
        with safe_open(path, framework="pt") as file:  # torch tensors are memory-mapped, NumPy's are copies
            features, visible = (file.get_tensor(name).numpy() for name in ("features", "visible"))
            metadata = json.loads((file.metadata() or {}).get(_METADATA_KEY, "{}"))
    except (SafetensorError, TypeError, ValueError, OSError) as error:
        raise AbawError(
            f"{path}: not a file of features ({error}); delete it and make it again, with the tensors"
            " `features` (N, D) in float16 or float32 and `visible` (N,)"
        ) from error
    _check(path, features, visible)
    features.flags.writeable = False
    return VideoFeatures(features, visible.astype(bool), metadata)


def _check(path: Path, features: NDArray[Any], visible: NDArray[Any]) -> None:
    fits = features.ndim == 2 and features.size > 0 and visible.shape == features.shape[:1]
    if not fits or features.dtype not in (np.float16, np.float32):
        raise AbawError(
            f"{path}: features {features.shape} in {features.dtype} and visible {visible.shape}; they must be"
            " (N, D) in float16 or float32, and (N,), with N and D at least 1"
        )


def fingerprint_of(metadata: Mapping[str, Any]) -> str:
    """Fingerprint of metadata, independent of the order of the keys."""
    return hashlib.sha256(json.dumps(metadata, sort_keys=True).encode()).hexdigest()[:16]


def write_metadata(folder: Path, metadata: Mapping[str, Any]) -> None:
    """Writes the metadata of a folder of features."""
    with atomic_path(folder / _METADATA_FILE) as temporary:
        temporary.write_text(json.dumps(metadata, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def read_metadata(folder: Path) -> dict[str, Any] | None:
    """The metadata of a folder of features; None if they were made elsewhere.

    Raises:
        AbawError: The metadata file is damaged.
    """
    path = folder / _METADATA_FILE
    if not path.is_file():
        return None
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise AbawError(f"{path}: damaged ({error}); delete {folder} and run `abaw extract` again") from error


def differences(cached: Mapping[str, Any], expected: Mapping[str, Any], prefix: str = "") -> list[str]:
    """All differing values of two metadata mappings, as `key.name cached, now expected`.

    Only the top-level keys of `expected` are compared.
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
    """A value for a message; hashes are truncated."""
    return f"{value[:12]}…" if isinstance(value, str) and len(value) == 64 else str(value)
