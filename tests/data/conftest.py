from pathlib import Path

import pytest

from abaw.data.labels import image_name
from abaw.data.layout import DataSource
from abaw.data.packing import pack
from abaw.tasks import AU, EXPR, VA
from tests.support.index_tree import FOLDERS, add_images, add_labels
from tests.support.packs import write_image
from tests.support.random_labels import random_labels


@pytest.fixture
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Index files go to `cache` below the test's own folder."""
    monkeypatch.setenv("ABAW_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Three videos over two roots, unequal label sets, gaps, strays; `d` has labels only, `e` images only."""
    root = tmp_path / "data"
    first, second = root / "cropped_aligned", root / "cropped_aligned_new_50_vids"
    add_images(first, "a", [1, 2, 4, 5])
    add_images(first, "b_left", range(1, 9))
    add_images(second, "b_left", [8, 9, 10])
    add_images(second, "c", [3, 20])
    add_images(first, "e", [2])
    (first / ".DS_Store").touch()
    (first / "00001.jpg").touch()
    for stray in (".DS_Store", "Thumbs.db", "1.jpg", "00000.jpg", "00003.png", "00003.JPG", "00003.jpg.tmp"):
        (first / "a" / stray).touch()
    labels = root / "6th ABAW Annotations"
    add_labels(labels, "a", VA, "train", random_labels(7, 1))
    add_labels(labels, "a", AU, "val", random_labels(6, 2))
    add_labels(labels, "b_left", EXPR, "train", random_labels(11, 3))
    add_labels(labels, "c", VA, "val", random_labels(9, 4))
    add_labels(labels, "d", EXPR, "val", random_labels(5, 5))
    (labels / FOLDERS[VA] / "Train_Set" / ".DS_Store").touch()
    (labels / FOLDERS[VA] / "Train_Set" / "._a.txt").touch()
    return root


@pytest.fixture(scope="session")
def flat(synth_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A flat pack of `synth_root`: read it, do not write into it."""
    out = tmp_path_factory.mktemp("flat") / "pack"
    done = pack(DataSource(synth_root), out, jobs=2)
    assert done.skipped == 0
    assert done.images == sum(1 for _ in synth_root.glob("cropped_aligned*/*/*.jpg"))
    return out


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """Two videos of 12 frames, frames 3 and 7 of each without a crop."""
    for video in "ab":
        for number in set(range(1, 13)) - {3, 7}:
            write_image(tmp_path / "data/cropped_aligned" / video / image_name(number), number + ord(video))
    return tmp_path / "data"
