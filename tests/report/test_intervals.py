"""Long curves become few points with the means of their parts."""

import numpy as np
import pandas as pd
import pytest

from abaw.report.intervals import POINTS, interval_means


def test_a_short_curve_stays_as_it_is() -> None:
    rows = pd.DataFrame({"a": np.arange(7), "b": [1.0, np.nan, 3, 4, 5, 6, 7]})
    pd.testing.assert_frame_equal(interval_means(rows), rows.astype("float64"))


@pytest.mark.parametrize("n", [POINTS + 1, 36_000])
def test_a_long_curve_has_the_means_of_equal_parts(n: int) -> None:
    means = interval_means(pd.DataFrame({"a": np.arange(n)}))["a"].to_numpy()
    assert len(means) == POINTS
    np.testing.assert_allclose(np.diff(means), n / POINTS, atol=1.0)


def test_an_interval_without_a_value_has_none() -> None:
    rows = pd.DataFrame({"a": np.where(np.arange(2 * POINTS) < 10, np.nan, 1.0)})
    means = interval_means(rows)["a"]
    assert means[:5].isna().all()
    assert (means[5:] == 1).all()
