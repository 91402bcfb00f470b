import json
from pathlib import Path

import pytest

from abaw.__main__ import main
from abaw.data.check.check import check_dataset
from abaw.data.layout import DataSource
from abaw.errors import AbawError, UsageError
from tests.support.checked_tree import Tree
from tests.support.planted_defects import (
    out_of_range,
)


def test_a_clean_tree_has_notes_and_no_defects(tree: Tree) -> None:
    report = tree.check()
    assert report.ok, report.table()
    assert {finding.kind for finding in report.findings} == {
        "frames without crop",
        "labelled frames without crop",
    }
    assert report.table().endswith("no defects")


def test_the_generated_data_set_is_clean(synth_root: Path) -> None:
    report = check_dataset(DataSource(synth_root), jobs=1, progress=False)
    assert report.ok, report.table()
    assert sum(video.images for video in report.videos) > 100


def test_the_command_exits_with_1_on_findings(tree: Tree, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["check", str(tree.root), "--jobs=1"]
    assert main(words) == 0
    assert capsys.readouterr().out.endswith("no defects\n")
    path = out_of_range(tree)
    assert main(words) == 1
    assert f"{path}:5: valence" in (said := capsys.readouterr().out) or f"{path}:5: arousal" in said
    assert main([*words, "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["ok"] is False
    assert main([*words, "--ignore", "range", "litter"]) == 0
    assert main([*words, "--ignore", "rang"]) == 2


def test_crops_in_a_folder_of_the_same_name_are_found(tree: Tree) -> None:
    tree.images.rename(tree.root / "inner")
    tree.images.mkdir()
    (tree.root / "inner").rename(tree.images / "cropped_aligned")
    report = tree.check()
    assert report.ok, report.table()
    assert tree.images / "cropped_aligned" in report.image_roots


def test_links_that_lead_back_are_searched_once(tree: Tree) -> None:
    before = tree.check()
    (tree.root / "Annotations/above").symlink_to(tree.root)
    (tree.root / "a_link").symlink_to(tree.root / "Annotations")
    (tree.images / "loop").symlink_to(tree.images)
    (tree.root / "itself").symlink_to("itself")
    report = tree.check()
    assert report.ok, report.table()
    assert report.videos == before.videos
    assert report.image_roots == before.image_roots


def test_labels_and_crops_behind_links_are_found(tree: Tree, tmp_path: Path) -> None:
    for name in ("Annotations", "cropped_aligned"):
        (tree.root / name).rename(tmp_path / name)
        (tree.root / name).symlink_to(tmp_path / name)
    report = tree.check()
    assert report.ok, report.table()
    assert len(report.videos) == 5
    assert tree.images in report.image_roots


def test_labels_alone_and_images_alone_can_be_checked(tree: Tree, tmp_path: Path) -> None:
    assert check_dataset(DataSource(tree.root / "Annotations"), progress=False).ok
    assert not check_dataset(DataSource(tree.images), progress=False).ok
    assert check_dataset(DataSource(tree.images), progress=False, ignore=["no-annotations"]).ok
    (tmp_path / "empty").mkdir()
    with pytest.raises(AbawError, match="neither images"):
        check_dataset(DataSource(tmp_path / "empty"), progress=False)
    with pytest.raises(UsageError, match=r"'blur'.* is not a kind of finding"):
        tree.check(ignore=["blur"])
