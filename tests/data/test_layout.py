from pathlib import Path

import pytest

from abaw.data.formats.annotations import write_mtl_file, write_task_file
from abaw.data.index import build_index
from abaw.data.layout import DataSource, find_files, meaning, meanings
from abaw.data.packing import pack
from abaw.errors import AbawError
from abaw.tasks import AU, EXPR, TASKS, VA, Task
from tests.support.index_tree import add_images, assert_same
from tests.support.random_labels import random_labels
from tests.support.tiny_set import write_tiny_set

pytestmark = pytest.mark.usefixtures("_own_cache")


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
    index = build_index(DataSource(root))
    assert index.videos == ("1-30-1280x720", "video45_1")
    assert index.roots == tuple(root.parent / name if name == "data" else root / name for name in expected)


def test_cropped_aligned_wins_over_other_crops_and_batches_come_in_order(tmp_path: Path) -> None:
    root = tmp_path / "data"
    for folder in ("cropped", "batch10/cropped_aligned", "batch2/cropped_aligned", "cropped_aligned"):
        add_images(root / folder, "a", [1])
    names = [str(folder.relative_to(root)) for folder in build_index(DataSource(root)).roots]
    assert names == ["batch2/cropped_aligned", "batch10/cropped_aligned", "cropped_aligned"]


def test_a_root_may_be_the_crops_folder_itself(tree: Path) -> None:
    index = build_index(DataSource(tree / "cropped_aligned", annotations=tree / "6th ABAW Annotations"))
    assert index.roots == (tree / "cropped_aligned",)
    assert index.annotated("train", TASKS) == [0, 1]


def test_plain_roots_that_disagree_are_not_chosen_between(tmp_path: Path) -> None:
    root = tmp_path / "data"
    add_images(root / "one", "a", [1])
    add_images(root / "two", "b", [1])
    assert build_index(DataSource(root)).videos == ("a", "b")
    add_images(root / "two", "a", [1])
    with pytest.raises(AbawError, match="choose with image_roots"):
        build_index(DataSource(root))
    assert build_index(DataSource(root, image_roots=[root / "two"])).videos == ("a", "b")


@pytest.mark.parametrize("names", [("VA_Set", "train"), ("VA_Estimation_Challenge", "Training_Set")])
@pytest.mark.parametrize("above", ["", "ABAW Annotations/ABAW Annotations", "6th_ABAW_Annotations"])
def test_annotation_folders_of_every_edition(above: str, names: tuple[str, str], tmp_path: Path) -> None:
    root = tmp_path / "data"
    folder, split = names
    write_task_file(root / above / folder / split / "a.txt", VA, random_labels(3))
    index = build_index(DataSource(root))
    assert index.splits(0) == {VA: "train"}
    assert not index.roots
    assert index.n_frames.tolist() == [2]
    assert build_index(DataSource(root / above / folder)).splits(0) == {VA: "train"}


TASK_FOLDERS = {
    VA: "VA_Estimation_Challenge,VA Estimation Challenge,va-estimation-challenge,VA_Estimation,VA_Set"
    ",VA Set,va,VASet,VA_Challenge,Valence_Arousal,Valence-Arousal Estimation Challenge,VA (1),6th_ABAW_VA",
    EXPR: "EXPR_Recognition_Challenge,EXPR_Recognition,EXPR Classification Challenge,EXPR_Classification"
    ",Expr_Set,EXPR,Expression_Recognition,Expression Classification Challenge,expressions,EXPR_annotations",
    AU: "AU_Detection_Challenge,AU Detection Challenge,AU_Detection,AU-Set,AU,AUs,au_labels"
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


NAMES += [("VA_Set", name, VA, split) for split in SPLIT_NAMES for name in SPLIT_NAMES[split].split(",")]


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
    index = build_index(DataSource(tmp_path / "data"))
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
    assert build_index(DataSource(tmp_path / "data", label_set="mtl")).splits(0) == dict.fromkeys(
        TASKS, "train"
    )


@pytest.mark.parametrize(
    "name",
    ["vad", "VA_EXPR_Set", "train_val", "valley", "auto", "notes", "1-30-1280x720", "video45_1", "données"],
)
def test_other_names_say_nothing(name: str) -> None:
    assert meaning(name, meanings(TASKS)) == (None, None)


def test_a_video_may_be_called_like_a_task(tmp_path: Path) -> None:
    for video in ("va", "AU_1", "train"):
        add_images(tmp_path / "data/cropped_aligned", video, [1])
    assert build_index(DataSource(tmp_path / "data")).videos == ("AU_1", "train", "va")


def test_links_that_lead_back_are_searched_once(tree: Path) -> None:
    before = build_index(DataSource(tree))
    (tree / "6th ABAW Annotations" / "above").symlink_to(tree)
    (tree / "5th ABAW Annotations").symlink_to("6th ABAW Annotations")
    (tree / "itself").symlink_to("itself")
    assert_same(build_index(DataSource(tree)), before)


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
    sources = find_files(DataSource(tree))
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
    assert [file.path for file in find_files(DataSource(tree, label_set="mtl")).annotations] == [path]
    assert path not in [file.path for file in find_files(DataSource(tree)).annotations]
    assert len(find_files(DataSource(tree, label_set=None)).annotations) == 6


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
    found = find_files(DataSource(Path("data")))
    assert set(found.image_roots) == set((home / "data").glob("cropped_aligned*"))
    named = find_files(DataSource(Path(), image_roots=list(found.image_roots), annotations=Path("data")))
    assert named == found


def test_a_pack_uses_the_annotations_and_the_cache_of_its_source(home: Path) -> None:
    write_tiny_set(home / "data")
    pack(DataSource(Path("data"), cache_dir=Path("cache")), Path("pack"), jobs=1)
    assert list((home / "cache/index").glob("*.safetensors"))
