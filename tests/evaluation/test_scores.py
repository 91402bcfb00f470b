import numpy as np
import pytest
from sklearn.metrics import f1_score

from abaw.errors import AbawError, UsageError
from abaw.evaluation.scores import (
    SHAPES,
    Sums,
    au_counts,
    au_present,
    best_constant,
    ccc,
    compare,
    draw_recordings,
    expr_class,
    expr_confusion,
    extend,
    interval,
    label_scores,
    n_frames,
    official,
    per_video,
    resample,
    summarise,
    va_sums,
)
from abaw.evaluation.tables import baseline_table, comparison_table
from abaw.tasks import AU_NAMES, EXPR_NAMES, Task
from tests.support.scores import plain_ccc, random_sums


def test_ccc_is_the_definition_on_the_valid_rows():
    rng = np.random.default_rng(0)
    target = rng.uniform(-1, 1, (500, 2))
    prediction = (0.5 * target + 0.1 + 0.2 * rng.normal(size=target.shape)).astype(np.float32)
    valid = rng.random(500) < 0.7
    target[~valid] = -5
    got = ccc(va_sums(prediction, target, valid))
    want = [plain_ccc(prediction[valid, k], target[valid, k]) for k in range(2)]
    np.testing.assert_allclose(got, want, atol=1e-12)


def test_ccc_is_of_the_whole_set_not_the_mean_of_videos():
    rng = np.random.default_rng(0)
    levels = np.linspace(-0.8, 0.8, 9)
    targets = [level + 0.05 * rng.normal(size=(200, 2)) for level in levels]
    predictions = [level + 0.05 * rng.normal(size=(200, 2)) for level in levels]
    sums = np.stack([va_sums(p, t, np.ones(200, bool)) for p, t in zip(predictions, targets, strict=True)])
    whole = plain_ccc(np.concatenate(predictions)[:, 0], np.concatenate(targets)[:, 0])
    assert ccc(sums.sum(0))[0] == pytest.approx(whole, abs=1e-10)
    assert whole > 0.95
    assert ccc(sums).mean() < 0.2


@pytest.mark.parametrize("n_rows", [1, 7, 100_003])
@pytest.mark.parametrize("value", [0.0, 0.1, 1 / 3, -0.7, 1.0])
@pytest.mark.parametrize("constant", ["target", "prediction", "both", "almost both"])
def test_ccc_of_a_constant_is_zero(n_rows, value, constant):
    varied = np.random.default_rng(0).uniform(-1, 1, (n_rows, 2)).astype(np.float32)
    fixed = np.full_like(varied, value)
    other = {"both": fixed, "almost both": np.nextafter(fixed, np.float32(2))}.get(constant, varied)
    pair = (other, fixed) if constant != "prediction" else (fixed, other)
    # in pieces, so that rounding differs from one long sum
    pieces = [
        va_sums(p, t, np.ones(len(p), bool))
        for p, t in zip(*(np.array_split(x, 7) for x in pair), strict=True)
    ]
    np.testing.assert_array_equal(ccc(np.sum(pieces, axis=0)), 0)


def test_ccc_of_a_small_but_real_variation_counts():
    x = (0.5 + 1e-5 * np.random.default_rng(0).normal(size=(1000, 2))).astype(np.float32)
    np.testing.assert_allclose(ccc(va_sums(x, x, np.ones(1000, bool))), 1, atol=1e-5)


def test_no_rows_give_zero():
    none = np.zeros(3, bool)
    assert ccc(va_sums(np.zeros((3, 2)), np.zeros((3, 2)), none)).tolist() == [0, 0]
    for task, shape in SHAPES.items():
        assert label_scores(task, np.zeros(shape)).tolist() == [0] * task.size


def test_expr_averages_all_eight_classes():
    rng = np.random.default_rng(0)
    target = rng.integers(0, 6, 300)  # Surprise and Other absent
    predicted = np.where(rng.random(300) < 0.5, target, rng.integers(0, 7, 300))
    valid = rng.random(300) < 0.8
    got = label_scores(Task.EXPR, expr_confusion(predicted, target, valid))
    want = f1_score(target[valid], predicted[valid], labels=range(8), average=None, zero_division=0)
    np.testing.assert_allclose(got, want)
    assert got[7] == 0
    perfect = expr_confusion(np.arange(3), np.arange(3), np.ones(3, bool))
    assert label_scores(Task.EXPR, perfect).mean() == pytest.approx(3 / 8)


def test_confusion_has_labels_first():
    confusion = expr_confusion(np.array([2, 2]), np.array([1, 1]), np.ones(2, bool))
    assert confusion[1, 2] == 2


def test_au_is_masked_per_element():
    rng = np.random.default_rng(0)
    target, probabilities = rng.integers(0, 2, (300, 12)), rng.random((300, 12))
    target[:, 3] = 0
    valid = rng.random((300, 12)) < 0.8
    counts = au_counts(au_present(probabilities), target, valid)
    want = [
        f1_score(target[valid[:, k], k], probabilities[valid[:, k], k] >= 0.5, zero_division=0)
        for k in range(12)
    ]
    np.testing.assert_allclose(label_scores(Task.AU, counts), want)
    np.testing.assert_array_equal(counts.sum(-1), valid.sum(0))
    assert n_frames(Task.AU, counts) == valid.sum(0).max()


def test_decisions():
    assert expr_class(np.array([[0, 0.4, 0.4, 0, 0, 0, 0, 0.2]])).tolist() == [1]
    assert au_present(np.float32([[0.5, 0.49, 0.3]])).tolist() == [[True, False, False]]
    assert au_present(np.float32([[0.5, 0.49, 0.3]]), [0.6, 0.4, 0.3]).tolist() == [[False, True, True]]


