import builtins
import json
import shutil
from pathlib import Path

import pytest

from abaw.data.formats.litdata_shards import LitdataStore, mirror
from abaw.data.frames import open_frames
from abaw.data.index import build_index
from abaw.data.layout import DataSource
from abaw.errors import AbawError
from tests.support.object_storage import URL_TEXT, Storage
from tests.support.packs import read_as_in

pytest.importorskip("litdata")


@pytest.mark.parametrize(
    ("part", "change", "says"),
    [
        ("config", {"data_format": ["pickle"]}, "something else than plain bytes"),
        ("config", {"item_loader": "TokensLoader"}, "something else than plain bytes"),
        ("chunks", {"filename": "../chunk-0-0.bin"}, "something else than plain bytes"),
        ("config", {"data_spec": None}, "something else than plain bytes"),
    ],
)
def test_an_index_that_leads_elsewhere_or_unpickles_is_refused(
    packed: Path, tmp_path: Path, part: str, change: dict[str, object], says: str
) -> None:
    copy = shutil.copytree(packed, tmp_path / "pack")
    index = json.loads((copy / "index.json").read_text())
    if part == "chunks":
        index["chunks"][0] |= change
    else:
        index["config"] |= change
    (copy / "index.json").write_text(json.dumps(index))
    with pytest.raises(AbawError, match=rf"index\.json is not that of litdata shards \(.*({says})"):
        LitdataStore().fetch(copy, 0)


def test_without_litdata_the_cure_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def without(name: str, *args: object) -> object:
        if name.startswith("litdata"):
            raise ImportError(name)
        return importing(name, *args)  # type: ignore[arg-type]

    importing = builtins.__import__
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(AbawError, match=r"pip install 'abaw\[stream\]'"):
        LitdataStore().fetch(tmp_path, 0)


@pytest.mark.parametrize("every", [3, 5])
def test_broken_connections_are_taken_up_again(
    every: int, synth_root: Path, storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("abaw.data.formats.litdata_io._PAUSES", (0.0,) * 6)
    storage.every, before = every, storage.n_broken
    root = mirror(URL_TEXT, tmp_path)
    index = build_index(DataSource(synth_root, image_roots=[root]))
    read_as_in(build_index(DataSource(synth_root)), index, open_frames(index))
    assert storage.n_broken - before > 10


def test_a_storage_that_never_answers_is_given_up(
    storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = mirror(URL_TEXT, tmp_path)
    monkeypatch.setattr("abaw.data.formats.litdata_io._PAUSES", (0.0, 0.0))
    storage.every, before = 1, storage.n_broken
    with pytest.raises(AbawError, match=r"segment 3 cannot be read .*check the address"):
        LitdataStore().fetch(root, 3)
    assert 3 <= storage.n_broken - before <= 20


@pytest.mark.parametrize("url", ["s3://data/nothing", "s3://nowhere/faces"])
def test_a_wrong_address_is_said_at_once(url: str, storage: Storage, tmp_path: Path) -> None:
    before = storage.n_requests
    with pytest.raises(AbawError, match=rf"{url} cannot be read .*404.*check the address"):
        mirror(url, tmp_path)
    assert storage.n_requests - before <= 3  # not asked for again and again
    assert not list(tmp_path.iterdir())


def test_missing_credentials_are_said_at_once(
    storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    with pytest.raises(AbawError, match=r"NoCredentialsError.*credentials"):
        mirror(URL_TEXT, tmp_path / "packs")
