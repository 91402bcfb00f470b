"""Random access to the samples of a litdata data set, on disk or in object storage."""

import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from abaw.errors import AbawError

_PAUSES = (0.1, 1.0, 5.0, 15.0, 30.0, 60.0)  # seconds before each retry after a connection error
_CHUNK = re.compile(r"chunk-\d+-\d+\.bin", re.ASCII)

_BYTES_CONFIG = {  # configuration that litdata writes to the index for samples of bytes
    "data_format": ["bytes"],
    "data_spec": '[1, {"type": null, "context": null, "children_spec": []}]',
    "compression": None,
    "encryption": None,
    "item_loader": "PyTreeLoader",
}

_T = TypeVar("_T")


def open_litdata(root: Path, url: str | None = None) -> Any:
    """The litdata data set with its index in `root`; with `url`, index and samples are downloaded.

    Raises:
        AbawError: It does not exist or cannot be reached, or litdata is not installed.
    """
    litdata, options = _litdata(), {}
    if url is not None and url.startswith("s3://"):
        from botocore.config import Config  # type: ignore[import-untyped]

        retries = {"max_attempts": 3, "mode": "standard"}  # the defaults of litdata retry for hours
        options["config"] = Config(retries=retries, connect_timeout=10, read_timeout=30)
    where = litdata.streaming.resolver.Dir(path=str(root), url=url)
    stream = _retry(lambda: litdata.StreamingDataset(where, storage_options=options), f"{url or root}")
    _check_index(root, url or root)
    return stream


def _check_index(root: Path, where: Path | str) -> None:
    """Raises AbawError for an index by which litdata would unpickle samples or read files elsewhere."""
    try:
        index = json.loads((root / "index.json").read_bytes())
        config, names = index["config"], [chunk["filename"] for chunk in index["chunks"]]
        as_ours = {name: config.get(name) for name in _BYTES_CONFIG} == _BYTES_CONFIG
        if not as_ours or not all(_CHUNK.fullmatch(name) for name in names):
            raise ValueError("it describes something else than plain bytes in files beside it")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise AbawError(f"{where}: index.json is not that of litdata shards ({error}); pack again") from error


def read_sample(stream: Any, number: int, where: Path | str) -> bytes:
    """A sample by its number; `where` names the data set in messages.

    Raises:
        AbawError: It does not exist, or its storage cannot be reached for minutes.
    """
    return _retry(lambda: bytes(stream[number]), f"{where}: segment {number}")


def open_writer(out: Path, chunk_bytes: int) -> Any:
    """A litdata writer with chunks of about `chunk_bytes`.

    Raises:
        AbawError: litdata is not installed.
    """
    _litdata()
    from litdata.streaming.writer import BinaryWriter

    return BinaryWriter(str(out), chunk_bytes=chunk_bytes)


def _retry(work: Callable[[], _T], what: str) -> _T:
    """The result of `work`, retried after transient errors; raises AbawError for others, or the last."""
    for pause in (*_PAUSES, None):
        try:
            return work()
        except Exception as error:  # every storage client has its own exceptions
            if pause is None or not _is_transient(error):
                raise AbawError(
                    f"{what} cannot be read ({type(error).__name__}: {error}); check the address, the"
                    " credentials and the network"
                ) from error
            time.sleep(pause)
    raise AssertionError("the last attempt returns or raises")


def _is_transient(error: Exception) -> bool:
    """Whether an error is transient: no response, or a server-side status."""
    answer = getattr(error, "response", None) or {}
    status = answer.get("ResponseMetadata", {}).get("HTTPStatusCode")
    if status is not None:
        return bool(status >= 500 or status in (408, 429))
    final = isinstance(
        error, FileNotFoundError | PermissionError | ValueError | LookupError | TypeError | ImportError
    )
    return not final and "Credentials" not in type(error).__name__


def _litdata() -> Any:
    try:
        import litdata
    except ImportError as error:
        raise AbawError("litdata shards need litdata; install it with: pip install 'abaw[stream]'") from error
    return litdata
