import csv
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from abaw.__main__ import main
from abaw.data.formats.annotations import read_mtl_file, read_task_file
from abaw.data.labels import image_name
from abaw.errors import AbawError, UsageError
from abaw.evaluation.submission.formats import FORMS, read_sample
from abaw.evaluation.submission.verify import verify_submission
from abaw.evaluation.submission.write import Provenance, write_submission
from abaw.evaluation.tracks import Track, write_track
from abaw.tasks import AU_NAMES, EXPR_NAMES, Task
from tests.evaluation.test_tracks import make_track

VIDEOS = {"v-2_left": 9, "10-30-1280x720": 5, "a": 1}  # order of the sample, rows per video

HEADERS = {
    "va": "image_location,valence,arousal",
    "expr": "image_location,Neutral,Anger,Disgust,Fear,Happiness,Sadness,Surprise,Other",
    "au": "image_location,AU1,AU2,AU4,AU6,AU7,AU10,AU12,AU15,AU23,AU24,AU25,AU26",
    "mtl": "image,valence,arousal,expression,aus",
}


@pytest.fixture
def tracks(tmp_path):
    """A folder of tracks, shorter than the sample for v-2_left; and the tracks."""
    made = {video: make_track(video, n=min(n, 7), seed=n) for video, n in VIDEOS.items()}
    made["v-2_left"].va[2] = [1.5, -1.5]
    for track in (*made.values(), make_track("not in the sample")):
        write_track(track, tmp_path / "tracks")
    return tmp_path / "tracks", made


def write_sample(path, task, skip=()):
    images = [f"{video}/{image_name(k + 1)}" for video, n in VIDEOS.items() for k in range(n)]
    images = [image for image in images if image not in skip]
    path.write_text("\n".join([HEADERS[task], *(f"{image}," for image in images)]) + "\n")
    return path


@pytest.mark.parametrize("task", FORMS)
def test_one_file_reads_back_with_an_independent_parser(tmp_path, tracks, task):
    folder, made = tracks
    sample = write_sample(tmp_path / "sample.txt", task, skip={"v-2_left/00004.jpg"})
    out = tmp_path / "out" / "predictions.txt"
    provenance = write_submission(folder, sample, task, out).total

    with out.open(newline="") as file:
        header, *rows = csv.reader(file)
    assert ",".join(header) == HEADERS[task]
    wanted = [line.rstrip(",") for line in sample.read_text().splitlines()[1:]]
    assert [row[0] for row in rows] == wanted
    for image, *values in rows:
        video, name = image.split("/")
        track = made[video]
        row = min(int(name[:5]), len(track)) - 1
        if task in ("va", "mtl"):
            np.testing.assert_allclose([float(v) for v in values[:2]], track.va[row].clip(-1, 1), atol=1e-6)
            values = values[2:]
        if task in ("expr", "mtl"):
            assert values[0] == str(track.expr[row].argmax())
            values = values[1:]
        if task in ("au", "mtl"):
            assert values == [str(int(p >= 0.5)) for p in track.au[row]]
            values = []
        assert values == []
    assert verify_submission(out, sample) == []
    assert verify_submission(out, sample, task) == []

    n_seen, n_context = 0, 0
    for video, name in (image.split("/") for image in wanted):
        seen, k = made[video].seen, int(name[:5]) - 1
        n_seen += bool(seen[k : k + 1].any())
        n_context += bool(not seen[k : k + 1].any() and seen[k:].any())
    assert provenance == Provenance(len(wanted), n_seen, n_context, len(wanted) - n_seen - n_context)


def test_mtl_submission_reads_back_as_an_annotation(tmp_path, tracks):
    folder, made = tracks
    sample = write_sample(tmp_path / "sample.txt", "mtl")
    write_submission(folder, sample, "mtl", tmp_path / "out.txt")
    labels = read_mtl_file(tmp_path / "out.txt")
    assert list(labels) == list(VIDEOS)
    np.testing.assert_array_equal(labels["10-30-1280x720"].expr, made["10-30-1280x720"].expr.argmax(1))


