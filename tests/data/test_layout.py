from pathlib import Path

import pytest

from abaw.data.formats.annotations import write_mtl_file
from abaw.data.index import build_index
from abaw.data.layout import DataSource, find_sources
from abaw.data.packing import pack
from abaw.errors import AbawError
from tests.support.random_labels import random_labels
from tests.support.tiny_set import write_tiny_set

pytestmark = pytest.mark.usefixtures("_own_cache")


def test_what_is_missing_is_said(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(AbawError, match="no such folder"):
        build_index(DataSource(tmp_path / "nowhere"))
    with pytest.raises(AbawError, match="neither images"):
        build_index(DataSource(tmp_path / "empty"))
    with pytest.raises(AbawError, match="correct annotations or label_set"):
        build_index(DataSource(tree, annotations=tmp_path / "empty"))
    with pytest.raises(AbawError, match="MTL_Challenge"):
        build_index(DataSource(tree, label_set="mtl"))
    with pytest.raises(AbawError, match="correct image_roots"):
        build_index(DataSource(tree, image_roots=[tmp_path / "empty"]))
    with pytest.raises(AbawError, match="image_roots names"):
        build_index(DataSource(tree, image_roots=[tmp_path / "nowhere"]))


def test_a_change_of_any_folder_with_images_or_annotation_file_changes_the_data_set(tree: Path) -> None:
    sources = find_sources(DataSource(tree))
    first, second = tree / "cropped_aligned", tree / "cropped_aligned_new_50_vids"
    assert sources.image_roots == {first: ["a", "b_left", "e"], second: ["b_left", "c"]}
    assert sorted(file.path.name for file in sources.annotations) == [
        "a.txt",
        "a.txt",
        "b_left.txt",
        "c.txt",
        "d.txt",
    ]
    folders = {first, second, first / "a", first / "b_left", first / "e", second / "b_left", second / "c"}
    assert set(sources.paths()) == folders | {file.path for file in sources.annotations}


def test_the_label_set_decides_which_annotations_are_taken(tree: Path) -> None:
    path = tree / "6th ABAW Annotations/MTL_Challenge/train_set.txt"
    write_mtl_file(path, {"a": random_labels(5)})
    assert [file.path for file in find_sources(DataSource(tree, label_set="mtl")).annotations] == [path]
    assert path not in [file.path for file in find_sources(DataSource(tree)).annotations]
    assert len(find_sources(DataSource(tree, label_set=None)).annotations) == 6


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("above", ["", "~/", "~/other/../"])
def test_paths_of_a_source_are_absolute_whatever_was_named(home: Path, above: str) -> None:
    source = DataSource(
        Path(f"{above}data"),
        image_roots=[Path(f"{above}faces"), Path("s3://bucket/faces")],
        annotations=Path(f"{above}labels"),
        features=[Path(f"{above}features")],
        cache_dir=Path(f"{above}cache"),
    )
    assert (source.root, source.annotations) == (home / "data", home / "labels")
    assert source.image_roots == (home / "faces", Path("s3://bucket/faces"))
    assert (source.features, source.cache) == ((home / "features",), home / "cache")
    assert hash(source) == hash(DataSource(home / "data", *(getattr(source, name) for name in _OTHERS)))


_OTHERS = ("image_roots", "annotations", "label_set", "features", "cache_dir")


def test_what_is_not_named_is_searched_below_the_root(home: Path) -> None:
    write_tiny_set(home / "data")
    found = find_sources(DataSource(Path("data")))
    assert set(found.image_roots) == set((home / "data").glob("cropped_aligned*"))
    named = find_sources(DataSource(Path(), image_roots=list(found.image_roots), annotations=Path("data")))
    assert named == found


def test_a_pack_uses_the_annotations_and_the_cache_of_its_source(home: Path) -> None:
    write_tiny_set(home / "data")
    pack(DataSource(Path("data"), cache_dir=Path("cache")), Path("pack"), jobs=1)
    assert list((home / "cache/index").glob("*.safetensors"))
