import numpy as np

from abaw.data.synth.animation import PRESENT
from abaw.data.synth.presets import PRESETS
from abaw.tasks import AU, EXPR, VA
from tests.support.animations import animations


def test_labels_follow_from_what_is_drawn() -> None:
    for animation in animations("demo", 5, 200):
        present = animation.moves[:, : len(AU.names)] >= PRESENT
        assert np.array_equal(animation.labels[AU].values.astype(bool), present)
        jaw, lips = AU.names.index("AU26"), AU.names.index("AU25")
        assert np.all(present[:, lips] | ~present[:, jaw])


def test_movements_come_and_go_smoothly() -> None:
    for animation in animations("demo", 5, 200):
        assert animation.moves.min() >= 0
        assert animation.moves.max() <= 1
        assert np.abs(np.diff(animation.moves[:, : len(AU.names)], axis=0)).max() < 0.45


def test_annotators_of_valence_are_late_by_the_lag_of_the_preset() -> None:
    statistics = PRESETS["demo"].statistics
    lags = []
    for animation in animations("demo", 20, 400):
        smile = (animation.labels[EXPR].values == EXPR.names.index("Happiness")).astype(float)
        valence = animation.labels[VA].values[:, 0] - animation.labels[VA].values[:, 0].mean()
        if smile.any():
            lags.append(max(range(-30, 31), key=lambda lag: float(np.roll(smile, lag) @ valence)))
    assert statistics.lag[0] - 4 <= np.median(lags) <= statistics.lag[1] + 4
