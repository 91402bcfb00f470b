import numpy as np
import pytest

from abaw.data.synth.occluders import Occluder, draw_occluders, spans

SKIN = (120.0, 150.0, 200.0)


def test_spans_cover_about_the_share_asked_for() -> None:
    found = spans(np.random.default_rng(0), 20_000, 0.2, 22)
    lengths = [stop - start for start, stop in found]
    assert sum(lengths) / 20_000 == pytest.approx(0.2, abs=0.05)
    assert 11 < min(lengths) <= max(lengths) <= 34
    assert not spans(np.random.default_rng(0), 100, 0.0, 22)


def test_something_is_drawn_exactly_while_it_passes() -> None:
    square = np.array([(-1.0, -1.0), (1.0, -1.0), (1.0, 1.0), (-1.0, 1.0)])
    thing = Occluder(3, 7, ((square, (0.0, 0.0, 255.0)),), ((20.0, 50.0), (80.0, 50.0)), 10.0)
    columns = []
    for t in range(10):
        picture = np.zeros((112, 112, 3), np.uint8)
        thing.cover(picture, t)
        assert picture.any() == (3 <= t < 7)
        if picture.any():
            assert not picture[..., :2].any()
            columns.append(np.nonzero(picture[50, :, 2])[0].mean())
    np.testing.assert_allclose(np.diff(columns), 15, atol=1)  # from one end of its way to the other


def test_the_seed_decides_what_passes() -> None:
    def picture(seed: int) -> np.ndarray:
        film = np.zeros((300, 112, 112, 3), np.uint8)
        for occluder in draw_occluders(np.random.default_rng(seed), len(film), share=0.3, skin=SKIN):
            for t, frame in enumerate(film):
                occluder.cover(frame, t)
        return film

    np.testing.assert_array_equal(picture(1), picture(1))
    assert (picture(1) != picture(2)).any()
    assert not draw_occluders(np.random.default_rng(1), 300, share=0.0, skin=SKIN)
