"""The configuration of a training that takes seconds on a CPU, for all tests that start one."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from tests.support.project import PROJECT

TINY: dict[str, Any] = {
    "data": {"window": 8, "windows": {"stride": 4}, "batch_size": 2, "workers": 0},
    "model": {
        "backbone": {
            "name": "vit_tiny_patch16_224",
            "weights": "none",
            "image_size": 32,
            "overrides": {"depth": 1},
        },
        "temporal": {"layers": 1, "heads": 2, "width": 16, "feedforward": 16},
    },
    "trainer": {
        "accelerator": "cpu",
        "precision": "32-true",
        "max_epochs": 1,
        "check_val_every_n_epoch": 1,
        "log_every_n_steps": 1,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    },
}


def tiny_config(folder: Path, *, over: str | None = "demo.yaml", **changes: Any) -> list[str]:
    """Options that read the tiny configuration, written to `tiny.yaml` in a folder.

    Args:
        folder: Where the file is written.
        over: File of `configs/` that is read first, None for the tiny configuration alone.
        changes: Values in place of those of `TINY`, section by section: `trainer={"max_epochs": 2}`.
            `...` leaves a key out, so that the file read first or the default says it.
    """
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(_changed(TINY, changes), sort_keys=False))
    first = [] if over is None else [f"--config={PROJECT / 'configs' / over}"]
    return [*first, f"--config={path}"]


def _changed(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    changed = dict(values)
    for key, value in changes.items():
        if isinstance(value, Mapping):
            changed[key] = _changed(changed.get(key, {}), value)
        elif value is ...:
            del changed[key]
        else:
            changed[key] = value
    return changed
