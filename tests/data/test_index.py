import pickle
import shutil
import time
from pathlib import Path

import numpy as np
import pytest

from abaw.data.formats.annotations import write_mtl_file, write_task_file
from abaw.data.index import build_index
from abaw.data.layout import DataSource
from abaw.errors import AbawError
from abaw.tasks import AU, EXPR, TASKS, VA
from tests.support.index_tree import FOLDERS, add_images, add_labels, assert_same
from tests.support.random_labels import random_labels

pytestmark = pytest.mark.usefixtures("_own_cache")


def test_one_row_per_video(tree: Path) -> None:
    index = build_index(DataSource(tree))
    assert index.videos == ("a", "b_left", "c", "d", "e")
    assert [root.name for root in index.roots] == ["cropped_aligned", "cropped_aligned_new_50_vids"]
    assert index.n_rows.tolist() == [7, 11, 9, 5, 0]
    assert index.n_frames.tolist() == [6, 10, 20, 4, 2]  # the last image, or one less than the rows
    assert index.splits(0) == {VA: "train", AU: "val"}
    assert index.splits(4) == {}
    assert index.annotated("train", TASKS) == [0, 1]
    assert index.annotated("val", [AU, VA]) == [0, 2]
    assert index.annotated(None, [EXPR]) == [1, 3]
    assert index.annotated("test", TASKS) == []


def test_a_frame_is_seen_where_a_crop_exists_and_strays_do_not_count(tree: Path) -> None:
    index = build_index(DataSource(tree))
    assert index.visible(0).tolist() == [True, True, False, True, True, False]
    assert index.visible(0, 2, 4).tolist() == [False, True]
    assert not index.visible(3).any()


def test_the_first_root_that_holds_a_frame_wins(tree: Path) -> None:
    index = build_index(DataSource(tree))
    assert index.source(1).tolist() == [0] * 8 + [1] * 2
    assert index.folder(1, 1) == tree / "cropped_aligned_new_50_vids" / "b_left"
    turned = build_index(DataSource(tree, image_roots=[index.roots[1], index.roots[0]]))
    assert turned.source(1).tolist() == [1] * 7 + [0] * 3


def test_labels_come_back_bit_for_bit_and_only_of_the_split_asked(tree: Path) -> None:
    index = build_index(DataSource(tree))
    va, au = random_labels(7, 1), random_labels(6, 2)
    both = index.labels(0)
    assert len(both) == 7
    np.testing.assert_array_equal(both[VA].values, va[VA].values)
    np.testing.assert_array_equal(both[VA].valid, va[VA].valid)
    np.testing.assert_array_equal(both[AU].values[:6], au[AU].values)
    np.testing.assert_array_equal(both[AU].valid[:6], au[AU].valid)
    assert not both[AU].valid[6:].any()
    assert not both[EXPR].valid.any()
    train, val = index.labels(0, "train"), index.labels(0, "val")
    assert train[VA].valid.any()
    assert not train[AU].valid.any()
    assert val[AU].valid.any()
    assert not val[VA].valid.any()
    np.testing.assert_array_equal(index.labels(1)[EXPR].values, random_labels(11, 3)[EXPR].values)


@pytest.mark.parametrize(("start", "stop"), [(0, 7), (2, 5), (5, 9), (7, 9), (12, 14), (3, 3)])
def test_a_stretch_of_labels_is_unlabelled_beyond_the_last_row(start: int, stop: int, tree: Path) -> None:
    index = build_index(DataSource(tree))
    part, expected = index.labels(0, start=start, stop=stop), index.labels(0).rows(start, stop)
    for task in TASKS:
        for mine, other in zip(part[task], expected[task], strict=True):
            np.testing.assert_array_equal(mine, other)
            assert mine.dtype == other.dtype


def test_label_counts(tree: Path) -> None:
    index = build_index(DataSource(tree))
    counts = index.label_counts("train", TASKS)
    va, expr = random_labels(7, 1), random_labels(11, 3)
    assert counts[VA] == va[VA].valid.sum()
    np.testing.assert_array_equal(counts[EXPR], np.bincount(expr[EXPR].values[expr[EXPR].valid], minlength=8))
    assert counts[AU].sum() == 0
    au = random_labels(6, 2)
    expected = [
        [int((au[AU].valid[:, k] & (au[AU].values[:, k] == v)).sum()) for v in (0, 1)] for k in range(12)
    ]
    assert index.label_counts("val", [AU]).keys() == {AU}
    np.testing.assert_array_equal(index.label_counts("val", [AU])[AU], expected)


