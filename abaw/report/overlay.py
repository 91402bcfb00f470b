"""Predictions drawn into the video they are of: boxes, identities, expression, valence-arousal, AUs."""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from abaw.files import atomic_path
from abaw.inference.face_tables import AU_THRESHOLD, BOX_COLUMNS, au_columns, frame_numbers, read_table
from abaw.inference.inputs import ASSUMED_FPS, ImageFile, Reader
from abaw.inference.rows import NO_FACE
from abaw.inference.video import VideoFile, VideoWriter

_COLOURS = [  # RGB, distinguishable for colour-blind readers (Okabe and Ito)
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (213, 94, 0),
    (204, 121, 167),
    (0, 114, 178),
]
_GREY = (170, 170, 170)
_FONT = cv2.FONT_HERSHEY_DUPLEX
_SMALLEST = 360  # shorter side to which small frames, such as aligned crops, are enlarged, in pixels
_LEAST_UNIT = 11.0  # height of the text at least, in pixels


@dataclass(frozen=True, eq=False)
class _Style:
    """Sizes for a face: `unit`, the height of the text in pixels, and the width of lines."""

    unit: float

    @property
    def line(self) -> int:
        return max(round(self.unit / 9), 1)

    def text(self, image: NDArray[np.uint8], words: str, x: float, y: float, colour: Any) -> None:
        """Writes words with a dark outline; (x, y) is the lower left corner."""
        at, scale = (round(x), round(y)), self.unit / 30
        for shade, width in (((0, 0, 0), self.line + 2), (colour, self.line)):
            cv2.putText(image, words, at, _FONT, scale, shade, width, cv2.LINE_AA)


def write_overlay(
    reader: Reader, table: Path, out: Path, *, every: int = 1, progress: Callable[[int], None] | None = None
) -> None:
    """Draws the table of an analysis into the frames it was made from.

    Args:
        reader: The input of the analysis.
        table: Its table, of either format.
        out: MP4 to write, with the audio of the input; for an image a JPEG.
        every: Distance between the analysed frames.
        progress: Called with a number of frames that are done.

    Raises:
        AbawError: The input cannot be read, or the file cannot be written.
    """
    rows = read_table(table)
    rows["frame"] = frame_numbers(rows)
    rows_of: dict[Any, Any] = rows.groupby("frame", sort=False).indices
    painter = _Painter(rows)
    if isinstance(reader, ImageFile):
        (frame,) = reader.read()
        assert frame.pixels is not None
        _write_image(out, painter.draw(frame.pixels, rows_of[0]))
        return
    first = float(rows["timestamp"].iloc[0])
    begins = first if math.isfinite(first) else 0.0
    audio = reader.path if isinstance(reader, VideoFile) else None
    with ExitStack() as stack:
        writer: VideoWriter | None = None
        blank = np.zeros((_SMALLEST, _SMALLEST, 3), np.uint8)  # for a frame without an image
        for frame in reader.read(every):
            if frame.number not in rows_of:
                break  # beyond the end of the table
            drawn = painter.draw(blank if frame.pixels is None else frame.pixels, rows_of[frame.number])
            if writer is None:
                size = (drawn.shape[1] + drawn.shape[1] % 2, drawn.shape[0] + drawn.shape[0] % 2)
                writer = stack.enter_context(VideoWriter(out, size, audio_from=audio, begins=begins))
            known = math.isfinite(frame.timestamp)
            seconds = frame.timestamp if known else begins + frame.number / ASSUMED_FPS
            writer.write(seconds, _fitted(drawn, *size))
            if progress is not None:
                progress(1)


def _write_image(path: Path, image: NDArray[np.uint8]) -> None:
    coded, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    assert coded
    with atomic_path(path) as temporary:
        temporary.write_bytes(data.tobytes())


