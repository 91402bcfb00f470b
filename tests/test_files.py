"""A file is the old one or the new one; a place that cannot be written or listed is refused with a cure."""

import errno
import hashlib
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from abaw.errors import AbawError
from abaw.files import CURES, atomic_path, check_writable, delete_unless, from_hub, listing, not_written
from tests.support.networks import unreachable


def test_what_is_written_takes_the_place_of_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "a.txt"
    for text in ("old", "new"):
        with atomic_path(path) as temporary:
            assert temporary.parent == path.parent
            temporary.write_text(text)
        assert path.read_text() == text
    assert [entry.name for entry in path.parent.iterdir()] == ["a.txt"]


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), ValueError("other")])
def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path, error: Exception) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")

    def write() -> None:
        with atomic_path(path) as half:
            half.write_text("new")
            raise error

    with pytest.raises(AbawError if isinstance(error, OSError) else ValueError, match=r"No space|other"):
        write()
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.txt"]


@pytest.mark.parametrize("number", [*CURES, errno.EIO])
def test_a_refusal_names_file_reason_and_cure(number: int) -> None:
    message = str(not_written("runs/a.txt", OSError(number, os.strerror(number))))
    assert message.startswith(f"runs/a.txt: could not be written ({os.strerror(number)}); ")
    assert message.endswith(CURES.get(number, "choose another place"))


def test_a_folder_that_can_be_made_is_writable_and_is_not_made(tmp_path: Path) -> None:
    check_writable(tmp_path)
    check_writable(tmp_path / "a" / "b")
    assert not (tmp_path / "a").exists()


def test_a_file_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(AbawError, match="a part of the path is a file"):
        check_writable(tmp_path / "file" / "run")


def test_a_folder_that_cannot_be_listed_is_named(tmp_path: Path) -> None:
    with pytest.raises(AbawError, match=f"{tmp_path / 'gone'}: cannot be listed "), listing():
        os.listdir(tmp_path / "gone")  # noqa: PTH208 - as the package does


def test_a_file_of_the_hub_is_cached_downloaded_or_out_of_reach(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub.errors import LocalEntryNotFoundError

    cached, asked = tmp_path / "cached", []

    def download(local_files_only: bool = False, **place: Any) -> str:
        asked.append((place["repo_id"], place["filename"], place["revision"]))
        if local_files_only and not cached.exists():
            raise LocalEntryNotFoundError("not there")
        cached.write_text("x")
        return str(cached)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", unreachable)
    with pytest.raises(ConnectionError, match="Name or service not known"):
        from_hub("a/b", "c", "v1")
    assert set(asked) == {("a/b", "c", "v1")}
    for etag, expected in (("e" * 64, "e" * 64), (None, "")):
        cached.unlink(missing_ok=True)
        answer = SimpleNamespace(etag=etag)
        monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", lambda url, answer=answer: answer)
        assert from_hub("a/b", "c") == (cached, expected)
    assert from_hub("a/b", "c") == (cached, None)


def test_only_a_file_with_another_hash_is_deleted(tmp_path: Path) -> None:
    path, link = tmp_path / "blob", tmp_path / "link"
    path.write_bytes(b"x")
    link.symlink_to(path)
    right = hashlib.sha256(b"x").hexdigest()
    assert delete_unless(link, right) is None
    assert path.exists()
    assert delete_unless(link, "0" * 64) == right
    assert list(tmp_path.iterdir()) == []
