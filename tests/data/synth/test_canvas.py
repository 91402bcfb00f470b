import numpy as np
import pytest

from abaw.data.synth.canvas import MARGIN, MIDDLE, SCALE, SIZE, SoftCanvas, spline, tint

SQUARE = np.array([(40.0, 30.0), (60.0, 30.0), (60.0, 50.0), (40.0, 50.0)])


@pytest.mark.parametrize("closed", [False, True])
def test_a_curve_goes_through_its_control_points(closed: bool) -> None:
    points = np.random.default_rng(0).normal(size=(5, 2))
    curve = spline(5, closed=closed, steps=6) @ points
    np.testing.assert_allclose(curve[::6], points, atol=1e-12)
    np.testing.assert_allclose(spline(5, closed=closed).sum(axis=1), 1)  # moved points move the curve


def test_an_outline_covers_its_own_area_at_its_own_place() -> None:
    mask = SoftCanvas((0, 0, 0)).mask(SQUARE)
    rows, columns = np.nonzero(mask > 0.5)
    assert mask.shape == ((SIZE + 2 * MARGIN) * SCALE,) * 2
    assert mask.max() == 1
    assert mask.sum() / SCALE**2 == pytest.approx(20 * 20, rel=0.1)  # OpenCV fills the edge too
    assert columns.mean() / SCALE - MARGIN == pytest.approx(50, abs=0.6)
    assert rows.mean() / SCALE - MARGIN == pytest.approx(40, abs=0.6)


def test_a_soft_edge_keeps_the_area() -> None:
    canvas = SoftCanvas((0, 0, 0))
    sharp, soft = canvas.mask(SQUARE), canvas.mask(SQUARE, soft=2)
    assert soft.sum() == pytest.approx(sharp.sum(), rel=1e-3)
    assert np.abs(np.diff(soft, axis=1)).max() < 0.2 < np.abs(np.diff(sharp, axis=1)).max()


def test_a_colour_is_laid_on_in_proportion_to_the_mask() -> None:
    canvas = SoftCanvas((10, 20, 30))
    mask = np.zeros(canvas.pixels.shape[:2], np.float32)
    mask[100], mask[120] = 1, 0.25
    canvas.cover(mask, (50, 60, 70))
    for row, colour in ((99, (10, 20, 30)), (100, (50, 60, 70)), (120, (20, 30, 40))):
        np.testing.assert_allclose(canvas.pixels[row, 7], colour)
    before = canvas.pixels.copy()
    canvas.cover(np.zeros_like(mask), (0, 0, 0))
    np.testing.assert_array_equal(canvas.pixels, before)


def test_two_spots_lie_as_far_out_on_either_side() -> None:
    spots = SoftCanvas((0, 0, 0)).pair(15, 50, 4, 4)
    places = (np.argmax(spots.max(axis=0)[: spots.shape[1] // 2]) + 0.5) / SCALE - 0.5 - MARGIN
    assert places == pytest.approx(MIDDLE - 15, abs=0.5)
    assert spots.max() == pytest.approx(1, abs=0.02)


def test_a_colour_gets_lighter_up_to_white() -> None:
    assert tint((100, 200, 10), 2) == (200, 255, 20)
