"""Official scores from additive sums per video, with bootstrap intervals and paired comparisons.

Frames of a video are correlated, so the bootstrap resamples whole recordings. The draws are a matrix of
counts, whose product with the sums per video gives the sums of all draws.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import compress
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from abaw.data.labels import count_recordings, recording_places
from abaw.errors import AbawError, UsageError
from abaw.evaluation.formulas import Score, label_scores, n_frames, scores_of, sums_shape
from abaw.randomness import Purpose, keyed_generator
from abaw.tasks import Task


@dataclass(frozen=True, eq=False)
class Sums:
    """Sufficient statistics of the scores for V videos.

    Attributes:
        videos: Names of the V videos.
        by_task: Per predicted task (V, K, S), see `video_sums`.
    """

    videos: tuple[str, ...]
    by_task: Mapping[Task, NDArray]

    def __post_init__(self) -> None:
        for task, sums in self.by_task.items():
            if sums.shape != (want := (len(self.videos), *sums_shape(task))):
                raise ValueError(f"sums of {task} have shape {sums.shape}, expected {want}")

    @property
    def labelled(self) -> dict[Task, NDArray]:
        """Sums of every task with at least one labelled frame."""
        return {task: sums for task, sums in self.by_task.items() if n_frames(task, sums).any()}

    def select(self, positions: Sequence[int]) -> "Sums":
        """The sums of the videos at some positions, in that order."""
        picked = {task: sums[list(positions)] for task, sums in self.by_task.items()}
        return Sums(tuple(self.videos[p] for p in positions), picked)

    def over(self, videos: Sequence[str], tasks: Sequence[Task]) -> "Sums":
        """The sums of some tasks aligned to other videos by name; zeros for videos that are missing here."""
        place = {video: k for k, video in enumerate(self.videos)}
        taken = [place.get(video, -1) for video in videos]  # -1 is the row of zeros appended
        rows = {t: np.concatenate([s, np.zeros_like(s[:1])]) for t, s in self.labelled.items() if t in tasks}
        return Sums(tuple(videos), {task: sums[taken] for task, sums in rows.items()})


def official(sums: Sums) -> dict[Task, float]:
    """The official score of every labelled task."""
    return {task: float(label_scores(task, v.sum(0)).mean()) for task, v in sums.labelled.items()}


def replicas(sums: Sums, drawn: NDArray[np.float64]) -> dict[Task, NDArray[np.float64]]:
    """Label scores (draws, K) per task in every bootstrap draw; NaN in draws without labelled frames."""
    firsts = {task: scores_of(task)[0] for task in sums.labelled}
    return {t: _replicas(score, sums.by_task[t][..., part], drawn) for t, (score, part) in firsts.items()}


def _replicas(score: Score, sums: NDArray, drawn: NDArray[np.float64]) -> NDArray[np.float64]:
    drawn_sums = resample(sums, drawn)
    return np.where(score.count(drawn_sums)[:, None] == 0, np.nan, score.formula(drawn_sums))


def summarise(sums: Sums, draws: int = 1000, seed: int = 0) -> dict[str, Any]:
    """The official scores as plain values, as printed by `abaw score --json`.

    Args:
        sums: Sums of all videos of the set.
        draws: Number of bootstrap draws for the 95 % intervals; 0: no intervals.
        seed: Seed of the draws.

    Returns:
        Per labelled task the score, the score of each label, the number of labelled frames, the `interval` of
        the score and the `intervals` of the labels; the `total` of the tasks' scores. An interval is null
        with fewer than two recordings, that of the total if the interval of any task is null.
    """
    drawn = draw_recordings(sums.videos, draws, seed) if draws and sums.videos else None
    result: dict[str, Any] = {}
    for task, values in sums.labelled.items():
        (_, entry), *others = [
            (score.name, _entry(task, score, values[..., columns], sums.videos, drawn))
            for score, columns in scores_of(task)
        ]
        result[task.name] = entry | dict(others)
    entries = list(result.values())
    result["total"] = float(sum(entry["score"] for entry in entries))
    if drawn is not None and entries:
        labelled = np.any([n_frames(*each) > 0 for each in sums.labelled.items()], axis=0)
        total = sum(values.mean(1) for values in replicas(sums, drawn).values())
        known = all(entry["interval"] for entry in entries)
        size = count_recordings(compress(sums.videos, labelled)) if known else 0
        result["total_interval"] = interval(np.asarray(total), size)
    return result


def _entry(
    task: Task, score: Score, sums: NDArray, videos: Sequence[str], drawn: NDArray[np.float64] | None
) -> dict[str, Any]:
    """A score of a task as plain values, from its sums (V, K, S)."""
    count, scores = score.count(sums), score.formula(sums.sum(0))
    by_label = dict(zip(task.names, scores.tolist(), strict=True))
    entry: dict[str, Any] = {task.score_key: by_label} if task.score_key else by_label
    entry |= {"score": float(scores.mean()), "frames": int(count.sum())}
    if drawn is not None:
        n = count_recordings(compress(videos, count > 0))
        draws = _replicas(score, sums, drawn)
        entry["interval"] = interval(draws.mean(1), n)
        entry["intervals"] = {
            name: interval(of_label, n) for name, of_label in zip(task.names, draws.T, strict=True)
        }
    return entry


def by_label(task: Task, entry: Mapping[str, Any]) -> dict[str, float]:
    """The score of each label of a task, from its entry in `summarise`."""
    scores = entry[task.score_key] if task.score_key else entry
    return {name: scores[name] for name in task.names}


def per_video(sums: Sums) -> dict[str, dict[str, Any]]:
    """The scores of every single video, as from `summarise` without intervals."""
    return {video: summarise(sums.select([k]), draws=0) for k, video in enumerate(sums.videos)}


def draw_recordings(videos: Sequence[str], draws: int, seed: int) -> NDArray[np.float64]:
    """Bootstrap counts of each video, float64 (draws, V): those of its recording.

    Every draw has as many recordings as there are.

    Args:
        videos: Names of V videos, at least one.
        draws: Number of draws.
        seed: Seed of the random generator.

    Raises:
        UsageError: `draws` or `seed` is negative.
    """
    for name, value in (("draws", draws), ("seed", seed)):
        if value < 0:
            raise UsageError(f"{name}: {value} is too small; give 0 or more")
    place = recording_places(videos)
    n_recordings = int(place.max()) + 1
    chances = np.full(n_recordings, 1 / n_recordings)
    rng = keyed_generator(Purpose.BOOTSTRAP, seed)
    drawn = rng.multinomial(n_recordings, chances, size=draws)
    return drawn[:, place].astype(np.float64)


def resample(sums: NDArray, drawn: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sums of each draw (draws, ...), from sums per video (n_videos, ...)."""
    return np.tensordot(drawn, sums.astype(np.float64), axes=1)


