"""Verification names each defect with its line; lines are numbered from 1, line 1 is the header."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from abaw.errors import UsageError
from abaw.evaluation.submission.formats import FORMS
from abaw.evaluation.submission.verify import SubmissionDefect, grouped, verify_submission
from abaw.evaluation.submission.write import write_submission
from abaw.tasks import AU, EXPR
from tests.support.submissions import HEADERS, VIDEOS, write_sample


@pytest.fixture
def valid(tmp_path, tracks):
    """Gives, per form, the lines of a valid submission and a function that verifies changed lines."""

    def prepare(task):
        sample = write_sample(tmp_path / "sample.txt", task)
        write_submission(tracks[0], sample, task, tmp_path / "valid.txt")

        def verify(lines, named=task):
            (tmp_path / "changed.txt").write_text("\n".join(lines) + "\n")
            return [(f.line, f.message) for f in verify_submission(tmp_path / "changed.txt", sample, named)]

        return (tmp_path / "valid.txt").read_text().splitlines(), verify

    return prepare


def with_cell(line, cell, value):
    cells = line.split(",")
    cells[cell] = value
    return ",".join(cells)


@pytest.mark.parametrize(
    ("task", "cell", "value", "message"),
    [
        ("va", 1, "1.2", "valence is '1.2': outside [-1, 1]"),
        ("va", 2, "-1.0001", "arousal is '-1.0001': outside [-1, 1]"),
        ("va", 1, "nan", "valence is 'nan': NaN or infinite"),
        ("va", 1, "inf", "valence is 'inf': NaN or infinite"),
        ("va", 1, "", "valence is '': not a number"),
        ("va", 1, " 0.1", "valence is ' 0.1': write the number alone"),
        ("va", 1, "\uff10.\uff15", "valence is '\uff10.\uff15': not a number"),
        ("va", 2, "-\uff11", "arousal is '-\uff11': not a number"),
        ("va", 1, "\u0660.\u0665", "valence is '\u0660.\u0665': not a number"),
        ("va", 1, "0.1\u00a0", "valence is '0.1\\xa0': not a number"),
        ("va", 1, "0.1_0", "valence is '0.1_0': not a number"),
        ("va", 1, "1e3", "valence is '1e3': outside [-1, 1]"),
        ("va", 1, "-Infinity", "valence is '-Infinity': NaN or infinite"),
        ("expr", 1, "\uff13", "class is '\uff13': not a number"),
        ("expr", 1, "\u0663", "class is '\u0663': not a number"),
        ("expr", 1, "\u00b3", "class is '\u00b3': not a number"),
        ("expr", 1, "0_3", "class is '0_3': not a number"),
        ("expr", 1, "1_0", "class is '1_0': not a number"),
        ("expr", 1, "1e3", "class is '1e3': expected an integer from 0 to 7"),
        ("expr", 1, "3e0", "class is '3e0': write the integer 3"),
        ("expr", 1, "+3", "class is '+3': write the integer 3"),
        ("expr", 1, "inf", "class is 'inf': NaN or infinite"),
        ("au", 3, "\uff11", "AU4 is '\uff11': not a number"),
        ("au", 3, "\u0661", "AU4 is '\u0661': not a number"),
        ("au", 3, "nan", "AU4 is 'nan': NaN or infinite"),
        ("mtl", 3, "\uff11", "class is '\uff11': not a number"),
        ("va", 2, "-5", "arousal is '-5': outside [-1, 1]"),
        ("expr", 1, "3.0", "class is '3.0': write the integer 3"),
        ("expr", 1, "8", "class is '8': expected an integer from 0 to 7"),
        ("expr", 1, "-1", "class is '-1': expected an integer from 0 to 7"),
        ("expr", 1, "2.5", "class is '2.5': expected an integer from 0 to 7"),
        ("expr", 1, "Fear", "class is 'Fear': not a number"),
        ("expr", 1, "nan", "class is 'nan': NaN or infinite"),
        ("expr", 1, "1,0", "2 values, expected 1 (class)"),
        ("au", 12, "1.0", "AU26 is '1.0': write the integer 1"),
        ("au", 1, "0.7", "AU1 is '0.7': expected an integer from 0 to 1"),
        ("au", 1, "2", "AU1 is '2': expected an integer from 0 to 1"),
        ("au", 1, "0,1", f"13 values, expected 12 ({', '.join(AU.names)})"),
        ("mtl", 3, "1.0", "class is '1.0': write the integer 1"),
        ("mtl", 15, "-1", "AU26 is '-1': expected an integer from 0 to 1"),
    ],
)
def test_a_bad_value_is_found_in_its_line(valid, task, cell, value, message):
    lines, verify = valid(task)
    lines[6] = with_cell(lines[6], cell, value)
    assert verify(lines) == [(7, message)]
    lines[10] = with_cell(lines[10], cell, value)
    assert [line for line, _ in verify(lines)] == [7, 11]
    assert verify(lines, None) == verify(lines)


def quoted(line):
    return f'"{line}"'


@pytest.mark.parametrize("task", FORMS)
@pytest.mark.parametrize(
    ("spoil", "line"),
    [
        pytest.param(lambda rows: rows.pop(5), 6, id="missing row"),
        pytest.param(lambda rows: rows.insert(3, rows.pop(4)), 4, id="swapped rows"),
        pytest.param(lambda rows: rows.__setitem__(0, quoted(rows[0])), 1, id="quoted header"),
        pytest.param(lambda rows: rows.__setitem__(7, with_cell(rows[7], 1, "nan")), 8, id="NaN"),
        pytest.param(lambda rows: rows.__setitem__(7, with_cell(rows[7], 1, "1.2")), 8, id="1.2"),
        pytest.param(lambda rows: rows.__setitem__(9, with_cell(rows[9], -1, "1.0")), 10, id="float"),
    ],
)
def test_every_kind_of_defect_is_found_in_every_form(valid, task, spoil, line):
    lines, verify = valid(task)
    spoil(lines)
    found = verify(lines)
    if task == "va" and lines[9].endswith(",1.0"):  # which is what valence may be
        assert found == []
    else:
        assert found[0][0] == line
        assert len(found) == 1 or (len(found) == 2 and all("swapped" in message for _, message in found))
    assert verify(lines, None) == found


@pytest.mark.parametrize(
    ("task", "spoil", "says"),
    [
        ("va", lambda rows: [quoted(rows[0]), *rows[1:]], "line 1: the header is quoted"),
        ("au", lambda rows: rows[1:], "line 1: the header is"),
        ("va", lambda rows: [*rows[:3], "nan,0", *rows[4:]], "line 4: valence is 'nan': NaN or infinite"),
        ("va", lambda rows: [*rows[:3], "0.1,1.2", *rows[4:]], "line 4: arousal is '1.2': outside [-1, 1]"),
        ("expr", lambda rows: [*rows[:4], "3.0"], "line 5: class is '3.0': write the integer 3"),
        ("au", lambda rows: [*rows[:2], "0," * 10 + "0", *rows[3:]], "line 3: 11 values, expected 12"),
        ("expr", lambda rows: rows[:1], "line 2: 0 rows, expected one per frame"),
    ],
)
def test_defects_of_a_file_per_video_are_found_in_their_line(tmp_path, tracks, task, spoil, says):
    (tmp_path / "videos.txt").write_text("\n".join(VIDEOS) + "\n")
    write_submission(tracks[0], tmp_path / "videos.txt", task, tmp_path / "out")
    file = tmp_path / "out" / "10-30-1280x720.txt"
    file.write_text("\n".join(spoil(file.read_text().splitlines())) + "\n")
    (found,) = verify_submission(tmp_path / "out", tmp_path / "videos.txt", task)
    assert str(found).startswith(f"10-30-1280x720.txt, {says}")


def test_quotes_are_found(valid):
    lines, verify = valid("expr")
    whole = [quoted(lines[0]), *lines[1:]]
    assert verify(whole) == [(1, "the header is quoted; write it without quotes")]
    assert verify(whole, None) == verify(whole)
    each = [",".join(f'"{name}"' for name in ("image_location", *EXPR.names)), *lines[1:]]
    assert verify(each)[0][0] == 1
    image, value = lines[3].split(",")
    assert verify([*lines[:3], f'"{image}",{value}', *lines[4:]]) == [
        (4, "the row is quoted; write it without quotes")
    ]


@pytest.mark.parametrize(
    "header",
    ["", "image,valence,arousal", "image_location,arousal,valence", "﻿image_location,valence,arousal"],
)
def test_a_wrong_header_is_found(valid, header):
    lines, verify = valid("va")
    ((line, message),) = verify([header, *lines[1:]])
    assert line == 1
    assert "write 'image_location,valence,arousal'" in message


def test_a_missing_header_is_one_finding(valid):
    lines, verify = valid("va")
    assert verify(lines[1:], None) == [(1, f"the header is missing; write {lines[0]!r}")]


def test_a_missing_row_is_one_finding(valid):
    lines, verify = valid("va")
    assert verify(lines[:3] + lines[4:]) == [(4, "1 row missing before this line: v-2_left/00003.jpg")]
    assert verify(lines[:-1]) == [(16, "1 row missing before this line: a/00001.jpg")]
    found = verify(lines[:3] + lines[6:9] + lines[10:])
    assert found == [
        (4, "3 rows missing before this line: v-2_left/00003.jpg to v-2_left/00005.jpg"),
        (7, "1 row missing before this line: v-2_left/00009.jpg"),
    ]


def test_unfilled_extra_repeated_and_empty_rows_are_found(valid):
    lines, verify = valid("va")
    assert verify([*lines[:4], lines[4].split(",")[0] + ",", *lines[5:]]) == [(5, "the row is not filled")]
    extra = "other/00001.jpg,0.1,0.1"
    assert verify([*lines[:4], extra, *lines[4:]]) == [
        (5, "'other/00001.jpg' is not in the sample; remove the row")
    ]
    assert verify([*lines[:8], lines[3], *lines[8:]]) == [
        (9, "v-2_left/00003.jpg repeats line 4; remove one of them")
    ]
    found = verify([*lines[:4], "", *lines[4:]])
    assert {line for line, _ in found} == {5}


@pytest.mark.parametrize(("first", "second"), [(3, 4), (2, 14)])
def test_swapped_rows_are_found_both(valid, first, second):
    lines, verify = valid("va")
    lines[first], lines[second] = lines[second], lines[first]
    found = verify(lines)
    assert [line for line, _ in found] == [first + 1, second + 1]
    assert all("swapped" in message for _, message in found)


def test_a_moved_row_is_one_finding(valid):
    lines, verify = valid("va")
    moved = lines.pop(3)
    assert verify([*lines[:11], moved, *lines[11:]]) == [
        (12, "v-2_left/00003.jpg is out of order; keep the order of the sample")
    ]


def test_comparison_goes_on_after_each_defect(valid):
    lines, verify = valid("va")
    lines[12] = with_cell(lines[12], 1, "7")
    found = verify([*lines[:3], *lines[4:8], "x/00001.jpg,0,0", *lines[8:]])
    assert [line for line, _ in found] == [4, 8, 13]


def test_an_empty_file_lacks_everything(valid):
    _, verify = valid("va")
    found = verify([])
    assert found[0][0] == 1
    assert "15 rows missing" in found[-1][1]


@pytest.mark.parametrize("task", FORMS)
def test_without_a_header_in_the_sample_the_file_itself_tells_the_task(tmp_path, valid, task):
    lines, _ = valid(task)
    sample, out = tmp_path / "headless.txt", tmp_path / "changed.txt"
    sample.write_text("\n".join(line.split(",")[0] + "," for line in lines[1:]) + "\n")
    out.write_text("\n".join(lines) + "\n")
    assert verify_submission(out, sample) == []
    out.write_text("\n".join(["nonsense", *lines[1:]]) + "\n")
    (found,) = verify_submission(out, sample)
    assert found.line == 1
    assert HEADERS[task] in found.message
    out.write_text("nonsense\n1,2,3,4,5,6\n")
    with pytest.raises(UsageError, match="name it: --task"):
        verify_submission(out, sample)


def test_windows_line_ends_are_fine(tmp_path, valid):
    lines, _ = valid("va")
    (tmp_path / "crlf.txt").write_bytes("\r\n".join(lines).encode())
    assert verify_submission(tmp_path / "crlf.txt", tmp_path / "sample.txt") == []


@given(st.permutations(range(1, 16)), st.integers(0, 15))
def test_any_disorder_is_found(tmp_path_factory, order, n_kept):
    folder = tmp_path_factory.mktemp("disorder")
    sample = write_sample(folder / "sample.txt", "expr")
    lines = [line + "3" for line in sample.read_text().splitlines()]
    lines[0] = HEADERS["expr"]
    kept = list(order)[:n_kept]
    (folder / "out.txt").write_text("\n".join([lines[0], *(lines[k] for k in kept)]) + "\n")
    found = verify_submission(folder / "out.txt", sample, "expr")
    assert (found == []) == (kept == list(range(1, 16)))
    assert found == sorted(found, key=lambda f: f.line)


def test_defects_that_differ_in_place_and_value_only_are_one_line():
    defects = [SubmissionDefect(1, "the header is quoted; write it without quotes")]
    defects += [SubmissionDefect(n, f"valence is '{n}.5': outside [-1, 1]") for n in range(2, 12)]
    defects += [SubmissionDefect(3, "arousal is 'x': not a number")]
    assert grouped(defects) == [
        "line 1: the header is quoted; write it without quotes",
        "line 2: valence is '2.5': outside [-1, 1] (and 9 like it, to line 11)",
        "line 3: arousal is 'x': not a number",
    ]
    assert grouped([]) == []
