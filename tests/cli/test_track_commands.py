"""The subcommands that work on predicted tracks."""

import json
from pathlib import Path

import numpy as np
import pytest

from abaw.__main__ import main
from abaw.evaluation.tracks import read_track, write_track
from abaw.tasks import VA
from tests.support.submissions import HEADERS, write_case
from tests.support.tiny_set import write_tiny_set
from tests.support.tracks import make_track


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


def test_an_ensemble_is_written_and_scored_beside_its_parts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, folders = write_tiny_set(tmp_path / "set"), [tmp_path / name for name in ("one", "two")]
    for seed, folder in enumerate(folders):
        for video, n_frames in (("c_val", 21), ("d_val", 5)):
            write_track(make_track(video, n_frames, seed=seed), folder)
    mean = tmp_path / "mean"
    assert main(["ensemble", *map(str, folders), str(mean), "--weights", "3", "1"]) == 0
    assert f"{mean}: 2 tracks, each the mean of 2" in capsys.readouterr().out
    one, two, both = (read_track(folder / "d_val.parquet") for folder in (*folders, mean))
    np.testing.assert_allclose(both.values[VA], 0.75 * one.values[VA] + 0.25 * two.values[VA], atol=1e-6)
    assert main(["score", str(mean), str(root), f"--against={folders[0]}", "--draws=10", "--json"]) == 0
    scores = json.loads(capsys.readouterr().out)
    assert main(["score", str(mean), str(root), f"--against={mean}", "--draws=10"]) == 0
    assert f"equal to {mean}: every score is the same" in capsys.readouterr().out
    assert scores["va"]["frames"] > 20
    assert set(scores["against"]) >= {"va", "total"}


@pytest.mark.parametrize(("value", "code", "said"), [("0.5", 0, "valid"), ("1.5", 1, "outside [-1, 1]")])
def test_verification_ends_with_1_where_something_is_wrong(
    value: str, code: int, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "sample.txt").write_text(f"{HEADERS['va']}\na/00001.jpg,\n")
    (tmp_path / "out.txt").write_text(f"{HEADERS['va']}\na/00001.jpg,0.1,{value}\n")
    words = ["verify", str(tmp_path / "out.txt"), f"--sample={tmp_path / 'sample.txt'}"]
    assert main(words) == code
    assert said in capsys.readouterr().out
    assert main([*words, "--json"]) == code
    assert len(json.loads(capsys.readouterr().out)) == code
