import os
import pickle
import resource
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from abaw.data.cache import cache_file
from abaw.data.discovery import image_numbers, meaning
from abaw.data.formats.annotations import write_mtl_file, write_task_file
from abaw.data.formats.arrays import DamagedFileError, open_arrays, write_arrays
from abaw.data.index import Index, build_index
from abaw.data.labels import Labels, image_name
from abaw.errors import AbawError
from abaw.tasks import Task

FOLDERS = {Task.VA: "VA_Estimation_Challenge", Task.EXPR: "EXPR_Classification_Challenge", Task.AU: "AU_Set"}
SPLIT_FOLDERS = {"train": "Train_Set", "val": "Validation_Set", "test": "Test_Set"}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ABAW_CACHE", str(tmp_path / "cache"))


def random_labels(n_rows: int, seed: int = 0) -> Labels:
    rng = np.random.default_rng(seed)
    va_valid, expr_valid = rng.random((2, n_rows)) < 0.8
    au_valid = rng.random((n_rows, 12)) < 0.8
    return Labels(
        va=(rng.uniform(-1, 1, (n_rows, 2)) * va_valid[:, None]).astype(np.float32),
        va_valid=va_valid,
        expr=rng.integers(0, 8, n_rows) * expr_valid,
        expr_valid=expr_valid,
        au=(rng.integers(0, 2, (n_rows, 12)) * au_valid).astype(np.float32),
        au_valid=au_valid,
    )


def add_images(root: Path, video: str, numbers: Iterable[int]) -> None:
    """Names are all the index looks at."""
    (root / video).mkdir(parents=True, exist_ok=True)
    for number in numbers:
        (root / video / image_name(number)).touch()


def add_labels(root: Path, video: str, task: Task, split: str, labels: Labels) -> Path:
    path = root / FOLDERS[task] / SPLIT_FOLDERS[split] / f"{video}.txt"
    write_task_file(path, task, labels)
    return path


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
    add_labels(labels, "a", Task.VA, "train", random_labels(7, 1))
    add_labels(labels, "a", Task.AU, "val", random_labels(6, 2))
    add_labels(labels, "b_left", Task.EXPR, "train", random_labels(11, 3))
    add_labels(labels, "c", Task.VA, "val", random_labels(9, 4))
    add_labels(labels, "d", Task.EXPR, "val", random_labels(5, 5))
    (labels / FOLDERS[Task.VA] / "Train_Set" / ".DS_Store").touch()
    (labels / FOLDERS[Task.VA] / "Train_Set" / "._a.txt").touch()
    return root


def test_one_row_per_video(tree: Path) -> None:
    index = build_index(tree)
    assert index.videos == ("a", "b_left", "c", "d", "e")
    assert [root.name for root in index.roots] == ["cropped_aligned", "cropped_aligned_new_50_vids"]
    assert index.n_rows.tolist() == [7, 11, 9, 5, 0]
    assert index.n_frames.tolist() == [6, 10, 20, 4, 2]  # the last image, or one less than the rows
    assert index.splits(0) == {Task.VA: "train", Task.AU: "val"}
    assert index.splits(4) == {}
    assert index.annotated("train", Task) == [0, 1]
    assert index.annotated("val", [Task.AU, Task.VA]) == [0, 2]
    assert index.annotated(None, [Task.EXPR]) == [1, 3]
    assert index.annotated("test", Task) == []


def test_a_frame_is_seen_where_a_crop_exists_and_strays_do_not_count(tree: Path) -> None:
    index = build_index(tree)
    assert index.visible(0).tolist() == [True, True, False, True, True, False]
    assert index.visible(0, 2, 4).tolist() == [False, True]
    assert not index.visible(3).any()


def test_the_first_root_that_holds_a_frame_wins(tree: Path) -> None:
    index = build_index(tree)
    assert index.source(1).tolist() == [0] * 8 + [1] * 2
    assert index.folder(1, 1) == tree / "cropped_aligned_new_50_vids" / "b_left"
    turned = build_index(tree, image_roots=[index.roots[1], index.roots[0]])
    assert turned.source(1).tolist() == [1] * 7 + [0] * 3


