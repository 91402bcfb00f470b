"""Reading and writing of checkpoints, without Lightning and without executing code in them."""

import hashlib
import io
import pickle
import warnings
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from abaw.errors import AbawError
from abaw.files import atomic_path

FORMAT = 1
"""Version of the content under the key "abaw"; increases with incompatible changes."""


def load_checkpoint(path: Path | str) -> dict[str, Any]:
    """A checkpoint, on the CPU; no code in it is executed.

    Raises:
        AbawError: The file is missing, damaged, or not a checkpoint of this package.
    """
    path = Path(path)
    if not path.is_file():
        raise AbawError(
            f"{path}: there is no such checkpoint; `abaw fit` writes them to checkpoints/ of its run"
        )
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        reason = str(error).strip().splitlines()[0][:120] if str(error) else type(error).__name__
        raise AbawError(
            f"{path}: damaged or not a checkpoint, not loaded ({reason}); use another one"
        ) from error
    if not isinstance(checkpoint, dict) or not isinstance(checkpoint.get("abaw"), dict):
        raise AbawError(f"{path}: not a checkpoint of abaw; use one written by `abaw fit`")
    if checkpoint["abaw"].get("format") != FORMAT:
        found = checkpoint["abaw"].get("format")
        raise AbawError(f"{path}: has format {found}, this abaw reads {FORMAT}; use the abaw that wrote it")
    return checkpoint


def save_checkpoint(checkpoint: Mapping[str, Any], path: Path | str) -> None:
    """Writes a checkpoint atomically.

    Raises:
        AbawError: The file cannot be written.
    """
    buffer = io.BytesIO()  # torch.save would turn the OSError of a full disk into a RuntimeError
    torch.save(checkpoint, buffer)
    with atomic_path(path) as temporary:
        temporary.write_bytes(buffer.getbuffer())


def weights_fingerprint(weights: Mapping[str, Tensor]) -> str:
    """SHA-256 of tensors and their names: the same in memory and in any checkpoint that holds them.

    Args:
        weights: A network's `state_dict`.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(weights.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def network_weights(checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    """The network's `state_dict` in a loaded checkpoint."""
    prefix = "network."
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in checkpoint["state_dict"].items()
        if name.startswith(prefix)
    }


def newest_checkpoint(folder: Path | str) -> Path:
    """The newest checkpoint of a run that loads; damaged ones are skipped with a warning.

    Raises:
        AbawError: No checkpoint loads.
    """
    folder = Path(folder)
    for path in _newest_first(folder):
        try:
            load_checkpoint(path)
        except AbawError as error:
            warnings.warn(f"{error}; trying the one before it", stacklevel=2)
        else:
            return path
    raise AbawError(
        f"{folder}: has no checkpoint to continue from; start with `abaw fit` without --ckpt_path last"
    )


def best_scores(path: Path | str) -> dict[str, Any] | None:
    """The scores of a run's best checkpoint; None if it is missing, or damaged (with a warning)."""
    if not Path(path).is_file():
        return None
    try:
        scores: dict[str, Any] = load_checkpoint(path)["abaw"]["scores"]
    except AbawError as error:
        warnings.warn(f"{error}; the next validation replaces it", stacklevel=2)
        return None
    return scores


def _newest_first(folder: Path) -> Iterator[Path]:
    last = folder / "last.ckpt"
    seen = set()
    for path in [last, *reversed(oldest_first(folder.glob("step-*.ckpt")))]:
        if path.is_file() and (inode := path.stat().st_ino) not in seen:
            seen.add(inode)  # `last` is a hard link to the newest
            yield path


def oldest_first(paths: Iterable[Path]) -> list[Path]:
    """Files sorted by modification time: after resuming from an earlier step, step numbers repeat."""
    return sorted(paths, key=lambda path: (path.stat().st_mtime_ns, path.name))
