"""Reader and writer of memory-mapped safetensors files with named arrays, metadata and a checksum."""

import json
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from abaw.files import atomic_path

_DTYPES: dict[str, np.dtype[Any]] = {
    "I64": np.dtype("<i8"),
    "F32": np.dtype("<f4"),
    "I8": np.dtype("i1"),
    "U8": np.dtype("u1"),
}  # largest item size first, for alignment

_NAMES = {dtype: name for name, dtype in _DTYPES.items()}


class DamagedFileError(ValueError):
    """The file is not a complete file of `write_arrays`."""


def write_arrays(path: Path, parts: Mapping[str, Sequence[NDArray[Any]]], metadata: str) -> None:
    """Writes arrays, each the concatenation of its parts, without concatenating them in memory.

    Args:
        path: Output file, replaced atomically.
        parts: By name, one or more arrays of one dtype (int64, float32, int8, uint8) and equal trailing
            shape.
        metadata: Text stored with the arrays.
    """
    order = sorted(parts, key=lambda name: list(_DTYPES).index(_NAMES[parts[name][0].dtype]))
    header: dict[str, Any] = {}
    offset, checksum = 0, zlib.crc32(metadata.encode())
    for name in order:
        pieces = parts[name]
        n_bytes = sum(piece.nbytes for piece in pieces)
        shape = [sum(len(piece) for piece in pieces), *pieces[0].shape[1:]]
        header[name] = {
            "dtype": _NAMES[pieces[0].dtype],
            "shape": shape,
            "data_offsets": [offset, offset + n_bytes],
        }
        offset += n_bytes
        for piece in pieces:
            checksum = zlib.crc32(np.ascontiguousarray(piece).data, checksum)
    header["__metadata__"] = {"note": metadata, "crc32": str(checksum)}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in order:
            for piece in parts[name]:
                file.write(np.ascontiguousarray(piece).data)


def open_arrays(path: Path, *, verify: bool) -> tuple[dict[str, NDArray[Any]], str]:
    """The memory-mapped, read-only arrays of a file by name, and its metadata.

    Args:
        path: File written by `write_arrays`.
        verify: Whether to read the whole file and verify its checksum.

    Raises:
        DamagedFileError: The file is truncated, altered or of another format.
        OSError: The file cannot be opened.
    """
    try:
        raw = np.asarray(np.memmap(path, np.uint8, "r"))  # a plain array: slicing a memmap object is slow
        start = 8 + int.from_bytes(raw[:8].tobytes(), "little")
        header = json.loads(raw[8:start].tobytes())
        described = header.pop("__metadata__")
        arrays: dict[str, NDArray[Any]] = {}
        end, checksum = 0, zlib.crc32(described["note"].encode())
        for name, entry in header.items():
            end = entry["data_offsets"][1]
            data = raw[start + entry["data_offsets"][0] : start + end]
            arrays[name] = data.view(_DTYPES[entry["dtype"]]).reshape(entry["shape"])
            checksum = zlib.crc32(data.data, checksum) if verify else checksum
        if start + end != len(raw) or (verify and str(checksum) != described["crc32"]):
            raise DamagedFileError(f"{path}: the content does not match its checksum or length")
        return arrays, described["note"]
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise DamagedFileError(f"{path}: not a complete file of arrays ({error})") from error
