import os
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

from abaw.data.formats.flat_shards import PACK, image_numbers
from abaw.data.frames import open_frames
from abaw.data.index import build_index
from abaw.data.labels import image_name
from abaw.data.layout import DataSource
from abaw.data.packing import pack
from abaw.errors import AbawError
from abaw.tasks import AU
from tests.support.packs import read_as_in


def test_a_pack_is_an_image_root_with_the_same_frames(synth_root: Path, flat: Path) -> None:
    raw, packed = build_index(DataSource(synth_root)), build_index(DataSource(synth_root, image_roots=[flat]))
    assert packed.roots == (flat,)
    assert packed.videos == raw.videos
    for video in range(len(raw)):
        assert packed.splits(video) == raw.splits(video)
        np.testing.assert_array_equal(packed.visible(video), raw.visible(video))
        np.testing.assert_array_equal(packed.labels(video)[AU].values, raw.labels(video)[AU].values)
    read_as_in(raw, packed, open_frames(packed))


def test_a_pack_is_found_below_the_root(synth_root: Path, flat: Path) -> None:
    assert build_index(DataSource(flat.parent)).roots == (flat,)
    assert build_index(DataSource(flat)).roots == (flat,)


def test_the_file_explains_itself_to_another_library(flat: Path, synth_root: Path) -> None:
    path = next(flat.glob(f"*/{PACK}"))
    with safe_open(path, "numpy") as file:
        start, size, jpeg = (file.get_tensor(name) for name in ("start", "size", "jpeg"))
    frame = int(np.flatnonzero(start >= 0)[3])
    image = jpeg[start[frame] : start[frame] + size[frame]].tobytes()
    (original,) = synth_root.glob(f"cropped_aligned*/{path.parent.name}/{image_name(frame + 1)}")
    assert image == original.read_bytes()


def test_a_pack_cut_short_is_said_and_mended(small: Path, tmp_path: Path) -> None:
    out = tmp_path / "pack"
    pack(DataSource(small), out)
    path = out / "a" / PACK
    os.truncate(path, path.stat().st_size - 1)
    with pytest.raises(
        AbawError, match=r"a/images\.safetensors: not a complete flat shard .* pack this video again"
    ):
        build_index(DataSource(out))
    assert pack(DataSource(small), out).images == 10
    assert build_index(DataSource(out)).videos == ("a", "b")


def test_what_the_disk_did_not_keep_is_not_left_behind(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from abaw.data.formats import flat_shards as packs

    def badly(path: Path, *args: object) -> None:
        write_arrays(path, *args)  # type: ignore[arg-type]
        data = bytearray(path.read_bytes())
        data[-9] ^= 1
        path.write_bytes(data)

    write_arrays = packs.write_arrays
    monkeypatch.setattr(packs, "write_arrays", badly)
    with pytest.raises(AbawError, match="did not keep what was written"):
        pack(DataSource(small), tmp_path / "pack", jobs=1)
    assert not list((tmp_path / "pack").rglob(PACK))


def test_image_numbers_agree_with_the_pattern_on_odd_names() -> None:
    names = [
        "00001.jpg",
        "99999.jpg",
        "100000.jpg",
        "1234567.jpg",
        "00000.jpg",
        "0000é.jpg",
        "0000\udcff.jpg",
    ]
    names += ["00001.JPG", "010000.jpg", "0000٣.jpg", "12345678.jpg", "1.jpg", "00002.jpeg", "-0001.jpg", ""]
    assert sorted(image_numbers(names).tolist()) == [1, 99999, 100000, 1234567]
