"""Model folders: the weights of a network and what it needs to predict, without executable code.

A folder holds `model.safetensors`, the tensors of the network; `config.json`, plain values under the key
`abaw` as in a checkpoint; `README.md`, its card; and, if asked for, `model.onnx`. It is a repository of the
Hugging Face hub as it stands.
"""

import json
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from abaw.errors import AbawError, UsageError
from abaw.files import check_writable, delete_unless, from_hub, not_written
from abaw.model.checkpoints import FORMAT, network_weights

WEIGHTS, CONFIG, CARD, ONNX = "model.safetensors", "config.json", "README.md", "model.onnx"
_KEPT = ("abaw", "state_dict", "epoch", "global_step", "pytorch-lightning_version")
_PRIVATE = ("settings",)  # of the training, with names of files of its machine


def slim(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """A loaded checkpoint without optimizer, averages and the state of the training.

    It predicts, is scored, and initialises another training; it cannot be resumed.
    """
    return {name: checkpoint[name] for name in _KEPT if name in checkpoint}


def is_model_folder(path: Path) -> bool:
    """Whether a path is a folder with weights and a configuration."""
    return all((path / name).is_file() for name in (WEIGHTS, CONFIG))


def public_values(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """The plain values of a loaded checkpoint that are passed on: without the settings of its training."""
    return {name: value for name, value in checkpoint["abaw"].items() if name not in _PRIVATE}


def write_model_folder(
    checkpoint: Mapping[str, Any],
    folder: Path,
    card: str,
    add: Callable[[Path], object] | None = None,
) -> None:
    """Writes a model folder, whole or not at all.

    Args:
        checkpoint: A loaded checkpoint.
        folder: The folder, which is created; an existing one must be empty.
        card: Text of its `README.md`.
        add: Called with the folder in which further files are to be written; None: there are none.

    Raises:
        UsageError: The folder holds files.
        AbawError: It cannot be written.
    """
    from safetensors.torch import save_file

    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder}: already exists; name another folder, or remove it")
    check_writable(folder)
    temporary = folder.with_name(f".{folder.name}.tmp")
    try:
        shutil.rmtree(temporary, ignore_errors=True)  # of an earlier attempt
        temporary.mkdir(parents=True)
        tensors = {name: tensor.contiguous() for name, tensor in network_weights(checkpoint).items()}
        save_file(tensors, temporary / WEIGHTS, metadata={"format": "pt"})
        (temporary / WEIGHTS).chmod(0o644)  # the library lets nobody else read it
        text = json.dumps({"library_name": "abaw", "abaw": public_values(checkpoint)}, indent=2)
        (temporary / CONFIG).write_text(f"{text}\n", encoding="utf-8")
        (temporary / CARD).write_text(card, encoding="utf-8")
        if add is not None:
            add(temporary)
        if folder.exists():
            folder.rmdir()
        temporary.rename(folder)
    except OSError as error:
        raise not_written(folder, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def read_model_folder(folder: Path) -> dict[str, Any]:
    """The content of a model folder, in the form of a loaded checkpoint; no code in it is executed.

    Raises:
        AbawError: A file is missing or damaged, or is of another format.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        about = json.loads((folder / CONFIG).read_text(encoding="utf-8"))["abaw"]
        found = about["format"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise AbawError(f"{folder / CONFIG}: not of a model of abaw ({reason}); export it again") from error
    if found != FORMAT:
        raise AbawError(
            f"{folder / CONFIG}: has format {found}, this abaw reads {FORMAT}; use the abaw that wrote it"
        )
    try:
        tensors = load_file(folder / WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise AbawError(f"{folder / WEIGHTS}: missing or damaged ({error}); export it again") from error
    return {"abaw": about, "state_dict": {f"network.{name}": value for name, value in tensors.items()}}


def is_hub_name(text: str) -> bool:
    """Whether a text could be the name of a repository of the hub, and is no path: owner/name."""
    return re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", text) is not None and not Path(text).exists()


def fetch_model_folder(name: str) -> Path:
    """The folder of a model of the Hugging Face hub in the local cache, downloaded if it is not there.

    Args:
        name: Name of the repository, owner/name.

    Raises:
        AbawError: The hub cannot be reached, has no such model, or a file came damaged.
    """
    for file in (CONFIG, WEIGHTS):
        try:
            path, etag = from_hub(name, file)
        except ConnectionError as error:
            reason = str(error).splitlines()[0][:120]
            raise AbawError(
                f"{name}: there is no such file or folder here, and {file} of a model of that name could not"
                f" be downloaded from the Hugging Face hub ({reason}); correct the path or the name, or"
                " download the repository where there is a network and name its folder"
            ) from error
        if etag and len(etag) == 64 and (found := delete_unless(path, etag)) is not None:
            raise AbawError(
                f"{path}: came with SHA-256 {found[:12]}… instead of {etag[:12]}… as published, and was"
                " deleted; try again"
            )
    return path.parent
