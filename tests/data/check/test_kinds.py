from collections.abc import Callable

import pytest

from abaw.data.check.kinds import KINDS
from abaw.tasks import EXPR, VA
from tests.support.checked_tree import Tree
from tests.support.planted_defects import PLANTED


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_defect_is_found_named_and_fails(name: str, tree: Tree) -> None:
    kind, plant, line = PLANTED[name]
    path = plant(tree)
    report = tree.check()
    assert not report.ok
    defects = [finding for finding in report.findings if KINDS[finding.kind].fails]
    assert [(finding.kind, finding.path, finding.line) for finding in defects][:1] == [(kind, path, line)]
    assert {finding.kind for finding in defects} == {kind}, report.table()
    table = report.table()
    assert kind in table
    assert str(path) in table
    assert KINDS[kind].hint in table
    assert tree.check(ignore=[kind]).ok


def test_every_kind_that_fails_has_a_planted_defect() -> None:
    assert {kind for kind, _, _ in PLANTED.values()} == {name for name, kind in KINDS.items() if kind.fails}


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("litter", lambda tree: (tree.images / "a" / ".DS_Store").touch()),
        ("litter", lambda tree: (tree.images / ".DS_Store").touch()),
        ("seven classes", lambda tree: tree.label("a", EXPR).write_text(
            "Neutral,Anger,Disgust,Fear,Happiness,Sadness,Surprise\n" + "6\n" * 13)),
        ("video in two splits", lambda tree: tree.label("a").rename(tree.label("a", VA, "val"))),
    ],
)  # fmt: skip
def test_a_note_does_not_fail(kind: str, change: Callable[[Tree], object], tree: Tree) -> None:
    change(tree)
    report = tree.check()
    assert report.ok
    assert kind in {finding.kind for finding in report.findings}
