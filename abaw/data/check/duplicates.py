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
    names = sorted({folder.folder.name for folder in folders})
    of_video = {name: number for number, name in enumerate(names)}
    video = np.concatenate([_filled(f, of_video[f.folder.name]) for f in folders])
    holder = np.concatenate([_filled(f, k) for k, f in enumerate(folders)])
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

    def place(k: int) -> str:
        return f"{names[video[k]]}/{image_name(int(number[k]))}"

    def finding(kind: str, k: int, detail: str) -> DataFinding:
        return DataFinding(kind, folders[holder[k]].folder / image_name(int(number[k])), detail)

    findings = []
    for ks in _grouped(apart, video[apart][:, None]):
        more = f", and {len(ks) - 1} more in this video" if len(ks) > 1 else ""
        findings.append(finding("duplicate image", ks[0] + 1, f"identical to {place(ks[0])}{more}"))
    for ks in _grouped(across, np.stack([video[across], video[across + 1]], axis=1)):
        one, other = int(video[ks[0]]), int(video[ks[0] + 1])
        where = " and ".join(f"{names[v]} is in {splits.get(names[v], 'no split')}" for v in (one, other))
        if 2 * len(ks) >= min(n_contents[one], n_contents[other]):
            detail = f"{len(ks)} images are identical to those of {names[one]}; {where}"
            path = folders[holder[ks[0] + 1]].folder
            findings.append(DataFinding("duplicate video", path, detail))
        else:
            more = f", and {len(ks) - 1} more of these videos" if len(ks) > 1 else ""
            findings.append(
                finding("duplicate image", ks[0] + 1, f"identical to {place(ks[0])}{more}; {where}")
            )
    return findings


def _filled(folder: FolderCheck, value: int) -> NDArray[np.int64]:
    return np.full(len(folder.numbers), value, np.int64)


def _grouped(places: NDArray[Any], keys: NDArray[Any]) -> list[list[int]]:
    """Groups of `places` with equal rows of `keys`."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for place, key in zip(places.tolist(), keys.tolist(), strict=True):
        groups.setdefault(tuple(key), []).append(place)
    return list(groups.values())
