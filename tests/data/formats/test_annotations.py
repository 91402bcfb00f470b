import random
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from abaw.data.check.annotations import check_annotations
from abaw.data.check.kinds import KINDS
from abaw.data.formats.annotations import (
    AnnotationError,
    columns_of,
    parse_annotations,
    parse_image,
    read_annotations,
    read_rows,
    row_defects,
    write_mtl_file,
    write_task_file,
)
from abaw.data.labels import Labels, image_name
from abaw.errors import AbawError
from abaw.tasks import AU, EXPR, TASKS, VA, Task, task_named
from tests.support.mutated_files import mutated
from tests.support.random_labels import assert_equal, random_labels

HEADERS = {task: ",".join(task.names) for task in TASKS}


@pytest.mark.parametrize("task", TASKS, ids=str)
def test_a_written_file_reads_back_bit_for_bit(task: Task, tmp_path: Path) -> None:
    labels = random_labels(500)
    path = tmp_path / "video.txt"
    write_task_file(path, task, labels)
    assert path.read_text().splitlines()[0] == HEADERS[task]
    read = read_annotations(path, task)[path.stem]
    assert_equal(read, labels, (task,))
    assert list(read.by_task) == [task]


def test_markers_become_masks_over_zeros(tmp_path: Path) -> None:
    path = tmp_path / "v.txt"
    path.write_text("valence,arousal\n0.5,-0.25\n-5,-5\n-5,0.5\n-1,1.0\n")
    labels = read_annotations(path, VA)[path.stem]
    np.testing.assert_array_equal(labels[VA].values, np.float32([[0.5, -0.25], [0, 0], [0, 0], [-1, 1]]))
    assert labels[VA].valid.tolist() == [True, False, False, True]  # one -5 makes the frame unlabelled


def test_single_unlabelled_aus_are_masked_alone(tmp_path: Path) -> None:
    path = tmp_path / "v.txt"
    path.write_text(HEADERS[AU] + "\n1,0,-1,1,0,0,0,0,0,0,0,1\n" + ",".join(["-1"] * 12) + "\n")
    labels = read_annotations(path, AU)[path.stem]
    assert labels[AU].valid.tolist() == [[True, True, False] + [True] * 9, [False] * 12]
    assert labels[AU].values[0].tolist() == [1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1]


