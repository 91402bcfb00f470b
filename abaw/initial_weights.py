"""Weights for a new training from a checkpoint of another: which of them fit, and what is said about it."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from torch import Tensor

from abaw.checkpoints import load_checkpoint
from abaw.errors import AbawError
from abaw.model.network import Network

_PREFIX = "network."  # of the network in a checkpoint
_BACKBONE = "backbone."
_MOST_NAMED = 4


def load_initial_weights(network: Network, path: Path | str) -> str:
    """Loads those weights of a checkpoint that the network has too, by name and shape.

    Where the checkpoint does not bring the whole backbone, that takes the pretrained weights of its settings
    first. If the training averaged its weights, the average is what is loaded.

    Args:
        network: Changed in place.
        path: A checkpoint of any training: other tasks, another window, images or features.

    Returns:
        What was taken, what of the checkpoint was left and what of the network is new, in some lines.

    Raises:
        AbawError: The checkpoint is not there, is damaged, or none of its weights fits.
    """
    weights = load_checkpoint(path)["state_dict"]
    given = {n.removeprefix(_PREFIX): w for n, w in weights.items() if n.startswith(_PREFIX)}
    own = network.state_dict()
    taken = {name: given[name] for name, w in own.items() if name in given and given[name].shape == w.shape}
    if not taken:
        raise AbawError(
            f"{path}: none of its {len(given)} tensors fits the network by name and shape; train one like it"
            " (model.temporal, model.backbone), or leave out --init_from"
        )
    missing = own.keys() - taken.keys()
    if network.backbone is not None and any(name.startswith(_BACKBONE) for name in missing):
        network.load_pretrained()
    network.load_state_dict(taken, strict=False)
    return _report(path, own, given, taken)


def _report(
    path: Path | str, own: Mapping[str, Tensor], given: Mapping[str, Tensor], taken: Mapping[str, Tensor]
) -> str:
    other = [name for name in own if name in given and name not in taken]
    new = [name for name in own if name not in given]
    left = [name for name in given if name not in own]
    counts = ", ".join(f"{part} {len(names)}" for part, names in _by_part(taken).items())
    lines = [f"{path}: {len(taken)} of the network's {len(own)} tensors taken: {counts}"]
    for what, names in (
        ("of another shape, not taken", other),
        ("not in the checkpoint", new),
        ("not in the network, left", left),
    ):
        parts = [f"{part} {len(all_)} ({_some(all_)})" for part, all_ in _by_part(names).items()]
        lines += [f"  {what}: {', '.join(parts)}"] if parts else []
    return "\n".join(lines)


def _by_part(names: Iterable[str]) -> dict[str, list[str]]:
    """Names by the part of the network that they belong to: backbone, temporal, heads.va and so on."""
    parts: dict[str, list[str]] = {}
    for name in names:
        first, *rest = name.split(".")
        if first == "heads":  # heads.heads.va.1.weight
            first, rest = f"heads.{rest[1]}", rest[2:]
        parts.setdefault(first, []).append(".".join(rest).removeprefix("pooled.net."))
    return parts


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return ", ".join(names[:_MOST_NAMED]) + more
