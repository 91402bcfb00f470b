"""Tables of an analysis with the column names of py-feat and OpenFace, written in pieces; their summary."""

import csv
import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from abaw.files import atomic_path
from abaw.inference.rows import NO_FACE, FaceRows
from abaw.tasks import AU, EXPR, VA, Task

Format = Literal["pyfeat", "openface"]
TableKind = Literal["csv", "parquet"]
AU_THRESHOLD = 0.5
"""Probability from which an action unit is active; a calibration moves its own threshold there."""


def au_column(name: str) -> str:
    """py-feat's column of an action unit: `AU01` for `AU1`."""
    return f"AU{int(name.removeprefix('AU')):02d}"


def task_columns(task: Task) -> list[str]:
    """The columns of a task's predictions: those of py-feat where it has them."""
    if task == AU:
        return [au_column(name) for name in task.names]
    if task == EXPR:
        return [name.lower() for name in task.names]
    return list(task.names if task == VA else task.columns)


def face_table(rows: FaceRows, format: Format = "pyfeat") -> pd.DataFrame:
    """Rows as a table, one per face and frame, and one for a frame without any face.

    Args:
        rows: The rows.
        format: `pyfeat`: `frame` (from 0), `timestamp` in seconds, `face_id` (-1: no face), `success`,
            py-feat's names of the box, action units (probabilities), valence, arousal and expressions
            (probabilities), besides `other`, and `expression`, the most probable one. `openface`: OpenFace's
            `frame` (from 1), `face_id`, `timestamp`, `confidence`, `success` and `AU01_c` … (0 or 1), then
            what OpenFace does not have: the box, valence, arousal and expressions.
    """
    predicted = rows.face_id != NO_FACE
    columns: dict[str, Any] = {}
    values = {task: dict(zip(task_columns(task), v.T, strict=True)) for task, v in rows.values.items()}
    success = rows.success.astype(np.int8)
    boxes = dict(zip(BOX_COLUMNS, rows.boxes.T, strict=True))
    if format == "openface":
        confidence = np.where(rows.success, np.nan_to_num(rows.scores), 0).astype(np.float32)
        columns |= {"frame": rows.frame + 1, "face_id": rows.face_id, "timestamp": rows.timestamp}
        columns |= {"confidence": confidence, "success": success}
        for name, probability in values.pop(AU, {}).items():
            active = pd.array((np.nan_to_num(probability) >= AU_THRESHOLD).astype(np.int8), dtype="Int8")
            active[~predicted] = pd.NA
            columns[f"{name}_c"] = active
        columns |= boxes
    else:
        columns |= {"frame": rows.frame, "timestamp": rows.timestamp, "face_id": rows.face_id}
        columns |= {"success": success, **boxes, "FaceScore": rows.scores}
        columns |= values.pop(AU, {})
    for each in values.values():
        columns |= each
    if EXPR in rows.values:
        columns["expression"] = top_expression(rows.values[EXPR])
    return pd.DataFrame(columns)


def top_expression(probabilities: NDArray[np.float32]) -> NDArray[Any]:
    """The names of the most probable expressions (n,), from probabilities (n, 8); None where they are NaN."""
    names = np.array(task_columns(EXPR), object)[np.nan_to_num(probabilities).argmax(1)]
    names[np.isnan(probabilities).any(1)] = None
    return names


BOX_COLUMNS = ("FaceRectX", "FaceRectY", "FaceRectWidth", "FaceRectHeight")
"""py-feat's columns of a box, in pixels."""


class _Writer(Protocol):
    def write(self, table: pd.DataFrame) -> None: ...


class _CSVWriter:
    def __init__(self, path: Path) -> None:
        self.file = path.open("w", encoding="utf-8", newline="")
        self.has_header = False

    def write(self, table: pd.DataFrame) -> None:
        rounded = {name: 3 if name in BOX_COLUMNS else 6 for name in table.select_dtypes("float32")}
        text = table.astype(dict.fromkeys(rounded, "float64")).round(rounded)
        text.to_csv(self.file, index=False, header=not self.has_header, quoting=csv.QUOTE_MINIMAL)
        self.has_header = True

    def close(self) -> None:
        self.file.close()