def test_labels_come_back_bit_for_bit_and_only_of_the_split_asked(tree: Path) -> None:
    index = build_index(tree)
    va, au = random_labels(7, 1), random_labels(6, 2)
    both = index.labels(0)
    assert len(both) == 7
    np.testing.assert_array_equal(both.va, va.va)
    np.testing.assert_array_equal(both.va_valid, va.va_valid)
    np.testing.assert_array_equal(both.au[:6], au.au)
    np.testing.assert_array_equal(both.au_valid[:6], au.au_valid)
    assert not both.au_valid[6:].any()
    assert not both.expr_valid.any()
    train, val = index.labels(0, "train"), index.labels(0, "val")
    assert train.va_valid.any()
    assert not train.au_valid.any()
    assert val.au_valid.any()
    assert not val.va_valid.any()
    np.testing.assert_array_equal(index.labels(1).expr, random_labels(11, 3).expr)


@pytest.mark.parametrize(("start", "stop"), [(0, 7), (2, 5), (5, 9), (7, 9), (12, 14), (3, 3)])
def test_a_stretch_of_labels_is_unlabelled_beyond_the_last_row(start: int, stop: int, tree: Path) -> None:
    index = build_index(tree)
    part, expected = index.labels(0, start=start, stop=stop), index.labels(0).rows(start, stop)
    for name in expected.__dataclass_fields__:
        np.testing.assert_array_equal(getattr(part, name), getattr(expected, name))
        assert getattr(part, name).dtype == getattr(expected, name).dtype


def test_label_counts(tree: Path) -> None:
    index = build_index(tree)
    counts = index.label_counts("train", Task)
    va, expr = random_labels(7, 1), random_labels(11, 3)
    assert counts["va"] == va.va_valid.sum()
    np.testing.assert_array_equal(counts["expr"], np.bincount(expr.expr[expr.expr_valid], minlength=8))
    assert counts["au"].sum() == 0
    au = random_labels(6, 2)
    expected = [[int((au.au_valid[:, k] & (au.au[:, k] == v)).sum()) for v in (0, 1)] for k in range(12)]
    assert index.label_counts("val", [Task.AU]).keys() == {"au"}
    np.testing.assert_array_equal(index.label_counts("val", [Task.AU])["au"], expected)


def test_folds_redivide_train_and_val(tree: Path) -> None:
    index = build_index(tree)
    folded = index.with_folds({"a": 0, "b_left": 1, "c": 0, "d": 2}, 0)
    assert folded.splits(0) == {Task.VA: "val", Task.AU: "val"}
    assert folded.annotated("val", Task) == [0, 2]
    assert folded.annotated("train", Task) == [1, 3]
    assert index.splits(0) == {Task.VA: "train", Task.AU: "val"}
    assert pickle.loads(pickle.dumps(folded)).annotated("val", Task) == [0, 2]
    with pytest.raises(AbawError, match="leave out b_left"):
        index.with_folds({"a": 0, "c": 0, "d": 2}, 0)
    with pytest.raises(AbawError, match="no video is in fold 7"):
        index.with_folds({"a": 0, "b_left": 1, "c": 0, "d": 2}, 7)


def test_mtl_set(tree: Path) -> None:
    train, val = random_labels(5, 6), random_labels(3, 7)
    write_mtl_file(tree / "6th ABAW Annotations/MTL_Challenge/train_set.txt", {"a": train})
    write_mtl_file(tree / "6th ABAW Annotations/MTL_Challenge/validation_set_annotations.txt", {"z": val})
    index = build_index(tree, label_set="mtl")
    assert index.videos == ("a", "b_left", "c", "e", "z")
    assert index.splits(0) == dict.fromkeys(Task, "train")
    assert index.annotated("val", Task) == [4]
    np.testing.assert_array_equal(index.labels(0).rows(0, 5).va, train.va)
    assert index.n_frames[4] == index.n_rows[4]  # an image listed is a frame
    assert build_index(tree).annotated("train", Task) == [0, 1]


@pytest.mark.parametrize(
    ("folder", "expected"),
    [
        ("cropped_aligned", ["cropped_aligned"]),
        (".", ["data"]),
        ("batch1/cropped_aligned", ["batch1/cropped_aligned"]),
        ("Images/batch2/cropped_aligned", ["Images/batch2/cropped_aligned"]),
        ("faces", ["faces"]),
    ],
)
def test_image_roots_are_found(folder: str, expected: list[str], tmp_path: Path) -> None:
    root = tmp_path / "data"
    add_images(root / folder, "1-30-1280x720", [1])
    add_images(root / folder, "video45_1", [1])
    (root / "empty").mkdir()
    index = build_index(root)
    assert index.videos == ("1-30-1280x720", "video45_1")
    assert index.roots == tuple(root.parent / name if name == "data" else root / name for name in expected)


