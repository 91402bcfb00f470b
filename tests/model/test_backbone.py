import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import timm
import torch
import torch.nn.functional as F
from timm.layers import DropPath
from torch import Tensor

from abaw.errors import UsageError
from abaw.model.backbone import Backbone, BackboneSettings, PixelInput
from tests.support.networks import SMALL, saved, shaken, unreachable

RESNET = BackboneSettings(name="resnet10t", weights="none", image_size=32)


def some_frames(n: int = 3, size: int = 32) -> Tensor:
    g = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (n, size, size, 3), generator=g, dtype=torch.uint8)


# -- features


def hand_made(net: Any, frames: Tensor, size: int, mean: float | tuple[float, ...], std: Any) -> Tensor:
    """What timm's forward_features makes of frames resized and normalised in the usual order."""
    images = frames.permute(0, 3, 1, 2).float() / 255
    if images.shape[-1] != size:
        images = F.interpolate(images, size, mode="bicubic", antialias=images.shape[-1] > size)
    mean, std = (torch.tensor(value).view(-1, 1, 1) for value in (mean, std))
    places: Tensor = net.forward_features((images - mean) / std)
    return places


@pytest.mark.parametrize(
    ("name", "depth", "frames"),
    [
        ("vit_tiny_patch16_224", 2, 1),
        pytest.param("vit_base_patch16_224.orig_in21k", 12, 2, marks=pytest.mark.slow),
    ],
)
def test_features_are_the_mean_of_the_normed_patch_tokens(
    tmp_path: Path, name: str, depth: int, frames: int
) -> None:
    torch.manual_seed(0)
    net = shaken(timm.create_model(name, depth=depth, num_classes=10))
    path = saved(tmp_path / "weights.safetensors", net.state_dict())
    settings = BackboneSettings(name=name, weights=path, overrides={"depth": depth})
    with torch.inference_mode():
        got = Backbone(settings).eval()(some_frames(frames, 112))
        tokens = hand_made(net, some_frames(frames, 112), 224, 0.5, 0.5)  # after net.norm
    assert got.shape == (frames, net.embed_dim)
    torch.testing.assert_close(got, tokens[:, 1:].mean(1), atol=1e-5, rtol=1e-5)
    # the norm is that of the file, and the class token would have been another feature
    assert not torch.allclose(got, tokens[:, 0], atol=1e-2)


IMAGENET: Any = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def fc_normed(net: Any, x: Tensor) -> Any:
    return net.fc_norm(x[:, 4:].mean(1))  # four registers, and the norm behind the mean


def head_normed(net: Any, x: Tensor) -> Any:
    return net.head.norm(x.mean((2, 3), keepdim=True)).flatten(1)


SWIN = {"embed_dim": 16, "depths": [1, 1], "num_heads": [1, 2], "window_size": 4}


@pytest.mark.parametrize(
    ("name", "size", "overrides", "colours", "average"),
    [
        ("resnet10t", 40, {}, IMAGENET, lambda net, x: x.mean((2, 3))),
        ("swin_tiny_patch4_window7_224", 32, SWIN, IMAGENET, lambda net, x: x.mean((1, 2))),
        ("vit_tiny_r_s16_p8_224", 64, {"depth": 1}, (0.5, 0.5), lambda net, x: x[:, 1:].mean(1)),
        ("vit_small_patch14_reg4_dinov2", 28, {"depth": 1}, IMAGENET, lambda net, x: x[:, 5:].mean(1)),
        ("vit_little_patch16_reg4_gap_256", 32, {"depth": 1}, (0.5, 0.5), fc_normed),
        ("deit_tiny_distilled_patch16_224", 32, {"depth": 1}, IMAGENET, lambda net, x: x[:, 2:].mean(1)),
        ("convnext_atto", 32, {}, IMAGENET, head_normed),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_any_network_of_timm_gives_its_average(
    name: str, size: int, overrides: dict[str, Any], colours: Any, average: Any
) -> None:
    torch.manual_seed(0)
    settings = BackboneSettings(name=name, weights="none", image_size=size, overrides=overrides)
    backbone = Backbone(settings)
    net = shaken(backbone.pooled.net)
    with torch.inference_mode():
        want = average(net, hand_made(net, some_frames(2, 48), size, *colours))
        got = backbone.eval()(some_frames(2, 48))
    torch.testing.assert_close(got, want, atol=1e-4, rtol=1e-4)
    assert got.shape == (2, backbone.dim)


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "vit_base_patch16_siglip_224", "resnet10t"])
def test_every_parameter_is_used(name: str) -> None:
    overrides = {} if name == "resnet10t" else {"depth": 1, "embed_dim": 32, "num_heads": 2}
    backbone = Backbone(replace(SMALL, name=name, overrides=overrides))
    for frames in (some_frames(), some_frames(0)):
        backbone.zero_grad()
        backbone(frames).sum().backward()
        assert all(parameter.grad is not None for parameter in backbone.parameters())


