import shutil
import time
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import numpy as np
import pytest

from abaw.__main__ import main
from abaw.data.check import consistency as check_consistency
from abaw.data.check.consistency import (
    VideoCounts,
    compare_lengths,
    compare_videos,
    find_repeated_annotations,
    find_shared_subjects,
    find_strays,
)
from abaw.data.formats.annotations import write_task_file
from abaw.data.labels import Labels, image_name
from abaw.data.layout import AnnotationFile, DataFiles
from abaw.tasks import TASKS, VA
from tests.support.checked_tree import FOLDERS, Tree, some_labels, write_image
from tests.support.planted_defects import a_download_cut_short


def test_a_missing_tail_says_where_the_images_end(tree: Tree) -> None:
    a_download_cut_short(tree)
    (found,) = [finding for finding in tree.check().findings if finding.kind == "missing tail"]
    assert found.detail == "images end at 00060 of 100: incomplete download?"


@pytest.mark.parametrize(
    ("last", "n_frames", "cut"), [(69, 100, True), (70, 100, False), (1999, 2039, False)]
)
def test_a_tail_counts_above_thirty_frames_and_two_percent(last: int, n_frames: int, cut: bool) -> None:
    video = VideoCounts("a", frames=n_frames, splits={"va": "train"}, rows={"va": n_frames + 1})
    kinds = {finding.kind for finding in compare_lengths(video, np.arange(1, last + 1), Path("a"))}
    assert kinds == ({"missing tail"} if cut else {"frames without crop"})


