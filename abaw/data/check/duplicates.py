"""Detection of byte-identical images across videos, or far apart within a video."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from abaw.data.check.images import FolderCheck
from abaw.data.check.kinds import DataFinding
from abaw.data.labels import image_name


def find_duplicates(folders: Sequence[FolderCheck], splits: Mapping[str, str]) -> list[DataFinding]:
    """Findings for duplicate images, one per video or pair of videos.

    Neighbouring frames of a video may be identical, as in a static scene. Of a frame in two image roots only
    the first counts.

    Args:
        folders: Checked folders in the order of their image roots.
        splits: Splits per video, for the message.
    """
    if not any(len(folder.numbers) for folder in folders):
        return []
    names, of_folder = np.unique([folder.folder.name for folder in folders], return_inverse=True)
    holder = np.repeat(np.arange(len(folders)), [len(folder.numbers) for folder in folders])
    video = of_folder[holder]
    number = np.concatenate([f.numbers for f in folders])
    fingerprint = np.concatenate([f.fingerprints for f in folders])

    order = np.lexsort((holder, number, video))  # by video, frame and image root
    video, holder, number, fingerprint = (a[order] for a in (video, holder, number, fingerprint))
    first = np.append(True, (np.diff(video) != 0) | (np.diff(number) != 0))
    rank = np.cumsum(first)  # position of an image among all: neighbours differ by one
    order = np.flatnonzero(first)
    order = order[np.lexsort((rank[order], fingerprint[order]))]  # by content, video and frame
    video, holder, number, fingerprint, rank = (a[order] for a in (video, holder, number, fingerprint, rank))

    same = (np.diff(fingerprint) == 0) & (fingerprint[1:] != 0)  # as the previous one
    in_video = np.diff(video) == 0
    apart = np.flatnonzero(same & in_video & (np.diff(rank) > 1))
    across = np.flatnonzero(same & ~in_video)
    n_contents = np.bincount(video[np.append(True, ~(same & in_video))], minlength=len(names))

    def finding(ks: list[int], where: str, more: str = "") -> DataFinding:
        one, copy = (folders[holder[k]].folder / image_name(int(number[k])) for k in (ks[0], ks[0] + 1))
        others = f", and {len(ks) - 1} more {where}" if len(ks) > 1 else ""
        return DataFinding(
            "duplicate image", copy, f"identical to {one.parent.name}/{one.name}{others}{more}"
        )

    findings = [finding(ks, "in this video") for ks in _grouped(apart, video[apart][:, None])]
    for ks in _grouped(across, np.stack([video[across], video[across + 1]], axis=1)):
        one, other = int(video[ks[0]]), int(video[ks[0] + 1])
        where = " and ".join(f"{names[v]} is in {splits.get(names[v], 'no split')}" for v in (one, other))
        if 2 * len(ks) >= min(n_contents[one], n_contents[other]):
            detail = f"{len(ks)} images are identical to those of {names[one]}; {where}"
            path = folders[holder[ks[0] + 1]].folder
            findings.append(DataFinding("duplicate video", path, detail))
        else:
            findings.append(finding(ks, "of these videos", f"; {where}"))
    return findings


def _grouped(places: NDArray[Any], keys: NDArray[Any]) -> list[list[int]]:
    """Groups of `places` with equal rows of `keys`."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for place, key in zip(places.tolist(), keys.tolist(), strict=True):
        groups.setdefault(tuple(key), []).append(place)
    return list(groups.values())
