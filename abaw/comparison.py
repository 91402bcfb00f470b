"""Is one run better than another? Their scores on the same videos, and how sure the difference is."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from abaw.bootstrap import draw_videos, interval
from abaw.errors import AbawError
from abaw.scores import Sums, f1, n_frames, official, replicas
from abaw.tasks import Task


def compare(a: Sums, b: Sums, draws: int = 1000, seed: int = 0) -> dict[str, Any]:
    """How much better `a` scores than `b`, both resampled with the same videos.

    Only tasks that both predict are compared; videos without labels of these may be missing in one of them.

    Returns:
        Per task that both have, and for their `total`: `difference` (a - b), its 95 % `interval`, and the
        `probability` that a is better: the share of draws, ties counting half. Both are null without draws.

    Raises:
        AbawError: The two were not scored on the same labelled frames of the same videos.
    """
    tasks = [task for task in a.labelled if task in b.labelled]
    videos = sorted(_labelled_videos(a, tasks) | _labelled_videos(b, tasks))
    a, b = a.over(videos, tasks), b.over(videos, tasks)
    counts, others = (np.array([n_frames(t, runs.labelled[t]) for t in tasks]) for runs in (a, b))
    if not tasks or (counts != others).any():
        differing = [videos[k] for k in np.flatnonzero((counts != others).any(0))] if tasks else []
        raise AbawError(
            "two runs can be compared only on the same labelled frames of the same videos and on a common "
            f"task; videos in which they differ: {', '.join(differing[:5]) or 'none'}"
        )
    drawn = draw_videos(len(videos), draws, seed)
    ours, theirs = replicas(a, drawn), replicas(b, drawn)
    gaps, differences, n_videos = {}, {}, {}
    for task, n in zip(tasks, counts, strict=True):
        gaps[str(task)] = ours[task].mean(1) - theirs[task].mean(1)
        differences[str(task)] = official(a)[task] - official(b)[task]
        n_videos[str(task)] = int((n > 0).sum())
    gaps["total"], differences["total"] = sum(gaps.values()), sum(differences.values())
    n_videos["total"] = len(videos)
    result: dict[str, Any] = {}
    for name, gap in gaps.items():
        ends = interval(gap, n_videos[name])
        result[name] = {
            "difference": differences[name],
            "interval": None if ends is None else ends.tolist(),
            "probability": float(np.nanmean((gap > 0) + 0.5 * (gap == 0))) if draws else None,
        }
    return result


def _labelled_videos(sums: Sums, tasks: Sequence[Task]) -> set[str]:
    """The videos with a labelled frame of any of these tasks."""
    found = (np.flatnonzero(n_frames(task, sums.labelled[task])) for task in tasks)
    return {sums.videos[place] for places in found for place in places}


def best_constant(sums: Sums) -> dict[Task, float]:
    """The official scores of the best answer that is the same for every frame, chosen on these labels.

    VA: a constant has no covariance, so 0. EXPR: one class for all frames. AU: each AU always or never.
    """
    result: dict[Task, float] = {}
    for task, values in sums.labelled.items():
        total = values.sum(0)
        if task is Task.VA:
            result[task] = 0.0
        elif task is Task.EXPR:
            n = total.sum(-1)  # labelled frames of each class
            result[task] = float(f1(n, n.sum() - n, 0 * n).max() / len(n))
        else:
            present, absent = total[:, 0] + total[:, 2], total[:, 1] + total[:, 3]
            result[task] = float(f1(present, absent, 0 * present).mean())
    return result
