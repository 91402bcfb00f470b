"""Pretrained weights: from files of several kinds and from the hub."""

import hashlib
import pickle
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import huggingface_hub
import pytest
import timm
import torch
from huggingface_hub.errors import LocalEntryNotFoundError
from timm.layers import resample_abs_pos_embed
from torch import Tensor, nn

from abaw.errors import AbawError
from abaw.model.backbone import Backbone, BackboneSettings
from tests.support.networks import SMALL, saved, shaken, unreachable


@pytest.fixture(scope="module")
def pretrained() -> nn.Module:
    """The small network as somebody trained it: at 64 pixels, with a classifier."""
    torch.manual_seed(1)
    return shaken(timm.create_model(SMALL.name, num_classes=7, img_size=64, **SMALL.overrides))


def as_ours(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"network.backbone.pooled.net.{name}": value for name, value in state.items()}


@pytest.mark.parametrize(
    ("file", "wrap"),
    [
        ("w.safetensors", lambda state: state),
        ("w.pth", lambda state: state),
        ("w.bin", lambda state: {"state_dict": {f"module.{k}": v for k, v in state.items()}, "epoch": 3}),
        ("w.pt", lambda state: {"model": state, "optimizer": {}, "args": None}),
        ("w.ckpt", lambda state: {"state_dict": as_ours(state) | {"network.heads.x": torch.zeros(1)}}),
    ],
)  # fmt: skip
def test_weights_of_a_file_are_taken_over(tmp_path: Path, pretrained: Any, file: str, wrap: Any) -> None:
    path = saved(tmp_path / file, wrap(pretrained.state_dict()))
    net = Backbone(replace(SMALL, weights=path)).pooled.net
    for name, value in pretrained.state_dict().items():
        if name == "pos_embed":  # from 4 x 4 patches to 2 x 2
            want = resample_abs_pos_embed(value, (2, 2), (4, 4), num_prefix_tokens=1)
            torch.testing.assert_close(net.pos_embed, want)
        elif not name.startswith("head."):
            assert torch.equal(net.state_dict()[name], value), name
    assert net.num_classes == 0


def test_weights_can_be_loaded_later(tmp_path: Path, pretrained: Any) -> None:
    path = saved(tmp_path / "w.pth", pretrained.state_dict())
    backbone = Backbone(replace(SMALL, weights=path, frozen="all"), pretrained=False)
    assert not torch.equal(backbone.pooled.net.norm.bias, pretrained.norm.bias)
    backbone.load_pretrained()
    assert torch.equal(backbone.pooled.net.norm.bias, pretrained.norm.bias)
    assert not backbone.pooled.net.norm.bias.requires_grad


def test_extra_weights_are_left_out_with_a_word(
    tmp_path: Path, pretrained: Any, caplog: pytest.LogCaptureFixture
) -> None:
    state = pretrained.state_dict() | {"decoder.weight": torch.zeros(3)}
    backbone = Backbone(replace(SMALL, weights=saved(tmp_path / "w.pth", state)))
    assert torch.equal(backbone.pooled.net.norm.bias, pretrained.norm.bias)
    assert "decoder.weight" in caplog.text


class Bomb:
    def __reduce__(self) -> Any:
        return (Path.touch, (Path("exploded"),))


def test_a_pickle_that_runs_code_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("old.bin", "new.pth"):
        with Path(name).open("wb") as file:
            pickle.dump(Bomb(), file, protocol=2) if name == "old.bin" else torch.save(
                {"state_dict": Bomb()}, file
            )
        with pytest.raises(AbawError, match=rf"{name} cannot be read as plain weights"):
            Backbone(replace(SMALL, weights=name))
    assert not Path("exploded").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: {k: v for k, v in state.items() if k != "norm.weight"}, r"does not fit.*norm\.weight"),
        (lambda state: state | {"norm.weight": torch.ones(5)}, r"does not fit.*norm\.weight"),
        (lambda state: {"epoch": 3}, "holds no named tensors"),
        (lambda state: [torch.ones(2)], "holds no named tensors"),
    ],
)
def test_weights_of_another_network_are_refused(
    tmp_path: Path, pretrained: Any, change: Any, message: str
) -> None:
    path = saved(tmp_path / "w.pth", change(dict(pretrained.state_dict())))
    with pytest.raises(AbawError, match=message):
        Backbone(replace(SMALL, weights=path))


@pytest.mark.parametrize(
    ("file", "message"), [("none.pth", "no file"), ("page.safetensors", "cannot be read")]
)
def test_a_file_that_is_missing_or_no_weights_is_named(tmp_path: Path, file: str, message: str) -> None:
    (tmp_path / "page.safetensors").write_text("<html>404</html>", encoding="utf-8")
    with pytest.raises(AbawError, match=rf"(?s){message}.*"):
        Backbone(replace(SMALL, weights=str(tmp_path / file)))


def test_without_a_network_the_hub_fails_at_once_and_names_the_cures(monkeypatch: pytest.MonkeyPatch) -> None:
    hub = Mock(side_effect=unreachable)
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", hub)
    with pytest.raises(
        AbawError, match=r"vit_tiny_patch16_224.*weights: PATH.*HF_HUB_OFFLINE=1.*weights: none"
    ):
        Backbone(replace(SMALL, weights="hub"))
    assert hub.call_count == 1


def test_cached_hub_weights_need_no_network(
    tmp_path: Path, pretrained: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(tmp_path / "w.safetensors", pretrained.state_dict())
    asked = {}

    def download(**place: Any) -> str:
        asked.update(place)
        assert place["local_files_only"]
        return path

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", unreachable)
    backbone = Backbone(replace(SMALL, weights="hub"))
    assert torch.equal(backbone.pooled.net.norm.bias, pretrained.norm.bias)
    assert asked["repo_id"].startswith("timm/vit_tiny_patch16_224")


@pytest.mark.parametrize("change", [b"", b"x"])
def test_a_download_must_have_the_published_hash(
    tmp_path: Path, pretrained: Any, monkeypatch: pytest.MonkeyPatch, change: bytes
) -> None:
    original = saved(tmp_path / "w.safetensors", pretrained.state_dict())
    published = hashlib.sha256(Path(original).read_bytes()).hexdigest()
    blob, link = tmp_path / "blob", tmp_path / "link.safetensors"  # as the cache has them

    def download(local_files_only: bool = False, **place: Any) -> str:
        if local_files_only:
            raise LocalEntryNotFoundError("not in the cache")
        blob.write_bytes(Path(original).read_bytes() + change)
        link.symlink_to(blob)
        return str(link)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    monkeypatch.setattr(
        huggingface_hub, "get_hf_file_metadata", lambda *_, **__: SimpleNamespace(etag=published)
    )
    if not change:
        backbone = Backbone(replace(SMALL, weights="hub"))
        assert torch.equal(backbone.pooled.net.norm.bias, pretrained.norm.bias)
        return
    with pytest.raises(AbawError, match=rf"link\.safetensors came with SHA-256 .* of {published[:12]}… as"):
        Backbone(replace(SMALL, weights="hub"))
    assert not blob.exists()
    assert not link.is_symlink()


def test_a_name_without_published_weights_is_named() -> None:
    with pytest.raises(AbawError, match="publishes no weights for maxvit_pico_rw_256"):
        Backbone(BackboneSettings(name="maxvit_pico_rw_256", image_size=256))