def test_cropped_aligned_wins_over_other_crops_and_batches_come_in_order(tmp_path: Path) -> None:
    root = tmp_path / "data"
    for folder in ("cropped", "batch10/cropped_aligned", "batch2/cropped_aligned", "cropped_aligned"):
        add_images(root / folder, "a", [1])
    names = [str(folder.relative_to(root)) for folder in build_index(root).roots]
    assert names == ["batch2/cropped_aligned", "batch10/cropped_aligned", "cropped_aligned"]


def test_a_root_may_be_the_crops_folder_itself(tree: Path) -> None:
    index = build_index(tree / "cropped_aligned", annotations=tree / "6th ABAW Annotations")
    assert index.roots == (tree / "cropped_aligned",)
    assert index.annotated("train", Task) == [0, 1]


def test_plain_roots_that_disagree_are_not_chosen_between(tmp_path: Path) -> None:
    root = tmp_path / "data"
    add_images(root / "one", "a", [1])
    add_images(root / "two", "b", [1])
    assert build_index(root).videos == ("a", "b")
    add_images(root / "two", "a", [1])
    with pytest.raises(AbawError, match="choose with image_roots"):
        build_index(root)
    assert build_index(root, image_roots=[root / "two"]).videos == ("a", "b")


@pytest.mark.parametrize("names", [("VA_Set", "train"), ("VA_Estimation_Challenge", "Training_Set")])
@pytest.mark.parametrize("above", ["", "ABAW Annotations/ABAW Annotations", "6th_ABAW_Annotations"])
def test_annotation_folders_of_every_edition(above: str, names: tuple[str, str], tmp_path: Path) -> None:
    root = tmp_path / "data"
    folder, split = names
    write_task_file(root / above / folder / split / "a.txt", Task.VA, random_labels(3))
    index = build_index(root)
    assert index.splits(0) == {Task.VA: "train"}
    assert not index.roots
    assert index.n_frames.tolist() == [2]
    assert build_index(root / above / folder).splits(0) == {Task.VA: "train"}


TASK_FOLDERS = {
    Task.VA: "VA_Estimation_Challenge,VA Estimation Challenge,va-estimation-challenge,VA_Estimation,VA_Set"
    ",VA Set,va,VASet,VA_Challenge,Valence_Arousal,Valence-Arousal Estimation Challenge,VA (1),6th_ABAW_VA",
    Task.EXPR: "EXPR_Recognition_Challenge,EXPR_Recognition,EXPR Classification Challenge,EXPR_Classification"
    ",Expr_Set,EXPR,Expression_Recognition,Expression Classification Challenge,expressions,EXPR_annotations",
    Task.AU: "AU_Detection_Challenge,AU Detection Challenge,AU_Detection,AU-Set,AU,AUs,au_labels"
    ",Action_Unit_Detection_Challenge,Action Units,AU_Set_2021",
}
SPLIT_NAMES = {
    "train": "Train_Set,Training_Set,Train Set,train,TRAIN,TrainSet,training-set,Train_Set_Annotations",
    "val": "Validation_Set,Validation Set,validation,val,Val_Set,valid,VAL_SET,Validation_set,ValidationSet",
    "test": "Test_Set,test,Testing_Set,Test Set",
}
NAMES = [
    (name, "Train_Set", task, "train") for task in TASK_FOLDERS for name in TASK_FOLDERS[task].split(",")
]
NAMES += [("VA_Set", name, Task.VA, split) for split in SPLIT_NAMES for name in SPLIT_NAMES[split].split(",")]


@pytest.mark.parametrize(("folder", "split_folder", "task", "split"), NAMES)
def test_folders_that_users_have_are_recognised(
    folder: str, split_folder: str, task: Task, split: str, tmp_path: Path
) -> None:
    for path in (
        f"{folder}/{split_folder}/a.txt",
        f"{split_folder}/{folder}/b.txt",
        f"{folder} {split_folder}/c.txt",
    ):
        write_task_file(tmp_path / "data" / path, task, random_labels(3))
    index = build_index(tmp_path / "data")
    assert index.videos == ("a", "b", "c")
    assert [index.splits(video) for video in range(3)] == [{task: split}] * 3


