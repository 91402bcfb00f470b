import json

import numpy as np

from abaw.data.check.kinds import KINDS
from abaw.tasks import AU, EXPR, VA
from tests.support.checked_tree import Tree, some_labels, write_image
from tests.support.planted_defects import (
    out_of_range,
    truncated,
)


def test_the_counts_are_those_of_the_tree(tree: Tree) -> None:
    report = tree.check()
    assert [video.name for video in report.videos] == ["a", "b_left", "b_right", "c", "unlabelled"]
    a, labels = report.videos[0], some_labels(13, 0)
    assert (a.frames, a.images) == (12, 10)
    assert a.splits == {"va": "train", "expr": "train", "au": "train", "mtl": "train"}
    assert a.rows["va"] == 13
    assert a.labelled["va"] == labels[VA].valid.sum()
    assert a.labelled_without_crop["va"] == labels[VA].valid[[3, 4]].sum()  # the extra last row is no frame
    assert set(report.balance) == {"challenge train", "challenge val", "mtl train", "mtl val"}
    all_train = [some_labels(13, k) for k in range(3)]
    expr = np.concatenate([part[EXPR].values[part[EXPR].valid] for part in all_train])
    balance = report.balance["challenge train"]
    assert balance.expr.tolist() == np.bincount(expr, minlength=8).tolist()
    assert balance.va.sum() == sum(part[VA].valid.sum() for part in all_train)
    assert balance.au[:, 1].tolist() == sum(part[AU].values.sum(0) for part in all_train).tolist()  # type: ignore[union-attr]


def test_crops_of_another_size_tell_both_commands(tree: Tree) -> None:
    write_image(tree.image("a", 1), 7, size=224)
    table = tree.check().table()
    assert "224×224 pixels instead of 112×112" in table
    assert "`abaw check --size 224`, `abaw fit --data.loading.frame_size 224`" in table


def test_json_holds_every_finding_with_its_cure(tree: Tree) -> None:
    truncated(tree)
    out_of_range(tree)
    values = json.loads(tree.check().to_json())
    assert values["ok"] is False
    assert values["kinds"]["truncated image"] == {
        "count": 1,
        "fails": True,
        "hint": KINDS["truncated image"].hint,
    }
    finding = next(f for f in values["findings"] if f["kind"] == "range")
    assert finding["path"].endswith("Validation_Set/c.txt")
    assert finding["line"] == 5
    assert "'1.5'" in finding["detail"]
    assert {video["name"]: video["images"] for video in values["videos"]}["a"] == 10
    assert sum(values["balance"]["challenge train"]["expr"].values()) > 0
