import os
import pickle
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from abaw.data.cache import cache_file
from abaw.data.formats.arrays import open_arrays
from abaw.data.index import build_index
from abaw.data.layout import DataSource
from abaw.errors import AbawError
from abaw.tasks import EXPR, VA
from tests.support.index_tree import FOLDERS, add_images, add_labels, assert_same, cached
from tests.support.random_labels import random_labels

pytestmark = pytest.mark.usefixtures("_own_cache")


def test_a_second_build_comes_from_the_cache(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = build_index(DataSource(tree))
    monkeypatch.setattr("abaw.data.index.read_rows_of_videos", None)
    assert_same(build_index(DataSource(tree)), first)
    with monkeypatch.context() as elsewhere:
        elsewhere.chdir(tree)
        assert_same(build_index(DataSource(Path("../data"))), first)
    with pytest.raises(TypeError):  # another question is another index
        build_index(DataSource(tree, image_roots=[tree / "cropped_aligned"]))


@pytest.mark.parametrize(
    "change",
    [
        lambda root: (root / "cropped_aligned/a/00003.jpg").touch(),
        lambda root: (root / "cropped_aligned/a/00001.jpg").unlink(),
        lambda root: add_images(root / "cropped_aligned", "new", [1]),
        lambda root: add_images(root / "cropped_aligned_3", "new", [1]),
        lambda root: (root / "cropped_aligned/e").rename(root / "cropped_aligned/f"),
        lambda root: add_labels(root / "6th ABAW Annotations", "a", VA, "train", random_labels(7, 99)),
        lambda root: add_labels(root / "6th ABAW Annotations", "e", EXPR, "test", random_labels(3)),
        lambda root: (root / "6th ABAW Annotations" / FOLDERS[EXPR] / "Validation_Set/d.txt").unlink(),
    ],
    ids=["frame", "lost frame", "video", "root", "renamed", "label values", "label file", "lost file"],
)
def test_any_change_of_a_source_is_seen_at_once(change: object, tree: Path, tmp_path: Path) -> None:
    build_index(DataSource(tree))
    assert callable(change)
    change(tree)
    assert_same(
        build_index(DataSource(tree)), build_index(DataSource(tree, cache_dir=tmp_path / "another cache"))
    )


class Bomb:
    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, ("exploded",)


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[: len(data) // 2],
        lambda data: data[:-1],
        lambda data: data + b"x",
        lambda data: data[:-3] + bytes([data[-3] ^ 1]) + data[-2:],
        lambda data: data.replace(b"cropped_aligned", b"cropped_Aligned"),
        lambda data: b"\xff" * 200,
        lambda data: (2).to_bytes(8, "little") + b"{}",
        lambda data: (40_000).to_bytes(8, "little") + b"[" * 40_000,
        lambda data: pickle.dumps(Bomb()),
    ],
    ids=["empty", "half", "short", "long", "flip", "note", "noise", "no arrays", "deep", "bomb"],
)
def test_a_damaged_cache_is_rebuilt(
    damage: object, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fresh = build_index(DataSource(tree, cache_dir=tmp_path / "another cache"))
    build_index(DataSource(tree))
    path = cached(tmp_path)
    assert callable(damage)
    path.write_bytes(damage(path.read_bytes()))
    monkeypatch.chdir(tmp_path)
    assert_same(build_index(DataSource(tree)), fresh)
    assert not (tmp_path / "exploded").exists()
    open_arrays(cached(tmp_path), verify=True)


def test_a_cache_that_cannot_be_written_is_one_clear_error(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(AbawError, match=r"could not be written .*ABAW_CACHE"):
        build_index(DataSource(tree))


@pytest.fixture
def _no_room() -> Iterator[None]:
    """Files end at 300 bytes, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.usefixtures("_no_room")
def test_a_full_disk_leaves_no_half_index(tree: Path, tmp_path: Path) -> None:
    with pytest.raises(AbawError, match="could not be written"):
        build_index(DataSource(tree))
    assert not list((tmp_path / "cache/index").iterdir())


def test_few_old_states_stay(tree: Path, tmp_path: Path) -> None:
    for number in range(30, 37):
        add_images(tree / "cropped_aligned", "a", [number])
        index = build_index(DataSource(tree))
    assert len(list((tmp_path / "cache/index").iterdir())) == 4
    assert index.path.exists()


def test_cache_names_tell_data_sets_and_states_apart(tmp_path: Path) -> None:
    names = {cache_file(tmp_path, options, state) for options in ("a", "b") for state in ("1", "2")}
    assert len(names) == 4
