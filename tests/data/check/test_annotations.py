from abaw.tasks import EXPR
from tests.support.checked_tree import Tree
from tests.support.planted_defects import header_of


def test_a_note_or_a_sample_among_the_labels_is_no_annotation(tree: Tree) -> None:
    (tree.root / "Annotations/README.txt").write_text("See the web page\n")
    header = "image,valence,arousal,expression,aus"
    (tree.root / "Annotations/MTL_sample.txt").write_text(f"{header}\nunlabelled/00001.jpg,\n")
    assert tree.check().ok


def test_many_defects_of_a_file_are_listed_in_short(tree: Tree) -> None:
    path = tree.label("a", EXPR)
    path.write_bytes(header_of(EXPR) + b"\n" + b"9\n" * 13)
    assert sum(finding.path == path for finding in tree.check().findings) == 13
    path.write_bytes(header_of(EXPR) + b"\n" + b"9\n" * 1000)
    found = [finding.detail for finding in tree.check().findings if finding.path == path]
    assert len(found) == 21
    assert "980 more such lines" in found