@pytest.mark.parametrize(
    ("rows", "kind", "detail"),
    [
        ([f"unlabelled/{n:05d}.jpg," for n in range(1, 61)], None, ""),
        ([f"unlabelled/{n:05d}.jpg," for n in range(1, 101)], "missing tail", "end at 00060 of 100"),
        ([f"unlabelled/{n:05d}.jpg," for n in range(1, 301)], "missing images", "60 of 300 images"),
        (["gone/00001.jpg,"], "missing images", "gone: 0 of 1 images that the sample asks for"),
        (["unlabelled"], None, ""),
        (["gone"], "missing images", "gone: no image"),
    ],
)
def test_a_sample_says_how_long_the_test_videos_are(
    rows: list[str], kind: str | None, detail: str, tree: Tree, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(2, 61):
        write_image(tree.root / "cropped_aligned_new_50_vids/unlabelled" / image_name(number), 1000 + number)
    sample = tree.root / "sample.txt"
    sample.write_text("\n".join(rows) + "\n")
    assert main(["check", str(tree.root), "--jobs=1", "--sample", str(sample)]) == (kind is not None)
    said = capsys.readouterr().out
    if kind is not None:
        assert f"DEFECT {kind}: 1" in said
        assert detail in said


def constant(n_rows: int, valence: float = 0.5) -> Labels:
    labels = Labels.unlabelled(n_rows)
    labels[VA].values[:] = valence, -0.5
    labels[VA].valid[:] = True
    return labels


def test_constant_labels_are_noted_for_a_split_and_for_a_video(tree: Tree) -> None:
    test = tree.root / "Annotations" / FOLDERS[VA] / "Test_Set"
    for video in ("p", "unlabelled"):
        for number in range(2, 41):
            path = tree.root / "cropped_aligned_new_50_vids" / video / image_name(number)
            write_image(path, 2000 + 100 * len(video) + number)
        write_task_file(test / f"{video}.txt", VA, constant(41))
    report = tree.check()
    assert report.ok, report.table()
    found = [finding for finding in report.findings if finding.kind == "constant labels"]
    assert [(f.path, f.detail) for f in found] == [(test, "all VA labels of test (2 videos) are 0.5,-0.5")]
    write_task_file(test / "p.txt", VA, some_labels(41, 0))
    report = tree.check()
    found = [finding for finding in report.findings if finding.kind == "constant labels"]
    assert [(f.path, f.detail) for f in found] == [(test / "unlabelled.txt", "all 41 VA labels are 0.5,-0.5")]
    assert report.ok, report.table()


@pytest.mark.parametrize("folder", ["cropped_aligned", "cropped_aligned_new_50_vids"])
def test_one_folder_too_deep_is_told_with_the_one_above(
    folder: str, tree: Tree, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", str(tree.root / folder), "--jobs=1"]) == 1
    said = capsys.readouterr().out
    assert "DEFECT no annotations: 1" in said
    assert f"give the one that holds the annotations too: {tree.root}\n" in said
    assert main(["check", str(tree.root / folder), "--jobs=1", "--ignore", "no-annotations"]) == 0


def test_images_deeper_than_searched_are_named(tree: Tree, capsys: pytest.CaptureFixture[str]) -> None:
    deep = tree.root / "a/b/c/d/cropped_aligned"
    deep.parent.mkdir(parents=True)
    tree.images.joinpath("a").rename(deep.parent / "a")
    for folder in list(tree.root.glob("cropped_aligned*")):
        shutil.rmtree(folder)
    deep.mkdir()
    (deep.parent / "a").rename(deep / "a")
    assert main(["check", str(tree.root), "--jobs=1"]) == 1
    assert f"the images in {deep} lie too deep; give --image_roots {deep}" in capsys.readouterr().out
    shutil.rmtree(tree.root / "Annotations")
    assert main(["check", str(tree.root), "--jobs=1"]) == 1
    assert f"The images in {deep} lie too deep" in capsys.readouterr().err


def test_the_time_of_comparisons_is_linear_in_the_number_of_videos(tmp_path: Path) -> None:
    def seconds(n_videos: int) -> float:
        root = tmp_path / str(n_videos)
        folder = root / "cropped_aligned"
        names = [f"video{number}" for number in range(n_videos)]
        for name in names:
            (folder / name).mkdir(parents=True)
        files = [
            AnnotationFile(root / task.name / f"{name}.txt", "train", task, name)
            for name in names
            for task in TASKS
        ]
        for task in TASKS:
            (root / task.name).mkdir()
        rows = {str(task): 101 for task in TASKS}
        labelled, splits = dict.fromkeys(rows, 100), dict.fromkeys(rows, "train")
        videos = {name: VideoCounts(name, 100, 100, splits, rows, labelled) for name in names}
        images = dict.fromkeys(names, np.arange(1, 101))
        data_files = DataFiles({folder: names}, files)
        taken = []
        for _ in range(3):  # the shortest, as other processes disturb the caches
            start = time.process_time()
            assert not list(compare_videos(videos.values(), images, data_files, root, {}))
            assert not list(find_strays(data_files, root))
            assert not list(find_repeated_annotations(files))
            assert not list(find_shared_subjects(files))
            taken.append(time.process_time() - start)
        return min(taken)

    assert seconds(16_000) < 24 * seconds(2000)  # 64 times if one of them were quadratic


def test_two_opencv_wheels_are_noted_with_the_repair(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        if name.startswith("opencv-python"):
            return "5.0"
        raise PackageNotFoundError

    monkeypatch.setattr(check_consistency, "version", version)
    report = tree.check()
    assert report.ok
    assert "opencv-python 5.0 and opencv-python-headless 5.0" in report.table()
    assert "--force-reinstall opencv-python-headless" in report.table()


@pytest.mark.parametrize(("n_rows", "is_found"), [(13, False), (12, False), (11, True)])
def test_one_image_more_than_rows_is_a_mismatch(n_rows: int, is_found: bool, tree: Tree) -> None:
    """The last image of the video is number 12; the official files have a row more than images."""
    for task in TASKS:
        write_task_file(tree.label("a", task), task, some_labels(n_rows, 0))
    found = [finding.path for finding in tree.check().findings if finding.kind == "length mismatch"]
    assert found == ([tree.images / "a"] if is_found else [])


def test_a_sparse_folder_without_a_file_of_rows_is_fine(tree: Tree) -> None:
    write_image(tree.root / "cropped_aligned_new_50_vids/unlabelled/00100.jpg", 1001)
    assert tree.check().ok


@pytest.mark.parametrize(
    ("train", "val", "found"),
    [
        ("9_left", "9_right", True),
        ("10", "10_left", True),
        ("video45_1", "video45_7", True),
        ("122-60-1920x1080-1", "122-60-1920x1080-5", True),
        ("clip_001", "clip_002", False),
        ("1-30-1280x720", "2-30-1280x720", False),
    ],
)
def test_the_doctor_finds_a_recording_in_two_splits(train: str, val: str, found: bool) -> None:
    files = [
        AnnotationFile(path=Path(f"{split}/{video}.txt"), task=VA, split=split, video=video)
        for video, split in ((train, "train"), (val, "val"))
    ]
    findings = list(find_shared_subjects(files))
    assert bool(findings) == found
    assert all(train in finding.detail and val in finding.detail for finding in findings)