@pytest.mark.parametrize("task", Task)
def test_third_edition_reads_back_with_an_independent_parser_and_as_annotations(tmp_path, tracks, task):
    folder, made = tracks
    listed = tmp_path / "videos.txt"
    listed.write_text("\n".join(VIDEOS) + "\n")
    done = write_submission(folder, listed, task, tmp_path / "out")
    assert {video: rows.rows for video, rows in done.videos.items()} == VIDEOS | {"v-2_left": 7}
    assert done.total.rows == sum(len(track) for track in made.values())
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == sorted(f"{v}.txt" for v in VIDEOS)
    for video, track in made.items():
        file = tmp_path / "out" / f"{video}.txt"
        decided = {
            "va": lambda t: t.va.clip(-1, 1),
            "expr": lambda t: t.expr.argmax(1),
            "au": lambda t: t.au >= 0.5,
        }[task](track)
        rows = np.loadtxt(file, delimiter=",", skiprows=1, ndmin=2)
        np.testing.assert_allclose(rows, decided.reshape(len(track), -1), atol=1e-6)
        assert file.read_text().splitlines()[0] == HEADERS[task].removeprefix("image_location,")
        np.testing.assert_allclose(read_task_file(file, task).values(task), decided, atol=1e-6)
    assert verify_submission(tmp_path / "out", listed) == []
    (tmp_path / "out" / "a.txt").unlink()
    (tmp_path / "out" / "b.txt").write_text("")
    found = verify_submission(tmp_path / "out", listed, task)
    assert [str(f) for f in found] == ["a.txt: is missing", "b.txt: is not a video of the list"]


def test_change_is_applied_to_every_track(tmp_path, tracks):
    folder, _ = tracks
    sample = write_sample(tmp_path / "sample.txt", "va")

    def zero(track):
        return Track(video=track.video, seen=track.seen, va=0 * track.va)

    write_submission(folder, sample, "va", tmp_path / "out.txt", change=zero)
    rows = (tmp_path / "out.txt").read_text().splitlines()[1:]
    assert {abs(float(cell)) for row in rows for cell in row.split(",")[1:]} == {0.0}


def test_missing_tracks_are_one_error_that_lists_them(tmp_path, tracks):
    folder, _ = tracks
    for video in ("a", "v-2_left"):
        (folder / f"{video}.parquet").unlink()
    sample = write_sample(tmp_path / "sample.txt", "va")
    with pytest.raises(AbawError, match=r"2 videos of .*sample.txt have no track: v-2_left, a;"):
        write_submission(folder, sample, "va", tmp_path / "out.txt")


def test_a_task_that_was_not_predicted_leaves_no_file(tmp_path):
    write_track(make_track("a", tasks=("va",)), tmp_path)
    sample = tmp_path / "sample.txt"
    sample.write_text("a/00001.jpg,\n")
    with pytest.raises(AbawError, match="track of a: au was not predicted"):
        write_submission(tmp_path, sample, "au", tmp_path / "out.txt")
    assert not (tmp_path / "out.txt").exists()
    with pytest.raises(UsageError, match="va, expr, au, mtl"):
        write_submission(tmp_path, sample, "vaa", tmp_path / "out.txt")
    (tmp_path / "list.txt").write_text("a\n")
    with pytest.raises(AbawError, match="no edition took a file per video"):
        write_submission(tmp_path, tmp_path / "list.txt", "mtl", tmp_path / "out")


def test_an_invalid_result_is_not_written(tmp_path, tracks, monkeypatch):
    folder, _ = tracks
    sample = write_sample(tmp_path / "sample.txt", "expr")
    monkeypatch.setitem(
        write_submission.__globals__["_TEXT"], Task.EXPR, lambda values: [f"{v}.0" for v in values.argmax(1)]
    )
    with pytest.raises(AbawError, match="invalid at 15 places, first at line 2: class is"):
        write_submission(folder, sample, "expr", tmp_path / "out.txt")
    assert not (tmp_path / "out.txt").exists()


# -- videos that end before their sample


def write_case(folder, seen, rows):
    """Tracks as `seen` gives them by video, and a sample with so many rows of each."""
    for video, frames in seen.items():
        frames = np.asarray(frames, bool)
        va = np.linspace(-1, 1, 2 * len(frames), dtype=np.float32).reshape(-1, 2)
        write_track(Track(video=video, seen=frames, va=va), folder / "tracks")
    images = [f"{video}/{image_name(k + 1)}," for video, n in rows.items() for k in range(n)]
    (folder / "sample.txt").write_text("\n".join([HEADERS["va"], *images]) + "\n")
    return folder / "tracks", folder / "sample.txt"


def submitted(folder, seen, rows, **options):
    return write_submission(*write_case(folder, seen, rows), "va", folder / "out.txt", **options)