@pytest.mark.parametrize(
    "folder",
    [
        "MTL_Challenge",
        "MTL Challenge",
        "mtl",
        "Multi-Task-Learning Challenge",
        "MTL_annotations",
        "Multitask",
    ],
)
@pytest.mark.parametrize("name", ["train_set", "training_set_annotations", "Train Set", "train"])
def test_mtl_files_that_users_have_are_recognised(folder: str, name: str, tmp_path: Path) -> None:
    write_mtl_file(tmp_path / "data" / folder / f"{name}.txt", {"a": random_labels(3)})
    assert build_index(tmp_path / "data", label_set="mtl").splits(0) == dict.fromkeys(Task, "train")


@pytest.mark.parametrize(
    "name",
    ["vad", "VA_EXPR_Set", "train_val", "valley", "auto", "notes", "1-30-1280x720", "video45_1", "données"],
)
def test_other_names_say_nothing(name: str) -> None:
    assert meaning(name) == (None, None)


def test_a_video_may_be_called_like_a_task(tmp_path: Path) -> None:
    for video in ("va", "AU_1", "train"):
        add_images(tmp_path / "data/cropped_aligned", video, [1])
    assert build_index(tmp_path / "data").videos == ("AU_1", "train", "va")


def test_links_that_lead_back_are_searched_once(tree: Path) -> None:
    before = build_index(tree)
    (tree / "6th ABAW Annotations" / "above").symlink_to(tree)
    (tree / "5th ABAW Annotations").symlink_to("6th ABAW Annotations")
    (tree / "itself").symlink_to("itself")
    assert_same(build_index(tree), before)


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


def test_a_video_annotated_twice_is_refused(tree: Path) -> None:
    second = add_labels(tree / "6th ABAW Annotations", "a", Task.VA, "val", random_labels(7))
    with pytest.raises(AbawError, match=f"{second}: a is annotated for VA a second time"):
        build_index(tree)
    second.unlink()
    add_labels(tree / "5th_ABAW_Annotations", "a", Task.VA, "train", random_labels(7))
    with pytest.raises(AbawError, match="choose one folder with annotations"):
        build_index(tree)
    assert build_index(tree, annotations=tree / "5th_ABAW_Annotations").annotated(None, Task) == [0]


def test_a_wrong_annotation_stops_the_build_with_its_line(tree: Path) -> None:
    path = tree / "6th ABAW Annotations" / FOLDERS[Task.VA] / "Train_Set" / "b.txt"
    path.write_text("valence,arousal\n0,0\n0,1.5\n")
    with pytest.raises(AbawError, match=r"b\.txt:3: arousal is '1\.5'"):
        build_index(tree)


def assert_same(one: Index, other: Index) -> None:
    assert one.videos == other.videos
    assert one.roots == other.roots
    for name, array in one.arrays.items():
        np.testing.assert_array_equal(array, other.arrays[name])