def test_no_frames_give_no_features() -> None:
    backbone = Backbone(SMALL)
    empty = backbone(some_frames(0))
    assert empty.shape == (0, 32)
    assert empty.dtype == torch.float32


@pytest.mark.parametrize("chunk", [1, 2, 3, None])
def test_chunks_change_nothing_but_the_memory(chunk: int | None) -> None:
    torch.manual_seed(0)
    backbone = Backbone(SMALL).eval()
    whole = backbone(some_frames(5))
    seen = []
    backbone.pooled.register_forward_hook(lambda module, inputs, output: seen.append(len(inputs[0])))
    backbone.settings = replace(SMALL, chunk=chunk)
    torch.testing.assert_close(backbone(some_frames(5)), whole, atol=1e-5, rtol=1e-5)
    assert max(seen) == (chunk or 5)
    assert sum(seen) == 5


def test_autocast_leaves_the_features_close() -> None:
    backbone = Backbone(SMALL).eval()
    exact = backbone(some_frames())
    with torch.autocast("cpu", torch.bfloat16):
        rough = backbone(some_frames())
    assert rough.dtype == torch.float32
    torch.testing.assert_close(rough, exact, atol=0.05, rtol=0.05)


@pytest.mark.parametrize(
    ("name", "norm", "overrides"),
    [
        ("hiera_tiny_224", "head.norm", {"stages": (1, 1, 1, 1)}),
        ("vit_tiny_patch16_224", "norm", {"depth": 1}),
        ("vit_tiny_patch16_224", "fc_norm", {"depth": 1, "global_pool": "avg", "fc_norm": True}),
        ("test_convnext", "head.norm", {}),
        ("swin_tiny_patch4_window7_224", "norm", {"depths": (1, 1, 1, 1)}),
        ("cait_xxs24_224", "norm", {"depth": 1}),
    ],
)
def test_the_final_norm_is_applied(name: str, norm: str, overrides: dict[str, Any]) -> None:
    """Wherever the network has it: what pretraining put there would be lost otherwise."""
    settings = BackboneSettings(name=name, weights="none", image_size=224, overrides=overrides)
    backbone = Backbone(settings).eval()
    final = backbone.pooled.net.get_submodule(norm)
    with torch.no_grad():
        before = backbone(some_frames(2))
        final.weight.mul_(2)
        torch.testing.assert_close(backbone(some_frames(2)), 2 * before)  # its bias is 0


@pytest.mark.parametrize(
    ("name", "overrides", "n_tokens"),
    [("volo_d1_224", {}, 197), ("coat_lite_tiny", {}, 50)],
)
def test_a_class_token_that_timm_does_not_count_is_left_out(
    name: str, overrides: dict[str, Any], n_tokens: int
) -> None:
    settings = BackboneSettings(name=name, weights="none", image_size=224, overrides=overrides)
    backbone = Backbone(settings).eval()
    net = shaken(backbone.pooled.net)
    with torch.no_grad():
        tokens = net.forward_features(backbone.input(some_frames(1)))
        assert tokens.shape[1] == n_tokens
        torch.testing.assert_close(backbone(some_frames(1)), tokens[:, 1:].mean(1))


# -- pixels


