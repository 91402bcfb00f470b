import json
import os
import shutil
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import cv2
import numpy as np
import pytest

from abaw.__main__ import main
from abaw.data.check import consistency as check_consistency
from abaw.data.check.check import check_dataset, compare_videos
from abaw.data.check.consistency import (
    VideoCounts,
    compare_lengths,
    find_repeated_annotations,
    find_shared_subjects,
    find_strays,
)
from abaw.data.check.kinds import KINDS
from abaw.data.check.report import Report
from abaw.data.discovery import AnnotationFile
from abaw.data.formats.annotations import write_mtl_file, write_task_file
from abaw.data.labels import Labels, image_name
from abaw.data.layout import Sources
from abaw.errors import AbawError, UsageError
from abaw.evaluation.submission.formats import read_sample
from abaw.tasks import Task

FOLDERS = {Task.VA: "VA_Estimation_Challenge", Task.EXPR: "EXPR_Set", Task.AU: "AU_Detection_Challenge"}
SPLITS = {"train": "Train_Set", "val": "Validation_Set"}


def some_labels(n_rows: int, seed: int) -> Labels:
    rng = np.random.default_rng(seed)
    valid = rng.random(n_rows) < 0.9
    return Labels(
        va=(rng.uniform(-1, 1, (n_rows, 2)) * valid[:, None]).astype(np.float32),
        va_valid=valid,
        expr=rng.integers(0, 8, n_rows) * valid,
        expr_valid=valid,
        au=(rng.integers(0, 2, (n_rows, 12)) * valid[:, None]).astype(np.float32),
        au_valid=np.repeat(valid[:, None], 12, axis=1),
    )


def write_image(path: Path, seed: int, size: int = 112) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    assert cv2.imwrite(str(path), cv2.resize(coarse, (size, size)))


