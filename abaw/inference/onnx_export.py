"""Export to ONNX: the network with its pre-processing in one file, checked against PyTorch."""

import io
import json
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from abaw.errors import AbawError
from abaw.files import atomic_path
from abaw.inference.faces import TEMPLATE_SIZE
from abaw.model.network import Network
from abaw.randomness import Purpose, keyed_generator

OPSET = 20
TOLERANCE = 1e-4
"""Largest difference between PyTorch and the exported file that is accepted."""
METADATA = "abaw"
"""Key in the metadata of the file; the value is JSON, as under this key in a checkpoint."""
_LARGEST = 2**31  # bytes of a file in the format of ONNX


class _FramesToPredictions(nn.Module):
    """The network as one function of images and visibility, without loops and without skipped frames."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, frames: Tensor, visible: Tensor) -> tuple[Tensor, ...]:
        """From uint8 (B, T, H, W, 3) and bool (B, T) to float32 (B, T, K) per task and features (B, T, D)."""
        network, backbone = self.network, self.network.backbone
        assert backbone is not None
        features = backbone.pooled(backbone.input(frames.flatten(0, 1))).unflatten(0, visible.shape)
        present = torch.ones_like(visible)
        states = network.temporal(features, visible=visible, present=present)
        outputs = network.predictions(network.heads(states, present))
        return *(outputs[task] for task in network.tasks), features


def export_onnx(network: Network, path: Path, about: Mapping[str, Any], lengths: Sequence[int]) -> float:
    """Writes a network as ONNX, after comparing it with PyTorch on random clips with missing frames.

    Inputs of the file: `frames`, uint8 (B, T, S, S, 3), RGB, aligned faces of S pixels, any value where not
    visible; `visible`, bool (B, T). Outputs, float32: per task, by its name, predictions (B, T, K) as of
    `Network.predictions`; `features` (B, T, D). B and T are free; T is at most `max_length` with learned
    positions.

    Args:
        network: The network, on the CPU.
        path: File to write.
        about: Plain values for the metadata of the file: windows, labels, calibration.
        lengths: Numbers of frames (T) of the clips that are compared.

    Returns:
        The largest difference between the predictions.

    Raises:
        AbawError: The libraries are missing, the network cannot be exported, or the predictions differ.
    """
    if network.backbone is None:
        raise AbawError("this network was trained on cached features: without a backbone it takes no frames")
    size = about.get("frame_size") or TEMPLATE_SIZE
    whole = _FramesToPredictions(network).eval()
    content = _exported(whole, size, about)
    session = _session(content)
    worst = 0.0
    settings = network.temporal.settings
    longest = settings.max_length if settings.positions == "learned" else max(lengths)
    for length in sorted({min(length, longest) for length in lengths}):
        rng = keyed_generator(Purpose.EXPORT, length)
        for hidden in (0.0, 0.3, 1.0):
            frames = rng.integers(0, 256, (1, length, size, size, 3), dtype=np.uint8)
            visible = rng.random((1, length)) >= hidden
            with torch.inference_mode():
                wanted = whole(torch.from_numpy(frames), torch.from_numpy(visible))
            found = session.run(None, {"frames": frames, "visible": visible})
            for one, other in zip(wanted[:-1], found[:-1], strict=True):
                worst = max(worst, float(np.abs(one.numpy() - other).max()))
    if not worst <= TOLERANCE:
        raise AbawError(
            f"{path}: not written, as its predictions differ from those of PyTorch by up to {worst:.2g}, more"
            f" than {TOLERANCE:.0e}; try other versions of torch and onnxruntime"
        )
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)
    return worst


def _exported(whole: _FramesToPredictions, size: int, about: Mapping[str, Any]) -> bytes:
    """The content of the file, checked by ONNX."""
    with _libraries():
        import onnx
        import onnxscript  # noqa: F401 - the exporter needs it, and names it badly
    n_bytes = sum(tensor.numel() * tensor.element_size() for tensor in whole.parameters())
    if n_bytes >= _LARGEST:
        raise AbawError(
            f"the weights take {n_bytes / 1e9:.1f} GB, a file in the format of ONNX at most 2.1 GB"
        )
    frames = torch.zeros((2, 3, size, size, 3), dtype=torch.uint8)  # sizes of 1 would become fixed
    visible = torch.ones((2, 3), dtype=torch.bool)
    free = {0: torch.export.Dim("batch"), 1: torch.export.Dim("time")}
    try:
        with _quiet():
            program = torch.onnx.export(
                whole,
                (frames, visible),
                dynamo=True,
                dynamic_shapes={"frames": free, "visible": free},
                input_names=["frames", "visible"],
                output_names=[*(task.name for task in whole.network.tasks), "features"],
                opset_version=OPSET,
                verbose=False,
            )
    except (torch.onnx.errors.OnnxExporterError, RuntimeError) as error:
        reason = str(error).strip().partition("\n")[0][:300]
        raise AbawError(f"the network cannot be exported to ONNX ({reason})") from error
    assert program is not None
    model = program.model_proto
    model.metadata_props.add(key=METADATA, value=json.dumps(dict(about)))
    buffer = io.BytesIO()
    onnx.save_model(model, buffer)
    content = buffer.getvalue()
    onnx.checker.check_model(content, full_check=True)
    return content


def _session(content: bytes) -> Any:
    with _libraries():
        import onnxruntime
    return onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])


@contextmanager
def _libraries() -> Iterator[None]:
    """Context that says how to install what an import lacks."""
    try:
        yield
    except ImportError as error:
        raise AbawError(
            f"ONNX needs {error.name}, which is not installed: pip install onnx onnxscript onnxruntime, or"
            " install this package with its extra, abaw[onnx]"
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Context without the exporter's messages on its own workings."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
