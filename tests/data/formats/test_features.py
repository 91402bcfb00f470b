from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from abaw.data.formats.features import (
    differences,
    fingerprint_of,
    open_features,
    read_metadata,
    write_features,
    write_metadata,
)
from abaw.errors import AbawError


def test_infinite_features_are_not_written(tmp_path: Path) -> None:
    features = np.array([[np.inf]], np.float16)
    with pytest.raises(AbawError, match="not finite in float16"):
        write_features(tmp_path / "a.safetensors", features=features, visible=np.ones(1, bool), metadata={})
    assert not list(tmp_path.iterdir())


def test_a_file_comes_back_as_another_library_reads_it(tmp_path: Path) -> None:
    values, visible = np.arange(8, dtype=np.float32).reshape(4, 2), np.array([True, False, True, True])
    write_features(tmp_path / "a.safetensors", features=values, visible=visible, metadata={"key": "k"})
    read = open_features(tmp_path / "a.safetensors")
    np.testing.assert_array_equal(read.features, [[0, 1], [0, 0], [4, 5], [6, 7]])
    np.testing.assert_array_equal(read.visible, visible)
    assert read.features.dtype == np.float32
    other = load_file(tmp_path / "a.safetensors")
    np.testing.assert_array_equal(other["features"], read.features)
    np.testing.assert_array_equal(other["visible"], visible)
    with pytest.raises(ValueError, match="read-only"):
        read.features[0] = 1


@pytest.mark.parametrize(
    ("features", "visible"),
    [
        (np.zeros((3, 2), np.float64), np.ones(3, bool)),
        (np.zeros(3, np.float16), np.ones(3, bool)),
        (np.zeros((3, 2), np.float16), np.ones(2, bool)),
        (np.zeros((0, 2), np.float16), np.ones(0, bool)),
    ],
)
def test_arrays_that_do_not_fit_are_not_written(
    features: np.ndarray, visible: np.ndarray, tmp_path: Path
) -> None:
    with pytest.raises(AbawError, match=r"a\.safetensors: features .* must be .*float16 or float32"):
        write_features(tmp_path / "a.safetensors", features=features, visible=visible)
    assert not list(tmp_path.iterdir())


def test_descriptions_are_told_apart_by_what_they_hold_not_by_order(tmp_path: Path) -> None:
    one = {"backbone": {"name": "vit", "depth": 2}, "weights": "a" * 64}
    same = {"weights": "a" * 64, "backbone": {"depth": 2, "name": "vit"}}
    assert fingerprint_of(one) == fingerprint_of(same) != fingerprint_of(one | {"weights": "b"})
    assert read_metadata(tmp_path) is None
    write_metadata(tmp_path, one)
    assert read_metadata(tmp_path) == one
    assert differences(one, same) == []
    assert differences(one, {"backbone": {"name": "vit"}}) == ["backbone.depth 2, now None"]
    assert differences(one, {"weights": "b" * 64}) == ["weights aaaaaaaaaaaa…, now bbbbbbbbbbbb…"]
