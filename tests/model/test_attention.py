"""Which frames a frame attends to."""

import pytest
import torch
from torch import Tensor

from abaw.model.attention import attention_mask
from abaw.model.temporal import TemporalEncoder
from tests.support.clips import touched
from tests.support.networks import small_temporal


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("context", [None, 0, 2])
@pytest.mark.parametrize("keys", [None, torch.tensor([[True, False, True, True, False], [False] * 5])])
def test_the_mask_is_its_definition(keys: Tensor | None, context: int | None, causal: bool) -> None:
    found = attention_mask(5, keys=keys, causal=causal, context=context)
    every = torch.ones(5, 5, dtype=torch.bool)
    mask = found.mask if found.mask is not None else every.tril() if found.causal else every
    assert not (found.causal and found.mask is not None)  # scaled_dot_product_attention takes one of them
    for clip, visible in enumerate(torch.ones(1, 5, dtype=torch.bool) if keys is None else keys):
        for query in range(5):
            for key in range(5):
                near = context is None or abs(query - key) <= context
                wanted = query == key or (bool(visible[key]) and near and not (causal and key > query))
                assert bool(mask.expand(2, 1, 5, 5)[clip, 0, query, key]) == wanted


def test_invisible_frames_are_no_keys_unless_asked_for() -> None:
    visible = torch.tensor([[True, False, True, True, False]])
    features, present = torch.randn(1, 5, 12), torch.ones_like(visible)
    here = visible[0]
    for attend_masked in (False, True):
        temporal = small_temporal(positions="none", attend_masked=attend_masked)
        among = temporal(features, visible=visible, present=present)[:, here]
        alone = temporal(features[:, here], visible=visible[:, here], present=present[:, here])
        assert torch.allclose(among, alone, atol=1e-5) != attend_masked


def test_invisible_frames_learn_from_the_visible_ones() -> None:
    visible = torch.tensor([[True, False, True]])
    assert depends(small_temporal(), 3, visible=visible)[1].tolist() == [True, False, True]


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
    found = depends(small_temporal(causal=True, attend_masked=attend_masked), 6, visible=visible)
    wanted = torch.ones(6, 6, dtype=torch.bool).tril()
    assert torch.equal(found, wanted if visible is None else wanted & visible)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("layers", [1, 2])
def test_context_limits_what_a_block_sees(causal: bool, layers: int) -> None:
    found = depends(small_temporal(context=2, causal=causal, layers=layers), 9)
    back = torch.arange(9)[:, None] - torch.arange(9)
    assert torch.equal(found, (back <= 2 * layers) & (back >= (0 if causal else -2 * layers)))


def test_a_model_of_single_frames_sees_single_frames() -> None:
    assert torch.equal(depends(small_temporal(layers=0), 4), torch.eye(4, dtype=torch.bool))
