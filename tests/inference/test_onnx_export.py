"""The exported network predicts what PyTorch predicts, and says in its metadata what it needs."""

import builtins
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from abaw.batch import Batch
from abaw.errors import AbawError
from abaw.inference import onnx_export
from abaw.inference.onnx_export import METADATA, TOLERANCE, export_onnx
from abaw.model.backbone import BackboneSettings
from abaw.model.heads import HeadSettings
from abaw.model.network import Network
from abaw.model.temporal import TemporalSettings
from abaw.tasks import TASKS
from abaw.windows import Window
from tests.support.networks import shaken

SIZE = 32
ABOUT = {"frame_size": SIZE, "windows": {"window": 8, "stride": 4, "step": 1}}


def network(*, backbone: dict[str, Any] | None = None, **temporal: Any) -> Network:
    small = {"name": "vit_tiny_patch16_224", "overrides": {"depth": 1, "embed_dim": 48}}
    settings = {"layers": 1, "heads": 2, "width": 32, "feedforward": 32} | temporal
    torch.manual_seed(0)
    made = Network(
        tasks=TASKS,
        backbone=BackboneSettings(**{"weights": "none", "image_size": SIZE} | small | (backbone or {})),
        temporal=TemporalSettings(**settings),
        heads=HeadSettings(),
    )
    return shaken(made).eval()


def of_torch(made: Network, frames: np.ndarray, visible: np.ndarray) -> dict[str, np.ndarray]:
    """Predictions by the way of training and evaluation, in which hidden frames are left out."""
    b, t = visible.shape
    shown = torch.from_numpy(visible)
    batch = Batch(
        frames=torch.from_numpy(frames)[shown],
        present=torch.ones(b, t, dtype=torch.bool),
        visible=shown,
        where=(Window(0, 0, t),) * b,
        n_bad_frames=torch.zeros(b, dtype=torch.long),
    )
    with torch.inference_mode():
        return {task.name: each.numpy() for task, each in made.predictions(made(batch)).items()}


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [
        {},
        {"positions": "rotary", "causal": True, "context": 5},
        {"positions": "learned", "norm": "post", "mask_token": "zero", "attend_masked": True},
        {"layers": 0, "width": None, "backbone": {"name": "convnextv2_atto", "overrides": {}}},
        {"positions": "none", "backbone": {"image_size": 48}},  # resized within
    ],
    ids=lambda change: "-".join(map(str, change)) or "default",
)
def test_it_predicts_as_pytorch_for_any_length_and_any_missing_frames(
    change: dict[str, Any], tmp_path: Path
) -> None:
    made, path = network(**change), tmp_path / "model.onnx"
    assert export_onnx(made, path, ABOUT, lengths=(1, 7)) <= TOLERANCE
    onnx.checker.check_model(str(path), full_check=True)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert [given.name for given in session.get_inputs()] == ["frames", "visible"]
    names = [output.name for output in session.get_outputs()]
    assert names == ["va", "expr", "au", "features"]
    rng = np.random.default_rng(0)
    for b, t in ((1, 1), (2, 7), (1, 64), (1, 300)):
        frames = rng.integers(0, 256, (b, t, SIZE, SIZE, 3), dtype=np.uint8)
        for hidden in (0.0, 0.4, 1.0):
            visible = rng.random((b, t)) >= hidden
            found = dict(zip(names, session.run(None, {"frames": frames, "visible": visible}), strict=True))
            for name, wanted in of_torch(made, frames, visible).items():
                np.testing.assert_allclose(found[name], wanted, atol=1e-4, rtol=0, err_msg=f"{name} {b} {t}")
    metadata = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    assert json.loads(metadata[METADATA]) == ABOUT


@pytest.mark.slow
def test_a_file_that_differs_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_export, "TOLERANCE", 0.0)
    with pytest.raises(AbawError, match="differ from those of PyTorch"):
        export_onnx(network(), tmp_path / "model.onnx", ABOUT, lengths=(3,))
    assert not list(tmp_path.iterdir())


def test_a_network_without_backbone_is_refused(tmp_path: Path) -> None:
    without = Network(
        tasks=TASKS, backbone=None, dim=16, temporal=TemporalSettings(layers=0), heads=HeadSettings()
    )
    with pytest.raises(AbawError, match="cached features"):
        export_onnx(without, tmp_path / "model.onnx", ABOUT, lengths=(1,))


def test_a_network_that_is_too_large_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_export, "_LARGEST", 1000)
    with pytest.raises(AbawError, match=r"at most 2\.1 GB"):
        export_onnx(network(), tmp_path / "model.onnx", ABOUT, lengths=(1,))


def test_missing_libraries_are_named_with_the_cure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = builtins.__import__

    def without(name: str, *more: Any) -> Any:
        if name.startswith("onnx"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return plain(name, *more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(AbawError, match=r"ONNX needs onnx, which is not installed: pip install onnx"):
        export_onnx(network(), tmp_path / "model.onnx", ABOUT, lengths=(1,))