class Tree:
    """A small data set like the official one; with gaps, an extra last row and a two-subject recording."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.images = root / "cropped_aligned"
        for number, (video, split) in enumerate(
            {"a": "train", "b_left": "train", "b_right": "train", "c": "val"}.items()
        ):
            for frame in set(range(1, 13)) - {4, 5}:
                write_image(self.image(video, frame), 100 * number + frame)
            for task in Task:
                write_task_file(self.label(video, task, split), task, some_labels(13, number))
        write_image(root / "cropped_aligned_new_50_vids/unlabelled/00001.jpg", 1000)
        write_mtl_file(root / "Annotations/MTL_Challenge/train_set.txt", {"a": some_labels(12, 5)})
        write_mtl_file(root / "Annotations/MTL_Challenge/validation_set.txt", {"c": some_labels(12, 6)})

    def image(self, video: str, number: int) -> Path:
        return self.images / video / image_name(number)

    def label(self, video: str, task: Task = Task.VA, split: str = "train") -> Path:
        return self.root / "Annotations" / FOLDERS[task] / SPLITS[split] / f"{video}.txt"

    def check(self, **options: object) -> Report:
        cache = self.root.parent / "cache"
        return check_dataset(self.root, cache_dir=cache, jobs=1, progress=False, **options)  # type: ignore[arg-type]


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path / "data")


def edit(path: Path, change: Callable[[bytes], bytes]) -> None:
    path.write_bytes(change(path.read_bytes()))


def replace_line(path: Path, line: int, text: str) -> None:
    lines = path.read_text().split("\n")
    lines[line - 1] = text
    path.write_text("\n".join(lines))


def test_a_clean_tree_has_notes_and_no_defects(tree: Tree) -> None:
    report = tree.check()
    assert report.ok, report.table()
    assert {finding.kind for finding in report.findings} == {
        "frames without crop",
        "labelled frames without crop",
    }
    assert report.table().endswith("no defects")


def test_the_counts_are_those_of_the_tree(tree: Tree) -> None:
    report = tree.check()
    assert [video.name for video in report.videos] == ["a", "b_left", "b_right", "c", "unlabelled"]
    a, labels = report.videos[0], some_labels(13, 0)
    assert (a.frames, a.images) == (12, 10)
    assert a.splits == {"va": "train", "expr": "train", "au": "train", "mtl": "train"}
    assert a.rows["va"] == 13
    assert a.labelled["va"] == labels.va_valid.sum()
    assert a.labelled_without_crop["va"] == labels.va_valid[[3, 4]].sum()  # the extra last row is no frame
    assert set(report.balance) == {"challenge train", "challenge val", "mtl train", "mtl val"}
    all_train = [some_labels(13, k) for k in range(3)]
    expr = np.concatenate([part.expr[part.expr_valid] for part in all_train])
    balance = report.balance["challenge train"]
    assert balance.expr.tolist() == np.bincount(expr, minlength=8).tolist()
    assert balance.va.sum() == sum(part.va_valid.sum() for part in all_train)
    assert balance.au[:, 1].tolist() == sum(part.au.sum(0) for part in all_train).tolist()  # type: ignore[union-attr]


def test_the_generated_data_set_is_clean(synth_root: Path) -> None:
    report = check_dataset(synth_root, jobs=1, progress=False)
    assert report.ok, report.table()
    assert sum(video.images for video in report.videos) > 100


def header_of(task: Task) -> bytes:
    return ",".join(task.names).encode()


# name of the test: kind expected, how it is planted (returns the path to be named), line
PLANTED: dict[str, tuple[str, Callable[[Tree], Path], int | None]] = {}


def planted(kind: str, line: int | None = None) -> Callable[[Callable[[Tree], Path]], Callable[[Tree], Path]]:
    def keep(plant: Callable[[Tree], Path]) -> Callable[[Tree], Path]:
        PLANTED[plant.__name__] = (kind, plant, line)
        return plant

    return keep


@planted("empty image")
def zero_bytes(tree: Tree) -> Path:
    edit(tree.image("a", 1), lambda data: b"")
    return tree.image("a", 1)


@planted("truncated image")
def truncated(tree: Tree) -> Path:
    edit(tree.image("a", 1), lambda data: data[: len(data) // 2])
    return tree.image("a", 1)


@planted("unreadable image")
def a_web_page(tree: Tree) -> Path:
    edit(tree.image("a", 1), lambda data: b"<html>not found</html>")
    return tree.image("a", 1)


@planted("damaged image")
def overwritten_in_the_middle(tree: Tree) -> Path:
    edit(tree.image("a", 1), lambda data: data[:-300] + bytes(range(1, 101)) + data[-200:])
    assert cv2.imread(str(tree.image("a", 1))) is not None  # decoders take it
    return tree.image("a", 1)


@planted("image size")
def wrong_size(tree: Tree) -> Path:
    write_image(tree.image("a", 1), 7, size=96)
    return tree.image("a", 1)


@planted("missing images")
def most_of_a_video_missing(tree: Tree) -> Path:
    for number in range(6, 13):
        tree.image("a", number).unlink()
    return tree.images / "a"


@planted("missing images")
def a_whole_video_missing(tree: Tree) -> Path:
    tree.images.joinpath("c").rename(tree.root / "elsewhere")
    return tree.label("c", Task.AU, "val")


@planted("missing images")
def mtl_images_missing(tree: Tree) -> Path:
    path = tree.root / "Annotations/MTL_Challenge/train_set.txt"
    write_mtl_file(path, {"unlabelled": some_labels(12, 5)})
    return tree.root / "cropped_aligned_new_50_vids/unlabelled"


@planted("missing images")
def an_empty_folder(tree: Tree) -> Path:
    (tree.images / "d").mkdir()
    return tree.images / "d"


@planted("missing images")
def images_of_another_kind_in_a_folder(tree: Tree) -> Path:
    (tree.images / "d").mkdir()
    (tree.images / "d/00001.png").write_bytes(tree.image("a", 1).read_bytes())
    return tree.images / "d"


@planted("missing images")
def all_images_of_another_kind(tree: Tree) -> Path:
    for path in list(tree.root.rglob("*.jpg")):
        path.rename(path.with_suffix(".JPG"))
    return tree.root


@planted("duplicate image")
def the_same_image_in_two_videos(tree: Tree) -> Path:
    tree.image("b_left", 3).write_bytes(tree.image("a", 1).read_bytes())
    return tree.image("b_left", 3)


@planted("duplicate image")
def the_same_image_in_two_splits(tree: Tree) -> Path:
    tree.image("c", 3).write_bytes(tree.image("a", 1).read_bytes())
    return tree.image("c", 3)


@planted("duplicate image")
def the_same_image_far_apart_in_a_video(tree: Tree) -> Path:
    tree.image("a", 10).write_bytes(tree.image("a", 1).read_bytes())
    return tree.image("a", 10)


@planted("duplicate video")
def a_video_under_two_names(tree: Tree) -> Path:
    for number in range(1, 8):
        if tree.image("a", number).exists():
            tree.image("c", number).write_bytes(tree.image("a", number).read_bytes())
    return tree.images / "c"


@planted("stray file")
def an_image_of_another_name(tree: Tree) -> Path:
    write_image(tree.images / "a" / "frame1.jpg", 7)
    return tree.images / "a" / "frame1.jpg"


@planted("stray file")
def an_image_numbered_zero(tree: Tree) -> Path:
    write_image(tree.image("a", 0), 7)
    return tree.image("a", 0)


@planted("stray file")
def an_image_outside_of_a_video(tree: Tree) -> Path:
    write_image(tree.images / "00001.jpg", 7)
    return tree.images / "00001.jpg"


@planted("stray file")
def a_table_among_annotations(tree: Tree) -> Path:
    tree.label("a").with_suffix(".csv").touch()
    return tree.label("a").with_suffix(".csv")


@planted("header", 1)
def a_wrong_header(tree: Tree) -> Path:
    replace_line(tree.label("a"), 1, "arousal,valence")
    return tree.label("a")


@planted("header", 1)
def another_tasks_file(tree: Tree) -> Path:
    tree.label("a").write_bytes(tree.label("a", Task.AU).read_bytes())
    return tree.label("a")


@planted("columns", 3)
def a_cell_missing(tree: Tree) -> Path:
    replace_line(tree.label("a", Task.AU), 3, ",".join("1" * 11))
    return tree.label("a", Task.AU)


@planted("number", 4)
def a_word_for_a_number(tree: Tree) -> Path:
    replace_line(tree.label("a", Task.EXPR), 4, "Happiness")
    return tree.label("a", Task.EXPR)


@planted("range", 5)
def out_of_range(tree: Tree) -> Path:
    replace_line(tree.label("c", Task.VA, "val"), 5, "0.5,1.5")
    return tree.label("c", Task.VA, "val")


@planted("blank line", 6)
def a_blank_line(tree: Tree) -> Path:
    replace_line(tree.label("a"), 6, "")
    return tree.label("a")


@planted("blank line", 15)
def blank_lines_at_the_end(tree: Tree) -> Path:
    edit(tree.label("a"), lambda data: data + b"\n\n")
    return tree.label("a")


@planted("byte-order mark", 1)
def bom(tree: Tree) -> Path:
    edit(tree.label("a"), lambda data: b"\xef\xbb\xbf" + data)
    return tree.label("a")


@planted("carriage returns", 1)
def crlf(tree: Tree) -> Path:
    edit(tree.label("a"), lambda data: data.replace(b"\n", b"\r\n"))
    return tree.label("a")


@planted("trailing spaces", 3)
def trailing_spaces(tree: Tree) -> Path:
    replace_line(tree.label("a"), 3, "0.5,0.5 ")
    return tree.label("a")


@planted("half-labelled row", 3)
def half_labelled(tree: Tree) -> Path:
    replace_line(tree.label("a"), 3, "0.5,-5")
    return tree.label("a")


@planted("empty annotation", 1)
def only_a_header(tree: Tree) -> Path:
    tree.label("a").write_bytes(header_of(Task.VA) + b"\n")
    return tree.label("a")


@planted("unreadable annotation")
def a_folder_for_a_file(tree: Tree) -> Path:
    tree.label("a").unlink()
    tree.label("a").mkdir()
    return tree.label("a")


@planted("empty annotation", 1)
def an_empty_file(tree: Tree) -> Path:
    tree.label("a").write_bytes(b"")
    return tree.label("a")


@planted("encoding", 1)
def saved_as_utf_16(tree: Tree) -> Path:
    edit(tree.label("a"), lambda data: data.decode().encode("utf-16"))
    return tree.label("a")


@planted("encoding", 1)
def an_mtl_file_in_utf_16_without_a_mark(tree: Tree) -> Path:
    path = tree.root / "Annotations/MTL_Challenge/train_set.txt"
    edit(path, lambda data: data.decode().encode("utf-16-be"))
    return path


@planted("no annotations")
def no_label_at_all(tree: Tree) -> Path:
    tree.root.joinpath("Annotations").rename(tree.root.parent / "elsewhere")
    return tree.root


def misplaced(tree: Tree, path: Path, place: str) -> Path:
    new = tree.root / "Annotations" / place
    new.parent.mkdir(parents=True, exist_ok=True)
    return path.rename(new)


@planted("unrecognised annotation")
def labels_in_a_folder_of_an_unknown_name(tree: Tree) -> Path:
    return misplaced(tree, tree.label("a"), "emotions/Train_Set/a.txt")


@planted("unrecognised annotation")
def labels_outside_of_a_split(tree: Tree) -> Path:
    return misplaced(tree, tree.label("a", Task.EXPR), "EXPR_Set/a.txt")


@planted("unrecognised annotation")
def an_mtl_file_of_an_unknown_name(tree: Tree) -> Path:
    return misplaced(tree, tree.root / "Annotations/MTL_Challenge/train_set.txt", "MTL_Challenge/part1.txt")


@planted("missing tail")
def a_download_cut_short(tree: Tree) -> Path:
    for frame in range(13, 61):
        write_image(tree.image("c", frame), 5000 + frame)
    for task in Task:
        write_task_file(tree.label("c", task, "val"), task, some_labels(101, 3))
    return tree.images / "c"


@planted("image", 3)
def an_mtl_entry_outside_the_root(tree: Tree) -> Path:
    path = tree.root / "Annotations/MTL_Challenge/train_set.txt"
    replace_line(path, 3, path.read_text().split("\n")[2].replace("a/", "../a/"))
    return path


@planted("duplicate row", 4)
def an_mtl_image_listed_twice(tree: Tree) -> Path:
    path = tree.root / "Annotations/MTL_Challenge/train_set.txt"
    replace_line(path, 4, path.read_text().split("\n")[2])
    return path


@planted("annotated twice")
def in_train_and_val(tree: Tree) -> Path:
    write_task_file(tree.label("a", Task.VA, "val"), Task.VA, some_labels(13, 0))
    return tree.label("a", Task.VA, "val")


@planted("subject in two splits")
def subjects_divided(tree: Tree) -> Path:
    tree.label("b_right").rename(tree.label("b_right", Task.VA, "val"))
    return tree.label("b_right", Task.VA, "val")


@planted("length mismatch")
def fewer_rows_than_images(tree: Tree) -> Path:
    for task in Task:
        write_task_file(tree.label("a", task), task, some_labels(9, 0))
    return tree.images / "a"


@planted("length mismatch")
def tasks_of_unequal_length(tree: Tree) -> Path:
    write_task_file(tree.label("a", Task.EXPR), Task.EXPR, some_labels(12, 0))
    return tree.label("a", Task.AU)


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_defect_is_found_named_and_fails(name: str, tree: Tree) -> None:
    kind, plant, line = PLANTED[name]
    path = plant(tree)
    report = tree.check()
    assert not report.ok
    defects = [finding for finding in report.findings if KINDS[finding.kind].fails]
    assert [(finding.kind, finding.path, finding.line) for finding in defects][:1] == [(kind, path, line)]
    assert {finding.kind for finding in defects} == {kind}, report.table()
    table = report.table()
    assert kind in table
    assert str(path) in table
    assert KINDS[kind].hint in table
    assert tree.check(ignore=[kind]).ok


def test_a_leak_between_splits_is_told_as_one(tree: Tree) -> None:
    the_same_image_in_two_splits(tree)
    (found,) = [finding for finding in tree.check().findings if finding.kind == "duplicate image"]
    assert found.detail == "the same as a/00001.jpg; a is in train and c is in val"


def test_the_command_exits_with_1_on_findings(tree: Tree, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["check", str(tree.root), "--jobs=1"]
    assert main(words) == 0
    assert capsys.readouterr().out.endswith("no defects\n")
    path = out_of_range(tree)
    assert main(words) == 1
    assert f"{path}:5: valence" in (said := capsys.readouterr().out) or f"{path}:5: arousal" in said
    assert main([*words, "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["ok"] is False
    assert main([*words, "--ignore", "range", "litter"]) == 0
    assert main([*words, "--ignore", "rang"]) == 2


def test_every_kind_that_fails_has_a_planted_defect() -> None:
    assert {kind for kind, _, _ in PLANTED.values()} == {name for name, kind in KINDS.items() if kind.fails}


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("litter", lambda tree: (tree.images / "a" / ".DS_Store").touch()),
        ("litter", lambda tree: (tree.images / ".DS_Store").touch()),
        ("seven classes", lambda tree: tree.label("a", Task.EXPR).write_text(
            "Neutral,Anger,Disgust,Fear,Happiness,Sadness,Surprise\n" + "6\n" * 13)),
        ("video in two splits", lambda tree: tree.label("a").rename(tree.label("a", Task.VA, "val"))),
    ],
)  # fmt: skip
def test_a_note_does_not_fail(kind: str, change: Callable[[Tree], object], tree: Tree) -> None:
    change(tree)
    report = tree.check()
    assert report.ok
    assert kind in {finding.kind for finding in report.findings}


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


def test_a_sample_gives_the_numbers_of_every_video(tmp_path: Path) -> None:
    path = tmp_path / "sample.txt"
    path.write_text("b/00003.jpg,\na/00001.jpg,\nb/00007.jpg,\na/00002.jpg,\n")
    numbers = read_sample(path).numbers()
    assert {video: of_video.tolist() for video, of_video in numbers.items()} == {"b": [3, 7], "a": [1, 2]}


def constant(n_rows: int, valence: float = 0.5) -> Labels:
    labels = Labels.unlabelled(n_rows)
    labels.va[:] = valence, -0.5
    labels.va_valid[:] = True
    return labels


def test_constant_labels_are_noted_for_a_split_and_for_a_video(tree: Tree) -> None:
    test = tree.root / "Annotations" / FOLDERS[Task.VA] / "Test_Set"
    for video in ("p", "unlabelled"):
        for number in range(2, 41):
            path = tree.root / "cropped_aligned_new_50_vids" / video / image_name(number)
            write_image(path, 2000 + 100 * len(video) + number)
        write_task_file(test / f"{video}.txt", Task.VA, constant(41))
    report = tree.check()
    assert report.ok, report.table()
    found = [finding for finding in report.findings if finding.kind == "constant labels"]
    assert [(f.path, f.detail) for f in found] == [(test, "all VA labels of test (2 videos) are 0.5,-0.5")]
    write_task_file(test / "p.txt", Task.VA, some_labels(41, 0))
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


def test_crops_in_a_folder_of_the_same_name_are_found(tree: Tree) -> None:
    tree.images.rename(tree.root / "inner")
    tree.images.mkdir()
    (tree.root / "inner").rename(tree.images / "cropped_aligned")
    report = tree.check()
    assert report.ok, report.table()
    assert tree.images / "cropped_aligned" in report.image_roots


def test_crops_of_another_size_tell_both_commands(tree: Tree) -> None:
    write_image(tree.image("a", 1), 7, size=224)
    table = tree.check().table()
    assert "224×224 pixels instead of 112×112" in table
    assert "`abaw check --size 224`, `abaw fit --data.frame_size 224`" in table


def test_links_that_lead_back_are_searched_once(tree: Tree) -> None:
    before = tree.check()
    (tree.root / "Annotations/above").symlink_to(tree.root)
    (tree.root / "a_link").symlink_to(tree.root / "Annotations")
    (tree.images / "loop").symlink_to(tree.images)
    (tree.root / "itself").symlink_to("itself")
    report = tree.check()
    assert report.ok, report.table()
    assert report.videos == before.videos
    assert report.image_roots == before.image_roots


def test_labels_and_crops_behind_links_are_found(tree: Tree, tmp_path: Path) -> None:
    for name in ("Annotations", "cropped_aligned"):
        (tree.root / name).rename(tmp_path / name)
        (tree.root / name).symlink_to(tmp_path / name)
    report = tree.check()
    assert report.ok, report.table()
    assert len(report.videos) == 5
    assert tree.images in report.image_roots


def test_a_note_or_a_sample_among_the_labels_is_no_annotation(tree: Tree) -> None:
    (tree.root / "Annotations/README.txt").write_text("See the web page\n")
    header = "image,valence,arousal,expression,aus"
    (tree.root / "Annotations/MTL_sample.txt").write_text(f"{header}\nunlabelled/00001.jpg,\n")
    assert tree.check().ok


def test_thousands_of_videos_are_compared_in_no_time(tmp_path: Path) -> None:
    """Of the time, most went into looking through all videos for each of them."""
    n_videos, folder = 8000, tmp_path / "cropped_aligned"
    names = [f"video{number}" for number in range(n_videos)]
    for name in names:
        (folder / name).mkdir(parents=True)
    files = [
        AnnotationFile(tmp_path / task / f"{name}.txt", "train", task, name)
        for name in names
        for task in Task
    ]
    for task in Task:
        (tmp_path / task).mkdir()
    rows = {str(task): 101 for task in Task}
    labelled, splits = dict.fromkeys(rows, 100), dict.fromkeys(rows, "train")
    videos = {name: VideoCounts(name, 100, 100, splits, rows, labelled) for name in names}
    images = dict.fromkeys(names, np.arange(1, 101))
    sources = Sources({folder: names}, files, None)
    start = time.process_time()
    assert not list(compare_videos(videos.values(), images, sources, tmp_path, {}))
    assert not list(find_strays(sources, tmp_path))
    assert not list(find_repeated_annotations(files))
    assert not list(find_shared_subjects(files))
    assert time.process_time() - start < 2


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


def test_neighbours_may_be_the_same_and_a_frame_may_lie_in_two_roots(tree: Tree) -> None:
    same = tree.image("a", 3).read_bytes()
    tree.image("a", 6).write_bytes(same)  # 4 and 5 are missing, so 3 and 6 are neighbours
    tree.image("a", 7).write_bytes(same)
    other = tree.root / "cropped_aligned_new_50_vids/a/00001.jpg"
    other.parent.mkdir()
    other.write_bytes(tree.image("a", 1).read_bytes())
    assert tree.check().ok


@pytest.mark.parametrize(("n_rows", "is_found"), [(13, False), (12, False), (11, True)])
def test_one_image_more_than_rows_is_a_mismatch(n_rows: int, is_found: bool, tree: Tree) -> None:
    """The last image of the video is number 12; the official files have a row more than images."""
    for task in Task:
        write_task_file(tree.label("a", task), task, some_labels(n_rows, 0))
    found = [finding.path for finding in tree.check().findings if finding.kind == "length mismatch"]
    assert found == ([tree.images / "a"] if is_found else [])


def test_a_sparse_folder_without_a_file_of_rows_is_fine(tree: Tree) -> None:
    write_image(tree.root / "cropped_aligned_new_50_vids/unlabelled/00100.jpg", 1001)
    assert tree.check().ok


def test_many_defects_of_a_file_are_listed_in_short(tree: Tree) -> None:
    path = tree.label("a", Task.EXPR)
    path.write_bytes(header_of(Task.EXPR) + b"\n" + b"9\n" * 13)
    assert sum(finding.path == path for finding in tree.check().findings) == 13
    path.write_bytes(header_of(Task.EXPR) + b"\n" + b"9\n" * 1000)
    found = [finding.detail for finding in tree.check().findings if finding.path == path]
    assert len(found) == 21
    assert "980 more such lines" in found


def test_json_holds_every_finding_with_its_cure(tree: Tree) -> None:
    truncated(tree)
    out_of_range(tree)
    values = json.loads(tree.check().to_json())
    assert values["ok"] is False
    assert values["kinds"]["truncated image"] == {
        "count": 1,
        "fails": True,
        "hint": KINDS["truncated image"].hint,
    }
    finding = next(f for f in values["findings"] if f["kind"] == "range")
    assert finding["path"].endswith("Validation_Set/c.txt")
    assert finding["line"] == 5
    assert "'1.5'" in finding["detail"]
    assert {video["name"]: video["images"] for video in values["videos"]}["a"] == 10
    assert sum(values["balance"]["challenge train"]["expr"].values()) > 0


def test_a_second_run_looks_only_at_what_changed(tree: Tree) -> None:
    wrong_size(tree)
    first = tree.check()
    assert first.n_read == 41
    again = tree.check()
    assert again.n_read == 0
    assert again.findings == first.findings  # defects are remembered too
    write_image(tree.image("a", 1), 2007)
    write_image(tree.image("b_left", 5), 2008)
    tree.image("c", 1).unlink()
    third = tree.check()
    assert third.n_read == 2
    assert third.ok
    assert [(v.name, v.images) for v in third.videos][:4] == [
        ("a", 10),
        ("b_left", 11),
        ("b_right", 10),
        ("c", 9),
    ]
    assert tree.check(size=96).n_read == 41  # another question


def test_a_damaged_memory_is_looked_at_anew(tree: Tree, tmp_path: Path) -> None:
    tree.check()
    for path in (tmp_path / "cache/check").iterdir():
        path.write_bytes(path.read_bytes()[:-1])
    report = tree.check()
    assert report.n_read == 41
    assert report.ok


def test_processes_find_the_same(tree: Tree) -> None:
    truncated(tree)
    the_same_image_in_two_splits(tree)
    alone = tree.check()
    together = check_dataset(tree.root, cache_dir=tree.root / "cache2", jobs=2, progress=False)
    assert together.findings == alone.findings
    assert together.n_read == alone.n_read


def test_labels_alone_and_images_alone_can_be_checked(tree: Tree, tmp_path: Path) -> None:
    assert check_dataset(tree.root / "Annotations", progress=False).ok
    assert not check_dataset(tree.images, progress=False).ok
    assert check_dataset(tree.images, progress=False, ignore=["no-annotations"]).ok
    (tmp_path / "empty").mkdir()
    with pytest.raises(AbawError, match="neither images"):
        check_dataset(tmp_path / "empty", progress=False)
    with pytest.raises(UsageError, match=r"'blur'.* is not a kind of finding"):
        tree.check(ignore=["blur"])


def test_the_second_run_is_much_faster(tmp_path: Path) -> None:
    folder = tmp_path / "data/cropped_aligned/a"
    write_image(folder / image_name(1), 1)
    for number in range(2, 6001):
        (folder / image_name(number)).hardlink_to(folder / image_name(1))

    def seconds(cache: str) -> float:
        start = sum(os.times()[:4])  # of the processor, the work of the other process included
        check_dataset(tmp_path / "data", cache_dir=tmp_path / cache, jobs=1, progress=False)
        return sum(os.times()[:4]) - start

    first, second = (min(seconds(cache) for cache in ("one", "other")) for _ in range(2))
    assert second * 3 < first