@pytest.mark.parametrize(
    ("seen", "rows", "expected"),
    [
        pytest.param([1, 1, 1], 3, (3, 3, 0, 0), id="all seen"),
        pytest.param([1, 0, 1], 3, (3, 2, 1, 0), id="a gap"),
        pytest.param([0, 0, 1], 3, (3, 1, 2, 0), id="a late start"),
        pytest.param([1, 1, 0], 3, (3, 2, 0, 1), id="the track goes on without crops"),
        pytest.param([1, 0, 1, 0, 0], 7, (7, 2, 1, 4), id="both, and beyond the track"),
        pytest.param([0, 0], 3, (3, 0, 0, 3), id="no crop at all"),
        pytest.param([1, 1, 1, 1], 2, (2, 2, 0, 0), id="longer than the sample"),
        pytest.param([1, 0, 0, 1], 2, (2, 1, 1, 0), id="a crop after the sample's end"),
    ],
)
def test_rows_are_seen_from_context_or_beyond_the_last_crop(tmp_path, seen, rows, expected):
    done = submitted(tmp_path, {"a": seen, "b": [1]}, {"a": rows, "b": 1})
    assert done.videos == {"a": Provenance(*expected), "b": Provenance(1, 1, 0, 0)}
    assert done.total == Provenance(*expected) + Provenance(1, 1, 0, 0)
    assert done.to_dict()["videos"]["a"] == dict(
        zip(("rows", "seen", "from_context", "beyond_the_last_crop"), expected, strict=True)
    )


@pytest.mark.parametrize("where", ["the track ends", "the track goes on without crops"])
@pytest.mark.parametrize(
    ("rows", "beyond", "refused"),
    [
        (1000, 30, False),  # 3 %, but few
        (1000, 31, True),
        (1550, 31, False),  # 2 %
        (1549, 31, True),
        (10_000, 200, False),
        (10_000, 201, True),
        (31, 31, True),
        (30, 30, False),
    ],
)
def test_more_than_two_percent_and_thirty_rows_beyond_the_last_crop_are_refused(
    tmp_path, where, rows, beyond, refused
):
    seen = np.arange(rows) < rows - beyond
    if where == "the track ends":
        seen = seen[: max(rows - beyond, 1)] if rows > beyond else np.zeros(1, bool)
    case = {"a": seen, "b": np.ones(5000)}, {"a": rows, "b": 5000}
    if refused:
        with pytest.raises(AbawError, match=rf"1 video ends long before .*a \({beyond} of {rows:,} rows\)"):
            submitted(tmp_path, *case)
        assert not (tmp_path / "out.txt").exists()
        done = submitted(tmp_path, *case, allow_missing=True)
        assert list(done.cut_short) == done.to_dict()["cut_short"] == ["a"]
    else:
        done = submitted(tmp_path, *case)
        assert not done.cut_short
    assert done.videos["a"].beyond_the_last_crop == beyond
    assert verify_submission(tmp_path / "out.txt", tmp_path / "sample.txt") == []


