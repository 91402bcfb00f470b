"""Inputs of an analysis: videos, images and folders of images, as streams of frames."""

import glob
import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from abaw.data.frames import BadFrameError, decode_image
from abaw.errors import AbawError, UsageError
from abaw.files import listing
from abaw.inference.video import VideoFile, VideoFrame

IMAGES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"}
"""Suffixes of images."""
ASSUMED_FPS = 30.0
"""Frames per second of frames that have no times, where motion or a video needs some."""
CropsOption = Literal["auto", "yes", "no"]
"""Whether images are aligned face crops; `auto`: folders named and sized as in `cropped_aligned` are."""

_ALIGNED_NAME = re.compile(r"\d{5}\.jpg")


class Reader(Protocol):
    """A stream of frames.

    Attributes:
        path: File or folder.
        name: Name of the outputs.
        aligned: Whether the frames are aligned face crops.
        fps: Mean number of frames per second; None: the frames have no times.
        n_frames: Number of frames as far as it is known; None: unknown.
        problem: After reading, what is missing of the input; empty: nothing.
    """

    path: Path
    name: str
    aligned: bool
    fps: float | None
    n_frames: int | None
    problem: str

    def read(self, every: int = 1, after: VideoFrame | None = None) -> Iterator[VideoFrame]:
        """Every `every`-th frame, from number 0 or from the first after `after`.

        Raises:
            AbawError: The input cannot be read at all.
        """
        ...


class ImageFile:
    """Reader of a single image, a video of one frame; rotated as its EXIF data say."""

    def __init__(self, path: Path) -> None:
        self.path, self.name, self.aligned, self.problem = path, path.stem, False, ""
        self.fps: float | None = None
        self.n_frames: int | None = 1

    def read(self, every: int = 1, after: VideoFrame | None = None) -> Iterator[VideoFrame]:
        """The image, whatever `every`; see `Reader`."""
        if after is None and every:
            yield VideoFrame(0, math.nan, read_image(self.path))


def read_image(path: Path) -> NDArray[np.uint8]:
    """The pixels of an image file, uint8 (H, W, 3), RGB.

    Raises:
        AbawError: It is empty or cannot be decoded.
    """
    data = np.fromfile(path, np.uint8)
    pixels = cv2.imdecode(data, cv2.IMREAD_COLOR_RGB) if len(data) else None
    if pixels is None:
        what = "cannot be decoded as an image" if len(data) else "the file is empty"
        raise AbawError(f"{path}: {what}; copy it again, or remove it")
    return pixels  # type: ignore[return-value]


class ImageFolder:
    """Reader of a folder of images: the frames of one video, in the order of the numbers in their names.

    Args:
        path: The folder.
        crops: Whether the images are aligned face crops, numbered from 1 as in `cropped_aligned`; a missing
            number is then a frame without a face.
        fps: Frames per second; None: the frames have no times.

    Raises:
        AbawError: The folder has no images, or its crops are not square.
    """

    def __init__(self, path: Path, crops: CropsOption = "auto", fps: float | None = None) -> None:
        self.path, self.name, self.fps, self.problem = path, path.resolve().name, fps, ""
        with listing():
            files = [file for file in path.iterdir() if _is_image(file)]
        if not files:
            raise AbawError(
                f"{path}: holds no images ({' '.join(sorted(IMAGES))}); give a folder with images"
            )
        self._files = sorted(files, key=_natural_order)
        self._size = 0
        named = all(_ALIGNED_NAME.fullmatch(file.name) for file in files)
        self.aligned = (
            crops != "no" and (crops == "yes" or named) and self._are_crops(required=crops == "yes")
        )
        if crops == "yes" and not named:
            other = next(file.name for file in self._files if not _ALIGNED_NAME.fullmatch(file.name))
            raise AbawError(f"{path}: {other}: aligned crops are named by the frame, such as 00001.jpg")
        self.n_frames: int | None = int(self._files[-1].stem) if self.aligned else len(self._files)

    def _are_crops(self, *, required: bool) -> bool:
        height, width = read_image(self._files[0]).shape[:2]
        self._size = height
        if required and height != width:
            raise AbawError(
                f"{self._files[0]}: {width} x {height} pixels are not an aligned crop, which is square"
            )
        return height == width

    def read(self, every: int = 1, after: VideoFrame | None = None) -> Iterator[VideoFrame]:
        """Every `every`-th frame, from number 0 or from the first after `after`; see `Reader`."""
        if self.aligned:
            number_of = {int(file.stem) - 1: file for file in self._files}
        else:
            number_of = dict(enumerate(self._files))
        bad: list[str] = []
        first = 0 if after is None else after.number + 1
        assert self.n_frames is not None
        for number in range(first + -first % every, self.n_frames, every):
            file, pixels = number_of.get(number), None
            if file is not None:
                try:
                    pixels = self._decode(file)
                except AbawError as error:
                    bad.append(str(error))
            yield VideoFrame(number, math.nan if self.fps is None else number / self.fps, pixels)
        if bad:
            self.problem = f"has {len(bad):,} bad images, such as {bad[0]}"

    def _decode(self, file: Path) -> NDArray[np.uint8]:
        if not self.aligned:
            return read_image(file)
        try:
            return decode_image(file.read_bytes(), self._size, str(file))
        except (BadFrameError, OSError) as error:
            raise AbawError(str(error)) from error


def _is_image(file: Path) -> bool:
    return file.suffix.lower() in IMAGES and not file.name.startswith(".")


def _natural_order(file: Path) -> list[Any]:
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", file.name)]


def find_inputs(words: Sequence[str | Path]) -> list[Path]:
    """The inputs that are named: files, folders, glob patterns.

    A folder of image folders, such as `cropped_aligned`, stands for these; a folder of videos for its files.

    Args:
        words: Paths and patterns.

    Raises:
        UsageError: Two inputs have the same name, so that their outputs would be the same files.
    """
    paths: list[Path] = []
    for word in map(str, words):
        found = [Path(word)]
        if not found[0].exists() and glob.has_magic(word):
            found = [Path(path) for path in sorted(glob.glob(word, recursive=True))] or found  # noqa: PTH207
        for path in found:
            paths += _inside(path) if path.is_dir() else [path]
    paths = list(dict.fromkeys(paths))
    names: dict[str, Path] = {}
    for path in paths:
        name = path.resolve().name if path.is_dir() else path.stem
        if name in names:
            raise UsageError(
                f"{names[name]} and {path} have the same name, so their outputs would be the same files;"
                " rename one, or give each another --out"
            )
        names[name] = path
    return paths


def _inside(folder: Path) -> list[Path]:
    """A folder of images itself; else the image folders and videos in it; else the folder."""
    with listing():
        entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
        if any(_is_image(entry) for entry in entries):
            return [folder]
        folders = [entry for entry in entries if entry.is_dir() and any(map(_is_image, entry.iterdir()))]
    return folders or [entry for entry in entries if entry.is_file()] or [folder]


def open_reader(path: Path, *, crops: CropsOption = "auto", fps: float | None = None) -> Reader:
    """The reader of a video, an image or a folder of images.

    Args:
        path: File or folder.
        crops: Whether images are aligned face crops.
        fps: Frames per second of a folder of images.

    Raises:
        AbawError: There is no such file, or it cannot be read.
    """
    if not path.exists():
        raise AbawError(f"{path}: there is no such file or folder")
    if path.is_dir():
        return ImageFolder(path, crops, fps)
    if path.suffix.lower() in IMAGES:
        return ImageFile(path)
    return VideoFile(path)
