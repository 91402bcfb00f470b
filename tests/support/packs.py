"""Images of faces of random pixels, and whether a pack gives the same frames as the image files."""

from pathlib import Path

import cv2
import numpy as np

from abaw.data.frames import (
    Frames,
    FrameSource,
    RawFolder,
)
from abaw.data.index import Index


def picture(seed: int, height: int = 112, width: int = 112) -> np.ndarray:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def write_image(path: Path, seed: int, height: int = 112, width: int = 112) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), picture(seed, height, width))


def same(one: Frames, other: Frames) -> None:
    np.testing.assert_array_equal(one.visible, other.visible)
    np.testing.assert_array_equal(one.pixels, other.pixels)


def read_as_in(raw: Index, packed: Index, source: FrameSource) -> None:
    """Every frame of every video, forwards and in an order of its own, equals the image file's."""
    files = RawFolder(raw)
    for video, name in enumerate(raw.videos):
        places = np.arange(raw.n_frames[video])
        twin = packed.videos.index(name)
        same(files.read(video, places), source.read(twin, places))
        places = np.random.default_rng(video).permutation(places)[::2]
        same(files.read(video, places), source.read(twin, places))
