import numpy as np
import pytest

from abaw.data.synth.identity import draw_identity
from abaw.data.synth.landmarks import MOVEMENTS, lines


@pytest.mark.parametrize("seed", range(5))
def test_a_resting_face_lies_on_the_alignment_template(seed: int) -> None:
    who = draw_identity(np.random.default_rng(seed))
    rest = lines(who, np.zeros((1, len(MOVEMENTS)), np.float32))
    eyes = (rest["lid"][0].mean(axis=1) + rest["lower_lid"][0].mean(axis=1)) / 2
    np.testing.assert_allclose(eyes, [(38.29, 51.70), (73.53, 51.50)], atol=2)
    corners = rest["mouth_top"][0, :, -1]
    np.testing.assert_allclose(corners, [(41.55, 92.37), (70.73, 92.20)], atol=2.5)
