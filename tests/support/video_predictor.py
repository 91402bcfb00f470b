"""A small network that predicts videos, and its checkpoint."""

from pathlib import Path

import torch

from abaw.inference.predictor import Predictor, load
from abaw.model.checkpoints import FORMAT
from tests.support.networks import shaken, small_network

WINDOWS = {"window": 8, "stride": 4, "step": 1}
SIZE = 32


def video_checkpoint(path: Path) -> Path:
    """Writes a checkpoint of a network whose predictions depend on every weight."""
    network = shaken(small_network())
    with torch.no_grad():  # predictions that differ visibly from frame to frame
        for parameter in network.heads.parameters():
            parameter.mul_(4)
    weights = {f"network.{name}": weight for name, weight in network.state_dict().items()}
    about = {"format": FORMAT, "network": network.describe(), "windows": WINDOWS, "frame_size": SIZE}
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"abaw": about, "state_dict": weights}, path)
    return path


def video_predictor(folder: Path) -> Predictor:
    """The network on the CPU."""
    return load(video_checkpoint(folder / "best.ckpt"), device="cpu")