def test_extend_cuts_or_repeats_the_last():
    values = np.arange(6).reshape(3, 2)
    assert extend(values, 2).tolist() == [[0, 1], [2, 3]]
    assert extend(values, 5)[3:].tolist() == [[4, 5], [4, 5]]
    assert extend(values[:0], 0).shape == (0, 2)
    with pytest.raises(AbawError, match="without any frame"):
        extend(values[:0], 1)


def test_summary_is_the_documented_object():
    result = summarise(random_sums(), draws=200)
    assert list(result) == ["va", "expr", "au", "total", "total_interval"]
    assert {"valence", "arousal", "score", "frames", "interval"} < set(result["va"])
    assert tuple(result["expr"]["per_class"]) == EXPR_NAMES
    assert tuple(result["au"]["per_au"]) == AU_NAMES
    assert result["va"]["score"] == pytest.approx((result["va"]["valence"] + result["va"]["arousal"]) / 2)
    assert result["total"] == pytest.approx(sum(result[task]["score"] for task in Task))
    for task in Task:
        part = result[task]
        assert part["frames"] == 400
        assert part["interval"][0] < part["score"] < part["interval"][1]
        assert set(part["intervals"]) == set(task.names)
    assert result["total_interval"][0] < result["total"] < result["total_interval"][1]


def test_summary_leaves_out_tasks_without_labels():
    sums = random_sums()
    empty = Sums(sums.videos, va=sums.va, expr=np.zeros_like(sums.expr), au=None)
    assert set(summarise(empty, draws=10)) == {"va", "total", "total_interval"}
    assert summarise(Sums(()), draws=10) == {"total": 0.0}
    assert set(summarise(sums, draws=0)["va"]) == {"valence", "arousal", "score", "frames"}


def test_summary_of_one_video_knows_no_interval():
    result = summarise(random_sums(n_videos=1), draws=50)
    assert result["va"]["interval"] is None
    assert result["au"]["intervals"]["AU1"] is None
    assert result["total_interval"] is None


def test_rarely_labelled_task_is_not_scored_zero_in_draws_without_it():
    sums = random_sums(n_videos=12, noise=0.0)
    expr = sums.expr.copy()
    expr[2:] = 0
    low, high = summarise(Sums(sums.videos, expr=expr), draws=300)["expr"]["interval"]
    assert low > 0.5
    assert high <= 1


def with_expr_in(sums, n_videos):
    """The same sums where only the first videos carry labels of expressions."""
    expr = sums.expr.copy()
    expr[n_videos:] = 0
    return Sums(sums.videos, va=sums.va, expr=expr)


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
    for task in Task:
        part = result[task]
        gap = summarise(good, 0)[task]["score"] - summarise(bad, 0)[task]["score"]
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
        compare(Sums(sums.videos, va=sums.va), Sums(sums.videos, au=sums.au))


def test_a_run_of_one_task_is_compared_on_that_task():
    """Though the other run was scored on more videos, those annotated for other tasks."""
    every, worse = random_sums(noise=0.2), random_sums(noise=0.3)
    va = every.va.copy()
    va[[2, 5]] = 0
    every = Sums(every.videos, va=va, expr=every.expr, au=every.au)
    single = Sums(worse.videos, va=worse.va).select([7, 0, 1, 3, 4, 6])
    result = compare(every, single, draws=300)
    assert set(result) == {"va", "total"}
    assert result == compare(every.select([0, 1, 2, 3, 4, 5, 6, 7]), single, draws=300)
    gap = official(every)[Task.VA] - official(single)[Task.VA]
    assert result["va"]["difference"] == result["total"]["difference"] == pytest.approx(gap)
    table = baseline_table({"every": official(every), "single": official(single)}).splitlines()
    assert table[2].endswith(" -")
    assert table[1].endswith(f"{official(single)[Task.VA]:.4f}")


def test_per_video_scores_are_those_of_the_video_alone():
    sums = random_sums(n_videos=3)
    result = per_video(sums)
    assert list(result) == ["v0", "v1", "v2"]
    assert result["v1"]["va"]["valence"] == pytest.approx(ccc(sums.va[1])[0])
    assert result["v1"]["expr"]["frames"] == 50


def test_sums_check_their_shapes():
    with pytest.raises(ValueError, match="sums of au"):
        Sums(("a",), au=np.zeros((1, 12, 3)))


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
        video[:] = va_sums(prediction, target, np.ones(n, bool))
    return sums


@pytest.mark.slow
def test_the_intervals_cover_the_truth():
    rng = np.random.default_rng(0)
    truths = dict(zip(Task.VA.names, ccc(simulated_va(rng, 20_000).sum(0)).tolist(), strict=True))
    truths["score"] = sum(truths.values()) / 2
    covered = dict.fromkeys(truths, 0)
    for repetition in range(500):
        sums = Sums(tuple(map(str, range(100))), va=simulated_va(rng, 100))
        va = summarise(sums, draws=1000, seed=repetition)["va"]
        for name, truth in truths.items():
            low, high = va["interval"] if name == "score" else va["intervals"][name]
            covered[name] += low <= truth <= high
    shares = {name: count / 500 for name, count in covered.items()}
    assert all(0.90 <= share <= 0.98 for share in shares.values()), shares


def test_best_constant_is_the_best_of_all_constants():
    sums = random_sums()
    expr, au = sums.expr.sum(0), sums.au.sum(0)
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
    assert best[Task.VA] == 0
    assert best[Task.EXPR] == pytest.approx(max(by_class))
    assert best[Task.AU] == pytest.approx(np.mean(by_au))
    table = baseline_table({"model": official(sums), "best constant": best}).splitlines()
    assert f"{best[Task.EXPR]:.4f}" in table[2]
    assert f"{official(sums)[Task.AU]:.4f}" in table[3]