def interval(values: NDArray, n_recordings: int) -> list[float] | None:
    """The 95 % interval of a statistic, lower and upper end, from its values in all bootstrap draws.

    The percentile interval, expanded to correct its bias in small samples (Hesterberg,
    "What teachers should know about the bootstrap", 2015).

    Args:
        values: float (draws,); NaN, which is ignored, in draws without a value.
        n_recordings: Number of recordings with labels for the statistic.

    Returns:
        None with fewer than two recordings or no draws.
    """
    if n_recordings < 2 or not np.isfinite(values).any():
        return None
    student = special.stdtrit(n_recordings - 1, 0.975)
    tail = special.ndtr(-np.sqrt(n_recordings / (n_recordings - 1)) * student)
    return np.nanquantile(values, [tail, 1 - tail]).tolist()


def compare(a: Sums, b: Sums, draws: int = 1000, seed: int = 0) -> dict[str, Any]:
    """Paired comparison of two runs: differences of their scores with paired bootstrap intervals.

    Compares the tasks that both predict; videos without labels of these tasks may be missing in one run.

    Returns:
        Per common task, and for their `total`: `difference` (a - b), its 95 % `interval`, and the
        `probability` that a is better: its share of the draws with labels of every task, ties counting half.
        Both are null without draws, or with fewer than two labelled recordings of a task.

    Raises:
        AbawError: The runs differ in their labelled frames or videos.
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
    gaps = {task: ours[task].mean(1) - theirs[task].mean(1) for task in tasks}
    differences = {task: official(a)[task] - official(b)[task] for task in tasks}
    sizes = [count_recordings(compress(videos, n > 0)) for n in counts]
    parts = {t.name: _part(differences[t], gaps[t], size) for t, size in zip(tasks, sizes, strict=True)}
    size = count_recordings(videos) if all(part["interval"] for part in parts.values()) else 0
    return parts | {"total": _part(sum(differences.values()), np.asarray(sum(gaps.values())), size)}


def _part(difference: float, gaps: NDArray, n_recordings: int) -> dict[str, Any]:
    """One entry of `compare`, from the differences in all draws (draws,); NaN in draws without labels."""
    ends, drawn = interval(gaps, n_recordings), gaps[np.isfinite(gaps)]
    share = None if ends is None else float(((drawn > 0) + 0.5 * (drawn == 0)).mean())
    return {"difference": difference, "interval": ends, "probability": share}


def _labelled_videos(sums: Sums, tasks: Sequence[Task]) -> set[str]:
    """Names of the videos with a labelled frame in any of some tasks."""
    found = (np.flatnonzero(n_frames(task, sums.labelled[task])) for task in tasks)
    return {sums.videos[place] for places in found for place in places}


def best_constant(sums: Sums) -> dict[Task, float]:
    """The official scores of the best constant prediction, chosen on the labels scored, where it is known."""
    firsts = {task: scores_of(task)[0] for task in sums.labelled}
    return {
        task: score.constant(sums.by_task[task].sum(0)[..., columns])
        for task, (score, columns) in firsts.items()
        if score.constant is not None
    }
