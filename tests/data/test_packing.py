import json
import shutil
from pathlib import Path
from typing import Literal

import pytest

from abaw.data.formats.flat_shards import PACK
from abaw.data.frames import open_frames
from abaw.data.index import build_index
from abaw.data.labels import image_name
from abaw.data.layout import DataSource
from abaw.data.packing import pack
from abaw.errors import AbawError, UsageError
from tests.support.packs import read_as_in, write_image


def test_only_what_changed_is_packed_again(small: Path, tmp_path: Path) -> None:
    out = tmp_path / "pack"
    assert pack(DataSource(small), out).images == 20
    kept = (out / "b" / PACK).stat().st_mtime_ns
    again = pack(DataSource(small), out)
    assert json.loads(again.to_json()) == {
        **{"out": str(out), "videos": 2, "skipped": 2, "images": 0, "removed": 0}
    }
    write_image(small / "cropped_aligned/a" / image_name(1), 99)  # in place: the folder's time stays
    write_image(small / "cropped_aligned/a" / image_name(3), 98)
    done = pack(DataSource(small), out)
    assert done.line() == f"{out}: 11 images of 1 videos packed; 1 were packed already"
    assert (out / "b" / PACK).stat().st_mtime_ns == kept
    read_as_in(
        build_index(DataSource(small)),
        build_index(DataSource(out)),
        open_frames(build_index(DataSource(out))),
    )


@pytest.mark.parametrize("format", ["flat", "litdata"])
@pytest.mark.parametrize("lost", ["its folder", "its images"])
def test_a_video_that_the_source_no_longer_has_leaves_the_pack(
    lost: str, format: Literal["flat", "litdata"], small: Path, tmp_path: Path
) -> None:
    out = tmp_path / "pack"
    pack(DataSource(small), out, format=format)
    if lost == "its folder":
        shutil.rmtree(small / "cropped_aligned/b")
    else:
        for path in (small / "cropped_aligned/b").iterdir():
            path.unlink()
    write_image(small / "cropped_aligned/c" / image_name(1), 5)
    done = pack(DataSource(small), out, format=format)
    assert (done.videos, done.removed) == (2, 1)
    assert done.line().endswith("1 that the data set no longer has were removed")
    assert build_index(DataSource(out)).videos == build_index(DataSource(small)).videos == ("a", "c")
    assert not (out / "b").exists()
    read_as_in(
        build_index(DataSource(small)),
        build_index(DataSource(out)),
        open_frames(build_index(DataSource(out))),
    )
    again = pack(DataSource(small), out, format=format)
    assert (again.images, again.skipped, again.removed) == (0, 2, 0)


@pytest.mark.parametrize("format", ["flat", "litdata"])
def test_a_pack_loses_nothing_before_all_else_is_packed(
    format: Literal["flat", "litdata"], small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "pack"
    pack(DataSource(small), out, format=format)
    shutil.rmtree(small / "cropped_aligned/a")
    write_image(small / "cropped_aligned/b" / image_name(3), 9)

    def unreadable(*args: object) -> None:
        raise AbawError("unreadable")

    with monkeypatch.context() as patch:
        patch.setattr("abaw.data.packing.read_images", unreadable)
        patch.setattr("abaw.data.frames.read_images", unreadable)
        with pytest.raises(AbawError, match="unreadable"):
            pack(DataSource(small), out, format=format)
    index = build_index(DataSource(out))
    assert index.videos == ("a", "b")
    assert [int(index.visible(video).sum()) for video in range(2)] == [10, 10]
    assert pack(DataSource(small), out, format=format).removed == 1
    assert build_index(DataSource(out)).videos == ("b",)


@pytest.mark.parametrize("format", ["flat", "litdata"])
def test_the_pack_of_another_data_set_is_not_removed(
    format: Literal["flat", "litdata"], small: Path, tmp_path: Path
) -> None:
    pack(DataSource(small), tmp_path / "pack", format=format)
    write_image(tmp_path / "other/cropped_aligned/c" / image_name(1), 5)
    with pytest.raises(UsageError, match="holds a pack of 2 other videos, such as a; choose another"):
        pack(DataSource(tmp_path / "other"), tmp_path / "pack", format=format)
    assert build_index(DataSource(tmp_path / "pack")).videos == ("a", "b")


def test_what_a_user_keeps_beside_a_removed_pack_stays(small: Path, tmp_path: Path) -> None:
    pack(DataSource(small), tmp_path / "pack")
    (tmp_path / "pack/b/notes.txt").write_text("mine")
    shutil.rmtree(small / "cropped_aligned/b")
    assert pack(DataSource(small), tmp_path / "pack").removed == 1
    assert [path.name for path in (tmp_path / "pack/b").iterdir()] == ["notes.txt"]


def test_a_pack_can_be_packed(small: Path, tmp_path: Path) -> None:
    pack(DataSource(small), tmp_path / "one")
    assert pack(DataSource(tmp_path / "one"), tmp_path / "two").images == 20
    assert pack(DataSource(tmp_path / "one"), tmp_path / "two").images == 0
    read_as_in(
        build_index(DataSource(small)),
        build_index(DataSource(tmp_path / "two")),
        open_frames(build_index(DataSource(tmp_path / "two"))),
    )


@pytest.mark.parametrize(
    ("options", "said"),
    [({"jobs": 0}, "--jobs must be at least 1"), ({"segment": 0}, "--segment and --jobs must be")],
)
def test_impossible_options_are_refused(options: dict, said: str, small: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=said):
        pack(DataSource(small), tmp_path / "pack", **options)


def test_images_are_not_packed_onto_themselves(small: Path) -> None:
    with pytest.raises(UsageError, match="choose another folder"):
        pack(DataSource(small), small / "cropped_aligned")


def test_nothing_to_pack_is_said(tmp_path: Path) -> None:
    labels = tmp_path / "VA_Estimation_Challenge/Train_Set/a.txt"
    labels.parent.mkdir(parents=True)
    labels.write_text("valence,arousal\n0.1,0.2\n")
    with pytest.raises(AbawError, match="no images to pack"):
        pack(DataSource(tmp_path), tmp_path / "pack")
