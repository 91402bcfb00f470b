import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from abaw.errors import UsageError
from abaw.model.positions import apply_rotary, rotary_embedding, sinusoidal
from abaw.model.temporal import Block, TemporalEncoder, TemporalSettings
from tests.support.clips import touched

TINY = TemporalSettings(layers=2, heads=2, width=16, feedforward=24, dropout=0.0)
VARIANTS: dict[str, dict[str, Any]] = {
    "default": {},
    "post-norm": {"norm": "post", "activation": "relu"},
    "learned": {"positions": "learned", "max_length": 8},
    "rotary": {"positions": "rotary"},
    "no positions": {"positions": "none"},
    "zero fill": {"fill": "zero"},
    "attend masked": {"attend_masked": True},
    "paper": {"attend_masked": True, "fill": "zero", "norm": "post", "width": None},
    "causal": {"causal": True},
    "context": {"context": 2},
    "causal context": {"causal": True, "context": 2, "attend_masked": True},
    "one frame": {"layers": 0},
}


def build(dim: int = 12, **change: Any) -> TemporalEncoder:
    torch.manual_seed(0)
    return TemporalEncoder(replace(TINY, **change), dim=dim).eval()


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
    return build(**request.param)


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


def test_invisible_frames_are_no_keys_unless_asked_for() -> None:
    visible = torch.tensor([[True, False, True, True, False]])
    features, present = torch.randn(1, 5, 12), torch.ones_like(visible)
    here = visible[0]
    for attend_masked in (False, True):
        temporal = build(positions="none", attend_masked=attend_masked)
        among = temporal(features, visible=visible, present=present)[:, here]
        alone = temporal(features[:, here], visible=visible[:, here], present=present[:, here])
        assert torch.allclose(among, alone, atol=1e-5) != attend_masked


def test_invisible_frames_learn_from_the_visible_ones() -> None:
    visible = torch.tensor([[True, False, True]])
    assert depends(build(), 3, visible=visible)[1].tolist() == [True, False, True]


def depends(temporal: TemporalEncoder, length: int, *, visible: Tensor | None = None) -> Tensor:
    """Bool (query, key): whether the state of a frame depends on the features of a frame.

    The values of a state are weighed unequally: their sum and the sum of their squares are constants
    behind a layer norm.
    """
    every = torch.ones(1, length, dtype=torch.bool)
    features = torch.randn(1, length, 12, requires_grad=True)
    states = temporal(features, visible=every if visible is None else visible, present=every)
    weighed = states[0] @ torch.randn(temporal.width)
    rows = [torch.autograd.grad(one, features, retain_graph=True)[0][0] for one in weighed]
    return touched(torch.stack([row.abs().amax(1) for row in rows]))


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("attend_masked", [False, True])
def test_causal_outputs_never_depend_on_a_later_frame(masked: bool, attend_masked: bool) -> None:
    visible = torch.tensor([[True, True, False, True, False, True]]) if masked else None
    found = depends(build(causal=True, attend_masked=attend_masked), 6, visible=visible)
    wanted = torch.ones(6, 6, dtype=torch.bool).tril()
    assert torch.equal(found, wanted if visible is None else wanted & visible)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("layers", [1, 2])
def test_context_limits_what_a_block_sees(causal: bool, layers: int) -> None:
    found = depends(build(context=2, causal=causal, layers=layers), 9)
    back = torch.arange(9)[:, None] - torch.arange(9)
    assert torch.equal(found, (back <= 2 * layers) & (back >= (0 if causal else -2 * layers)))


def test_a_model_of_single_frames_sees_single_frames() -> None:
    assert torch.equal(depends(build(layers=0), 4), torch.eye(4, dtype=torch.bool))


def test_frames_are_exchangeable_without_positions_and_not_with_them() -> None:
    order = torch.tensor([3, 0, 4, 1, 2])
    features, every = torch.randn(1, 5, 12), torch.ones(1, 5, dtype=torch.bool)
    for positions in ("none", "sinusoidal", "learned", "rotary"):
        temporal = build(positions=positions)
        straight = temporal(features, visible=every, present=every)[:, order]
        shuffled = temporal(features[:, order], visible=every, present=every)
        assert torch.allclose(straight, shuffled, atol=1e-5) == (positions == "none")


