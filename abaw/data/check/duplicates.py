"""Which images are byte for byte the same although they should not be: across videos, or far apart in one."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from abaw.data.check.images import Examined
from abaw.data.check.kinds import Finding
from abaw.data.labels import image_name


def find_duplicates(folders: Sequence[Examined], splits: Mapping[str, str]) -> list[Finding]:
    """Repeated images, told once per video or pair of videos.

    Neighbouring frames of a video may be the same, as in a still scene; and the same frame may lie in two
    image roots, of which only the first counts.

    Args:
        folders: In the order of their image roots.
        splits: By video, where it is annotated, for the message.
    """
    if not any(len(folder.numbers) for folder in folders):
        return []
    names = sorted({folder.folder.name for folder in folders})
    of_video = {name: number for number, name in enumerate(names)}
    video = np.concatenate([_filled(f, of_video[f.folder.name]) for f in folders])
    holder = np.concatenate([_filled(f, k) for k, f in enumerate(folders)])
    number = np.concatenate([f.numbers for f in folders])
    digest = np.concatenate([f.digests for f in folders])

    order = np.lexsort((holder, number, video))  # by video and frame; of two roots the first comes first
    video, holder, number, digest = (a[order] for a in (video, holder, number, digest))
    first = np.append(True, (np.diff(video) != 0) | (np.diff(number) != 0))
    rank = np.cumsum(first)  # the place of an image among all: neighbours differ by one
    order = np.flatnonzero(first)
    order = order[np.lexsort((rank[order], digest[order]))]  # by content, then by video and frame
    video, holder, number, digest, rank = (a[order] for a in (video, holder, number, digest, rank))

    same = (np.diff(digest) == 0) & (digest[1:] != 0)  # as the one before
    in_video = np.diff(video) == 0
    apart = np.flatnonzero(same & in_video & (np.diff(rank) > 1))
    across = np.flatnonzero(same & ~in_video)
    n_contents = np.bincount(video[np.append(True, ~(same & in_video))], minlength=len(names))

    def place(k: int) -> str:
        return f"{names[video[k]]}/{image_name(int(number[k]))}"

    def finding(kind: str, k: int, detail: str) -> Finding:
        return Finding(kind, folders[holder[k]].folder / image_name(int(number[k])), detail)

    findings = []
    for ks in _grouped(apart, video[apart][:, None]):
        more = f", and {len(ks) - 1} more in this video" if len(ks) > 1 else ""
        findings.append(finding("duplicate image", ks[0] + 1, f"the same as {place(ks[0])}{more}"))
    for ks in _grouped(across, np.stack([video[across], video[across + 1]], axis=1)):
        one, other = int(video[ks[0]]), int(video[ks[0] + 1])
        where = " and ".join(f"{names[v]} is in {splits.get(names[v], 'no split')}" for v in (one, other))
        if 2 * len(ks) >= min(n_contents[one], n_contents[other]):
            detail = f"{len(ks)} images are the same as those of {names[one]}; {where}"
            path = folders[holder[ks[0] + 1]].folder
            findings.append(Finding("duplicate video", path, detail))
        else:
            more = f", and {len(ks) - 1} more of these videos" if len(ks) > 1 else ""
            findings.append(
                finding("duplicate image", ks[0] + 1, f"the same as {place(ks[0])}{more}; {where}")
            )
    return findings


def _filled(folder: Examined, value: int) -> NDArray[np.int64]:
    return np.full(len(folder.numbers), value, np.int64)


def _grouped(places: NDArray[Any], keys: NDArray[Any]) -> list[list[int]]:
    """`places` that share a row of `keys` together."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for place, key in zip(places.tolist(), keys.tolist(), strict=True):
        groups.setdefault(tuple(key), []).append(place)
    return list(groups.values())
