"""Extraction: every visible frame once, the same bytes however the work is divided or interrupted."""

import os
import signal
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, Trainer
from torch import Tensor

from abaw.data.formats.features import features_path, open_features, read_metadata
from abaw.data.frames import BadFrameError, RawFolder
from abaw.data.index import build_index
from abaw.data.layout import DataSource
from abaw.errors import AbawError
from abaw.loading.dataset import VisibleFrames
from abaw.model.backbone import Backbone, BackboneSettings
from abaw.model.checkpoints import weights_fingerprint
from abaw.training.extraction import Extractor, FeatureWriter, backbone_parts
from abaw.training.preemption import EndOnSignal, Preempted
from benchmarks.network import QUIET
from tests.support.project import PROJECT

TINY = BackboneSettings(name="test_vit", weights="none", image_size=32, chunk=8, frozen="all")
FRAMES = {"alpha": 20, "beta": 9, "gamma": 7, "delta": 8}
NO_CROP = {("alpha", 1), ("alpha", 12), ("gamma", 2), *(("beta", number) for number in range(1, 9))}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four videos with gaps; of `beta` only the last frame has a crop."""
    root = tmp_path_factory.mktemp("faces")
    make_faces(root, seed=0)
    return root


def make_faces(root: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    for name, n_frames in FRAMES.items():
        folder = root / "cropped_aligned" / name
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(1, n_frames + 1):
            image = rng.integers(0, 255, (112, 112, 3), np.uint8)
            if (name, number) not in NO_CROP:
                cv2.imwrite(str(folder / f"{number:05d}.jpg"), image)


def backbone(seed: int = 0, **changes: Any) -> Backbone:
    torch.manual_seed(seed)
    return Backbone(replace(TINY, **changes)).eval()


def extract(
    root: Path,
    folder: Path,
    *,
    net: Backbone | None = None,
    stop: Callback | None = None,
    precision: Any = "32-true",
    **options: Any,
) -> FeatureWriter:
    index = build_index(DataSource(root))
    extractor = Extractor(net or backbone(), index=index, frames=RawFolder(index), folder=folder, **options)
    writer = FeatureWriter()
    trainer = Trainer(
        precision=precision,
        callbacks=[writer, *([stop] if stop else []), EndOnSignal()],
        **QUIET,
    )
    trainer.predict(extractor, return_predictions=False)
    return writer


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


class CountsImages(Backbone):
    """A backbone that knows what it was shown."""

    def forward(self, frames: Tensor) -> Tensor:
        self.shown = [*getattr(self, "shown", []), len(frames)]
        return super().forward(frames)


@pytest.mark.parametrize("workers", [0, 2])
def test_every_frame_is_cached_as_the_backbone_sees_it(root: Path, tmp_path: Path, workers: int) -> None:
    index, net = build_index(DataSource(root)), backbone()
    writer = extract(root, tmp_path, workers=workers)
    assert writer.n_frames == sum(FRAMES.values()) - len(NO_CROP)
    for video, name in enumerate(index.videos):
        cached = open_features(features_path(tmp_path, name))
        frames = RawFolder(index).read(video, range(FRAMES[name]))
        with torch.inference_mode():
            expected = net(torch.from_numpy(frames.pixels)).half().numpy()
        np.testing.assert_array_equal(cached.visible, frames.visible)
        np.testing.assert_allclose(cached.features[frames.visible], expected[frames.visible], atol=2e-3)
        assert not cached.features[~frames.visible].any()


def test_missing_frames_never_reach_the_network(root: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = CountsImages(TINY)
    extract(root, tmp_path, net=net)
    assert sorted(net.shown) == [1, 2, 6, 8, 8, 8]  # beta; the rest of alpha; gamma; full chunks


def test_a_finished_cache_is_left_alone(root: Path, tmp_path: Path) -> None:
    extract(root, tmp_path)
    times = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.safetensors")}
    assert extract(root, tmp_path).n_frames == 0
    assert times == {path: path.stat().st_mtime_ns for path in times}


def test_goes_on_where_it_was_interrupted(root: Path, tmp_path: Path) -> None:
    class Stop(Callback):
        def on_predict_batch_end(self, *args: Any, **kwargs: Any) -> None:
            if args[4] == 2:  # alpha is done, beta is the next
                raise RuntimeError("interrupted")

    whole, parts = tmp_path / "whole", tmp_path / "parts"
    extract(root, whole)
    with pytest.raises(RuntimeError, match="interrupted"):
        extract(root, parts, stop=Stop())
    assert set(contents(parts)) == {"store.json", "alpha.safetensors"}
    (parts / ".beta.safetensors.123.tmp").touch()
    extract(root, parts)
    assert contents(parts) == contents(whole)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_ends_it_between_two_chunks(root: Path, tmp_path: Path, number: signal.Signals) -> None:
    class Tell(Callback):
        def on_predict_batch_start(self, *args: Any, **kwargs: Any) -> None:
            if args[3] == 2:
                os.kill(os.getpid(), number)

    with pytest.raises(Preempted, match=f"preempted by {number.name}"):
        extract(root, tmp_path, stop=Tell())
    assert set(contents(tmp_path)) == {"store.json", "alpha.safetensors"}


def test_images_that_changed_are_extracted_again(root: Path, tmp_path: Path) -> None:
    make_faces(tmp_path / "data", seed=0)
    extract(tmp_path / "data", tmp_path / "cache")
    before = contents(tmp_path / "cache")
    cv2.imwrite(
        str(tmp_path / "data" / "cropped_aligned" / "delta" / "00001.jpg"), np.zeros((112, 112, 3), np.uint8)
    )
    writer = extract(tmp_path / "data", tmp_path / "cache")
    after = contents(tmp_path / "cache")
    assert writer.n_frames == FRAMES["delta"]
    assert {name for name in before if before[name] != after[name]} == {"delta.safetensors"}


@pytest.mark.parametrize(
    ("net", "message"),
    [
        ({"seed": 1}, r"weights \w{12}…, now \w{12}…; delete .* and run `abaw extract"),
        ({"image_size": 48}, r"transform.image_size 32, now 48"),
        ({"mean": (0.1, 0.2, 0.3)}, r"transform.mean \[.*\], now \[0.1, 0.2, 0.3\]"),
    ],
)
def test_a_folder_of_another_backbone_is_refused(
    root: Path, tmp_path: Path, net: dict[str, Any], message: str
) -> None:
    extract(root, tmp_path)
    before = contents(tmp_path)
    with pytest.raises(AbawError, match=message):
        extract(root, tmp_path, net=backbone(**net))
    assert contents(tmp_path) == before


def test_features_made_elsewhere_are_not_overwritten(root: Path, tmp_path: Path) -> None:
    (tmp_path / "alpha.safetensors").touch()
    with pytest.raises(AbawError, match="of another program; name another folder"):
        extract(root, tmp_path)


def test_the_note_tells_what_the_features_depend_on(root: Path, tmp_path: Path) -> None:
    net = backbone()
    extract(root, tmp_path, net=net)
    parts = read_metadata(tmp_path)
    assert parts is not None
    assert parts.pop("transform").pop("image_size") == 32
    assert parts == {
        "format": 1,
        "backbone": {"name": "test_vit", "overrides": {}},
        "weights": weights_fingerprint(net.state_dict()),
        "source": {"frame_size": [112, 112]},
        "precision": "32-true",
    }


def test_how_a_backbone_is_trained_does_not_matter(root: Path, tmp_path: Path) -> None:
    extract(root, tmp_path)
    other = backbone(frozen=0, drop_path=0.1, gradient_checkpointing=True)
    assert extract(root, tmp_path, net=other).n_frames == 0


def test_bad_frames_are_refused_or_skipped(root: Path, tmp_path: Path) -> None:
    make_faces(tmp_path / "data", seed=0)
    (tmp_path / "data" / "cropped_aligned" / "delta" / "00003.jpg").write_bytes(b"")
    with pytest.raises(BadFrameError, match=r"delta/00003.jpg"):
        extract(tmp_path / "data", tmp_path / "cache")
    writer = extract(tmp_path / "data", tmp_path / "cache", skip_bad_frames=True)
    cached = open_features(tmp_path / "cache" / "delta.safetensors")
    assert writer.n_bad_frames == 1
    assert np.flatnonzero(~cached.visible).tolist() == [2]
    assert not cached.features[2].any()


@pytest.mark.parametrize("size", [1, 5, 8, 100])
def test_chunks_hold_every_visible_frame_once(root: Path, size: int) -> None:
    index = build_index(DataSource(root))
    videos = [2, 0]
    chunks = VisibleFrames(index, RawFolder(index), videos=videos, size=size)
    seen = [chunks[k] for k in range(len(chunks))]
    for video in videos:
        mine = [chunk for chunk in seen if chunk.video == video]
        places = np.concatenate([chunk.places for chunk in mine])
        np.testing.assert_array_equal(places, np.flatnonzero(index.visible(video)))
        assert [chunk.images is not None for chunk in mine] == [False] * (len(mine) - 1) + [True]
    assert chunks[-1].video == -1
    assert len(chunks[-1].pixels) == 0


def test_the_metadata_depend_on_every_weight() -> None:
    net = backbone()
    first = backbone_parts(net)
    assert first == backbone_parts(backbone()) != backbone_parts(backbone(seed=1))
    with torch.no_grad():
        next(iter(net.parameters())).view(-1)[0] += 1e-6
    assert backbone_parts(net)["weights"] != first["weights"]


SCRIPT = """
    import os, signal, sys
    import torch
    from lightning.pytorch import Callback, Trainer
    from pathlib import Path
    sys.path.insert(0, {tests!r})
    from tests.training.test_extraction import DataSource, Extractor, FeatureWriter, RawFolder
    from tests.training.test_extraction import backbone, build_index

    class Kill(Callback):
        def on_predict_batch_end(self, *args, **kwargs):
            if args[4] == 3:
                os.kill(os.getpid(), signal.SIGKILL)

    root, folder, devices, kill = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
    index = build_index(DataSource(root))
    extractor = Extractor(backbone(), index=index, frames=RawFolder(index), folder=folder, workers=2)
    trainer = Trainer(
        accelerator="cpu", devices=devices, strategy="ddp" if devices > 1 else "auto", logger=False,
        enable_progress_bar=False, callbacks=[FeatureWriter(), *([Kill()] if kill == "kill" else [])],
        use_distributed_sampler=False,
    )
    trainer.predict(extractor, return_predictions=False)
"""


def run_script(tmp_path: Path, *args: str) -> int:
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(SCRIPT.format(tests=str(PROJECT))))
    return subprocess.run([sys.executable, str(script), *args], timeout=600, check=False).returncode


@pytest.mark.slow
def test_killed_and_started_again_gives_the_same_bytes(root: Path, tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert run_script(tmp_path, str(root), str(whole), "1", "-") == 0
    assert run_script(tmp_path, str(root), str(parts), "1", "kill") == -signal.SIGKILL
    assert 0 < len(list(parts.glob("*.safetensors"))) < len(FRAMES)
    assert run_script(tmp_path, str(root), str(parts), "1", "-") == 0
    assert contents(parts) == contents(whole)


@pytest.mark.slow
def test_two_processes_share_the_videos(root: Path, tmp_path: Path) -> None:
    assert run_script(tmp_path, str(root), str(tmp_path / "one"), "1", "-") == 0
    assert run_script(tmp_path, str(root), str(tmp_path / "two"), "2", "-") == 0
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
