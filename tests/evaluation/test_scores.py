import numpy as np
import pytest
from sklearn.metrics import f1_score

from abaw.errors import AbawError, UsageError
from abaw.evaluation.formulas import (
    ccc,
    ccc_sums,
)
from abaw.evaluation.scores import (
    Sums,
    best_constant,
    compare,
    draw_recordings,
    interval,
    official,
    per_video,
    resample,
    summarise,
)
from abaw.evaluation.tables import baseline_table, comparison_table
from abaw.tasks import AU, EXPR, TASKS, VA
from tests.support.scores import random_sums


def test_summary_is_the_documented_object():
    result = summarise(random_sums(), draws=200)
    assert list(result) == ["va", "expr", "au", "total", "total_interval"]
    assert {"valence", "arousal", "score", "frames", "interval"} < set(result["va"])
    assert tuple(result["expr"]["per_class"]) == EXPR.names
    assert tuple(result["au"]["per_au"]) == AU.names
    assert result["va"]["score"] == pytest.approx((result["va"]["valence"] + result["va"]["arousal"]) / 2)
    assert result["total"] == pytest.approx(sum(result[task.name]["score"] for task in TASKS))
    for task in TASKS:
        part = result[task.name]
        assert part["frames"] == 400
        assert part["interval"][0] < part["score"] < part["interval"][1]
        assert set(part["intervals"]) == set(task.names)
    assert result["total_interval"][0] < result["total"] < result["total_interval"][1]


def test_summary_leaves_out_tasks_without_labels():
    sums = random_sums()
    empty = Sums(sums.videos, {VA: sums.by_task[VA], EXPR: np.zeros_like(sums.by_task[EXPR])})
    assert set(summarise(empty, draws=10)) == {"va", "total", "total_interval"}
    assert summarise(Sums((), {}), draws=10) == {"total": 0.0}
    assert set(summarise(sums, draws=0)["va"]) == {"valence", "arousal", "score", "frames"}


def test_summary_of_one_video_knows_no_interval():
    result = summarise(random_sums(n_videos=1), draws=50)
    assert result["va"]["interval"] is None
    assert result["au"]["intervals"]["AU1"] is None
    assert result["total_interval"] is None


def test_rarely_labelled_task_is_not_scored_zero_in_draws_without_it():
    sums = random_sums(n_videos=12, noise=0.0)
    expr = sums.by_task[EXPR].copy()
    expr[2:] = 0
    low, high = summarise(Sums(sums.videos, {EXPR: expr}), draws=300)["expr"]["interval"]
    assert low > 0.5
    assert high <= 1


def with_expr_in(sums, n_videos):
    """The same sums where only the first videos carry labels of expressions."""
    expr = sums.by_task[EXPR].copy()
    expr[n_videos:] = 0
    return Sums(sums.videos, {VA: sums.by_task[VA], EXPR: expr})


def test_draws_without_labels_of_a_task_are_no_losses():
    """About one draw of eight holds neither of two videos."""
    good, bad = (with_expr_in(random_sums(n_videos=12, noise=noise), 2) for noise in (0.1, 0.5))
    result = compare(good, bad, draws=300)
    assert {name: part["probability"] for name, part in result.items()} == {"va": 1, "expr": 1, "total": 1}
    swapped = compare(bad, good, draws=300)
    assert {name: part["probability"] for name, part in swapped.items()} == {"va": 0, "expr": 0, "total": 0}


def test_the_total_has_no_interval_where_a_task_has_none():
    good, bad = (with_expr_in(random_sums(n_videos=12, noise=noise), 1) for noise in (0.1, 0.5))
    scores = summarise(good, draws=50)
    assert scores["va"]["interval"] is not None
    assert scores["expr"]["interval"] is scores["total_interval"] is None
    result = compare(good, bad, draws=50)
    assert result["va"]["interval"] is not None
    for name in ("expr", "total"):
        assert result[name]["interval"] is result[name]["probability"] is None
        assert result[name]["difference"] > 0


def test_same_seed_same_interval():
    sums = random_sums()
    assert summarise(sums, 50, seed=1) == summarise(sums, 50, seed=1)
    assert summarise(sums, 50, seed=1) != summarise(sums, 50, seed=2)


def test_the_sums_of_a_draw_are_those_of_its_videos():
    drawn = draw_recordings([f"v{k // 2}_{('left', 'right')[k % 2]}" for k in range(7)], 40, 0)
    sums = np.arange(14).reshape(7, 2)
    np.testing.assert_array_equal(resample(sums, drawn)[3], np.repeat(sums, drawn[3].astype(int), 0).sum(0))


def test_interval_of_a_normal_statistic_is_the_textbook_one():
    values = np.random.default_rng(0).normal(size=200_000)
    np.testing.assert_allclose(interval(values, 10_000), [-1.96, 1.96], atol=0.03)
    # t with 9 degrees of freedom, 2.262, times sqrt(10 / 9)
    np.testing.assert_allclose(interval(values, 10), [-2.384, 2.384], atol=0.04)


def test_a_run_compared_with_itself_does_not_differ():
    sums = random_sums()
    result = compare(sums, sums, draws=50)
    assert set(result) == {"va", "expr", "au", "total"}
    for part in result.values():
        assert part == {"difference": 0, "interval": [0, 0], "probability": 0.5}


