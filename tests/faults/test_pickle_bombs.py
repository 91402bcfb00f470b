"""A pickle that runs code, in place of any file that is read: refused by name, and never run."""

import io
import json
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import abaw
from abaw.__main__ import main
from abaw.data.check.check import check_dataset
from abaw.data.formats.features import open_features, read_metadata
from abaw.data.formats.litdata_shards import CONTENTS, LitdataStore, segment_frames
from abaw.data.frames import open_frames
from abaw.data.index import build_index
from abaw.data.layout import DataSource
from abaw.data.packing import pack
from abaw.errors import AbawError
from abaw.evaluation.calibration import read_calibration
from abaw.evaluation.tracks import read_track
from abaw.loading.splits import read_folds
from abaw.model.checkpoints import newest_checkpoint
from abaw.model.weights import read_state_dict
from tests.support.project import PROJECT
from tests.support.tiny_set import SIZE, write_tiny_set


class Bomb:
    """Leaves a crater in the current folder when it is unpickled."""

    def __reduce__(self) -> tuple[object, ...]:
        return Path.mkdir, (Path("crater"),)


def plain() -> bytes:
    return pickle.dumps(Bomb())


def zipped() -> bytes:
    """As a checkpoint: the pickle is one file of an archive."""
    buffer = io.BytesIO()
    torch.save({"abaw": {"format": 1}, "state_dict": Bomb()}, buffer)
    return buffer.getvalue()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("bomb", [plain, zipped])
def test_the_bomb_is_one(bomb: Callable[[], bytes], folder: Path) -> None:
    torch.load(io.BytesIO(bomb()), weights_only=False) if bomb is zipped else pickle.loads(bomb())
    assert (folder / "crater").exists()


READ: dict[str, tuple[str, Callable[[Path], object]]] = {
    "checkpoint to continue from": ("step-1.ckpt", lambda path: newest_checkpoint(path.parent)),
    "checkpoint to predict with": ("best.ckpt", abaw.load),
    "checkpoint of a backbone": ("own.ckpt", read_state_dict),
    "weights": ("vit.pth", read_state_dict),
    "weights in safetensors": ("vit.safetensors", read_state_dict),
    "features": ("b.safetensors", open_features),
    "what features were made with": ("store.json", lambda path: read_metadata(path.parent)),
    "pack of a video": ("pack/a/images.safetensors", lambda path: build_index(DataSource(path.parents[1]))),
    "contents of segments": (f"pack/{CONTENTS}", lambda path: segment_frames(path.parent)),
    "index of segments": ("pack/index.json", lambda path: LitdataStore().fetch(path.parent, 0)),
    "folds": ("folds.json", read_folds),
    "calibration": ("calibration.json", read_calibration),
    "calibration in a checkpoint": ("best.ckpt", read_calibration),
    "track": ("a.parquet", read_track),
}


@pytest.mark.filterwarnings("ignore:.*trying the one before it")
@pytest.mark.parametrize("bomb", [plain, zipped])
@pytest.mark.parametrize("name", READ)
def test_a_file_is_refused_by_name(name: str, bomb: Callable[[], bytes], folder: Path) -> None:
    file, read = READ[name]
    path = folder / "files" / file
    path.parent.mkdir(parents=True)
    path.write_bytes(bomb())
    with pytest.raises(AbawError) as refused:
        read(path)
    assert str(path.parent) in str(refused.value)
    assert not (folder / "crater").exists()


@pytest.mark.parametrize("bomb", [plain, zipped])
def test_caches_are_made_anew(bomb: Callable[[], bytes], folder: Path) -> None:
    root = write_tiny_set(folder / "data")
    index = build_index(DataSource(root, cache_dir=folder / "cache"))
    before = check_dataset(DataSource(root, cache_dir=folder / "cache"), size=SIZE, jobs=1, progress=False)
    caches = [path for path in (folder / "cache").rglob("*") if path.is_file()]
    assert {path.parent.name for path in caches} == {"index", "check"}
    for path in caches:
        path.unlink()  # the open index has it mapped
        path.write_bytes(bomb())
    np.testing.assert_array_equal(
        build_index(DataSource(root, cache_dir=folder / "cache")).n_frames, index.n_frames
    )
    after = check_dataset(DataSource(root, cache_dir=folder / "cache"), size=SIZE, jobs=1, progress=False)
    assert (after.n_read, after.findings) == (before.n_read, before.findings)
    assert not (folder / "crater").exists()


def test_a_pickled_sample_of_a_pack_is_bytes(folder: Path) -> None:
    """Whoever can write a pack can write its index, which says how samples are read."""
    pytest.importorskip("litdata")
    root = write_tiny_set(folder / "data")
    pack(DataSource(root), folder / "pack", format="litdata", segment=16)
    index = build_index(DataSource(folder / "pack"))
    chunk = next((folder / "pack").glob("chunk-*.bin"))
    content, bomb = chunk.read_bytes(), pickle.dumps(Bomb())
    start = content.index(b"\xff\xd8")  # of the first image
    chunk.write_bytes(content[:start] + bomb + content[start + len(bomb) :])
    with pytest.raises(AbawError):
        open_frames(index, size=SIZE).read(0, [0])
    described = json.loads((folder / "pack/index.json").read_text())
    described["config"]["data_format"] = ["pickle"]
    (folder / "pack/index.json").write_text(json.dumps(described))
    with pytest.raises(AbawError, match=r"index\.json"):
        open_frames(index, size=SIZE).read(0, [0])
    assert not (folder / "crater").exists()


@pytest.mark.parametrize(
    ("subcommand", "file", "asked"),
    [
        ("fit", "run/checkpoints/last.ckpt", "last"),
        ("fit", "own.ckpt", "own.ckpt"),
        ("predict", "run/checkpoints/best.ckpt", None),
    ],
)
@pytest.mark.filterwarnings("ignore:.*trying the one before it")
def test_the_command_line_refuses_a_bomb(
    subcommand: str, file: str, asked: str | None, folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (folder / file).parent.mkdir(parents=True, exist_ok=True)
    (folder / file).write_bytes(zipped())
    config = PROJECT / "configs/demo.yaml"
    Path("data").mkdir(exist_ok=True)
    words = [subcommand, f"--config={config}", "--data.root=data", "--run=run"]
    assert main(words + [f"--ckpt_path={asked}"] * (asked is not None)) == 1
    error = capfd.readouterr().err
    message = error[error.index("abaw: ") :]
    assert "Traceback" not in message
    assert str(Path(file).parent if asked == "last" else file) in message
    assert not (folder / "crater").exists()