@pytest.mark.parametrize("mode", ["bicubic", "bilinear"])
@pytest.mark.parametrize(("before", "after"), [(28, 56), (56, 28), (40, 40)])
def test_pixels_are_resized_and_normalised_in_float32(mode: str, before: int, after: int) -> None:
    frames = some_frames(2, before)
    pixels = PixelInput(image_size=after, mean=IMAGENET[0], std=IMAGENET[1], interpolation=mode)
    images = frames.permute(0, 3, 1, 2).double() / 255
    if before != after:
        images = F.interpolate(images, after, mode=mode, antialias=before > after)
    mean, std = (torch.tensor(value).view(3, 1, 1) for value in IMAGENET)
    with torch.autocast("cpu", torch.bfloat16):
        got = pixels(frames)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, ((images - mean) / std).float(), atol=1e-5, rtol=1e-5)


def test_colours_and_resizing_follow_the_pretrained_weights_and_can_be_set() -> None:
    assert Backbone(SMALL).settings.mean == (0.5, 0.5, 0.5)
    assert Backbone(RESNET).settings.std == IMAGENET[1]
    assert Backbone(RESNET).settings.interpolation == "bicubic"
    own = Backbone(replace(SMALL, mean=(0.1, 0.2, 0.3), interpolation="bilinear"))
    assert own.input.mean.flatten().tolist() == pytest.approx([25.5, 51.0, 76.5])
    assert own.input.interpolation == "bilinear"


# -- training


def test_freezing_by_depth_counts_the_stem_first() -> None:
    backbone = Backbone(replace(SMALL, frozen=2))
    trained = {name.split(".")[0] + name.split(".")[1] * name.startswith("blocks") for name, p in
               backbone.pooled.net.named_parameters() if p.requires_grad}  # fmt: skip
    assert backbone.n_layers == 4  # the stem and three blocks, the last with the norm
    assert trained == {"blocks1", "blocks2", "norm"}
    assert not any(p.requires_grad for p in Backbone(replace(SMALL, frozen="all")).parameters())
    with pytest.raises(UsageError, match=r"model\.backbone\.frozen.*4 layers"):
        Backbone(replace(SMALL, frozen=5))


def test_frozen_layers_stay_calm_in_training_mode() -> None:
    backbone = Backbone(replace(RESNET, frozen="all")).train()
    before = {name: value.clone() for name, value in backbone.named_buffers()}
    backbone(some_frames())
    assert all(torch.equal(value, before[name]) for name, value in backbone.named_buffers())
    assert backbone.training
    assert not backbone.pooled.net.training
    halfway = Backbone(replace(SMALL, frozen=2, drop_path=0.5)).eval().train().pooled.net
    assert [block.training for block in halfway.blocks] == [False, True, True]


def test_learning_rates_fall_with_depth_and_only_weights_decay() -> None:
    backbone = Backbone(SMALL)
    groups = backbone.param_groups(lr=1e-3, weight_decay=0.1, layer_decay=0.5)
    names = {id(p): name for name, p in backbone.pooled.net.named_parameters()}
    seen = {}
    for group in groups:
        for parameter in group["params"]:
            seen[names[id(parameter)]] = (group["lr"], group["weight_decay"])
    assert seen.keys() == set(names.values())
    assert seen["patch_embed.proj.weight"] == (1.25e-4, 0.1)
    assert seen["pos_embed"] == seen["cls_token"] == (1.25e-4, 0.0)
    assert seen["blocks.0.attn.qkv.weight"] == (2.5e-4, 0.1)
    assert seen["blocks.1.norm1.weight"] == (5e-4, 0.0)
    assert seen["blocks.2.mlp.fc1.bias"] == (1e-3, 0.0)
    assert seen["norm.weight"] == (1e-3, 0.0)
    assert {group["lr"] for group in torch.optim.AdamW(groups).param_groups} == {1.25e-4, 2.5e-4, 5e-4, 1e-3}


def test_freezing_does_not_shift_learning_rates_and_leaves_groups_out() -> None:
    groups = Backbone(replace(SMALL, frozen=2)).param_groups(lr=1e-3, weight_decay=0.1, layer_decay=0.5)
    assert {group["lr"] for group in groups} == {5e-4, 1e-3}
    assert Backbone(replace(SMALL, frozen="all")).param_groups(lr=1.0, weight_decay=0.1) == []
    assert {group["lr"] for group in Backbone(SMALL).param_groups(lr=1.0, weight_decay=0.1)} == {1.0}


