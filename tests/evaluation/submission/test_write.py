import csv

import numpy as np
import pytest

from abaw.data.formats.annotations import read_annotations
from abaw.errors import AbawError, UsageError
from abaw.evaluation.submission.formats import FORMS
from abaw.evaluation.submission.verify import verify_submission
from abaw.evaluation.submission.write import Provenance, write_submission
from abaw.evaluation.tracks import Track, write_track
from abaw.tasks import AU, EXPR, TASKS, VA
from tests.support.submissions import HEADERS, VIDEOS, write_case, write_sample
from tests.support.tracks import make_track


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
            np.testing.assert_allclose(
                [float(v) for v in values[:2]], track.values[VA][row].clip(-1, 1), atol=1e-6
            )
            values = values[2:]
        if task in ("expr", "mtl"):
            assert values[0] == str(track.values[EXPR][row].argmax())
            values = values[1:]
        if task in ("au", "mtl"):
            assert values == [str(int(p >= 0.5)) for p in track.values[AU][row]]
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
    labels = read_annotations(tmp_path / "out.txt", None)
    assert list(labels) == list(VIDEOS)
    np.testing.assert_array_equal(
        labels["10-30-1280x720"][EXPR].values, made["10-30-1280x720"].values[EXPR].argmax(1)
    )


@pytest.mark.parametrize("task", TASKS, ids=str)
def test_third_edition_reads_back_with_an_independent_parser_and_as_annotations(tmp_path, tracks, task):
    folder, made = tracks
    listed = tmp_path / "videos.txt"
    listed.write_text("\n".join(VIDEOS) + "\n")
    done = write_submission(folder, listed, task.name, tmp_path / "out")
    assert {video: rows.rows for video, rows in done.videos.items()} == VIDEOS | {"v-2_left": 7}
    assert done.total.rows == sum(len(track) for track in made.values())
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == sorted(f"{v}.txt" for v in VIDEOS)
    for video, track in made.items():
        file = tmp_path / "out" / f"{video}.txt"
        decided = {
            VA: lambda t: t.values[VA].clip(-1, 1),
            EXPR: lambda t: t.values[EXPR].argmax(1),
            AU: lambda t: t.values[AU] >= 0.5,
        }[task](track)
        rows = np.loadtxt(file, delimiter=",", skiprows=1, ndmin=2)
        np.testing.assert_allclose(rows, decided.reshape(len(track), -1), atol=1e-6)
        assert file.read_text().splitlines()[0] == HEADERS[task.name].removeprefix("image_location,")
        np.testing.assert_allclose(read_annotations(file, task)[video][task].values, decided, atol=1e-6)
    assert verify_submission(tmp_path / "out", listed) == []
    (tmp_path / "out" / "a.txt").unlink()
    (tmp_path / "out" / "b.txt").write_text("")
    found = verify_submission(tmp_path / "out", listed, task.name)
    assert [str(f) for f in found] == ["a.txt: is missing", "b.txt: is not a video of the list"]


def test_change_is_applied_to_every_track(tmp_path, tracks):
    folder, _ = tracks
    sample = write_sample(tmp_path / "sample.txt", "va")

    def zero(track):
        return Track(video=track.video, seen=track.seen, values={VA: 0 * track.values[VA]})

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
    write_track(make_track("a", tasks=(VA,)), tmp_path)
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
        write_submission.__globals__, "_text", lambda task, values: [f"{v}.0" for v in values.argmax(1)]
    )
    with pytest.raises(AbawError, match="invalid at 15 places, first at line 2: class is"):
        write_submission(folder, sample, "expr", tmp_path / "out.txt")
    assert not (tmp_path / "out.txt").exists()


# -- videos that end before their sample


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


def test_a_long_list_says_how_many_are_left_out(tmp_path):
    seen = {f"v{k}": [0, 1] for k in range(5)}
    table = submitted(tmp_path, seen, dict.fromkeys(seen, 2)).table(3).splitlines()
    assert [line.split()[0] for line in table] == ["video", "v0", "v1", "v2", "..."]
    assert "2 more" in table[-1]


def test_the_sample_of_another_task_is_refused_and_its_own_is_known(tmp_path, tracks):
    folder, _ = tracks
    sample = write_sample(tmp_path / "sample.txt", "au")
    with pytest.raises(UsageError, match=r"sample\.txt: its header is that of au, not of va"):
        write_submission(folder, sample, "va", tmp_path / "out.txt")
    write_submission(folder, write_sample(tmp_path / "va.txt", "va"), "va", tmp_path / "out.txt")
    first, second = verify_submission(tmp_path / "out.txt", sample)[:2]
    assert (first.line, second.message) == (1, f"2 values, expected 12 ({', '.join(AU.names)})")
