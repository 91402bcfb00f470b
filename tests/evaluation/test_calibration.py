import json

import numpy as np
import pytest

from abaw.errors import AbawError
from abaw.evaluation.calibration import Calibration, Smoothing
from abaw.evaluation.formulas import decide
from abaw.tasks import AU, EXPR, VA
from tests.support.tracks import assert_same, make_track

KINDS = ["box", "gaussian", "median"]


def plain_smoothing(kind, half_width, values):
    """Frame by frame, from the definition."""
    out = np.empty_like(values)
    for t in range(len(values)):
        window = np.arange(max(t - half_width, 0), min(t + half_width + 1, len(values)))
        if kind == "median":
            out[t] = np.median(values[window], axis=0)
        else:
            weights = (
                np.exp(-0.5 * ((window - t) / (half_width / 2)) ** 2)
                if kind == "gaussian"
                else window * 0 + 1.0
            )
            out[t] = np.average(values[window], axis=0, weights=weights)
    return out


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("n", "half_width"), [(40, 1), (40, 3), (40, 10), (9, 10), (3, 2), (3, 50), (2, 1), (1, 5), (0, 5)]
)
def test_smoothing_is_the_definition_and_respects_the_ends(kind, n, half_width):
    values = np.random.default_rng(n).random((n, 3)).astype(np.float32)
    got = Smoothing(kind, half_width)(values)
    assert got.dtype == np.float32
    want = plain_smoothing(kind, half_width, values)
    if kind == "median":  # where the ends leave an even number of frames, either of the middle two will do
        low, high = (np.quantile(values, 0, axis=0), np.quantile(values, 1, axis=0)) if n else (0, 0)
        even = [(min(t, half_width) + min(n - 1 - t, half_width) + 1) % 2 == 0 for t in range(n)]
        odd = ~np.array(even, dtype=bool)
        np.testing.assert_allclose(got[odd], want[odd], atol=1e-6)
        assert ((low <= got) & (got <= high)).all()
    else:
        np.testing.assert_allclose(got, want, atol=1e-5)


def test_the_default_changes_nothing():
    track = make_track(n=20)
    assert_same(Calibration().apply(track), track)
    only_va = make_track(tasks=(VA,))
    assert_same(Calibration(au_thresholds=(0.3,) * 12).apply(only_va), only_va)


def test_thresholds_move_to_one_half():
    track = make_track(n=400)
    thresholds = tuple(np.linspace(0.05, 0.95, 12))
    track.values[AU][:12] = np.eye(12, dtype=np.float32) * np.float32(thresholds)  # exactly at the threshold
    calibrated = Calibration(au_thresholds=thresholds, temperature={AU: 2.5}).apply(track)
    decided = decide(AU, calibrated.values[AU])
    np.testing.assert_array_equal(decided, track.values[AU].astype(np.float64) >= thresholds)
    assert (np.diff(calibrated.values[AU][np.argsort(track.values[AU][:, 0]), 0]) >= 0).all()
    assert 0 <= calibrated.values[AU].min() <= calibrated.values[AU].max() <= 1
    np.testing.assert_array_equal(calibrated.values[VA], track.values[VA])


def test_prior_correction_divides_by_the_prior():
    track = make_track(n=50)
    prior = np.arange(1, 9) / 36
    calibrated = Calibration(expr_prior=tuple(prior), expr_prior_strength=0.5).apply(track)
    want = track.values[EXPR] / prior**0.5
    np.testing.assert_allclose(calibrated.values[EXPR], want / want.sum(1, keepdims=True), atol=1e-5)


def test_temperature_softens_without_changing_a_decision():
    track = make_track(n=200)
    calibrated = Calibration(temperature={EXPR: 3.0, AU: 3.0}).apply(track)
    np.testing.assert_array_equal(calibrated.values[EXPR].argmax(1), track.values[EXPR].argmax(1))
    np.testing.assert_array_equal(calibrated.values[AU] >= 0.5, track.values[AU] >= 0.5)
    assert calibrated.values[EXPR].max() < track.values[EXPR].max()
    np.testing.assert_allclose(calibrated.values[EXPR].sum(1), 1, atol=1e-5)


def test_medians_of_probabilities_add_up_to_one():
    track = make_track(n=60)
    track.values[EXPR][:] = np.eye(8)[np.arange(60) % 3]  # every median is 0
    smooth = Calibration(smoothing={EXPR: Smoothing("median", 5)}).apply(track).values[EXPR]
    assert np.isfinite(smooth).all()
    np.testing.assert_allclose(smooth.sum(1), 1, atol=1e-5)


FULL = Calibration(
    smoothing={
        VA: Smoothing("box", 50),
        EXPR: Smoothing("median", 10),
        AU: Smoothing("gaussian", 3),
    },
    temperature={EXPR: 1.5},
    expr_prior=tuple(np.arange(1, 9) / 36),
    expr_prior_strength=0.75,
    au_thresholds=tuple(np.linspace(0.1, 0.9, 12)),
    chosen_on=("a", "b_left"),
)


def test_plain_values_round_trip():
    plain = json.loads(json.dumps(FULL.to_dict()))
    again = Calibration.from_dict(plain)
    assert again.to_dict() == plain
    track = make_track(n=70)
    assert_same(again.apply(track), FULL.apply(track))


@pytest.mark.parametrize(
    "change",
    [
        {"au_thresholds": [0.5] * 11},
        {"au_thresholds": [0.0] * 12},
        {"expr_prior": [0.5] * 7},
        {"expr_prior_strength": -1},
        {"temperature": {"au": 0}},
        {"temperature": {"xx": 1}},
        {"smoothing": {"va": {"kind": "mean", "half_width": 1}}},
        {"smoothing": {"va": {"kind": "box", "half_width": -1}}},
        {"smoothing": None},
    ],
)
def test_a_damaged_calibration_is_refused(change):
    with pytest.raises(AbawError, match="calibrate again"):
        Calibration.from_dict(FULL.to_dict() | change)
    plain = FULL.to_dict()
    del plain[next(iter(change))]
    with pytest.raises(AbawError, match=r"calibration: lacks '\w+'; calibrate again"):
        Calibration.from_dict(plain)
