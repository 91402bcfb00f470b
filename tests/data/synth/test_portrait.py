from dataclasses import replace

import numpy as np
import pytest

from abaw.data.synth.canvas import MARGIN, MIDDLE, SCALE, SIZE, SoftCanvas
from abaw.data.synth.identity import draw_identity
from abaw.data.synth.portrait import head_outline, paint

WHO = replace(draw_identity(np.random.default_rng(0)), hair_style="bald", beard="none")


def test_the_head_is_symmetrical_and_as_wide_as_the_person_says() -> None:
    x, y = head_outline(WHO).T
    assert x.max() - MIDDLE == pytest.approx(MIDDLE - x.min())
    assert x.max() - MIDDLE == pytest.approx(WHO.head_width, rel=0.02)
    assert y.max() == pytest.approx(WHO.chin + 0.6, abs=1)


def test_bare_skin_lies_within_the_head_and_under_hair_and_beard_there_is_less() -> None:
    picture, bare = paint(WHO, scene=1)
    assert picture.shape == ((SIZE + 2 * MARGIN) * SCALE,) * 2 + (3,)
    assert bare.shape == picture.shape[:2]
    assert 0 <= bare.min() <= bare.max() <= 1
    head = SoftCanvas((0, 0, 0)).mask(head_outline(WHO))
    assert not bare[head == 0].any()
    assert paint(replace(WHO, hair_style="fringe"), scene=1)[1].sum() < bare.sum()
    assert paint(replace(WHO, beard="full"), scene=1)[1].sum() < bare.sum()


def test_people_of_one_recording_share_the_background() -> None:
    other = draw_identity(np.random.default_rng(5))
    corner = np.s_[:12, :12]
    same, elsewhere = paint(other, scene=1)[0], paint(other, scene=2)[0]
    first = paint(WHO, scene=1)[0]
    np.testing.assert_array_equal(first[corner], paint(replace(WHO, seed=7), scene=1)[0][corner])
    assert np.abs(first[corner].astype(int) - same[corner]).max() <= 1
    assert (same[corner] != elsewhere[corner]).any()
    np.testing.assert_array_equal(first, paint(WHO, scene=1)[0])
