"""In evaluation every frame is encoded once, and the predictions are those of whole windows."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from torch import Tensor

from abaw.batch import Batch
from abaw.data.frames import BadFrameError, Frames, RawFolder
from abaw.evaluation.stitching import Stitched, Stitcher
from abaw.inference.predictor import Predictor
from abaw.loading.datamodule import AffectDataModule, EvaluationSettings, LoadingSettings, WindowSettings
from abaw.model.network import Network
from abaw.tasks import TASKS
from abaw.training.module import AffectModule
from abaw.windows import Window, cut, window_at
from benchmarks.network import QUIET
from tests.support.networks import EYES, SEQUENCE
from tests.support.tiny_set import SIZE, labels_of, write_images, write_labels

LENGTHS = {"a": 41, "b": 5, "c": 23}  # of the videos of validation, one shorter than a window
WINDOW = 8


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Videos with frames without a face, and two images that cannot be read."""
    root = tmp_path_factory.mktemp("set")
    for video, n_frames in (*LENGTHS.items(), ("t", 30)):
        write_images(root, video, n_frames, missing=range(2, 4))
        write_labels(root, video, "train" if video == "t" else "val", TASKS, labels_of(n_frames + 1))
    for number in (9, 10):
        (root / f"cropped_aligned/a/{number:05d}.jpg").write_bytes(b"")
    return root


class Counted(AffectModule):
    """Notes how many images pass through the backbone, and the stitched predictions."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        super().__init__(tasks=["va", "expr", "au"], backbone=EYES, temporal=SEQUENCE)
        self.n_images = 0
        self.stitched: dict[int, Stitched] = {}
        assert self.network.backbone is not None
        self.network.backbone.register_forward_pre_hook(self._count)

    def _count(self, module: Any, inputs: tuple[Tensor]) -> None:
        self.n_images += len(inputs[0])

    def _score(self, videos: Any) -> None:
        found = list(videos)
        self.stitched |= {video.video: video for video in found}
        super()._score(found)


class InMemory:
    """A frame source of one video in memory."""

    def __init__(self, pixels: Any, visible: Any) -> None:
        self.pixels, self.seen = pixels, visible

    def read(self, video: int, indices: Any) -> Frames:
        return Frames(self.pixels[list(indices)], self.seen[list(indices)])


def whole_windows(network: Network, source: Any, windows: list[Window], n_frames: int) -> Stitched:
    """The stitched predictions of windows of a video, all of whose images are encoded with each."""
    stitcher = Stitcher(lambda _: n_frames)
    for window in windows:
        try:
            frames = source.read(window.video, window.frames)
        except BadFrameError as error:
            frames: Any = error.frames
        visible = torch.zeros(1, WINDOW, dtype=torch.bool)
        visible[0, : len(window)] = torch.from_numpy(frames.visible)
        batch = Batch(
            frames=torch.from_numpy(frames.pixels[frames.visible]),
            present=torch.arange(WINDOW)[None] < len(window),
            visible=visible,
            where=(window,),
            n_bad_frames=torch.zeros(1),
        )
        with torch.inference_mode():
            stitcher.add((window,), network.predictions(network.eval()(batch)), visible)
    (video,) = stitcher.flush()
    return video


@pytest.mark.parametrize(("step", "batch_size", "workers"), [(1, 3, 0), (1, 1, 2), (3, 64, 0)])
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork.*")
def test_evaluation(root: Path, tmp_path: Path, step: int, batch_size: int, workers: int) -> None:
    module = Counted()
    data = AffectDataModule(
        root=str(root),
        window=WINDOW,
        workers=workers,
        windows=WindowSettings(step=step),
        loading=LoadingSettings(frame_size=SIZE, on_bad_frame="skip"),
        evaluation=EvaluationSettings(batch_size=batch_size, test_split="val"),
    )
    trainer = Trainer(default_root_dir=tmp_path, **QUIET)
    trainer.validate(module, data, verbose=False)
    videos = data.eval_videos("validate")
    n_visible = sum(int(data.index.visible(video).sum()) for video in videos) - 2  # that cannot be read
    assert module.n_images == n_visible
    windows = data._eval_windows("validate", TASKS)
    of_video = {video: [window for window in windows if window.video == video] for video in videos}
    assert sum(map(len, of_video.values())) > len(videos)
    for video, some in of_video.items():
        found = module.stitched[video]
        expected = whole_windows(module.network, RawFolder(data.index, SIZE), some, data.n_frames(video))
        assert torch.equal(found.seen, expected.seen)
        for task, values in expected.predictions.items():
            torch.testing.assert_close(found.predictions[task], values, atol=1e-6, rtol=0)
    for stage in (trainer.test, trainer.predict):
        module.n_images = 0
        stage(module, datamodule=data)
        assert module.n_images == n_visible


@pytest.mark.parametrize("step", [1, 2])
@pytest.mark.parametrize("n_frames", [3, 37])
def test_a_predictor(step: int, n_frames: int) -> None:
    module = Counted()
    frames = np.random.default_rng(0).integers(0, 256, (n_frames, SIZE, SIZE, 3), dtype=np.uint8)
    visible = np.arange(n_frames) % 5 > 0
    predictor = Predictor(module.network.eval(), window=WINDOW, stride=4, step=step, batch_size=2)
    table = predictor.predict_frames(frames, visible)
    assert module.n_images == visible.sum()
    assert table["seen"].tolist() == visible.tolist()
    windows = [window_at(0, start, n_frames, WINDOW, step) for start in cut(n_frames, WINDOW, 4, step)]
    expected = whole_windows(module.network, InMemory(frames, visible), windows, n_frames)
    for task, values in expected.predictions.items():
        assert np.allclose(table[list(task.columns)].to_numpy(), values, atol=1e-6)
