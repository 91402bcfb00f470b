from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score

from abaw.errors import AbawError, UsageError
from abaw.evaluation.formulas import (
    ccc,
    ccc_sums,
    confusion,
    decide,
    extend,
    label_scores,
    n_frames,
    presence_counts,
    scores_of,
    sums_shape,
    video_sums,
)
from abaw.tasks import AU, EXPR, TASKS, Task, TaskLabels
from tests.support.scores import plain_ccc

PAIN = Task(name="pain", kind="real", names=("pain",), high=16.0, loss="mse", scores=("ccc", "mae"))
CLIP = Task(name="clip", kind="binary", names=("yes",), per="clip", loss="bce", scores=("binary_f1",))


def test_ccc_is_the_definition_on_the_valid_rows():
    rng = np.random.default_rng(0)
    target = rng.uniform(-1, 1, (500, 2))
    prediction = (0.5 * target + 0.1 + 0.2 * rng.normal(size=target.shape)).astype(np.float32)
    valid = rng.random(500) < 0.7
    target[~valid] = -5
    got = ccc(ccc_sums(prediction, target, valid))
    want = [plain_ccc(prediction[valid, k], target[valid, k]) for k in range(2)]
    np.testing.assert_allclose(got, want, atol=1e-12)


def test_ccc_is_of_the_whole_set_not_the_mean_of_videos():
    rng = np.random.default_rng(0)
    levels = np.linspace(-0.8, 0.8, 9)
    targets = [level + 0.05 * rng.normal(size=(200, 2)) for level in levels]
    predictions = [level + 0.05 * rng.normal(size=(200, 2)) for level in levels]
    sums = np.stack([ccc_sums(p, t, np.ones(200, bool)) for p, t in zip(predictions, targets, strict=True)])
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
        ccc_sums(p, t, np.ones(len(p), bool))
        for p, t in zip(*(np.array_split(x, 7) for x in pair), strict=True)
    ]
    np.testing.assert_array_equal(ccc(np.sum(pieces, axis=0)), 0)


def test_ccc_of_a_small_but_real_variation_counts():
    x = (0.5 + 1e-5 * np.random.default_rng(0).normal(size=(1000, 2))).astype(np.float32)
    np.testing.assert_allclose(ccc(ccc_sums(x, x, np.ones(1000, bool))), 1, atol=1e-5)


def test_no_rows_give_zero():
    none = np.zeros(3, bool)
    assert ccc(ccc_sums(np.zeros((3, 2)), np.zeros((3, 2)), none)).tolist() == [0, 0]
    for task in TASKS:
        shape = sums_shape(task)
        assert label_scores(task, np.zeros(shape)).tolist() == [0] * task.size


def test_expr_averages_all_eight_classes():
    rng = np.random.default_rng(0)
    target = rng.integers(0, 6, 300)  # Surprise and Other absent
    predicted = np.where(rng.random(300) < 0.5, target, rng.integers(0, 7, 300))
    valid = rng.random(300) < 0.8
    got = label_scores(EXPR, confusion(predicted, target, valid, 8))
    want = f1_score(target[valid], predicted[valid], labels=range(8), average=None, zero_division=0)
    np.testing.assert_allclose(got, want)
    assert got[7] == 0
    perfect = confusion(np.arange(3), np.arange(3), np.ones(3, bool), 8)
    assert label_scores(EXPR, perfect).mean() == pytest.approx(3 / 8)


def test_confusion_has_labels_first():
    counts = confusion(np.array([2, 2]), np.array([1, 1]), np.ones(2, bool), 8)
    assert counts[1, 2] == 2


def test_au_is_masked_per_element():
    rng = np.random.default_rng(0)
    target, probabilities = rng.integers(0, 2, (300, 12)), rng.random((300, 12))
    target[:, 3] = 0
    valid = rng.random((300, 12)) < 0.8
    counts = presence_counts(decide(AU, probabilities), target, valid)
    want = [
        f1_score(target[valid[:, k], k], probabilities[valid[:, k], k] >= 0.5, zero_division=0)
        for k in range(12)
    ]
    np.testing.assert_allclose(label_scores(AU, counts), want)
    np.testing.assert_array_equal(counts.sum(-1), valid.sum(0))
    assert n_frames(AU, counts) == valid.sum(0).max()


def test_decisions():
    assert decide(EXPR, np.array([[0, 0.4, 0.4, 0, 0, 0, 0, 0.2]])).tolist() == [1]
    assert decide(AU, np.float32([[0.5, 0.49, 0.3]])).tolist() == [[True, False, False]]
    assert decide(AU, np.float32([[0.5, 0.49, 0.3]]), [0.6, 0.4, 0.3]).tolist() == [[False, True, True]]


def test_extend_cuts_or_repeats_the_last():
    values = np.arange(6).reshape(3, 2)
    assert extend(values, 2).tolist() == [[0, 1], [2, 3]]
    assert extend(values, 5)[3:].tolist() == [[4, 5], [4, 5]]
    assert extend(values[:0], 0).shape == (0, 2)
    with pytest.raises(AbawError, match="without any frame"):
        extend(values[:0], 1)


def test_absolute_errors_are_averaged_over_the_valid_rows():
    prediction, target = np.array([[1.0], [5.0], [9.0]]), np.array([[2.0], [5.0], [0.0]])
    score, _ = scores_of(PAIN)[1]
    sums = score.sums(prediction, target, np.array([True, True, False]), 1)
    assert score.formula(sums).tolist() == [0.5]


def test_a_clip_is_scored_once_by_the_mean_of_its_predictions():
    labels = TaskLabels(np.ones((4, 1), np.float32), np.ones((4, 1), bool))
    for predictions, counts in (([0.4, 0.8, 0.7], [1, 0, 0, 0]), ([0.9, 0.1, 0.2], [0, 0, 1, 0])):
        assert video_sums(CLIP, np.float32(predictions)[:, None], labels).tolist() == [counts]


@pytest.mark.parametrize("task", [*TASKS, PAIN, CLIP], ids=str)
def test_tensors_have_the_sums_of_arrays(task):
    rng = np.random.default_rng(4)
    predictions = rng.random((30, task.size), np.float32)
    values = rng.integers(0, task.size if task.kind == "class" else 2, (33, *task.value_shape))
    values = values if task.kind == "class" else values.astype(np.float32)
    labels = TaskLabels(values, rng.random((33, *task.valid_shape)) < 0.8)
    labels.valid[0] = True
    sums = video_sums(task, predictions, labels)
    of_tensors = video_sums(task, torch.from_numpy(predictions), TaskLabels(*map(torch.from_numpy, labels)))
    assert isinstance(of_tensors, torch.Tensor)
    assert sums.any()
    np.testing.assert_allclose(of_tensors.numpy(), sums, rtol=1e-12)


@pytest.mark.parametrize(
    ("scores", "message"),
    [(("mae",), "mae is not maximised"), (("ccc", "f2"), "'f2' is not a score; choose")],
)
def test_scores_of_a_task_that_do_not_exist_or_are_not_maximised_are_refused(scores, message):
    with pytest.raises(UsageError, match=f"task pain: {message}"):
        scores_of(replace(PAIN, scores=scores))
