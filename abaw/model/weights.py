"""Pretrained weights of a backbone: download, reading without executing code, strict loading."""

import argparse
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from abaw.errors import AbawError
from abaw.files import delete_unless, from_hub

log = logging.getLogger(__name__)
StateDict = dict[str, Tensor]
OWN_PREFIX = "backbone.pooled.net."
"""Prefix of the timm network in a checkpoint of this package, after that of the whole network."""
_WRAPPERS = ("state_dict_ema", "model_ema", "state_dict", "model")  # averaged weights first


def hub_file(name: str, published: Any) -> Path:
    """Path of a timm model's weights in the local cache, downloaded from the Hugging Face hub if absent.

    A cached file is used without network access. A downloaded one must have the hash that the hub publishes.

    Args:
        name: timm's name of the model, for the message.
        published: timm's `PretrainedCfg` of it.

    Raises:
        AbawError: There are no published weights, the hub cannot be reached, or the hash differs.
    """
    if not published.hf_hub_id:
        raise AbawError(
            f"model.backbone.weights: timm publishes no weights for {name}; choose another name or tag, "
            "give a file (weights: PATH), or start from random weights (weights: none)"
        )
    repository, _, revision = published.hf_hub_id.partition("@")
    filename = published.hf_hub_filename or "model.safetensors"
    try:
        path, sha256 = from_hub(repository, filename, revision or None)
    except ConnectionError as error:
        raise AbawError(
            f"model.backbone.weights: the weights of {name} are not in the local cache and "
            f"{repository} could not be downloaded ({_shorten(error)}); give a downloaded file with "
            "weights: PATH, or download once where there is a network, copy the Hugging Face cache (HF_HOME) "
            "here and set HF_HUB_OFFLINE=1, or start from random weights with weights: none"
        ) from error
    if sha256 is not None:
        verify_hash(path, sha256)
    return path


def verify_hash(path: Path, published: str) -> None:
    """Deletes a downloaded file whose hash is not the published one.

    Args:
        path: The file.
        published: The server's ETag: for large files on the hub the SHA-256, 64 hexadecimal digits.

    Raises:
        AbawError: The hashes differ.
    """
    if len(published) != 64:
        log.warning("%s: its source publishes no SHA-256, so the download could not be verified", path)
    elif (found := delete_unless(path, published)) is not None:
        raise AbawError(
            f"model.backbone.weights: {path} came with SHA-256 {found[:12]}… instead of {published[:12]}… as"
            " published, and was deleted; try again"
        )


def read_state_dict(path: Path) -> StateDict:
    """State dict of a .safetensors, .bin, .pt, .pth or .ckpt file; no code in it is executed.

    The keys `state_dict` and `model` are unwrapped, the prefixes of DDP and torch.compile removed. Of a
    checkpoint of this package, returns the backbone.

    Raises:
        AbawError: The file is missing, or does not load as plain tensors.
    """
    if not path.is_file():
        raise AbawError(f"model.backbone.weights: no file {path}; give a file of weights, or hub, or none")
    try:
        state: Any = _load(path)
    except Exception as error:  # the exceptions of pickle, zip and safetensors have no common class
        raise AbawError(
            f"model.backbone.weights: {path} cannot be read as plain weights ({_shorten(error)}); "
            "save the state dict alone, best as .safetensors"
        ) from error
    if isinstance(state, dict):
        inner = [state[key] for key in _WRAPPERS if isinstance(state.get(key), dict)]
        state = inner[0] if inner else state
        state = {str(key): value for key, value in state.items() if isinstance(value, Tensor)}
    if not isinstance(state, dict) or not state:
        raise AbawError(
            f"model.backbone.weights: {path} holds no named tensors; give a file with a state dict"
        )
    own = {key.partition(OWN_PREFIX)[2]: value for key, value in state.items() if OWN_PREFIX in key}
    return own or {key.removeprefix("module.").removeprefix("_orig_mod."): v for key, v in state.items()}


def _load(path: Path) -> Any:
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    with torch.serialization.safe_globals([argparse.Namespace]):  # many trainers also save their arguments
        return torch.load(path, map_location="cpu", weights_only=True)


def build_with(
    create: Callable[..., Any], state: StateDict, classifier: str | tuple[str, ...] | None, source: str
) -> Any:
    """A timm network with the weights `state`, converted by timm, position embeddings resampled.

    Args:
        create: `timm.create_model` with all arguments but the weights bound, without classifier.
        state: The weights.
        classifier: Names of layers whose weights are dropped.
        source: Name of the weights in messages.

    Raises:
        AbawError: Weights are missing or of another shape.
    """
    names = (classifier,) if isinstance(classifier, str) else classifier or ()
    body = {key: value for key, value in state.items() if not key.startswith(tuple(f"{n}." for n in names))}
    plain = {"state_dict": body, "custom_load": False, "label_offset": 0, "source": ""}
    try:
        # timm loads strictly when weights and network have the same number of classes: none
        return create(pretrained=True, pretrained_cfg_overlay=plain | {"num_classes": 0})
    except RuntimeError as error:
        title, _, findings = str(error).partition("\n")
        if "Unexpected key" in findings and "Missing key" not in findings and "size mismatch" not in findings:
            log.warning("%s: not used by the network: %s", source, _shorten(findings))
            # the network is complete without them: decoder, projection or other head
            return create(pretrained=True, pretrained_cfg_overlay=plain)
        raise AbawError(
            f"model.backbone.weights: {source} does not fit model.backbone.name "
            f"({_shorten(findings or title)}); give weights of that network, or the name they belong to"
        ) from error


def _shorten(message: object, limit: int = 200) -> str:
    """The first line of a message, cut to `limit` characters."""
    line = str(message).strip().partition("\n")[0] or type(message).__name__
    return line if len(line) <= limit else f"{line[:limit]}…"