def test_folds_redivide_train_and_val(tree: Path) -> None:
    index = build_index(DataSource(tree))
    folded = index.with_folds({"a": 0, "b_left": 1, "c": 0, "d": 2}, 0)
    assert folded.splits(0) == {VA: "val", AU: "val"}
    assert folded.annotated("val", TASKS) == [0, 2]
    assert folded.annotated("train", TASKS) == [1, 3]
    assert index.splits(0) == {VA: "train", AU: "val"}
    assert pickle.loads(pickle.dumps(folded)).annotated("val", TASKS) == [0, 2]
    with pytest.raises(AbawError, match="leave out b_left"):
        index.with_folds({"a": 0, "c": 0, "d": 2}, 0)
    with pytest.raises(AbawError, match="no video is in fold 7"):
        index.with_folds({"a": 0, "b_left": 1, "c": 0, "d": 2}, 7)


def test_mtl_set(tree: Path) -> None:
    train, val = random_labels(5, 6), random_labels(3, 7)
    write_mtl_file(tree / "6th ABAW Annotations/MTL_Challenge/train_set.txt", {"a": train})
    write_mtl_file(tree / "6th ABAW Annotations/MTL_Challenge/validation_set_annotations.txt", {"z": val})
    index = build_index(DataSource(tree, label_set="mtl"))
    assert index.videos == ("a", "b_left", "c", "e", "z")
    assert index.splits(0) == dict.fromkeys(TASKS, "train")
    assert index.annotated("val", TASKS) == [4]
    np.testing.assert_array_equal(index.labels(0).rows(0, 5)[VA].values, train[VA].values)
    assert index.n_frames[4] == index.n_rows[4]  # an image listed is a frame
    assert build_index(DataSource(tree)).annotated("train", TASKS) == [0, 1]


def test_a_video_annotated_twice_is_refused(tree: Path) -> None:
    second = add_labels(tree / "6th ABAW Annotations", "a", VA, "val", random_labels(7))
    with pytest.raises(AbawError, match=f"{second}: a is annotated for VA a second time"):
        build_index(DataSource(tree))
    second.unlink()
    add_labels(tree / "5th_ABAW_Annotations", "a", VA, "train", random_labels(7))
    with pytest.raises(AbawError, match="choose one folder with annotations"):
        build_index(DataSource(tree))
    assert build_index(DataSource(tree, annotations=tree / "5th_ABAW_Annotations")).annotated(
        None, TASKS
    ) == [0]


def test_a_wrong_annotation_stops_the_build_with_its_line(tree: Path) -> None:
    path = tree / "6th ABAW Annotations" / FOLDERS[VA] / "Train_Set" / "b.txt"
    path.write_text("valence,arousal\n0,0\n0,1.5\n")
    with pytest.raises(AbawError, match=r"b\.txt:3: arousal is '1\.5'"):
        build_index(DataSource(tree))


def big_tree(root: Path, n_videos: int, n_frames: int) -> None:
    labels = random_labels(n_frames + 1)
    for number in range(n_videos):
        video = f"video{number}"
        add_images(root / "cropped_aligned", video, range(1, n_frames + 1))
        for task in TASKS:
            add_labels(root / "Annotations", video, task, "train", labels)


def test_an_index_travels_to_workers_as_a_path(tmp_path: Path) -> None:
    sizes = []
    for n_frames in (10, 400):
        root = tmp_path / f"data{n_frames}"
        big_tree(root, 3, n_frames)
        index = build_index(DataSource(root))
        sizes.append(len(pickle.dumps(index)))
        assert_same(pickle.loads(pickle.dumps(index)), index)
    assert sizes[1] - sizes[0] < 10


def test_loading_is_much_faster_than_building(tmp_path: Path) -> None:
    big_tree(tmp_path / "data", 20, 500)

    def seconds(cache: str) -> float:
        start = time.process_time()
        build_index(DataSource(tmp_path / "data", cache_dir=tmp_path / cache))
        return time.process_time() - start

    building, loading = (min(seconds(cache) for cache in ("one", "other")) for _ in range(2))
    assert loading * 3 < building


def test_the_fingerprint_follows_the_content_not_the_place(tree: Path, tmp_path: Path) -> None:
    first = build_index(DataSource(tree)).fingerprint()
    copy = shutil.copytree(tree, tmp_path / "elsewhere")
    assert build_index(DataSource(copy)).fingerprint() == first
    found = {first}
    next((copy / "cropped_aligned/a").iterdir()).unlink()
    found.add(build_index(DataSource(copy)).fingerprint())
    labels = next(copy.rglob("Train_Set/a.txt"))
    write_task_file(labels, VA, random_labels(7, 5))
    changed = build_index(DataSource(copy))
    found.add(changed.fingerprint())
    found.add(changed.with_folds(dict.fromkeys(changed.videos, 0) | {"a": 1}, 0).fingerprint())
    assert len(found) == 4
