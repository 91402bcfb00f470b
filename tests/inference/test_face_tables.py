"""Tables with the columns of py-feat and OpenFace, written in pieces, and the summary of an analysis."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from abaw.inference.face_tables import (
    AnalysisSummary,
    au_columns,
    face_table,
    read_table,
    table_writer,
    task_columns,
)
from abaw.inference.rows import NO_FACE, FaceRows
from abaw.tasks import AU, EXPR, VA, Task

AUS = ["AU01", "AU02", "AU04", "AU06", "AU07", "AU10", "AU12", "AU15", "AU23", "AU24", "AU25", "AU26"]
EMOTIONS = ["neutral", "anger", "disgust", "fear", "happiness", "sadness", "surprise", "other"]
BOX = ["FaceRectX", "FaceRectY", "FaceRectWidth", "FaceRectHeight"]


def rows(tasks: tuple[Task, ...] = (VA, EXPR, AU), start: int = 0) -> FaceRows:
    """Frame `start` with faces 0 and 3 (lost), and a frame without any."""
    n, random = 3, np.random.default_rng(start)
    values = {task: random.uniform(0, 1, (n, task.size)).astype(np.float32) for task in tasks}
    for each in values.values():
        each[2] = np.nan
    boxes = np.array([[1.5, 2, 30, 40], [np.nan] * 4, [np.nan] * 4], np.float32)
    return FaceRows(
        frame=np.array([start, start, start + 1]),
        timestamp=np.array([start, start, start + 1]) / 30 + 3.2,
        face_id=np.array([0, 3, NO_FACE]),
        success=np.array([True, False, False]),
        boxes=boxes,
        scores=np.array([0.9, np.nan, np.nan], np.float32),
        values=values,
    )


def test_the_columns_of_pyfeat() -> None:
    table = face_table(rows())
    assert list(table) == [
        *("frame", "timestamp", "face_id", "success", *BOX, "FaceScore", *AUS),
        *("valence", "arousal", *EMOTIONS, "expression"),
    ]
    assert table["frame"].tolist() == [0, 0, 1]
    assert table["success"].tolist() == [1, 0, 0]
    assert table["face_id"].tolist() == [0, 3, -1]
    best = [EMOTIONS[k] for k in rows().values[EXPR][:2].argmax(1)]
    assert table["expression"].tolist()[:2] == best
    assert table["expression"].isna().tolist() == [False, False, True]
    np.testing.assert_array_equal(table[AUS].to_numpy(), rows().values[AU])


def test_the_columns_of_openface() -> None:
    table = face_table(rows(), "openface")
    openface = ["frame", "face_id", "timestamp", "confidence", "success", *(f"{name}_c" for name in AUS)]
    assert list(table)[: len(openface)] == openface
    assert list(table)[len(openface) :] == [*BOX, "valence", "arousal", *EMOTIONS, "expression"]
    assert table["frame"].tolist() == [1, 1, 2]
    np.testing.assert_allclose(table["confidence"], [0.9, 0, 0])
    active = rows().values[AU][:2] >= 0.5
    assert table[openface[5:]].iloc[:2].to_numpy().tolist() == active.astype(int).tolist()
    assert table[openface[5:]].iloc[2].isna().all()


@pytest.mark.parametrize("tasks", [(VA,), (EXPR,), (AU,)])
@pytest.mark.parametrize("format", ["pyfeat", "openface"])
def test_a_network_for_one_task(tasks: tuple[Task, ...], format: str) -> None:
    table = face_table(rows(tasks), format)
    assert ("valence" in table) == (VA in tasks)
    assert ("expression" in table) == (EXPR in tasks)
    assert bool(au_columns(table)) == (AU in tasks)


def test_a_task_of_ones_own_has_its_own_columns() -> None:
    pain = Task(name="pain", kind="real", names=("PSPI",), high=16, loss="ccc", scores=("ccc",))
    assert task_columns(pain) == ["PSPI"]
    assert "PSPI" in face_table(rows((pain,)))


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
@pytest.mark.parametrize("format", ["pyfeat", "openface"])
def test_pieces_make_one_table_that_pandas_reads(suffix: str, format: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{suffix}"
    pieces = [face_table(rows(start=start), format) for start in (0, 2, 4)]
    with table_writer(path) as writer:
        for piece in pieces:
            writer.write(piece)
        assert not path.exists()
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    whole, found = pd.concat(pieces, ignore_index=True), read_table(path)
    assert list(found) == list(whole)
    assert found["timestamp"].tolist() == whole["timestamp"].tolist()  # to the last bit
    assert found["frame"].dtype.kind == found["face_id"].dtype.kind == found["success"].dtype.kind == "i"
    for name in whole.select_dtypes("float32"):
        np.testing.assert_allclose(found[name], whole[name], atol=1e-6 if name not in BOX else 1e-3)
    assert found["expression"].isna().tolist() == whole["expression"].isna().tolist()
    assert found["expression"].dropna().tolist() == whole["expression"].dropna().tolist()


def test_a_piece_without_any_face_fits_the_others(tmp_path: Path) -> None:
    first = rows()
    nobody = FaceRows(
        first.frame[2:],
        first.timestamp[2:],
        first.face_id[2:],
        first.success[2:],
        first.boxes[2:],
        first.scores[2:],
        {task: values[2:] for task, values in first.values.items()},
    )
    for suffix in ("csv", "parquet"):
        with table_writer(tmp_path / f"a.{suffix}") as writer:
            for piece in (nobody, first):
                writer.write(face_table(piece))
        assert len(read_table(tmp_path / f"a.{suffix}")) == 4
    assert pq.read_schema(tmp_path / "a.parquet").field("face_id").type == "int64"


def test_a_failed_table_leaves_no_file(tmp_path: Path) -> None:
    def fail() -> None:
        with table_writer(tmp_path / "a.csv") as writer:
            writer.write(face_table(rows()))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_the_summary_counts_frames_faces_and_gaps() -> None:
    summary = AnalysisSummary()
    for start in (0, 2, 4):
        summary.add(rows(start=start))
    plain = json.loads(json.dumps(summary.to_dict()))
    assert (plain["frames"], plain["frames_without_face"]) == (6, 3)
    assert plain["share_from_context"] == 0.5
    np.testing.assert_allclose(plain["seconds"], [3.2, 3.2 + 5 / 30])
    first, second = plain["faces"]
    assert first == {
        "face_id": 0,
        "first_frame": 0,
        "frames": 3,
        "frames_from_context": 0,
        "gaps": 0,
        "last_frame": 4,
        "seconds_seen": 0.1,
    }
    assert second["gaps"] == 1
    assert second["seconds_seen"] == 0


def test_the_summary_of_images_has_no_seconds() -> None:
    first = rows()
    timeless = FaceRows(
        first.frame, first.timestamp * np.nan, first.face_id, first.success, first.boxes, first.scores, {}
    )
    summary = AnalysisSummary()
    summary.add(timeless)
    plain = summary.to_dict()
    assert plain["seconds"] is None
    assert plain["faces"][0]["seconds_seen"] is None