def test_a_second_build_comes_from_the_cache(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = build_index(tree)
    monkeypatch.setattr("abaw.data.index.read_rows_of_videos", None)
    assert_same(build_index(tree), first)
    with monkeypatch.context() as elsewhere:
        elsewhere.chdir(tree)
        assert_same(build_index(Path("../data")), first)
    with pytest.raises(TypeError):  # another question is another index
        build_index(tree, image_roots=[tree / "cropped_aligned"])


@pytest.mark.parametrize(
    "change",
    [
        lambda root: (root / "cropped_aligned/a/00003.jpg").touch(),
        lambda root: (root / "cropped_aligned/a/00001.jpg").unlink(),
        lambda root: add_images(root / "cropped_aligned", "new", [1]),
        lambda root: add_images(root / "cropped_aligned_3", "new", [1]),
        lambda root: (root / "cropped_aligned/e").rename(root / "cropped_aligned/f"),
        lambda root: add_labels(root / "6th ABAW Annotations", "a", Task.VA, "train", random_labels(7, 99)),
        lambda root: add_labels(root / "6th ABAW Annotations", "e", Task.EXPR, "test", random_labels(3)),
        lambda root: (root / "6th ABAW Annotations" / FOLDERS[Task.EXPR] / "Validation_Set/d.txt").unlink(),
    ],
    ids=["frame", "lost frame", "video", "root", "renamed", "label values", "label file", "lost file"],
)
def test_any_change_of_a_source_is_seen_at_once(change: object, tree: Path, tmp_path: Path) -> None:
    build_index(tree)
    assert callable(change)
    change(tree)
    assert_same(build_index(tree), build_index(tree, cache_dir=tmp_path / "another cache"))


def cached(tmp_path: Path) -> Path:
    (path,) = (tmp_path / "cache/index").iterdir()
    return path


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
    fresh = build_index(tree, cache_dir=tmp_path / "another cache")
    build_index(tree)
    path = cached(tmp_path)
    assert callable(damage)
    path.write_bytes(damage(path.read_bytes()))
    monkeypatch.chdir(tmp_path)
    assert_same(build_index(tree), fresh)
    assert not (tmp_path / "exploded").exists()
    open_arrays(cached(tmp_path), verify=True)


def test_a_cache_that_cannot_be_written_is_one_clear_error(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(AbawError, match=r"could not be written .*ABAW_CACHE"):
        build_index(tree)


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
        build_index(tree)
    assert not list((tmp_path / "cache/index").iterdir())


def test_few_old_states_stay(tree: Path, tmp_path: Path) -> None:
    for number in range(30, 37):
        add_images(tree / "cropped_aligned", "a", [number])
        index = build_index(tree)
    assert len(list((tmp_path / "cache/index").iterdir())) == 4
    assert index.path.exists()


def test_the_cache_is_a_plain_safetensors_file(tree: Path, tmp_path: Path) -> None:
    index = build_index(tree)
    arrays = safetensors.numpy.load_file(cached(tmp_path))
    np.testing.assert_array_equal(arrays["va"], index.arrays["va"])
    assert arrays["source"].dtype == np.int8
    write_arrays(tmp_path / "x", {"a": [np.zeros((0, 3), np.int8), np.ones((2, 3), np.int8)]}, "note")
    read, note = open_arrays(tmp_path / "x", verify=True)
    assert (read["a"].tolist(), note) == ([[1, 1, 1], [1, 1, 1]], "note")
    with pytest.raises(ValueError, match="read-only"):
        read["a"][0] = 5
    with pytest.raises(DamagedFileError):
        open_arrays(tree / "6th ABAW Annotations" / FOLDERS[Task.AU] / "Validation_Set/a.txt", verify=False)


def test_cache_names_tell_data_sets_and_states_apart(tmp_path: Path) -> None:
    names = {cache_file(tmp_path, options, state) for options in ("a", "b") for state in ("1", "2")}
    assert len(names) == 4


def test_image_numbers_agree_with_the_pattern_on_odd_names() -> None:
    names = [
        "00001.jpg",
        "99999.jpg",
        "100000.jpg",
        "1234567.jpg",
        "00000.jpg",
        "0000é.jpg",
        "0000\udcff.jpg",
    ]
    names += ["00001.JPG", "010000.jpg", "0000٣.jpg", "12345678.jpg", "1.jpg", "00002.jpeg", "-0001.jpg", ""]
    assert sorted(image_numbers(names).tolist()) == [1, 99999, 100000, 1234567]


def big_tree(root: Path, n_videos: int, n_frames: int) -> None:
    labels = random_labels(n_frames + 1)
    for number in range(n_videos):
        video = f"video{number}"
        add_images(root / "cropped_aligned", video, range(1, n_frames + 1))
        for task in Task:
            add_labels(root / "Annotations", video, task, "train", labels)


def test_an_index_travels_to_workers_as_a_path(tmp_path: Path) -> None:
    sizes = []
    for n_frames in (10, 400):
        root = tmp_path / f"data{n_frames}"
        big_tree(root, 3, n_frames)
        index = build_index(root)
        sizes.append(len(pickle.dumps(index)))
        assert_same(pickle.loads(pickle.dumps(index)), index)
    assert sizes[1] - sizes[0] < 10


def test_loading_is_much_faster_than_building(tmp_path: Path) -> None:
    big_tree(tmp_path / "data", 20, 500)

    def seconds(cache: str) -> float:
        start = time.process_time()
        build_index(tmp_path / "data", cache_dir=tmp_path / cache)
        return time.process_time() - start

    building, loading = (min(seconds(cache) for cache in ("one", "other")) for _ in range(2))
    assert loading * 3 < building