class _ParquetWriter:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.writer: pq.ParquetWriter | None = None

    def write(self, table: pd.DataFrame) -> None:
        if "expression" in table:
            table = table.astype({"expression": "string"})
        arrow = pa.Table.from_pandas(table, preserve_index=False).replace_schema_metadata(None)
        if self.writer is None:
            self.writer = pq.ParquetWriter(self.path, arrow.schema)
        self.writer.write_table(arrow)

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()


@contextmanager
def table_writer(path: Path) -> Iterator[_Writer]:
    """Context that writes the pieces of a table to a CSV or Parquet file, which appears when it is complete.

    Raises:
        AbawError: The file cannot be written.
    """
    with atomic_path(path) as temporary:
        writer = _CSVWriter(temporary) if path.suffix == ".csv" else _ParquetWriter(temporary)
        try:
            yield writer
        finally:
            writer.close()


def read_table(path: Path) -> pd.DataFrame:
    """A table of `table_writer`."""
    return pd.read_csv(path) if path.suffix == ".csv" else pd.read_parquet(path)


def frame_numbers(table: pd.DataFrame) -> pd.Series:
    """The numbers of the frames, from 0, of a table of either format."""
    return table["frame"] - (1 if "confidence" in table else 0)  # OpenFace counts from 1


def au_columns(table: pd.DataFrame) -> list[str]:
    """The columns of action units in a table of either format."""
    return [name for name in table.columns if re.fullmatch(r"AU\d\d(_c)?", name)]


class AnalysisSummary:
    """Counts of an analysis, from its rows as they come."""

    def __init__(self) -> None:
        self.n_frames = self.n_without_face = self.n_predicted = self.n_from_context = 0
        self.first = self.last = math.nan  # seconds
        self._faces: dict[int, dict[str, Any]] = {}

    def add(self, rows: FaceRows) -> None:
        """Adds rows of consecutive frames."""
        self.n_frames += len(np.unique(rows.frame))
        self.n_without_face += int((rows.face_id == NO_FACE).sum())
        self.n_predicted += int((rows.face_id != NO_FACE).sum())
        self.n_from_context += int(((rows.face_id != NO_FACE) & ~rows.success).sum())
        if math.isnan(self.first):
            self.first = float(rows.timestamp[0])
        self.last = float(rows.timestamp[-1])
        for k in np.unique(rows.face_id[rows.face_id != NO_FACE]).tolist():
            own = rows.face_id == k
            seen = own & rows.success
            face = self._faces.setdefault(
                k, {"first_frame": int(rows.frame[own][0]), "frames": 0, "frames_from_context": 0, "gaps": 0}
            )
            face["last_frame"] = int(rows.frame[own][-1])
            face["frames"] += int(own.sum())
            face["frames_from_context"] += int((own & ~seen).sum())
            # a gap begins where success falls
            states = np.concatenate([[face.pop("_seen", True)], rows.success[own]])
            face["gaps"] += int((states[:-1] & ~states[1:]).sum())
            face["_seen"] = bool(states[-1])

    @property
    def seconds_per_frame(self) -> float | None:
        """Mean time between analysed frames; None without times."""
        span = self.last - self.first
        return span / (self.n_frames - 1) if self.n_frames > 1 and math.isfinite(span) else None

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        step = self.seconds_per_frame
        faces = []
        for k, face in sorted(self._faces.items()):
            n_seen = face["frames"] - face["frames_from_context"]
            seen = {"seconds_seen": None if step is None else round(n_seen * step, 3)}
            faces.append({"face_id": k} | {n: v for n, v in face.items() if n[0] != "_"} | seen)
        return {
            "frames": self.n_frames,
            "frames_without_face": self.n_without_face,
            "share_from_context": self.n_from_context / self.n_predicted if self.n_predicted else 0.0,
            "seconds": None if step is None else [self.first, self.last],
            "faces": faces,
        }
