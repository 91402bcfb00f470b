"""Sinusoidal, rotary and learned positions."""

import math

import pytest
import torch

from abaw.model.positions import apply_rotary, rotary_embedding, sinusoidal
from tests.support.networks import small_temporal


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
    learned = small_temporal(positions="learned", max_length=4).learned
    assert learned is not None
    torch.testing.assert_close(learned(7)[::2], learned.table, atol=1e-6, rtol=0)
    torch.testing.assert_close(learned(7)[1], learned.table[:2].mean(0), atol=1e-6, rtol=0)
    assert torch.equal(learned(3), learned.table[:3])
