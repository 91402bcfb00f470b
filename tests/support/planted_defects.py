"""One function per defect that `abaw check` finds: it plants the defect and returns the path to be named."""

from collections.abc import Callable
from pathlib import Path

import cv2

from abaw.data.formats.annotations import write_mtl_file, write_task_file
from abaw.tasks import AU, EXPR, TASKS, VA, Task
from tests.support.checked_tree import Tree, edit, replace_line, some_labels, write_image


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
    return tree.label("c", AU, "val")


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
    tree.label("a").write_bytes(tree.label("a", AU).read_bytes())
    return tree.label("a")


@planted("columns", 3)
def a_cell_missing(tree: Tree) -> Path:
    replace_line(tree.label("a", AU), 3, ",".join("1" * 11))
    return tree.label("a", AU)


@planted("number", 4)
def a_word_for_a_number(tree: Tree) -> Path:
    replace_line(tree.label("a", EXPR), 4, "Happiness")
    return tree.label("a", EXPR)


@planted("range", 5)
def out_of_range(tree: Tree) -> Path:
    replace_line(tree.label("c", VA, "val"), 5, "0.5,1.5")
    return tree.label("c", VA, "val")


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
    tree.label("a").write_bytes(header_of(VA) + b"\n")
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
    return misplaced(tree, tree.label("a", EXPR), "EXPR_Set/a.txt")


@planted("unrecognised annotation")
def an_mtl_file_of_an_unknown_name(tree: Tree) -> Path:
    return misplaced(tree, tree.root / "Annotations/MTL_Challenge/train_set.txt", "MTL_Challenge/part1.txt")


@planted("missing tail")
def a_download_cut_short(tree: Tree) -> Path:
    for frame in range(13, 61):
        write_image(tree.image("c", frame), 5000 + frame)
    for task in TASKS:
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
    write_task_file(tree.label("a", VA, "val"), VA, some_labels(13, 0))
    return tree.label("a", VA, "val")


@planted("subject in two splits")
def subjects_divided(tree: Tree) -> Path:
    tree.label("b_right").rename(tree.label("b_right", VA, "val"))
    return tree.label("b_right", VA, "val")


@planted("length mismatch")
def fewer_rows_than_images(tree: Tree) -> Path:
    for task in TASKS:
        write_task_file(tree.label("a", task), task, some_labels(9, 0))
    return tree.images / "a"


@planted("length mismatch")
def tasks_of_unequal_length(tree: Tree) -> Path:
    write_task_file(tree.label("a", EXPR), EXPR, some_labels(12, 0))
    return tree.label("a", AU)
