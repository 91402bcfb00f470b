"""Is one run better than another? Their scores on the same videos, and how sure the difference is."""

from collections.abc import Sequence
from itertools import compress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from abaw.bootstrap import draw_recordings, interval
from abaw.errors import AbawError
from abaw.recordings import count_recordings
from abaw.scores import Sums, f1, n_frames, official, replicas
from abaw.tasks import Task


def compare(a: Sums, b: Sums, draws: int = 1000, seed: int = 0) -> dict[str, Any]:
    """How much better `a` scores than `b`, both resampled with the same recordings.

    Only tasks that both predict are compared; videos without labels of these may be missing in one of them.

    Returns:
        Per task that both have, and for their `total`: `difference` (a - b), its 95 % `interval`, and the
        `probability` that a is better: the share of the draws, ties counting half, in which every task has
        labels. Both are null where no draws, or fewer than two labelled recordings of a task, leave them
        unknown.

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
    drawn = draw_recordings(videos, draws, seed)
    ours, theirs = replicas(a, drawn), replicas(b, drawn)
    gaps = {str(task): ours[task].mean(1) - theirs[task].mean(1) for task in tasks}
    differences = {str(task): official(a)[task] - official(b)[task] for task in tasks}
    sizes = {str(t): count_recordings(compress(videos, n > 0)) for t, n in zip(tasks, counts, strict=True)}
    parts = {name: _part(differences[name], gap, sizes[name]) for name, gap in gaps.items()}
    known = all(part["interval"] is not None for part in parts.values())
    size = count_recordings(videos) if known else 0
    total = _part(sum(differences.values()), np.asarray(sum(gaps.values())), size)
    return {**parts, "total": total}


def _part(difference: float, gaps: NDArray, n_recordings: int) -> dict[str, Any]:
    """One difference, from its values in all draws (draws,); NaN where a draw has no label."""
    ends, drawn = interval(gaps, n_recordings), gaps[np.isfinite(gaps)]
    return {
        "difference": difference,
        "interval": None if ends is None else ends.tolist(),
        "probability": None if ends is None else float(((drawn > 0) + 0.5 * (drawn == 0)).mean()),
    }


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
