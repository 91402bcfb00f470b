"""The generated data: layout, shares, honesty of the labels, and faces whose parts move by themselves."""

import hashlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from abaw.data.formats.annotations import read_annotations
from abaw.data.labels import image_name, recording
from abaw.data.synth import writer as synthetic
from abaw.data.synth.canvas import SIZE
from abaw.data.synth.presets import PRESETS, VideoSpec, plan_videos
from abaw.data.synth.writer import (
    ANNOTATIONS,
    IMAGE_ROOTS,
    SPLIT_FOLDERS,
    TASK_FOLDERS,
    TEST_LISTS,
    write_dataset,
    write_test_lists,
)
from abaw.errors import AbawError, UsageError
from abaw.evaluation.submission.formats import FORMS, Sample, read_sample
from abaw.tasks import AU, EXPR, TASKS, VA, Task
from docs.contact_sheet import contact_sheet

SETTINGS = {"videos": 7, "frames": 16, "seed": 3, "preset": "demo"}


def hashes(root: Path) -> dict[str, str]:
    files = (path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("synthetic") / "data"
    write_dataset(out, **SETTINGS, jobs=1, progress=False)
    return out


@pytest.fixture(scope="module")
def specs() -> list[VideoSpec]:
    settings = SETTINGS | {"preset": PRESETS["demo"]}
    return plan_videos(**settings)


def images(root: Path, video: str) -> set[str]:
    folders = [root / image_root / video for image_root in IMAGE_ROOTS]
    return {path.name for folder in folders if folder.is_dir() for path in folder.glob("*.jpg")}


def annotated(root: Path, split: str, task: Task) -> set[str]:
    folder = root / ANNOTATIONS / TASK_FOLDERS[task] / SPLIT_FOLDERS[split]
    return {path.stem for path in folder.glob("*.txt")}


def test_same_seed_same_bytes_whatever_the_jobs(root: Path, tmp_path: Path) -> None:
    write_dataset(tmp_path / "two", **SETTINGS, jobs=2, progress=False)
    assert hashes(tmp_path / "two") == hashes(root)


def test_another_seed_gives_other_people(root: Path, tmp_path: Path) -> None:
    write_dataset(tmp_path / "other", **(SETTINGS | {"seed": 4}), jobs=1, progress=False)
    one, other = hashes(root), hashes(tmp_path / "other")
    assert not set(one.values()) & {digest for name, digest in other.items() if name.endswith(".jpg")}


def test_an_annotation_has_one_line_more_than_the_video_has_frames(
    root: Path, specs: list[VideoSpec]
) -> None:
    n_files = 0
    for spec in specs:
        for task in spec.tasks:
            folder = root / ANNOTATIONS / TASK_FOLDERS[task] / SPLIT_FOLDERS[spec.split]
            labels = read_annotations(folder / f"{spec.video}.txt", task)[spec.video]
            assert len(labels) == spec.n_frames + 1
            n_files += 1
    assert n_files == len(list((root / ANNOTATIONS).glob("*/*_Set/*.txt")))


def test_every_video_has_images_and_some_lack_a_burst(root: Path, specs: list[VideoSpec]) -> None:
    lengths = []
    for spec in specs:
        found = images(root, spec.video)
        assert found
        assert found <= {image_name(k + 1) for k in range(spec.n_frames)}
        lengths.append(len(found) - spec.n_frames)
    assert lengths[0] < 0  # the plan asks for a gap in the first
    assert sum(spec.n_frames for spec in specs) == pytest.approx(7 * 16, abs=7)


def test_an_image_is_an_aligned_colour_jpeg_of_about_five_kilobytes(synth_root: Path) -> None:
    paths = list((synth_root / IMAGE_ROOTS[0]).glob("*/*.jpg"))
    assert {cv2.imread(str(path)).shape for path in paths[:50]} == {(SIZE, SIZE, 3)}
    assert 3000 < np.mean([path.stat().st_size for path in paths]) < 8000


def test_oddities_of_the_official_archives(root: Path, specs: list[VideoSpec]) -> None:
    assert [len(list((root / name).iterdir())) > 0 for name in IMAGE_ROOTS] == [True, True]
    assert len(list(root.rglob(".DS_Store"))) == 3
    videos = [spec.video for spec in specs]
    assert any(recording(video) != video for video in videos)
    assert any("-30-1280x720" in video for video in videos)
    assert "not Aff-Wild2" in (root / "README.txt").read_text()


def test_labels_have_gaps_where_the_preset_says(synth_root: Path) -> None:
    """Unlabelled rows of every task, and action units missing one by one."""
    missing = dict.fromkeys(TASKS, 0)
    alone = 0
    for task in TASKS:
        for split in SPLIT_FOLDERS:
            for video in annotated(synth_root, split, task):
                path = synth_root / ANNOTATIONS / TASK_FOLDERS[task] / SPLIT_FOLDERS[split] / f"{video}.txt"
                valid = read_annotations(path, task)[video][task].valid
                valid = valid.reshape(-1, task.size if task is AU else 1)
                missing[task] += int((~valid).sum())
                alone += int((valid.any(1) & ~valid.all(1)).sum())
    assert all(missing.values()), missing
    assert alone > 0


@pytest.mark.parametrize(("split", "name"), [("train", "train_set"), ("val", "validation_set")])
def test_the_mtl_file_lists_single_seen_frames_with_any_labels(
    root: Path, specs: list[VideoSpec], split: str, name: str
) -> None:
    labels = read_annotations(root / ANNOTATIONS / "MTL_Challenge" / f"{name}.txt", None)
    known = {spec.video for spec in specs if spec.split == split}
    assert set(labels) <= known
    for video, of_video in labels.items():
        rows = np.flatnonzero(of_video[VA].valid | of_video[EXPR].valid | of_video[AU].valid.any(1))
        assert {image_name(row + 1) for row in rows.tolist()} <= images(root, video)
        assert np.all(np.diff(rows) >= 8)


def test_the_test_set_comes_with_samples_and_a_list(root: Path, tmp_path: Path) -> None:
    settings = SETTINGS | {"preset": PRESETS["demo"], "videos": 40}
    specs = plan_videos(**settings)
    frames = {spec.video: spec.n_frames for spec in specs if spec.split == "test"}
    write_test_lists(tmp_path / TEST_LISTS, specs)
    asked = {name: read_sample(tmp_path / TEST_LISTS / f"{name.upper()}_sample.txt") for name in FORMS}
    for name, sample in asked.items():
        header = (tmp_path / TEST_LISTS / f"{name.upper()}_sample.txt").read_text().splitlines()[0]
        assert header == FORMS[name].header
        assert isinstance(sample, Sample)
        step = 8 if name == "mtl" else 1  # single frames; else all of them, also those without a crop
        wanted = [
            f"{video}/{image_name(n + 1)}" for video in sample.videos for n in range(0, frames[video], step)
        ]
        assert sample.images == wanted
    assert {*asked["va"].videos, *asked["expr"].videos, *asked["au"].videos} == set(frames)
    assert set(asked["va"].videos) != set(asked["expr"].videos)
    assert asked["mtl"].videos == read_sample(tmp_path / TEST_LISTS / "videos.txt").videos == tuple(frames)
    assert (root / TEST_LISTS / "VA_sample.txt").is_file()


def test_a_folder_that_holds_something_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "keep").write_text("mine")
    with pytest.raises(AbawError, match="is not empty"):
        write_dataset(tmp_path, videos=2, frames=10, progress=False)
    assert [path.name for path in tmp_path.iterdir()] == ["keep"]


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    summary = write_dataset(tmp_path, videos=2, frames=10, jobs=1, progress=False)
    assert (tmp_path / ANNOTATIONS).is_dir()
    assert summary.videos == 2
    assert summary.images == len(list(tmp_path.rglob("*.jpg"))) <= summary.frames


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"videos": 1}, "videos: 1 is too small"),
        ({"frames": 3}, "frames: 3 is too small"),
        ({"seed": -1}, "seed: -1 is too small"),
        ({"jobs": 0}, "jobs: 0 is too small"),
        ({"preset": "wild"}, "'wild' is unknown; choose one of demo, real"),
    ],
)
def test_settings_that_mean_nothing_are_refused(tmp_path: Path, wrong: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        write_dataset(tmp_path / "out", **wrong, progress=False)
    assert not list(tmp_path.iterdir())


def test_nothing_is_left_of_a_failed_attempt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(synthetic, "write_task_file", full)
    with pytest.raises(AbawError, match=r"could not be written \(No space left on device\)"):
        write_dataset(tmp_path / "out", videos=2, frames=10, jobs=1, progress=False)
    assert not list(tmp_path.iterdir())


def test_contact_sheet(tmp_path: Path) -> None:
    contact_sheet(tmp_path / "sheet.png")
    sheet = cv2.imread(str(tmp_path / "sheet.png"))
    assert sheet.shape == (820, 960, 3)
    assert (tmp_path / "sheet.png").stat().st_size < 400_000
