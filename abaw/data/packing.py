"""Packing of images into flat shards or litdata shards."""

import hashlib
import json
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from abaw.data.formats.flat_shards import is_packed, open_packed, packed_videos, remove_packed, write_packed
from abaw.data.formats.litdata_shards import CONTENTS, read_contents, write_litdata_shards
from abaw.data.frames import PackedFrames, RawFolder, frames_fingerprint, read_images
from abaw.data.index import Index, build_index
from abaw.data.layout import DataSource
from abaw.data.progress import Progress
from abaw.errors import AbawError, UsageError

SEGMENT_FRAMES = 128
_T = TypeVar("_T")


@dataclass(frozen=True, kw_only=True)
class Packed:
    """Result of `pack`.

    Attributes:
        out: Folder of the pack.
        videos: Number of videos with images in the data set.
        skipped: Number of them that were already packed from the same images.
        images: Number of images packed now.
        removed: Number of videos removed from the pack because the data set no longer has them.
    """

    out: Path
    videos: int
    skipped: int
    images: int
    removed: int

    def to_json(self) -> str:
        """Returns the result as JSON."""
        return json.dumps(asdict(self) | {"out": str(self.out)})

    def line(self) -> str:
        """Returns the result as one line of text."""
        before = f"; {self.skipped} were packed already" if self.skipped else ""
        gone = f"; {self.removed} that the data set no longer has were removed" if self.removed else ""
        return (
            f"{self.out}: {self.images:,} images of {self.videos - self.skipped} videos packed{before}{gone}"
        )


def pack(
    source: DataSource,
    out: Path,
    *,
    format: Literal["flat", "litdata"] = "flat",
    segment: int = SEGMENT_FRAMES,
    jobs: int = 8,
    progress: bool = False,
) -> Packed:
    """Packs the images of a data set and verifies the pack, which can be used as an image root.

    Args:
        source: Location of the data set.
        out: Folder of the pack. If it already contains one, only new and changed videos are packed, and
            then videos that the data set no longer has are removed.
        format: `flat`: one file per video, for local and network disks; `litdata`: segments, for object
            storage, which are all written again when an image has changed.
        segment: Number of frames per segment.
        jobs: Number of videos read in parallel.
        progress: Whether to show a progress bar.

    Raises:
        UsageError: `out` contains the images themselves or a pack of other videos, or a number is too
            small.
        AbawError: There are no images, an image cannot be read, or the pack cannot be written.
    """
    if segment < 1 or jobs < 1:
        raise UsageError(f"pack: --segment and --jobs must be at least 1, got {segment} and {jobs}")
    index = build_index(source)
    out = Path(out).expanduser().resolve()
    videos = [video for video in range(len(index)) if index.visible(video).any()]
    if not videos:
        raise AbawError(f"{source.root}: no images to pack; give the folder that holds cropped_aligned")
    if out in index.roots:
        raise UsageError(f"{out}: holds the images that are to be packed; choose another folder")
    if format == "flat" and (out / CONTENTS).exists():
        raise UsageError(f"{out}: holds segments; choose another folder for a flat pack")
    gone = _gone(index, videos, out)
    if format == "flat":
        counts = list(_each(lambda k: write_flat(PackedFrames(index), k, out), videos, jobs, progress))
        for video in gone:
            remove_packed(out / video)
        skipped, images = counts.count(0), sum(counts)
        return Packed(out=out, videos=len(videos), skipped=skipped, images=images, removed=len(gone))
    of_videos = _each(lambda video: frames_fingerprint(PackedFrames(index), video), videos, jobs, progress)
    fingerprint = hashlib.sha256(f"{segment} {' '.join(of_videos)}".encode()).hexdigest()
    if _is_complete(out, fingerprint):
        return Packed(out=out, videos=len(videos), skipped=len(videos), images=0, removed=0)
    contents = _each(partial(_read, index), videos, jobs, progress)
    write_litdata_shards(out, contents, segment_frames=segment, fingerprint=fingerprint)
    n_images = sum(int(index.visible(video).sum()) for video in videos)
    return Packed(out=out, videos=len(videos), skipped=0, images=n_images, removed=len(gone))


def _gone(index: Index, videos: Sequence[int], out: Path) -> list[str]:
    """Videos of an existing pack that are not among `videos`; raises UsageError if it has none of them."""
    before, now = packed_videos(out), {index.videos[video] for video in videos}
    if before and not now & set(before):
        raise UsageError(
            f"{out}: holds a pack of {len(before)} other videos, such as {before[0]}; choose another folder"
            " or delete it"
        )
    return [video for video in before if video not in now]


def _read(index: Index, video: int) -> tuple[str, NDArray[np.int64], list[bytes]]:
    sizes, images = read_images(PackedFrames(index), video, range(int(index.n_frames[video])))
    return index.videos[video], sizes, images


def _is_complete(out: Path, fingerprint: str) -> bool:
    """Whether a complete pack of segments with this fingerprint exists."""
    try:
        contents = read_contents(out)
    except AbawError:
        return False
    tables = all(is_packed(out / video) for video in contents["videos"])
    return tables and contents["state"] == fingerprint and (out / "index.json").is_file()


def _each(work: Callable[[int], _T], videos: Sequence[int], jobs: int, progress: bool) -> Iterator[_T]:
    """Yields `work(video)` for every video, in order, with `jobs` of them running in parallel."""
    waiting: deque[Future[_T]] = deque()
    bar = Progress(total=len(videos), desc="pack", unit="video", show=progress)
    with ThreadPoolExecutor(jobs) as pool, bar:
        try:
            for k in range(len(videos) + jobs):
                if k >= jobs:
                    yield waiting.popleft().result()
                    bar.update()
                if k < len(videos):
                    waiting.append(pool.submit(work, videos[k]))
        finally:
            pool.shutdown(cancel_futures=True)


def write_flat(frames: RawFolder, video: int, out: Path) -> int:
    """Packs the images of a video into `out/<video>`, unchanged, including damaged ones.

    Args:
        frames: Source of the images.
        video: Number of the video.
        out: Folder of the pack.

    Returns:
        Number of images packed now; 0 if they are already packed.

    Raises:
        AbawError: An image cannot be read, or the pack cannot be written.
    """
    fingerprint = frames_fingerprint(frames, video)
    folder = out / frames.index.videos[video]
    if is_packed(folder):
        try:
            if open_packed(folder).metadata.get("state") == fingerprint:
                return 0
        except AbawError:
            pass  # incomplete: written again
    sizes, images = read_images(frames, video, range(int(frames.index.n_frames[video])))
    write_packed(folder, sizes, images, state=fingerprint)
    return len(images)
