from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from abaw.data.formats.arrays import DamagedFileError, open_arrays, write_arrays
from abaw.data.index import build_index
from abaw.data.layout import DataSource
from abaw.tasks import AU
from tests.support.index_tree import FOLDERS, cached

pytestmark = pytest.mark.usefixtures("_own_cache")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Two parts of "wide" and one of each other dtype, of lengths that are no multiple of eight."""
    rng = np.random.default_rng(0)
    parts = {
        "bytes": [rng.integers(0, 256, 13, dtype=np.uint8)],
        "signs": [rng.integers(-9, 9, (3, 5)).astype(np.int8)],
        "real": [rng.normal(size=(3, 2)).astype(np.float32)],
        "wide": [rng.integers(0, 2**60, (2, 3)), rng.integers(0, 2**60, (5, 3))],
    }
    write_arrays(tmp_path / "arrays", parts, "a note")
    return tmp_path / "arrays"


@pytest.mark.parametrize("verify", [False, True])
def test_arrays_come_back_aligned_and_as_another_library_reads_them(verify: bool, path: Path) -> None:
    arrays, note = open_arrays(path, verify=verify)
    assert note == "a note"
    others = safetensors.numpy.load_file(path)
    assert arrays.keys() == others.keys() == {"bytes", "signs", "real", "wide"}
    for name, array in arrays.items():
        np.testing.assert_array_equal(array, others[name])
        assert array.dtype == others[name].dtype
        assert array.ctypes.data % array.itemsize == 0
    assert arrays["wide"].shape == (7, 3)


@pytest.mark.parametrize("place", [-1, -13, -100, -200])
def test_a_changed_byte_is_found_when_verified(place: int, path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
    with pytest.raises(DamagedFileError, match="checksum"):
        open_arrays(path, verify=True)


@pytest.mark.parametrize("length", [0, 7, 8, 100, -1])
def test_a_file_cut_short_is_found_without_reading_it(length: int, path: Path) -> None:
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(DamagedFileError, match="arrays"):
        open_arrays(path, verify=False)


def test_a_write_that_fails_leaves_the_file_before(path: Path) -> None:
    before = path.read_bytes()
    with pytest.raises(KeyError):
        write_arrays(path, {"half": [np.zeros(3, np.float16)]}, "")
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_the_cache_is_a_plain_safetensors_file(tree: Path, tmp_path: Path) -> None:
    index = build_index(DataSource(tree))
    arrays = safetensors.numpy.load_file(cached(tmp_path))
    np.testing.assert_array_equal(arrays["va"], index.arrays["va"])
    assert arrays["source"].dtype == np.int8
    write_arrays(tmp_path / "x", {"a": [np.zeros((0, 3), np.int8), np.ones((2, 3), np.int8)]}, "note")
    read, note = open_arrays(tmp_path / "x", verify=True)
    assert (read["a"].tolist(), note) == ([[1, 1, 1], [1, 1, 1]], "note")
    with pytest.raises(ValueError, match="read-only"):
        read["a"][0] = 5
    with pytest.raises(DamagedFileError):
        open_arrays(tree / "6th ABAW Annotations" / FOLDERS[AU] / "Validation_Set/a.txt", verify=False)