def _fitted(image: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    """The image in a frame of a size: padded, and reduced if it is larger."""
    scale = min(width / image.shape[1], height / image.shape[0])
    if scale < 1:
        size = (max(round(image.shape[1] * scale), 1), max(round(image.shape[0] * scale), 1))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
    if image.shape[:2] == (height, width):
        return image
    framed = np.zeros((height, width, 3), np.uint8)
    framed[: image.shape[0], : image.shape[1]] = image
    return framed


class _Painter:
    """Draws rows of a table into frames; a face that is lost for a while keeps its last box, in grey."""

    def __init__(self, rows: pd.DataFrame) -> None:
        self._ids = rows["face_id"].to_numpy()
        self._success = rows["success"].to_numpy(bool)
        self._boxes = rows[list(BOX_COLUMNS)].to_numpy(np.float64)
        self._expression = rows["expression"].to_numpy(object) if "expression" in rows else None
        self._probability: Mapping[str, NDArray] = {}
        if self._expression is not None:
            names = rows["expression"].dropna().unique()
            self._probability = {name: rows[name].to_numpy(np.float64) for name in names}
        self._va = rows[["valence", "arousal"]].to_numpy(np.float64) if "valence" in rows else None
        self._aus = [(name, rows[name].to_numpy(np.float64, na_value=np.nan)) for name in au_columns(rows)]
        self._last_box: dict[int, NDArray[np.float64]] = {}

    def draw(self, pixels: NDArray[np.uint8], rows: NDArray[np.integer]) -> NDArray[np.uint8]:
        """A copy of a frame, enlarged if it is small, with the rows of the table."""
        shorter = min(pixels.shape[:2])
        scale = max(_SMALLEST / shorter, 1.0)
        if scale > 1:
            size = (round(pixels.shape[1] * scale), round(pixels.shape[0] * scale))
            image = cv2.resize(pixels, size, interpolation=cv2.INTER_CUBIC)
        else:
            image = pixels.copy()
        largest = min(image.shape[:2]) / 24
        for row in rows.tolist():
            face = int(self._ids[row])
            if face == NO_FACE:
                continue
            box = self._boxes[row]
            if np.isfinite(box).all():
                self._last_box[face] = box
            elif face not in self._last_box:
                continue
            place = self._last_box[face] * scale
            style = _Style(float(np.clip(place[3] / 8, _LEAST_UNIT, largest)))
            self._face(image, row, place, style)  # type: ignore[arg-type]
        return image  # type: ignore[return-value]

    def _face(self, image: NDArray[np.uint8], row: int, box: NDArray[np.float64], style: _Style) -> None:
        found, face = bool(self._success[row]), int(self._ids[row])
        colour = _COLOURS[face % len(_COLOURS)] if found else _GREY
        left, top = max(box[0], 0), max(box[1], 0)
        right = min(box[0] + box[2], image.shape[1] - 1)
        bottom = min(box[1] + box[3], image.shape[0] - 1)
        corners = (round(left), round(top)), (round(right), round(bottom))
        cv2.rectangle(image, *corners, colour, style.line + 1 if found else style.line, cv2.LINE_AA)
        title = f"{face}"
        if self._expression is not None and isinstance(self._expression[row], str):
            name = self._expression[row]
            title += f" {name} {self._probability[name][row]:.2f}"
        title += "" if found else " (context)"
        style.text(image, title, left, max(top - style.unit / 3, style.unit), colour)
        if self._va is not None and np.isfinite(self._va[row]).all():
            self._cross(image, self._va[row], right, top, colour, style)
        self._action_units(image, row, left, bottom, colour, style)

    def _action_units(
        self, image: NDArray[np.uint8], row: int, left: float, bottom: float, colour: Any, style: _Style
    ) -> None:
        names = [
            name.removesuffix("_c").removeprefix("AU").lstrip("0")
            for name, values in self._aus
            if values[row] >= AU_THRESHOLD
        ]
        for number, words in enumerate(_lines(names)):
            y = min(bottom + style.unit * (1.1 + number), image.shape[0] - style.unit / 3)
            style.text(image, words, left, y, colour)

    def _cross(
        self,
        image: NDArray[np.uint8],
        va: NDArray[np.float64],
        right: float,
        top: float,
        colour: Any,
        style: _Style,
    ) -> None:
        """Axes of valence (to the right) and arousal (up) with a dot, right of the box if there is space."""
        radius = round(1.8 * style.unit)
        x = min(right + radius + style.unit / 2, image.shape[1] - radius - 2)
        centre = round(x), round(min(top + radius + 2, image.shape[0] - radius - 2))
        cv2.circle(image, centre, radius, _GREY, 1, cv2.LINE_AA)
        for dx, dy in ((radius, 0), (0, radius)):
            ends = (centre[0] - dx, centre[1] - dy), (centre[0] + dx, centre[1] + dy)
            cv2.line(image, *ends, _GREY, 1, cv2.LINE_AA)
        valence, arousal = np.clip(va, -1, 1)
        at = round(centre[0] + valence * radius), round(centre[1] - arousal * radius)
        cv2.line(image, centre, at, colour, style.line, cv2.LINE_AA)
        cv2.circle(image, at, max(round(style.unit / 4), 2), colour, -1, cv2.LINE_AA)


def _lines(names: list[str], length: int = 6) -> Iterator[str]:
    """The numbers of active action units in lines."""
    for first in range(0, len(names), length):
        yield ("AU " if first == 0 else "   ") + " ".join(names[first : first + length])
