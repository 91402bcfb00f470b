import os
from pathlib import Path

from abaw.data.check.check import check_dataset
from abaw.data.labels import image_name
from abaw.data.layout import DataSource
from tests.support.checked_tree import Tree, write_image
from tests.support.planted_defects import the_same_image_in_two_splits, truncated, wrong_size


def test_a_second_run_looks_only_at_what_changed(tree: Tree) -> None:
    wrong_size(tree)
    first = tree.check()
    assert first.n_read == 41
    again = tree.check()
    assert again.n_read == 0
    assert again.findings == first.findings  # defects are remembered too
    write_image(tree.image("a", 1), 2007)
    write_image(tree.image("b_left", 5), 2008)
    tree.image("c", 1).unlink()
    third = tree.check()
    assert third.n_read == 2
    assert third.ok
    assert [(v.name, v.images) for v in third.videos][:4] == [
        ("a", 10),
        ("b_left", 11),
        ("b_right", 10),
        ("c", 9),
    ]
    assert tree.check(size=96).n_read == 41  # another question


def test_a_damaged_memory_is_looked_at_anew(tree: Tree, tmp_path: Path) -> None:
    tree.check()
    for path in (tmp_path / "cache/check").iterdir():
        path.write_bytes(path.read_bytes()[:-1])
    report = tree.check()
    assert report.n_read == 41
    assert report.ok


def test_processes_find_the_same(tree: Tree) -> None:
    truncated(tree)
    the_same_image_in_two_splits(tree)
    alone = tree.check()
    together = check_dataset(DataSource(tree.root, cache_dir=tree.root / "cache2"), jobs=2, progress=False)
    assert together.findings == alone.findings
    assert together.n_read == alone.n_read


def test_the_second_run_is_much_faster(tmp_path: Path) -> None:
    folder = tmp_path / "data/cropped_aligned/a"
    write_image(folder / image_name(1), 1)
    for number in range(2, 6001):
        (folder / image_name(number)).hardlink_to(folder / image_name(1))

    def seconds(cache: str) -> float:
        start = sum(os.times()[:4])  # of the processor, the work of the other process included
        check_dataset(DataSource(tmp_path / "data", cache_dir=tmp_path / cache), jobs=1, progress=False)
        return sum(os.times()[:4]) - start

    first = min(seconds(cache) for cache in ("one", "other"))
    second = min(seconds(cache) for cache in ("one", "other", "one", "other"))  # others disturb
    assert second * 3 < first
