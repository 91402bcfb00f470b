import numpy as np
import pytest

from abaw.data.synth.presets import PRESETS
from abaw.tasks import AU, EXPR
from tests.support.animations import animations


@pytest.mark.parametrize(("preset", "videos", "frames"), [("real", 30, 2500), ("demo", 25, 300)])
def test_imbalance_is_that_of_the_preset(preset: str, videos: int, frames: int) -> None:
    statistics = PRESETS[preset].statistics
    animation = animations(preset, videos, frames)
    expr = np.bincount(np.concatenate([a.labels[EXPR].values for a in animation]), minlength=len(EXPR.names))
    np.testing.assert_allclose(expr / expr.sum(), statistics.expressions, atol=0.015)
    units = np.concatenate([a.labels[AU].values for a in animation]).mean(axis=0)
    np.testing.assert_allclose(units, statistics.units, atol=0.07)
    rare = np.array(statistics.units) < 0.06
    assert np.all(units[rare] < 0.09)
