"""Streams of random numbers: one per purpose and key, and none that the table does not know."""

import numpy as np
import pytest

from abaw.loading.dataset import Draw
from abaw.loading.sampling import Slot, TrainSampler
from abaw.randomness import Purpose, keyed_generator, keyed_seed
from tests.support.project import PROJECT

PACKAGE = PROJECT / "abaw"
KEYS: list[tuple[int, ...]] = [
    *((), (0,), (1,), (0, 0), (0, 1), (1, 0), (1, 1), (0, 0, 0), (1, 0, 0), (0, 1, 0)),
    *((2**32,), (2**32 + 1,), (0, 2**32), (2**64 + 1,), (2**64,)),
]


def test_no_two_purposes_or_keys_share_a_stream() -> None:
    streams = [keyed_generator(purpose, *key).bytes(16) for purpose in Purpose for key in KEYS]
    assert len(set(streams)) == len(Purpose) * len(KEYS)
    assert len({purpose.value for purpose in Purpose}) == len(Purpose.__members__)


def test_a_negative_number_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\(0, -1\) of ORDER"):
        keyed_generator(Purpose.ORDER, 0, -1)


@pytest.mark.parametrize("purpose", Purpose)
def test_a_key_gives_the_same_stream_again(purpose: Purpose) -> None:
    assert keyed_generator(purpose, 3, 4).bytes(8) == keyed_generator(purpose, np.int64(3), 4).bytes(8)
    assert keyed_seed(purpose, 3, 4) == keyed_seed(purpose, 3, 4) != keyed_seed(purpose, 3, 5)


def test_the_first_slot_does_not_share_the_order_of_its_epoch() -> None:
    """A list of numbers and the same list with a zero behind it are one seed to NumPy."""
    n = 1000
    shift = Draw.keyed(5, Slot(2, 0, 0), 1).shift
    sampler = TrainSampler(n_windows=n, batch_size=1, seed=5, weights=np.ones(n))
    sampler.set_epoch(2)
    first = next(iter(sampler)).window / n
    assert not first <= shift < first + 1 / n


def test_every_stream_of_the_package_comes_from_here() -> None:
    """Generated data sets have streams of their own, which their bytes rest on."""
    synthesis = set((PACKAGE / "data/synth").glob("*.py"))
    for path in set(PACKAGE.rglob("*.py")) - synthesis - {PACKAGE / "randomness.py"}:
        found = [word for word in ("default_rng", "SeedSequence") if word in path.read_text(encoding="utf-8")]
        assert not found, f"{path} makes a generator of its own: {found}"
