from pathlib import Path

import pytest

from abaw.data.formats.annotations import write_mtl_file
from abaw.data.index import build_index
from abaw.data.layout import find_sources
from abaw.errors import AbawError
from tests.support.random_labels import random_labels

pytestmark = pytest.mark.usefixtures("_own_cache")


def test_what_is_missing_is_said(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(AbawError, match="no such folder"):
        build_index(tmp_path / "nowhere")
    with pytest.raises(AbawError, match="neither images"):
        build_index(tmp_path / "empty")
    with pytest.raises(AbawError, match="correct annotations or label_set"):
        build_index(tree, annotations=tmp_path / "empty")
    with pytest.raises(AbawError, match="MTL_Challenge"):
        build_index(tree, label_set="mtl")
    with pytest.raises(AbawError, match="correct image_roots"):
        build_index(tree, image_roots=[tmp_path / "empty"])
    with pytest.raises(AbawError, match="image_roots names"):
        build_index(tree, image_roots=[tmp_path / "nowhere"])


def test_a_change_of_any_folder_with_images_or_annotation_file_changes_the_data_set(tree: Path) -> None:
    sources = find_sources(tree)
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
    assert [file.path for file in find_sources(tree, label_set="mtl").annotations] == [path]
    assert path not in [file.path for file in find_sources(tree).annotations]
    assert len(find_sources(tree, label_set=None).annotations) == 6
