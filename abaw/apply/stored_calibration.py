"""Where a calibration is kept: in the checkpoint it belongs to, or in a JSON file."""

import io
import json
from pathlib import Path
from typing import Any

import torch

from abaw.checkpoints import load_checkpoint
from abaw.errors import AbawError
from abaw.files import atomic_path
from abaw.outputs.calibration import Calibration


def read_calibration(path: Path) -> Calibration:
    """The calibration in a checkpoint or a JSON file.

    Raises:
        AbawError: The file cannot be read or holds none.
    """
    if path.suffix == ".json":
        try:
            return _checked(json.loads(path.read_text(encoding="utf-8")), path)
        except (OSError, json.JSONDecodeError, UnicodeDecodeError) as error:
            raise AbawError(f"{path}: cannot be read as a calibration ({error})") from error
    return calibration_in(load_checkpoint(path), path)


def calibration_in(checkpoint: dict[str, Any], path: Path) -> Calibration:
    """The calibration in a loaded checkpoint.

    Raises:
        AbawError: It holds none.
    """
    plain = checkpoint["abaw"].get("calibration")
    if plain is None:
        raise AbawError(f"{path}: holds no calibration; `abaw calibrate TRACKS ROOT --ckpt {path}` adds one")
    return _checked(plain, path)


def _checked(plain: dict[str, Any], path: Path) -> Calibration:
    try:
        return Calibration.from_dict(plain)
    except AbawError as error:
        raise AbawError(f"{path}: {error}") from error


def store_calibration(calibration: Calibration, path: Path) -> None:
    """Writes a calibration into a JSON file, or adds it to a checkpoint in place of an earlier one.

    Raises:
        AbawError: The file cannot be read or written.
    """
    plain: dict[str, Any] = calibration.to_dict()
    buffer = io.BytesIO()
    if path.suffix == ".json":
        buffer.write(json.dumps(plain, indent=2).encode() + b"\n")
    else:
        checkpoint = load_checkpoint(path)
        checkpoint["abaw"]["calibration"] = plain
        torch.save(checkpoint, buffer)
    with atomic_path(path) as temporary:
        temporary.write_bytes(buffer.getbuffer())
