"""Small networks for tests, and their weights in files."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from abaw.model.backbone import BackboneSettings
from abaw.model.heads import HeadSettings
from abaw.model.network import Network
from abaw.model.temporal import TemporalEncoder, TemporalSettings
from abaw.tasks import TASKS, Task

SMALL = BackboneSettings(
    name="vit_tiny_patch16_224",
    weights="none",
    image_size=32,
    overrides={"depth": 3, "embed_dim": 32, "num_heads": 2},
)


def shaken(net: Any) -> Any:
    """A network no parameter or statistic of which has its first value: nothing can be lost unseen."""
    with torch.no_grad():
        for tensor in (*net.parameters(), *net.buffers()):
            if tensor.is_floating_point():
                tensor.add_(0.02 * torch.randn_like(tensor))
    return net.eval()


def saved(path: Path, state: Any) -> str:
    """The path of a file that holds these weights, in the format that its suffix says."""
    if path.suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save(state, path)
    return str(path)


ALL = TASKS
EYES = BackboneSettings(
    name="vit_tiny_patch16_224",
    weights="none",
    image_size=32,
    overrides={"depth": 1, "embed_dim": 32, "num_heads": 2},
)
SEQUENCE = TemporalSettings(layers=1, heads=2, width=16, feedforward=16, dropout=0.0)
HEADS = HeadSettings(dropout=0.0)


def small_network(
    tasks: tuple[Task, ...] = ALL,
    backbone: BackboneSettings | None = EYES,
    heads: HeadSettings = HEADS,
    dim: int | None = None,
    **temporal: Any,
) -> Network:
    """A network with the same first weights every time, in eval mode."""
    torch.manual_seed(0)
    sequence = replace(SEQUENCE, **temporal)
    return Network(tasks=tasks, backbone=backbone, temporal=sequence, heads=heads, dim=dim).eval()


SMALL_TEMPORAL = TemporalSettings(layers=2, heads=2, width=16, feedforward=24, dropout=0.0)


def small_temporal(dim: int = 12, **change: Any) -> TemporalEncoder:
    """A temporal encoder with the same first weights every time, in eval mode."""
    torch.manual_seed(0)
    return TemporalEncoder(replace(SMALL_TEMPORAL, **change), dim=dim).eval()


def unreachable(*args: Any, **kwargs: Any) -> Any:
    """Stands in for a call to the hub where there is no network connection."""
    raise ConnectionError("Name or service not known")