def test_comparison_is_paired():
    good, bad = random_sums(noise=0.2), random_sums(noise=0.3)
    result = compare(good, bad, draws=300)
    for task in TASKS:
        part = result[task.name]
        gap = summarise(good, 0)[task.name]["score"] - summarise(bad, 0)[task.name]["score"]
        assert part["difference"] == pytest.approx(gap)
        assert part["interval"][0] < gap < part["interval"][1]
    assert result["va"]["interval"][0] > 0
    assert result["va"]["probability"] == 1


def test_without_draws_only_the_difference_is_known():
    result = compare(random_sums(noise=0.2), random_sums(noise=0.3), draws=0)
    assert result["va"]["difference"] > 0
    assert {(part["interval"], part["probability"]) for part in result.values()} == {(None, None)}
    assert comparison_table(result).splitlines()[0] == f"va             {result['va']['difference']:+.4f}"


@pytest.mark.parametrize(("draws", "seed"), [(-1, 0), (5, -1)])
def test_negative_draws_or_seeds_are_refused(draws, seed):
    with pytest.raises(UsageError, match="-1 is too small"):
        summarise(random_sums(), draws, seed)


def test_comparison_refuses_different_labels():
    sums = random_sums()
    with pytest.raises(AbawError, match="in which they differ: v7"):
        compare(sums, sums.select(range(7)))
    with pytest.raises(AbawError, match="same labelled frames"):
        compare(sums, random_sums(n_rows=49))
    with pytest.raises(AbawError, match="common task"):
        compare(Sums(sums.videos, {VA: sums.by_task[VA]}), Sums(sums.videos, {AU: sums.by_task[AU]}))


def test_a_run_of_one_task_is_compared_on_that_task():
    """Though the other run was scored on more videos, those annotated for other tasks."""
    every, worse = random_sums(noise=0.2), random_sums(noise=0.3)
    va = every.by_task[VA].copy()
    va[[2, 5]] = 0
    every = Sums(every.videos, {**every.by_task, VA: va})
    single = Sums(worse.videos, {VA: worse.by_task[VA]}).select([7, 0, 1, 3, 4, 6])
    result = compare(every, single, draws=300)
    assert set(result) == {"va", "total"}
    assert result == compare(every.select([0, 1, 2, 3, 4, 5, 6, 7]), single, draws=300)
    gap = official(every)[VA] - official(single)[VA]
    assert result["va"]["difference"] == result["total"]["difference"] == pytest.approx(gap)
    table = baseline_table({"every": official(every), "single": official(single)}).splitlines()
    assert table[2].endswith(" -")
    assert table[1].endswith(f"{official(single)[VA]:.4f}")


def test_per_video_scores_are_those_of_the_video_alone():
    sums = random_sums(n_videos=3)
    result = per_video(sums)
    assert list(result) == ["v0", "v1", "v2"]
    assert result["v1"]["va"]["valence"] == pytest.approx(ccc(sums.by_task[VA][1])[0])
    assert result["v1"]["expr"]["frames"] == 50


def test_sums_check_their_shapes():
    with pytest.raises(ValueError, match="sums of au"):
        Sums(("a",), {AU: np.zeros((1, 12, 3))})


def simulated_va(rng, n_videos, n_rows=60):
    """Sums of videos of unequal length, each with its own level and a model with its own bias there."""
    sums = np.empty((n_videos, 2, 6))
    for video in sums:
        n = int(rng.integers(n_rows // 4, 2 * n_rows))
        wiggle = np.stack(
            [np.convolve(rng.normal(size=n + 9), np.full(10, 10**-0.5), "valid") for _ in range(2)], 1
        )
        target = rng.normal(0, 0.25, 2) + 0.2 * wiggle
        prediction = 0.7 * target + rng.normal(0, 0.2, 2) + 0.1 * rng.normal(size=(n, 2))
        video[:] = ccc_sums(prediction, target, np.ones(n, bool))
    return sums


@pytest.mark.slow
def test_the_intervals_cover_the_truth():
    rng = np.random.default_rng(0)
    truths = dict(zip(VA.names, ccc(simulated_va(rng, 20_000).sum(0)).tolist(), strict=True))
    truths["score"] = sum(truths.values()) / 2
    covered = dict.fromkeys(truths, 0)
    for repetition in range(500):
        sums = Sums(tuple(map(str, range(100))), {VA: simulated_va(rng, 100)})
        va = summarise(sums, draws=1000, seed=repetition)["va"]
        for name, truth in truths.items():
            low, high = va["interval"] if name == "score" else va["intervals"][name]
            covered[name] += low <= truth <= high
    shares = {name: count / 500 for name, count in covered.items()}
    assert all(0.90 <= share <= 0.98 for share in shares.values()), shares


def test_best_constant_is_the_best_of_all_constants():
    sums = random_sums()
    expr, au = sums.by_task[EXPR].sum(0), sums.by_task[AU].sum(0)
    target = np.repeat(np.arange(8), expr.sum(1))
    by_class = [
        f1_score(target, np.full_like(target, c), average=None, labels=range(8), zero_division=0).mean()
        for c in range(8)
    ]
    by_au = []
    for tp, fp, fn, tn in au:
        truth = np.repeat([1, 0], [tp + fn, fp + tn])
        by_au.append(max(f1_score(truth, np.full_like(truth, c), zero_division=0) for c in (0, 1)))
    best = best_constant(sums)
    assert best[VA] == 0
    assert best[EXPR] == pytest.approx(max(by_class))
    assert best[AU] == pytest.approx(np.mean(by_au))
    table = baseline_table({"model": official(sums), "best constant": best}).splitlines()
    assert f"{best[EXPR]:.4f}" in table[2]
    assert f"{official(sums)[AU]:.4f}" in table[3]
