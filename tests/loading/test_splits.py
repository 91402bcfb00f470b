from pathlib import Path

import numpy as np
import pytest

from abaw.data.formats.annotations import write_task_file
from abaw.data.index import Index, build_index
from abaw.data.labels import recording
from abaw.data.layout import DataSource
from abaw.errors import AbawError, UsageError
from abaw.loading.splits import make_folds, read_folds, write_folds
from abaw.tasks import AU, EXPR, TASKS, VA
from tests.support.random_labels import labels_of_character
from tests.support.recordings import ALONE, NAMES, WHOLE


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Index:
    """90 videos of very unequal length, some with two subjects, each annotated for some of the tasks."""
    root = tmp_path_factory.mktemp("folds")
    rng = np.random.default_rng(0)
    folders = {VA: "VA_Set", EXPR: "EXPR_Set", AU: "AU_Set"}
    names = [f"video{n}" for n in range(70)] + [f"two{n}{side}" for n in range(10) for side in ("", "_left")]
    for name in names:
        labels = labels_of_character(rng, int(rng.lognormal(5, 0.8)) + 10)
        split = "Train_Set" if rng.random() < 0.75 else "Validation_Set"
        for task in rng.choice(list(TASKS), int(rng.integers(1, 4)), replace=False):
            write_task_file(root / "data" / folders[task] / split / f"{name}.txt", task, labels)
    write_task_file(root / "data/VA_Set/Test_Set/secret.txt", VA, labels)
    return build_index(DataSource(root / "data", cache_dir=root / "cache"))


def unevenness(index: Index, folds: dict[str, int], k: int) -> float:
    """The standard deviation of a label's count over folds, relative to its mean, averaged over labels."""
    counts = []
    for fold in range(k):
        c = index.with_folds(folds, fold).label_counts("val", TASKS)
        counts.append([c[VA], *c[EXPR], *c[AU][:, 1]])
    table = np.array(counts, float)
    return float((table.std(0) / table.mean(0)).mean())


def test_every_annotated_video_is_in_one_fold_with_its_partner(index: Index) -> None:
    folds = make_folds(index, 5)
    wanted = {index.videos[v] for split in ("train", "val") for v in index.annotated(split, TASKS)}
    assert set(folds) == wanted
    assert "secret" not in folds
    assert set(folds.values()) == set(range(5))
    of_stem: dict[str, set[int]] = {}
    for video, fold in folds.items():
        of_stem.setdefault(recording(video), set()).add(fold)
    assert all(len(members) == 1 for members in of_stem.values())
    assert any(video.endswith("_left") for video in folds)


@pytest.mark.parametrize("k", [3, 5])
def test_folds_are_much_more_alike_than_chance(index: Index, k: int) -> None:
    made = unevenness(index, make_folds(index, k), k)
    rng = np.random.default_rng(1)
    stems = sorted({recording(video) for video in make_folds(index, k)})
    by_chance = []
    for _ in range(5):
        fold_of = dict(zip(stems, rng.permutation(len(stems)) % k, strict=True))
        folds = {video: int(fold_of[recording(video)]) for video in make_folds(index, k)}
        by_chance.append(unevenness(index, folds, k))
    assert made < 0.5 * np.mean(by_chance)
    frames = np.zeros(k)
    for video, fold in make_folds(index, k).items():
        frames[fold] += index.n_frames[index.videos.index(video)]
    assert frames.std() / frames.mean() < 0.06


def test_a_seed_decides(index: Index) -> None:
    assert make_folds(index, 4, seed=3) == make_folds(index, 4, seed=3)
    assert make_folds(index, 4, seed=3) != make_folds(index, 4, seed=4)


def test_a_negative_seed_is_refused(index: Index) -> None:
    with pytest.raises(UsageError, match="seed: -1 is too small"):
        make_folds(index, 4, seed=-1)


def test_as_many_folds_as_recordings_leave_none_empty(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name in ("a", "b_left", "b_right", "c"):
        path = tmp_path / "data/EXPR_Set/Train_Set" / f"{name}.txt"
        write_task_file(path, EXPR, labels_of_character(rng, 20))
    index = build_index(DataSource(tmp_path / "data", cache_dir=tmp_path / "cache"))
    folds = make_folds(index, 3)
    assert sorted(set(folds.values())) == [0, 1, 2]
    assert folds["b_left"] == folds["b_right"]
    for k in (1, 4):
        with pytest.raises(UsageError, match="choose from 2 to 3"):
            make_folds(index, k)


def test_folds_travel_through_a_file(index: Index, tmp_path: Path) -> None:
    folds = make_folds(index, 5)
    write_folds(tmp_path / "folds.json", folds)
    assert read_folds(tmp_path / "folds.json") == folds


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"folds": 3}', '{"folds": {"a": "0"}}', '{"folds": {"a": true}}', "[" * 10000, "\xff"],
)
def test_another_file_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "folds.json"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(AbawError, match="not a file of folds"):
        read_folds(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(AbawError, match=r"folds\.json: cannot be read"):
        read_folds(tmp_path / "folds.json")


@pytest.mark.parametrize("seed", range(3))
def test_folds_keep_every_recording_whole(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    for name in NAMES:
        split = "Train_Set" if rng.random() < 0.7 else "Validation_Set"
        path = tmp_path / "data/EXPR_Set" / split / f"{name}.txt"
        write_task_file(path, EXPR, labels_of_character(rng, int(rng.integers(20, 60))))
    folds = make_folds(build_index(DataSource(tmp_path / "data", cache_dir=tmp_path / "cache")), 5, seed)
    assert set(folds) == set(NAMES)
    for names in WHOLE.values():
        assert len({folds[name] for name in names}) == 1, names
    assert len({folds[name] for name in ALONE}) > 1