@pytest.mark.parametrize(
    "data",
    [
        b"\xef\xbb\xbfvalence,arousal\n0.5,-5\n.25,1e-1\n",
        b"valence,arousal\r\n0.5,-5\r\n.25,1e-1\r\n",
        b"valence,arousal\n0.5,-5\n.25,1e-1\n\n \n\r\n",
        b"valence, arousal \n0.5 ,-5\n .25,1e-1\t\n",
        b"valence,arousal\n0.5,-5\n.25,1e-1",
    ],
    ids=["bom", "crlf", "blank lines at the end", "spaces", "no line end"],
)
def test_harmless_variants_read_like_the_plain_file(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "v.txt"
    path.write_bytes(data)
    labels = read_annotations(path, VA)[path.stem]
    assert labels[VA].valid.tolist() == [False, True]
    np.testing.assert_array_equal(labels[VA].values[1], np.float32([0.25, 0.1]))


@pytest.mark.parametrize("cell", ["-1", "3", "3.0", "+3", " 3", "3e0"])
def test_a_class_is_read_however_the_number_is_written(cell: str, tmp_path: Path) -> None:
    path = tmp_path / "v.txt"
    path.write_text(f"{HEADERS[EXPR]}\n{cell}\n0\n")
    labels = read_annotations(path, EXPR)[path.stem]
    assert labels[EXPR].values.tolist() == [max(int(float(cell)), 0), 0]
    assert labels[EXPR].valid.tolist() == [cell != "-1", True]


def test_seven_classes_of_2021(tmp_path: Path) -> None:
    path = tmp_path / "v.txt"
    path.write_text(",".join(EXPR.names[:7]) + "\n6\n-1\n")
    assert read_annotations(path, EXPR)[path.stem][EXPR].values.tolist() == [6, 0]
    path.write_text(",".join(EXPR.names[:7]) + "\n6\n7\n")
    with pytest.raises(AnnotationError, match=r"v\.txt:3: expression is '7'"):
        read_annotations(path, EXPR)


WRONG = [
    (VA, b"", 1, "empty annotation", "empty"),
    (VA, b"valence;arousal\n0,0\n", 1, "header", "'valence;arousal'"),
    (VA, HEADERS[AU].encode() + b"\n0,0\n", 1, "header", "that of AU"),
    (AU, b"\xff\xfea\0u\0", 1, "encoding", "UTF-16"),
    (EXPR, b",".join([b"Anger", b"Neutral"]) + b"\n1\n", 1, "header", "'Anger,Neutral'"),
    (VA, b"valence,arousal\n0,0\n0.5\n", 3, "columns", "1 cells instead of 2"),
    (VA, b"valence,arousal\n0,0,\n", 2, "columns", "3 cells instead of 2"),
    (VA, b"valence,arousal\n0,0\n\n0,0\n", 3, "blank line", "blank"),
    (VA, b"valence,arousal\n0,\n", 2, "number", "arousal is ''"),
    (VA, b"valence,arousal\n+,-\n", 2, "number", "'+'"),
    (VA, b"valence,arousal\nnan,0\n", 2, "number", "'nan'"),
    (VA, b"valence,arousal\n0,inf\n", 2, "number", "'inf'"),
    (VA, b"valence,arousal\n0,1_0\n", 2, "number", "'1_0'"),
    (VA, "valence,arousal\n0,0\n０.５,0\n".encode(), 3, "number", "valence is '０.５'"),
    (VA, "valence,arousal\n0,٠.٥\n".encode(), 2, "number", "arousal is '٠.٥'"),
    (EXPR, f"{HEADERS[EXPR]}\n３\n".encode(), 2, "number", "'３'"),
    (EXPR, f"{HEADERS[EXPR]}\n٣\n".encode(), 2, "number", "'٣'"),
    (EXPR, f"{HEADERS[EXPR]}\n1_0\n".encode(), 2, "number", "'1_0'"),
    (EXPR, f"{HEADERS[EXPR]}\n1e3\n".encode(), 2, "range", "'1e3'"),
    (EXPR, f"{HEADERS[EXPR]}\nnan\n".encode(), 2, "number", "'nan'"),
    (AU, f"{HEADERS[AU]}\n{'0,' * 11}１\n".encode(), 2, "number", "AU26 is '１'"),
    (AU, f"{HEADERS[AU]}\n{'0,' * 11}inf\n".encode(), 2, "number", "AU26 is 'inf'"),
    (VA, b"valence,arousal\n0,0\0\n", 2, "number", r"0\x00"),
    (VA, b"valence,arousal\n0,\xff\n", 2, "number", r"xff"),
    (VA, b"valence,arousal\n0,1.0001\n", 2, "range", "'1.0001'"),
    (VA, b"valence,arousal\n-4,0\n", 2, "range", "'-4'"),
    (EXPR, HEADERS[EXPR].encode() + b"\n7\n8\n", 3, "range", "'8'"),
    (EXPR, HEADERS[EXPR].encode() + b"\n1.5\n", 2, "range", "'1.5'"),
    (EXPR, HEADERS[EXPR].encode() + b"\n" + b"9" * 6000 + b"\n", 2, "range", "99…"),
    (EXPR, HEADERS[EXPR].encode() + b"\n-2\n", 2, "range", "'-2'"),
    (EXPR, HEADERS[EXPR].encode() + b"\n/\n", 2, "number", "'/'"),
    (AU, HEADERS[AU].encode() + b"\n" + b"1," * 11 + b"2\n", 2, "range", "AU26 is '2'"),
    (AU, HEADERS[AU].encode() + b"\n" + b"1," * 11 + b"\n", 2, "number", "AU26 is ''"),
    (AU, HEADERS[AU].encode() + b"\n,01" + b",1" * 10 + b"\n", 2, "number", "AU1 is ''"),
]


@pytest.mark.parametrize(("task", "data", "line", "kind", "said"), WRONG)
def test_a_wrong_file_is_named_with_line_and_value(
    task: Task, data: bytes, line: int, kind: str, said: str, tmp_path: Path
) -> None:
    path = tmp_path / "video.txt"
    path.write_bytes(data)
    with pytest.raises(AnnotationError) as caught:
        read_annotations(path, task)
    assert str(caught.value).startswith(f"{path}:{line}: ")
    assert said in str(caught.value)
    assert (caught.value.defect.kind, caught.value.defect.line) == (kind, line)


def test_a_missing_file_or_a_folder_is_one_clear_error(tmp_path: Path) -> None:
    for path in (tmp_path / "none.txt", tmp_path):
        with pytest.raises(AbawError, match="cannot be read"):
            read_annotations(path, VA)


def test_every_defect_of_a_file_is_found_not_only_the_first() -> None:
    body = b"0,0\nx,2\n\n0\n"
    found = [(defect.line, defect.kind) for defect in row_defects(body, columns_of(VA))]
    assert found == [(3, "number"), (3, "range"), (4, "blank line"), (5, "columns")]


def test_what_is_wrong_but_tolerated_is_a_remark_beside_the_labels() -> None:
    parsed = parse_annotations(b"valence,arousal\r\n0,-5\r\n0,0\r\n\r\n", VA, "v")
    assert list(parsed.labels) == ["v"]
    assert not parsed.defects
    found = [(remark.line, remark.kind) for remark in parsed.remarks]
    assert found == [(1, "carriage returns"), (4, "blank line"), (2, "half-labelled row")]
    broken = parse_annotations(b"valence,arousal \n0,-5\n0\n", VA, "v")
    assert not broken.labels
    assert [(defect.line, defect.kind) for defect in broken.defects] == [(3, "columns")]
    assert [remark.kind for remark in broken.remarks] == ["trailing spaces"]


def test_mtl_file_reads_back_and_lists_only_labelled_frames(tmp_path: Path) -> None:
    written = {"1-30-1280x720": random_labels(40, 1), "video45_1": random_labels(7, 2)}
    path = tmp_path / "train_set.txt"
    write_mtl_file(path, written)
    lines = path.read_text().splitlines()
    assert lines[0] == "image,valence,arousal,expression,aus"
    assert all(len(line.split(",")) == 16 for line in lines[1:])
    read = read_annotations(path, None)
    assert list(read) == list(written)
    for video, labels in written.items():
        assert_equal(read[video].rows(0, len(labels)), labels)


def test_mtl_rows_are_scattered_to_their_frames(tmp_path: Path) -> None:
    path = tmp_path / "train_set.txt"
    aus = ",".join(["-1"] * 12)
    path.write_text(
        f"image,valence,arousal,expression,aus\nb/00003.jpg,-5,-5,2,{aus}\nb/00001.jpg,0.5,0,-1,{aus}\n"
    )
    labels = read_annotations(path, None)["b"]
    assert labels[VA].valid.tolist() == [True, False, False]
    assert labels[EXPR].valid.tolist() == [False, False, True]
    assert labels[EXPR].values[2] == 2
    assert not labels[AU].valid.any()


MTL_ROW = b",0.1,0.2,1" + b",0" * 12 + b"\n"


@pytest.mark.parametrize(
    ("rows", "line", "kind"),
    [
        (b"../secret/00001.jpg" + MTL_ROW, 2, "image"),
        (b"../00001.jpg" + MTL_ROW, 2, "image"),
        (b"/etc/00001.jpg" + MTL_ROW, 2, "image"),
        (b"a\\..\\b/00001.jpg" + MTL_ROW, 2, "image"),
        (b"\xff/00001.jpg" + MTL_ROW, 2, "image"),
        (b"a/00001.png" + MTL_ROW, 2, "image"),
        (b"a/00000.jpg" + MTL_ROW, 2, "image"),
        (b"a/0100000.jpg" + MTL_ROW, 2, "image"),
        (b"a/99999999999.jpg" + MTL_ROW, 2, "image"),
        (b"a/00001.jpg" + MTL_ROW + b"a/00001.jpg" + MTL_ROW, 3, "duplicate row"),
        (b"a/00001.jpg" + MTL_ROW + b"\n" + b"a/00002.jpg" + MTL_ROW, 3, "blank line"),
        (b"a/00001.jpg\n", 2, "columns"),
        (b"a/00001.jpg,0.1,0.2,1,0\n", 2, "columns"),
        (b"a/00001.jpg,0.1,0.2,9" + b",0" * 12 + b"\n", 2, "range"),
    ],
)
def test_wrong_mtl_rows(rows: bytes, line: int, kind: str, tmp_path: Path) -> None:
    path = tmp_path / "validation_set.txt"
    path.write_bytes(b"image,valence,arousal,expression,aus\n" + rows)
    with pytest.raises(AnnotationError) as caught:
        read_annotations(path, None)
    assert str(caught.value).startswith(f"{path}:{line}: ")
    assert (caught.value.defect.kind, caught.value.defect.line) == (kind, line)


def test_a_five_name_header_is_asked_of_mtl_files(tmp_path: Path) -> None:
    path = tmp_path / "train_set.txt"
    path.write_bytes(b"image,valence,arousal,expression\n")
    with pytest.raises(AnnotationError, match="instead of 'image,valence,arousal,expression,aus'"):
        read_annotations(path, None)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("kind", [*map(str, TASKS), "mtl"])
def test_a_file_in_utf_16_names_the_cure(kind: str, encoding: str, tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    if kind == "mtl":
        write_mtl_file(path, {"a": random_labels(3)})
    else:
        write_task_file(path, task_named(kind), random_labels(3))
    path.write_bytes(path.read_text().encode(encoding))
    with pytest.raises(AbawError) as error:
        read_annotations(path, None if kind == "mtl" else task_named(kind))
    assert str(error.value).startswith(f"{path}:1: the file is UTF-16; save it as UTF-8")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("data", [b"", b"\n", b" \r\n"])
def test_an_empty_file_is_called_empty(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(data)
    for read in (lambda: read_annotations(path, None), lambda: read_annotations(path, AU)):
        with pytest.raises(AbawError, match=r"a\.txt:1: the file is empty; .*fetch the annotations again"):
            read()


@pytest.mark.parametrize("number", [1, 99999, 100000, 1234567])
def test_image_names_and_frames_are_inverse(number: int) -> None:
    assert parse_image(f"a/{image_name(number)}".encode()) == ("a", number - 1)


@pytest.mark.parametrize(
    "name", ["0000２.jpg", "0000٢.jpg", "00_02.jpg", "1e003.jpg", "+0002.jpg", "00000.jpg"]
)
def test_a_frame_number_is_written_in_ascii_digits(name: str) -> None:
    assert "not of the form" in str(parse_image(f"a/{name}".encode()))


@pytest.mark.parametrize("kind", [*map(str, TASKS), "mtl"])
@pytest.mark.parametrize("n_files", [300, pytest.param(5000, marks=pytest.mark.slow)])
def test_a_mutated_file_parses_or_is_named(kind: str, n_files: int, tmp_path: Path) -> None:
    """The reader and a plain reading of the specification agree on every mutant, and the doctor with both."""
    rng = random.Random(f"{kind}{n_files}")
    path = tmp_path / "v.txt"
    labels = random_labels(6)
    if kind == "mtl":
        write_mtl_file(path, {"a": labels, "b_left": labels})
    else:
        write_task_file(path, task_named(kind), labels)
    original = path.read_bytes()
    n_refused = 0
    for _ in range(n_files):
        data = mutated(original, rng)
        path.write_bytes(data)
        try:
            read = read_annotations(path, None if kind == "mtl" else task_named(kind))
        except AbawError as error:
            n_refused += 1
            refusal = str(error)
        else:
            refusal = ""
        usable, findings = check_annotations(path, None if kind == "mtl" else task_named(kind))
        assert {finding.path for finding in findings} <= {path}
        if refusal:
            assert not usable
            assert any(KINDS[finding.kind].fails for finding in findings)
            assert refusal.startswith(f"{path}:")
            assert int(refusal.removeprefix(f"{path}:").partition(":")[0]) <= data.count(b"\n") + 1
            continue
        lines = data.decode("utf-8-sig").rstrip().split("\n")[1:]
        if kind == "mtl":
            assert isinstance(read, dict)
            assert sum(int(part[VA].valid.sum()) for part in read.values()) == sum(
                "-5" not in [f"{float(c):g}" for c in line.split(",")[1:3]] for line in lines
            )
        else:
            read = read[path.stem]
            assert isinstance(read, Labels)
            numbers = [float(cell) for line in lines for cell in line.split(",")]
            values = np.array(numbers).reshape(len(lines), len(columns_of(task_named(kind))))
            valid = values != task_named(kind).unlabelled
            if kind == "va":
                valid = valid.all(1, keepdims=True)
            np.testing.assert_array_equal(read[task_named(kind)].valid.reshape(valid.shape), valid)
            expected = np.where(valid, values, 0).astype(np.float32)
            np.testing.assert_array_equal(read[task_named(kind)].values.reshape(expected.shape), expected)
    assert 0.2 * n_files < n_refused < n_files  # both outcomes were met


@pytest.mark.parametrize("task", TASKS, ids=str)
def test_reading_is_much_faster_than_looking_at_every_cell(task: Task, tmp_path: Path) -> None:
    path = tmp_path / "v.txt"
    write_task_file(path, task, random_labels(20_000))
    body = path.read_bytes().partition(b"\n")[2]
    readers = (
        lambda: read_rows(body, columns_of(task)),
        lambda: list(row_defects(body, columns_of(task))),
    )

    def seconds(read: Callable[[], object]) -> float:
        start = time.process_time()
        read()
        return time.process_time() - start

    fast, slow = (min(seconds(read) for _ in range(3)) for read in readers)
    assert not readers[1]()
    assert fast * 4 < slow