@pytest.mark.parametrize("norm", ["pre", "post"])
@pytest.mark.parametrize("activation", ["gelu", "relu"])
def test_a_block_is_the_transformer_layer_of_torch(norm: str, activation: str) -> None:
    torch.manual_seed(0)
    settings = replace(TINY, norm=norm, activation=activation)  # type: ignore[arg-type]
    ours = TemporalEncoder(settings, dim=16).eval()
    every, visible = torch.ones(2, 5, dtype=torch.bool), masks(2, 5)[0]
    features = torch.randn(2, 5, 16)
    theirs = nn.TransformerEncoderLayer(
        16, 2, 24, 0.0, activation, batch_first=True, norm_first=norm == "pre"
    ).train()  # in evaluation mode it takes a fast path that leaves out padded frames
    x = torch.where(visible[..., None], features, ours.fill) + sinusoidal(5, 16)
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


def test_sinusoidal_positions_are_those_of_the_paper() -> None:
    table = sinusoidal(50, 8)
    for place in (0, 1, 49):
        for pair in range(4):
            angle = place / 10000 ** (2 * pair / 8)
            want = [math.sin(angle), math.cos(angle)]
            assert table[place, 2 * pair : 2 * pair + 2].tolist() == pytest.approx(want, abs=1e-5)


def test_rotary_products_depend_on_the_distance_alone() -> None:
    q, k = torch.randn(8), torch.randn(8)
    rotary = rotary_embedding(20, 8)
    q, k = apply_rotary(q.expand(20, 8), rotary), apply_rotary(k.expand(20, 8), rotary)
    products = q @ k.T  # (position of q, position of k)
    for distance in (-5, 0, 3):
        diagonal = products.diagonal(distance)
        torch.testing.assert_close(diagonal, diagonal[:1].expand_as(diagonal), atol=1e-5, rtol=1e-5)
    assert not torch.allclose(products[0, 1:5], products[0, 0].expand(4), atol=1e-3)


def test_learned_positions_are_stretched_beyond_their_length() -> None:
    learned = build(positions="learned", max_length=4).learned
    assert learned is not None
    torch.testing.assert_close(learned(7)[::2], learned.table, atol=1e-6, rtol=0)
    torch.testing.assert_close(learned(7)[1], learned.table[:2].mean(0), atol=1e-6, rtol=0)
    assert torch.equal(learned(3), learned.table[:3])


def test_stochastic_depth_drops_whole_branches_of_whole_clips_and_keeps_the_mean() -> None:
    torch.manual_seed(0)
    block = Block(TINY, width=16, drop_path=0.25).train()
    branch = torch.ones(4000, 3, 16)
    out = block._branch(branch)
    assert out.unique().tolist() == pytest.approx([0.0, 4 / 3])
    assert torch.equal(out.amin((1, 2)), out.amax((1, 2)))
    assert out.mean().item() == pytest.approx(1.0, abs=0.03)
    assert torch.equal(block.eval()._branch(branch), branch)


def test_stochastic_depth_rises_with_depth() -> None:
    blocks = build(layers=3, drop_path=0.2).blocks.blocks
    assert [block.drop_path for block in blocks] == pytest.approx([0.0, 0.1, 0.2])


def test_dropout_acts_in_training_only() -> None:
    temporal, every = build(dropout=0.5), torch.ones(1, 4, dtype=torch.bool)
    features = torch.randn(1, 4, 12)
    calm = [temporal(features, visible=every, present=every) for _ in range(2)]
    assert torch.equal(*calm)
    wild = [temporal.train()(features, visible=every, present=every) for _ in range(2)]
    assert not torch.allclose(*wild)


def test_half_precision_features_and_autocast() -> None:
    temporal, every = build(), torch.ones(2, 5, dtype=torch.bool)
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
    assert build(compile=True).state_dict().keys() == build().state_dict().keys()


@pytest.mark.parametrize(
    "wrong",
    [
        {"layers": -1}, {"heads": 3}, {"width": 0}, {"dropout": 1.0}, {"drop_path": -0.1}, {"norm": "mid"},
        {"positions": "rotory"}, {"context": -1}, {"fill": "mean"}, {"activation": "silu"}, {"max_length": 0},
        {"width": 6, "heads": 2, "positions": "rotary"}, {"width": 5, "heads": 1}, {"feedforward": 0},
    ],
)  # fmt: skip
def test_settings_that_mean_nothing_are_named(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=r"model\.temporal"):
        replace(TINY, **wrong)


def test_a_width_taken_from_the_features_is_checked_too() -> None:
    with pytest.raises(UsageError, match="heads"):
        build(dim=13, width=None)


def test_settings_come_back_from_their_description() -> None:
    settings = replace(TINY, compile=True, context=3, width=None)
    assert TemporalSettings.from_description(settings.describe()) == replace(settings, compile=False)
