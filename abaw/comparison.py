"""Is one run better than another? Their scores on the same videos, and how sure the difference is."""

from typing import Any

import numpy as np

from abaw.bootstrap import draw_videos, interval
from abaw.errors import AbawError
from abaw.scores import Sums, f1, label_scores, n_frames, replicas
from abaw.tasks import Task


def compare(a: Sums, b: Sums, draws: int = 1000, seed: int = 0) -> dict[str, Any]:
    """How much better `a` scores than `b`, both resampled with the same videos.

    Returns:
        Per task that both have, and for their `total`: `difference` (a - b), its 95 % `interval`, and the
        `probability` that a is better: the share of draws, ties counting half.

    Raises:
        AbawError: The two were not scored on the same labelled frames of the same videos.
    """
    tasks = [task for task in a.labelled if task in b.labelled]
    same = a.videos == b.videos and all(
        np.array_equal(n_frames(t, a.labelled[t]), n_frames(t, b.labelled[t])) for t in tasks
    )
    if not same or not tasks:
        differing = sorted(set(a.videos) ^ set(b.videos))
        raise AbawError(
            "two runs can be compared only on the same labelled frames of the same videos and on a common "
            f"task; videos that only one of them has: {', '.join(differing[:5]) or 'none'}"
        )
    drawn = draw_videos(len(a.videos), draws, seed)
    ours, theirs = replicas(a, drawn), replicas(b, drawn)
    gaps, differences = {}, {}
    for task in tasks:
        gaps[str(task)] = ours[task].mean(1) - theirs[task].mean(1)
        points = (label_scores(task, runs.labelled[task].sum(0)).mean() for runs in (a, b))
        differences[str(task)] = float(next(points) - next(points))
    gaps["total"], differences["total"] = sum(gaps.values()), sum(differences.values())
    result: dict[str, Any] = {}
    for name, gap in gaps.items():
        ends = interval(gap, len(a.videos))
        result[name] = {
            "difference": differences[name],
            "interval": None if ends is None else ends.tolist(),
            "probability": float(np.nanmean((gap > 0) + 0.5 * (gap == 0))),
        }
    return result


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
