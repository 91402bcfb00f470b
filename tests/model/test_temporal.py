from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from abaw.errors import UsageError
from abaw.model.positions import sinusoidal
from abaw.model.temporal import Block, TemporalEncoder, TemporalSettings
from tests.support.networks import SMALL_TEMPORAL, small_temporal

VARIANTS: dict[str, dict[str, Any]] = {
    "default": {},
    "post-norm": {"norm": "post", "activation": "relu"},
    "learned": {"positions": "learned", "max_length": 8},
    "rotary": {"positions": "rotary"},
    "no positions": {"positions": "none"},
    "zero mask token": {"mask_token": "zero"},
    "attend masked": {"attend_masked": True},
    "paper": {"attend_masked": True, "mask_token": "zero", "norm": "post", "width": None},
    "causal": {"causal": True},
    "context": {"context": 2},
    "causal context": {"causal": True, "context": 2, "attend_masked": True},
    "one frame": {"layers": 0},
}


def masks(b: int = 3, t: int = 8) -> tuple[Tensor, Tensor]:
    """Visible and present frames: a whole clip, one with gaps and padding, one without any visible frame."""
    present = torch.ones(b, t, dtype=torch.bool)
    present[1:2, 6:] = False
    visible = present.clone()
    visible[1, [0, 3]] = False
    visible[2:] = False
    return visible, present


@pytest.fixture(params=VARIANTS.values(), ids=VARIANTS)
def temporal(request: pytest.FixtureRequest) -> TemporalEncoder:
    return small_temporal(**request.param)


def test_what_lies_under_an_invisible_frame_never_matters(temporal: TemporalEncoder) -> None:
    visible, present = masks()
    features = torch.randn(3, 8, 12)
    other = torch.where(visible[..., None], features, torch.nan)
    one = temporal(features, visible=visible, present=present)
    assert torch.equal(one, temporal(other, visible=visible, present=present))
    assert one.isfinite().all()


def test_padding_changes_nothing(temporal: TemporalEncoder) -> None:
    visible, present = masks()
    features = torch.randn(3, 8, 12)
    padded = temporal(features, visible=visible, present=present)[1, :6]
    alone = temporal(features[1:2, :6], visible=visible[1:2, :6], present=present[1:2, :6])[0]
    torch.testing.assert_close(padded, alone, atol=1e-5, rtol=1e-5)


def test_shuffled_clips_give_shuffled_outputs(temporal: TemporalEncoder) -> None:
    visible, present = masks()
    features, order = torch.randn(3, 8, 12), torch.tensor([2, 0, 1])
    straight = temporal(features, visible=visible, present=present)[order]
    shuffled = temporal(features[order], visible=visible[order], present=present[order])
    torch.testing.assert_close(straight, shuffled, atol=1e-5, rtol=1e-5)