@pytest.mark.parametrize("frozen", [0, 2])
def test_gradient_checkpointing_has_the_same_gradients(frozen: int) -> None:
    def gradients(gradient_checkpointing: bool) -> list[Tensor]:
        torch.manual_seed(0)
        settings = replace(SMALL, gradient_checkpointing=gradient_checkpointing, frozen=frozen)
        backbone = Backbone(settings).train()
        backbone(some_frames()).square().sum().backward()
        return [p.grad for p in backbone.parameters() if p.grad is not None]

    plain, again = gradients(False), gradients(True)
    assert len(plain) > 10
    torch.testing.assert_close(again, plain)


def test_stochastic_depth_is_that_of_timm_and_rises_to_the_last_block() -> None:
    def rates(drop_path: float) -> list[float]:
        net = Backbone(replace(SMALL, drop_path=drop_path)).pooled.net
        return [part.drop_prob for part in net.modules() if isinstance(part, DropPath)]

    assert rates(0.0) == []
    assert rates(0.4) == pytest.approx([0.2, 0.2, 0.4, 0.4])  # both branches of the second and third block


@pytest.mark.slow
def test_building_a_network_does_not_import_wandb_which_remains_importable() -> None:
    code = """
import sys
from abaw.model.backbone import Backbone, BackboneSettings
Backbone(BackboneSettings(name="test_vit", weights="none", image_size=32))
assert "timm" in sys.modules and "wandb" not in sys.modules
import wandb
assert wandb.__version__
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_compiling_keeps_the_keys() -> None:
    assert Backbone(replace(SMALL, compile=True)).state_dict().keys() == Backbone(SMALL).state_dict().keys()


# -- settings


def test_a_description_rebuilds_the_network_whatever_the_defaults_become(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    original = Backbone(replace(SMALL, compile=True)).eval()
    description = original.settings.describe() | {"weights": "hub"}
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", unreachable)
    monkeypatch.setattr(
        timm.data, "resolve_model_data_config",
        lambda net: {"mean": (0.0,) * 3, "std": (1.0,) * 3, "interpolation": "bilinear"},
    )  # fmt: skip
    settings = BackboneSettings.from_description(description)
    copy = Backbone(settings, pretrained=False).eval()
    copy.load_state_dict(original.state_dict())
    assert not settings.compile
    original.settings = replace(original.settings, compile=False)
    torch.testing.assert_close(copy(some_frames()), original.pooled.forward(original.input(some_frames())))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "vit_tinny_patch16_224"}, r"model\.backbone\.name.*did you mean vit_tiny_patch16_224"),
        ({"name": "vit_tiny_patch16_224.bogus"}, r"model\.backbone\.name.*bogus"),
        ({"image_size": 40}, r"model\.backbone\.image_size.*16-pixel.*give 32"),
        ({"image_size": 8}, r"model\.backbone\.image_size.*give 16"),
        ({"overrides": {"deth": 3}}, r"overrides: .*deth.* are arguments of another network"),
        ({"overrides": None}, r"model\.backbone\.overrides is names with values"),
        ({"name": "crossvit_9_240", "image_size": 240, "overrides": {}}, "features are a list"),
        ({"name": "pit_ti_224", "image_size": 224, "overrides": {}}, "are 1 tokens, not a square grid"),
        ({"name": "crossvit_9_240", "image_size": 112, "overrides": {}}, "cannot process images of 112"),
        (
            {"name": "convit_tiny", "overrides": {}, "gradient_checkpointing": True},
            "timm does not support it",
        ),
        ({"name": "vit_tiny_r_s16_p8_224", "image_size": 112, "overrides": {}}, "cannot build.*112"),
        ({"image_size": 0}, r"model\.backbone\.image_size"),
        ({"chunk": -1}, r"model\.backbone\.chunk"),
        ({"frozen": -1}, r"model\.backbone\.frozen"),
        ({"frozen": "none"}, r"model\.backbone\.frozen"),
        ({"drop_path": 1.0}, r"model\.backbone\.drop_path"),
        ({"mean": (0.5, 0.5)}, r"model\.backbone\.mean"),
        ({"std": (0.5, 0.5, 0.0)}, r"model\.backbone\.std"),
        ({"interpolation": "nearest"}, r"model\.backbone\.interpolation"),
    ],
)
def test_settings_that_mean_nothing_are_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Backbone(replace(SMALL, **change))
