"""Records of an offline run of W&B, read with its own message definitions."""

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

BLOCK, HEADER = 32768, 7
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4


def records(path: Path) -> Iterator[Any]:
    """The records of a `.wandb` file: a log of LevelDB, whose entries are messages of W&B."""
    from wandb.proto import wandb_internal_pb2

    content, place, parts = path.read_bytes(), HEADER, b""  # the file begins with a header of its own
    while place + HEADER <= len(content):
        if BLOCK - place % BLOCK < HEADER:  # no entry begins in the last bytes of a block
            place += BLOCK - place % BLOCK
            continue
        _, length, kind = struct.unpack("<IHB", content[place : place + HEADER])
        parts += content[place + HEADER : place + HEADER + length]
        place += HEADER + length
        assert kind in (FULL, FIRST, MIDDLE, LAST), f"{path} is damaged at byte {place}"
        if kind in (FULL, LAST):
            yield wandb_internal_pb2.Record.FromString(parts)
            parts = b""


def read_run(folder: Path) -> dict[str, Any]:
    """What the offline runs in a folder hold together: `ids`, `config`, and the values of each `history` key.

    A nested key has points: `_wandb.value`.
    """
    found: dict[str, Any] = {"ids": set(), "config": {}, "history": {}}
    for path in sorted(folder.glob("offline-run-*/*.wandb")):
        for record in records(path):
            kind = record.WhichOneof("record_type")
            if kind == "run":
                found["ids"].add(record.run.run_id)
                found["config"] |= _items(record.run.config.update)
            elif kind == "config":
                found["config"] |= _items(record.config.update)
            elif kind == "history":
                for key, value in _items(record.history.item).items():
                    found["history"].setdefault(key, []).append(value)
    return found


def _items(updates: Any) -> dict[str, Any]:
    return {each.key or ".".join(each.nested_key): json.loads(each.value_json) for each in updates}
