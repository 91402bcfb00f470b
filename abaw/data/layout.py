"""Layout of a data set on disk: image roots, annotation files, and the images of a video."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from abaw.data.cache import cache_folder
from abaw.data.discovery import (
    AnnotationFile,
    choose_image_roots,
    given_image_roots,
    holder,
    images_too_deep,
    search,
)
from abaw.data.formats.litdata_shards import mirror
from abaw.errors import AbawError

LabelSet = Literal["challenge", "mtl"]


@dataclass(frozen=True)
class Sources:
    """The files of a data set, by absolute paths.

    Attributes:
        image_roots: In the order in which they are searched, with the names of their video folders.
        annotations: Annotation files of the label set.
        label_set: `challenge`: one file per video and task; `mtl`: the MTL files; None: both.
        other_texts: Other .txt files met on the way, whose place does not say what they annotate.
    """

    image_roots: dict[Path, list[str]]
    annotations: list[AnnotationFile]
    label_set: LabelSet | None
    other_texts: tuple[Path, ...] = ()

    def paths(self) -> Iterator[Path]:
        """Everything whose change changes the data set: folders with images, and annotation files."""
        for root, videos in self.image_roots.items():
            yield root
            yield from (holder(root, video) for video in videos)
        yield from (file.path for file in self.annotations)


def find_sources(
    root: Path,
    *,
    image_roots: Sequence[Path] | None = None,
    annotations: Path | None = None,
    label_set: LabelSet | None = "challenge",
    cache_dir: Path | None = None,
    features: Path | None = None,
) -> Sources:
    """Looks below `root` for whatever is not named.

    What describes an image root in object storage is brought to `cache_dir`; None: as for the index. Where
    there are no images, `features` made from them tell which frames can be seen.

    Raises:
        AbawError: A folder does not exist, or what was named or needed is not in it.
    """
    root = Path(root).expanduser().resolve()
    found = search(root)
    if image_roots is None:
        chosen = choose_image_roots(root, found)
        if not chosen and features is not None and features.is_dir():
            chosen = given_image_roots([features.expanduser().resolve()])
    else:
        chosen = given_image_roots([_image_root(folder, cache_dir) for folder in image_roots])
    labels = found
    if annotations is not None:
        annotations = Path(annotations).expanduser().resolve()
        labels = search(annotations)
    wanted = [
        file
        for file in labels.annotations
        if label_set in (None, "mtl" if file.video is None else "challenge")
    ]
    if not wanted and (label_set == "mtl" or (annotations is not None and label_set is not None)):
        kind = (
            "MTL_Challenge/train_set.txt"
            if label_set == "mtl"
            else "VA_Estimation_Challenge/Train_Set/<video>.txt"
        )
        raise AbawError(
            f"{annotations or root}: no annotation such as {kind} below it; correct annotations or label_set"
        )
    if not wanted and not chosen and (label_set is not None or not labels.other_texts):
        deep = images_too_deep(root)
        raise AbawError(
            f"{root}: neither images (cropped_aligned/<video>/00001.jpg) nor annotations "
            "(VA_Estimation_Challenge/Train_Set/<video>.txt) below it; give the folder that holds them"
            + ("" if deep is None else f". The images in {deep} lie too deep: give a folder nearer to them")
        )
    return Sources(chosen, wanted, label_set, tuple(labels.other_texts))


def _image_root(named: Path, cache_dir: Path | None) -> Path:
    """The folder of an image root; of one in object storage, such as s3://bucket/pack, its stand-in."""
    address = re.fullmatch(r"(\w\w+):/+(.+)", str(named))  # a path keeps one slash of two
    if address is not None:
        return mirror(f"{address[1]}://{address[2]}", cache_folder(cache_dir) / "packs")
    return Path(named).expanduser().resolve()
