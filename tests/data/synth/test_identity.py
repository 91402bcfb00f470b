from dataclasses import astuple, fields

import numpy as np

from abaw.data.synth.identity import Identity, draw_identity


def people(n: int, variation: float = 1.0) -> list[Identity]:
    rng = np.random.default_rng(0)
    return [draw_identity(rng, variation=variation) for _ in range(n)]


def test_chance_alone_decides_who_it_is() -> None:
    assert people(3) == people(3)
    assert len({person.seed for person in people(50)}) == 50


def test_without_variation_all_bodies_are_the_mean_one() -> None:
    lengths = [f.name for f in fields(Identity) if f.type == "float" or f.type is float]
    of_shape = [name for name in lengths if name != "light"]
    assert len(of_shape) == 16
    one, *others = people(20, variation=0)
    for other in others:
        assert [getattr(other, name) for name in of_shape] == [getattr(one, name) for name in of_shape]
    assert not any(person.glasses or person.beard != "none" for person in (one, *others))


def test_brows_and_lips_can_be_told_from_the_skin() -> None:
    for person in people(200):
        assert sum(person.hair) <= 0.75 * sum(person.skin)
        assert person.lips[1] < person.skin[1]
        for colour in (person.skin, person.lips, person.hair, person.iris, person.cloth):
            assert all(0 <= value <= 255 for value in colour), astuple(person)
