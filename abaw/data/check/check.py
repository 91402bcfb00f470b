"""Check of a data set: completeness, readability and consistency of its images and annotations."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from abaw.data.check.annotations import check_annotations, find_unrecognised
from abaw.data.check.consistency import (
    Balance,
    Images,
    VideoCounts,
    compare_videos,
    find_missing_annotations,
    find_opencv_wheels,
    find_repeated_annotations,
    find_shared_subjects,
    find_strays,
)
from abaw.data.check.duplicates import find_duplicates
from abaw.data.check.images import check_images
from abaw.data.check.kinds import KINDS, DataFinding
from abaw.data.check.report import DataReport
from abaw.data.layout import AnnotationFile, DataFiles, DataSource, find_files
from abaw.data.progress import Progress
from abaw.errors import UsageError


def check_dataset(
    source: DataSource,
    *,
    size: int = 112,
    ignore: Sequence[str] = (),
    jobs: int | None = None,
    progress: bool = True,
    asked: Mapping[str, NDArray[np.int64]] | None = None,
) -> DataReport:
    """Checks all images and annotations of a data set, those of both label sets.

    Images that are unchanged since the last check (name, size, modification time) are not read again.

    Args:
        source: Where the data set lies; the results are cached in its cache folder.
        size: Expected height and width of all images.
        ignore: Kinds of findings that do not count as defects; spaces may be written as hyphens.
        jobs: Number of processes that read images; None: one per core.
        progress: Whether to show a progress bar on stderr.
        asked: Per video, the numbers of the images that a sample submission lists; empty if it only names
            the video.

    Raises:
        AbawError: There are neither images nor annotations.
        UsageError: A kind in `ignore` is unknown.
    """
    hyphenated = {kind.replace(" ", "-"): kind for kind in KINDS}
    ignored = frozenset(hyphenated.get(kind, kind) for kind in ignore)
    unknown = ignored - set(KINDS)
    if unknown:
        raise UsageError(
            f"ignore: {sorted(unknown)} is not a kind of finding; the kinds are {', '.join(KINDS)}"
        )
    root, asked = source.root, asked or {}
    files = find_files(replace(source, label_set=None))
    folders = [folder / video for folder, videos in files.image_roots.items() for video in videos]
    examined = check_images(folders, size, source.cache / "check", jobs, progress)
    images: dict[str, NDArray[np.int64]] = {}  # image numbers per video, over all roots
    for name, numbers in [(folder.folder.name, folder.numbers) for folder in examined]:
        images[name] = np.union1d(images.get(name, np.empty(0, np.int64)), numbers)
    videos, balance, annotated, findings = _read_annotations(files, images, progress)
    for name, numbers in asked.items():
        video = videos.setdefault(name, VideoCounts(name))
        video.frames = max(video.frames, int(numbers.max(initial=0)))
    findings += find_unrecognised(files.other_texts)
    findings += [finding for folder in examined for finding in folder.findings]
    findings += find_duplicates(
        examined, {name: "+".join(sorted(set(v.splits.values()))) for name, v in videos.items()}
    )
    findings += find_strays(files, root)
    findings += find_missing_annotations(files, source)
    findings += find_repeated_annotations(annotated)
    findings += find_shared_subjects(annotated)
    findings += compare_videos(videos.values(), images, files, root, asked)
    findings += find_opencv_wheels()
    return DataReport(
        root=root,
        image_roots=tuple(files.image_roots),
        videos=[videos[name] for name in sorted(videos)],
        balance=dict(sorted(balance.items())),
        findings=sorted(findings, key=lambda f: (list(KINDS).index(f.kind), f.place)),
        ignored=ignored,
        n_read=sum(folder.n_read for folder in examined),
    )


def _read_annotations(
    files: DataFiles, images: Images, progress: bool
) -> tuple[dict[str, VideoCounts], dict[str, Balance], list[AnnotationFile], list[DataFinding]]:
    """Counts per video, label balance, annotation files per video and task, and findings in the files."""
    videos = {name: VideoCounts(name, len(ns), int(ns.max(initial=0))) for name, ns in images.items()}
    balance: dict[str, Balance] = {}
    annotated: list[AnnotationFile] = []
    findings: list[DataFinding] = []
    for file in Progress(files.annotations, desc="annotations", unit="file", show=progress):
        of_video, in_file = check_annotations(file.path, file.task)
        for name in of_video if file.video is None else [file.video]:
            videos.setdefault(name, VideoCounts(name))
            annotated.append(replace(file, video=name))
        findings += in_file
        for name, labels in of_video.items():
            numbers = images.get(name, np.empty(0, np.int64))
            videos[name].add(file.task, file.split, labels, numbers)
            label_set = "mtl" if file.task is None else "challenge"
            balance.setdefault(f"{label_set} {file.split}", Balance()).add(labels)
    return videos, balance, annotated, findings
