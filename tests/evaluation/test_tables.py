"""The scores as text for a terminal."""

from abaw.evaluation.scores import compare, summarise
from abaw.evaluation.tables import baseline_table, comparison_table, score_table
from abaw.tasks import AU, VA
from tests.support.scores import random_sums


def test_table_shows_every_task_and_label():
    scores = summarise(random_sums(), draws=20)
    text = score_table(scores, labels=True)
    assert len(text.splitlines()) == 3 + 2 + 8 + 12 + 1
    low, high = scores["au"]["interval"]
    assert f"AU    macro F1  {scores['au']['score']:.4f}  [{low:.4f}, {high:.4f}]  400 frames" in text
    assert f"  Fear          {scores['expr']['per_class']['Fear']:.4f}" in text
    assert len(score_table(scores).splitlines()) == 4


def test_table_without_intervals_or_labels():
    text = score_table(summarise(random_sums(n_videos=1), draws=20))
    assert "[" not in text
    assert "50 frames" in text
    assert score_table({"total": 0.0}) == "no labels to score against"


def test_comparison_table_shows_the_difference():
    text = comparison_table(compare(random_sums(noise=0.2), random_sums(noise=0.3), draws=20))
    assert [line.split()[0] for line in text.splitlines()] == ["va", "expr", "au", "total"]
    assert "better in 100% of draws" in text


def test_answers_stand_side_by_side_and_a_task_without_a_score_is_a_dash():
    columns = {"model": {VA: 0.25, AU: 0.5}, "zero": {VA: 0.0}}
    head, va, au = baseline_table(columns).splitlines()
    assert head.split() == ["model", "zero"]
    assert va.split() == ["VA", "mean", "CCC", "0.2500", "0.0000"]
    assert au.split() == ["AU", "macro", "F1", "0.5000", "-"]