def test_a_file_per_video_is_refused_as_a_whole(tmp_path):
    tracks, _ = write_case(tmp_path, {"a": np.ones(100), "b": np.arange(100) < 50}, {})
    (tmp_path / "videos.txt").write_text("a\nb\n")
    with pytest.raises(AbawError, match=r"1 video ends long before .*b \(50 of 100 rows\)"):
        write_submission(tracks, tmp_path / "videos.txt", "va", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    done = write_submission(tracks, tmp_path / "videos.txt", "va", tmp_path / "out", allow_missing=True)
    assert list(done.cut_short) == ["b"]


def test_the_refusal_names_the_worst_videos_and_counts_the_others(tmp_path, capsys):
    seen = {f"v{k}": np.arange(200) < 100 - k for k in range(8)} | {"whole": np.ones(200), "gap": [1, 0, 1]}
    rows = {video: max(len(of_video), 3) for video, of_video in seen.items()}
    tracks, sample = write_case(tmp_path, seen, rows)
    words = ["submit", str(tracks), str(tmp_path / "out.txt"), "--sample", str(sample), "--task", "va"]
    assert main(words) == 1
    told = capsys.readouterr().err
    assert "8 videos end long before" in told
    assert "v7 (107 of 200 rows), v6 (106 of 200 rows)" in told
    assert "v3 (103 of 200 rows) and 3 more" in told
    assert "--allow_missing" in told
    assert 1 <= told.strip().count("\n") + 1 <= 3
    assert not (tmp_path / "out.txt").exists()


@pytest.mark.parametrize("option", ["--allow_missing", "--allow-missing"])
def test_the_summary_lists_what_was_seen_and_what_was_allowed(tmp_path, capsys, option):
    seen = {"cut": np.arange(200) < 100, "gap": [1, 0, 1], "tail": [1, 1, 0], "whole": [1, 1, 1]}
    tracks, sample = write_case(tmp_path, seen, {"cut": 200, "gap": 3, "tail": 3, "whole": 3})
    words = [
        "submit",
        str(tracks),
        str(tmp_path / "out.txt"),
        "--sample",
        str(sample),
        "--task",
        "va",
        option,
    ]
    assert main(words) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["video", "rows", "seen", "from", "context", "beyond", "the", "last", "crop"]
    assert [line.split() for line in lines[1:4]] == [
        ["cut", "200", "100", "0", "100"],
        ["tail", "3", "2", "0", "1"],
        ["gap", "3", "2", "1", "0"],
    ]
    assert lines[4] == "every row seen: 1 other video"
    assert lines[5] == "allowed by --allow_missing, beyond the last crop: cut (100 of 200 rows)"
    assert lines[6].endswith(
        "209 rows, verified: 107 seen, 1 from the frames around them, 101 beyond the last crop"
    )

    assert main([*words, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["rows"], told["seen"], told["from_context"], told["beyond_the_last_crop"]) == (
        209,
        107,
        1,
        101,
    )
    assert told["cut_short"] == ["cut"]
    assert told["videos"]["gap"] == {"rows": 3, "seen": 2, "from_context": 1, "beyond_the_last_crop": 0}
    assert list(told["videos"]) == list(seen)


def test_a_long_list_says_how_many_are_left_out(tmp_path):
    seen = {f"v{k}": [0, 1] for k in range(5)}
    table = submitted(tmp_path, seen, dict.fromkeys(seen, 2)).table(3).splitlines()
    assert [line.split()[0] for line in table] == ["video", "v0", "v1", "v2", "..."]
    assert "2 more" in table[-1]


# -- the sample


def test_sample_gives_rows_in_order(tmp_path):
    sample = read_sample(write_sample(tmp_path / "s.txt", "va", skip={"v-2_left/00002.jpg"}))
    assert sample.videos == tuple(VIDEOS)
    assert sample.frame[:3].tolist() == [0, 2, 3]
    assert sample.video.tolist() == [0] * 8 + [1] * 5 + [2]
    assert sample.images[1] == "v-2_left/00003.jpg"


@pytest.mark.parametrize(
    "text",
    [
        "a/00001.jpg,\r\nb/00001.jpg,\r\n",
        "a/00001.jpg\nb/00001.jpg",
        '"image",x\na/00001.jpg,1,2\nb/00001.jpg,\n\n',
        "\ufeffimage_location,valence,arousal\na/00001.jpg,\nb/00001.jpg,\n",
        "name of the image\na/00001.jpg,\nb/00001.jpg,\n",
    ],
)
def test_sample_with_any_line_ends_header_and_values(tmp_path, text):
    (tmp_path / "s.txt").write_bytes(text.encode())
    assert read_sample(tmp_path / "s.txt").images == ["a/00001.jpg", "b/00001.jpg"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "names neither"),
        ("a/00001.jpg,\0\n", "is not text"),
        ("image_location,valence,arousal\n", "names neither"),
        ("a/00001.jpg,\na/0002.jpg,\n", "line 2: the image is"),
        ("a/00001.jpg,\na/00000.jpg,\n", "line 2: the image is"),
        ("a/00001.jpg,\na/0000\uff12.jpg,\n", "line 2: the image is"),
        ("a/00001.jpg,\na/0000\u0662.jpg,\n", "line 2: the image is"),
        ("a/00001.jpg,\na/00_02.jpg,\n", "line 2: the image is"),
        ("image,x\na/00001.jpg,\nb/00001.jpg,\na/00001.jpg,\n", r"line 4: a/00001.jpg repeats line 2"),
    ],
)
def test_bad_samples_are_refused(tmp_path, text, message):
    (tmp_path / "s.txt").write_text(text)
    with pytest.raises(AbawError, match=message):
        read_sample(tmp_path / "s.txt")


def test_the_sample_of_another_task_is_refused_and_its_own_is_known(tmp_path, tracks):
    folder, _ = tracks
    sample = write_sample(tmp_path / "sample.txt", "au")
    with pytest.raises(UsageError, match=r"sample\.txt: its header is that of au, not of va"):
        write_submission(folder, sample, "va", tmp_path / "out.txt")
    write_submission(folder, write_sample(tmp_path / "va.txt", "va"), "va", tmp_path / "out.txt")
    first, second = verify_submission(tmp_path / "out.txt", sample)[:2]
    assert (first.line, second.message) == (1, f"2 values, expected 12 ({', '.join(AU_NAMES)})")


def test_a_missing_sample_is_an_error(tmp_path):
    with pytest.raises(AbawError, match="cannot be read"):
        read_sample(tmp_path / "none.txt")


# -- verification: each defect with its line; lines are numbered from 1, line 1 is the header


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
        ("au", 1, "0,1", f"13 values, expected 12 ({', '.join(AU_NAMES)})"),
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
    each = [",".join(f'"{name}"' for name in ("image_location", *EXPR_NAMES)), *lines[1:]]
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
