from tests.support.checked_tree import Tree
from tests.support.planted_defects import the_same_image_in_two_splits


def test_a_leak_between_splits_is_told_as_one(tree: Tree) -> None:
    the_same_image_in_two_splits(tree)
    (found,) = [finding for finding in tree.check().findings if finding.kind == "duplicate image"]
    assert found.detail == "identical to a/00001.jpg; a is in train and c is in val"


def test_neighbours_may_be_the_same_and_a_frame_may_lie_in_two_roots(tree: Tree) -> None:
    same = tree.image("a", 3).read_bytes()
    tree.image("a", 6).write_bytes(same)  # 4 and 5 are missing, so 3 and 6 are neighbours
    tree.image("a", 7).write_bytes(same)
    other = tree.root / "cropped_aligned_new_50_vids/a/00001.jpg"
    other.parent.mkdir()
    other.write_bytes(tree.image("a", 1).read_bytes())
    assert tree.check().ok