def test_a_batch_known_to_be_complete_gives_the_same(temporal: TemporalEncoder) -> None:
    features, every = torch.randn(2, 8, 12), torch.ones(2, 8, dtype=torch.bool)
    checked = temporal(features, visible=every, present=every)
    known = temporal(features, visible=every, present=every, complete=True)
    torch.testing.assert_close(checked, known, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("length", [1, 3, 40])
def test_any_length_longer_than_trained_too(temporal: TemporalEncoder, length: int) -> None:
    every = torch.ones(2, length, dtype=torch.bool)
    states = temporal(torch.randn(2, length, 12), visible=every, present=every)
    assert states.shape == (2, length, temporal.width)
    assert states.isfinite().all()


def test_every_parameter_has_a_gradient_whatever_is_visible(temporal: TemporalEncoder) -> None:
    for visible in (torch.ones(1, 4, dtype=torch.bool), torch.zeros(1, 4, dtype=torch.bool)):
        temporal.zero_grad()
        states = temporal(torch.randn(1, 4, 12), visible=visible, present=torch.ones_like(visible))
        states.sum().backward()
        for name, parameter in temporal.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name


def test_frames_are_exchangeable_without_positions_and_not_with_them() -> None:
    order = torch.tensor([3, 0, 4, 1, 2])
    features, every = torch.randn(1, 5, 12), torch.ones(1, 5, dtype=torch.bool)
    for positions in ("none", "sinusoidal", "learned", "rotary"):
        temporal = small_temporal(positions=positions)
        straight = temporal(features, visible=every, present=every)[:, order]
        shuffled = temporal(features[:, order], visible=every, present=every)
        assert torch.allclose(straight, shuffled, atol=1e-5) == (positions == "none")


@pytest.mark.parametrize("norm", ["pre", "post"])
@pytest.mark.parametrize("activation", ["gelu", "relu"])
def test_a_block_is_the_transformer_layer_of_torch(norm: str, activation: str) -> None:
    torch.manual_seed(0)
    settings = replace(SMALL_TEMPORAL, norm=norm, activation=activation)  # type: ignore[arg-type]
    ours = TemporalEncoder(settings, dim=16).eval()
    every, visible = torch.ones(2, 5, dtype=torch.bool), masks(2, 5)[0]
    features = torch.randn(2, 5, 16)
    theirs = nn.TransformerEncoderLayer(
        16, 2, 24, 0.0, activation, batch_first=True, norm_first=norm == "pre"
    ).train()  # in evaluation mode it takes a fast path that leaves out padded frames
    x = torch.where(visible[..., None], features, ours.mask_token) + sinusoidal(5, 16)
    for block in ours.blocks.blocks:
        theirs.load_state_dict(as_torch(block))
        seen = visible[:, None, :] | torch.eye(5, dtype=torch.bool)  # (B, query, key)
        x = theirs(x, src_mask=~seen.repeat_interleave(2, 0))
    torch.testing.assert_close(
        ours(features, visible=visible, present=every), ours.blocks.norm(x), atol=1e-5, rtol=1e-5
    )


def as_torch(block: Block) -> dict[str, Tensor]:
    renamed = {
        "self_attn.in_proj_weight": "attention.qkv.weight",
        "self_attn.in_proj_bias": "attention.qkv.bias",
        "self_attn.out_proj.weight": "attention.out.weight",
        "self_attn.out_proj.bias": "attention.out.bias",
        **{
            f"linear{n}.{kind}": f"hidden.{k}.{kind}"
            for n, k in ((1, 0), (2, 3))
            for kind in ("weight", "bias")
        },
        **{f"norm{n + 1}.{kind}": f"norms.{n}.{kind}" for n in (0, 1) for kind in ("weight", "bias")},
    }
    state = block.state_dict()
    return {theirs: state[ours] for theirs, ours in renamed.items()}


def test_stochastic_depth_drops_whole_branches_of_whole_clips_and_keeps_the_mean() -> None:
    torch.manual_seed(0)
    block = Block(SMALL_TEMPORAL, width=16, drop_path=0.25).train()
    branch = torch.ones(4000, 3, 16)
    out = block._branch(branch)
    assert out.unique().tolist() == pytest.approx([0.0, 4 / 3])
    assert torch.equal(out.amin((1, 2)), out.amax((1, 2)))
    assert out.mean().item() == pytest.approx(1.0, abs=0.03)
    assert torch.equal(block.eval()._branch(branch), branch)


def test_stochastic_depth_rises_with_depth() -> None:
    blocks = small_temporal(layers=3, drop_path=0.2).blocks.blocks
    assert [block.drop_path for block in blocks] == pytest.approx([0.0, 0.1, 0.2])


def test_dropout_acts_in_training_only() -> None:
    temporal, every = small_temporal(dropout=0.5), torch.ones(1, 4, dtype=torch.bool)
    features = torch.randn(1, 4, 12)
    calm = [temporal(features, visible=every, present=every) for _ in range(2)]
    assert torch.equal(*calm)
    wild = [temporal.train()(features, visible=every, present=every) for _ in range(2)]
    assert not torch.allclose(*wild)


def test_half_precision_features_and_autocast() -> None:
    temporal, every = small_temporal(), torch.ones(2, 5, dtype=torch.bool)
    features = torch.randn(2, 5, 12)
    exact = temporal(features, visible=every, present=every)
    cached = temporal(features.half(), visible=every, present=every)
    torch.testing.assert_close(cached, exact, atol=5e-3, rtol=0)
    with torch.autocast("cpu", torch.bfloat16):
        rough = temporal(features, visible=every, present=every)
        gaps = temporal(features, visible=masks(2, 5)[0], present=every)
    torch.testing.assert_close(rough.float(), exact, atol=0.1, rtol=0)
    assert gaps.isfinite().all()


def test_compiling_keeps_the_keys() -> None:
    assert small_temporal(compile=True).state_dict().keys() == small_temporal().state_dict().keys()


@pytest.mark.parametrize(
    "wrong",
    [
        {"layers": -1}, {"heads": 3}, {"width": 0}, {"dropout": 1.0}, {"drop_path": -0.1}, {"norm": "mid"},
        {"positions": "rotory"}, {"context": -1}, {"mask_token": "mean"}, {"activation": "silu"},
        {"max_length": 0}, {"width": 6, "heads": 2, "positions": "rotary"}, {"width": 5, "heads": 1},
        {"feedforward": 0},
    ],
)  # fmt: skip
def test_settings_that_mean_nothing_are_named(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=r"model\.temporal"):
        replace(SMALL_TEMPORAL, **wrong)


def test_a_width_taken_from_the_features_is_checked_too() -> None:
    with pytest.raises(UsageError, match="heads"):
        small_temporal(dim=13, width=None)


def test_settings_come_back_from_their_description() -> None:
    settings = replace(SMALL_TEMPORAL, compile=True, context=3, width=None)
    assert TemporalSettings.from_description(settings.describe()) == replace(settings, compile=False)


def test_a_description_of_0_1_0_has_its_mask_token_under_the_earlier_name() -> None:
    described = replace(SMALL_TEMPORAL, mask_token="zero").describe()
    earlier = {"fill" if name == "mask_token" else name: value for name, value in described.items()}
    assert TemporalSettings.from_description(earlier).mask_token == "zero"
    assert "fill" in small_temporal(mask_token="learned").state_dict()
    assert "fill" not in small_temporal(mask_token="zero").state_dict()
