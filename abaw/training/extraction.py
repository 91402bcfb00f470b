"""Feature extraction: a `LightningModule` for the backbone, and callbacks that write and check caches."""

from collections.abc import Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from abaw.data.features import FeatureStore, has_images, images_fingerprint, rebuild
from abaw.data.formats.features import (
    FORMAT,
    SUFFIX,
    differences,
    features_path,
    fingerprint_of,
    open_features,
    read_metadata,
    write_features,
    write_metadata,
)
from abaw.data.frames import FrameSource
from abaw.data.index import Index
from abaw.errors import AbawError, UsageError
from abaw.loading.dataset import Chunk, VisibleFrames
from abaw.loading.loaders import loader_options
from abaw.loading.sampling import EvalSampler
from abaw.model.backbone import Backbone
from abaw.model.checkpoints import weights_fingerprint

_CHUNK = 256  # frames per forward pass if the settings have no limit
_CPU_CHUNK = 32  # larger ones are not faster on a CPU, and the progress bar would stand still


class Extractor(LightningModule):
    """Backbone on the visible frames of videos, for `trainer.predict` with a `FeatureWriter`.

    Cached videos are skipped. All frames of a chunk are from one video, so that the files do not depend on
    the number of devices or on interruptions.

    Args:
        backbone: Backbone with its final weights.
        index: Index of the data set.
        frames: Source of the frames.
        folder: Folder of the cache.
        videos: Videos to extract; None: all.
        workers: Number of loader processes.
        skip_bad_frames: Treat unreadable frames as not visible, instead of raising an error.

    Attributes:
        key: Fingerprint of everything that the features depend on, stored in each file.
        todo: Videos that are not cached yet; set by `setup`.
    """

    def __init__(
        self,
        backbone: Backbone,
        *,
        index: Index,
        frames: FrameSource,
        folder: Path,
        videos: Sequence[int] | None = None,
        workers: int = 0,
        skip_bad_frames: bool = False,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.index = index
        self.frames = frames
        self.folder = folder
        self.videos = range(len(index)) if videos is None else videos
        self.workers = workers
        self.skip_bad_frames = skip_bad_frames
        self.key = ""
        self.todo: list[int] = []

    def setup(self, stage: str) -> None:
        """Checks the folder, writes its metadata and finds the videos that are not cached.

        Raises:
            AbawError: There are no images, or the folder holds other features.
        """
        if not any(has_images(self.index, video) for video in self.videos):
            raise AbawError(
                "there are no images to extract features from; correct data.root or data.source.image_roots"
            )
        frame_size = list(self.frames.read(0, []).pixels.shape[1:3])
        parts = backbone_parts(self.backbone) | {
            "source": {"frame_size": frame_size},
            "precision": self.trainer.precision,
        }
        self.key = fingerprint_of(parts)
        self._claim(parts)
        todo = [video for video in self.videos if self.index.n_frames[video] and not self._is_done(video)]
        # from one process: others may already see files that it writes
        self.todo = self.trainer.strategy.broadcast(todo)

    def predict_dataloader(self) -> DataLoader[Chunk]:
        """A loader of the chunks of this device's videos."""
        size = self.backbone.settings.chunk or _CHUNK
        if self.device.type == "cpu":
            size = min(size, _CPU_CHUNK)
        chunks = VisibleFrames(
            self.index, self.frames, videos=self.todo, size=size, skip_bad_frames=self.skip_bad_frames
        )
        sampler = EvalSampler(
            video=chunks.video, batch_size=1, rank=self.global_rank, world_size=self.trainer.world_size
        )
        options = loader_options(workers=self.workers, pin_memory=self.device.type == "cuda")
        return DataLoader(chunks, batch_size=1, sampler=sampler, **options | {"collate_fn": itemgetter(0)})

    def predict_step(self, chunk: Chunk, batch_idx: int) -> Tensor:
        """The features of a chunk, float16 (m, D)."""
        return cast(Tensor, self.backbone(chunk.pixels)).half()

    def _claim(self, parts: dict[str, Any]) -> None:
        cached = read_metadata(self.folder)
        if cached is None and any(self.folder.glob(f"*{SUFFIX}")):
            raise AbawError(
                f"{self.folder}: holds features of another program; name another folder with"
                " --data.features '[FOLDER]'"
            )
        if cached is not None and (found := differences(cached, parts)):
            raise AbawError(
                f"{self.folder}: holds features made with {'; '.join(found)}; {rebuild(self.folder)}"
            )
        if self.trainer.is_global_zero:
            for abandoned in self.folder.glob(f".*{SUFFIX}.*.tmp"):  # of a killed run
                abandoned.unlink()
            write_metadata(self.folder, parts)

    def _is_done(self, video: int) -> bool:
        path = features_path(self.folder, self.index.videos[video])
        if not path.is_file():
            return False
        cached = open_features(path)
        images = images_fingerprint(self.index, self.frames, video)
        made_like_this = cached.metadata.get("key") == self.key and cached.metadata.get("images") == images
        return made_like_this and len(cached.visible) == self.index.n_frames[video]


class FeatureWriter(Callback):
    """Writes the features of a video after its last chunk.

    Each video is processed by one device, on which its features stay until the video is complete.

    Attributes:
        n_frames: Number of frames written by this device.
        n_bad_frames: Number of frames that it could not read.
    """

    def __init__(self) -> None:
        self.n_frames = self.n_bad_frames = 0
        self._features: list[Tensor] = []
        self._places: list[NDArray[np.int64]] = []

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Chunk,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Adds the features of a chunk."""
        if batch.video < 0:
            return
        self._features.append(outputs)
        self._places.append(batch.places)
        self.n_bad_frames += batch.n_bad_frames
        if batch.images is not None:
            self._write(cast(Extractor, pl_module), batch.video, batch.images)

    def _write(self, extractor: Extractor, video: int, images: str) -> None:
        seen, places = torch.cat(self._features).cpu().numpy(), np.concatenate(self._places)
        name, n_frames = extractor.index.videos[video], int(extractor.index.n_frames[video])
        features = np.zeros((n_frames, seen.shape[1]), np.float16)
        features[places] = seen
        visible = np.zeros(n_frames, bool)
        visible[places] = True
        path = features_path(extractor.folder, name)
        metadata = {"key": extractor.key, "video": name, "n_frames": n_frames, "images": images}
        write_features(path, features=features, visible=visible, metadata=metadata)
        self.n_frames += len(places)
        self._features, self._places = [], []


def backbone_parts(backbone: Backbone) -> dict[str, Any]:
    """Everything of a backbone that its features depend on, as plain values."""
    settings = backbone.settings.describe()
    return {
        "format": FORMAT,
        "backbone": {name: settings[name] for name in ("name", "overrides")},
        "weights": weights_fingerprint(backbone.state_dict()),
        "transform": {name: settings[name] for name in ("image_size", "mean", "std", "interpolation")},
    }


class FeatureCheck(Callback):
    """Checks, after weights are loaded, that cached features are those of the run's backbone.

    Otherwise a checkpoint could hold a backbone on whose features its transformer was not trained.
    """

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Checks before training.

        Raises:
            UsageError: The backbone is not frozen.
            AbawError: See `FeatureStore.check_metadata`.
        """
        backbone = cast(Any, pl_module).network.backbone
        trained = backbone is not None and any(weight.requires_grad for weight in backbone.parameters())
        if trained and cast(Any, trainer).datamodule.features:
            raise UsageError(
                "model.backbone.frozen: the backbone cannot be trained on cached features; set it to all, or"
                " leave out data.features to train on images"
            )
        self._check(trainer, pl_module)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Checks before an evaluation outside of training."""
        if trainer.state.fn != "fit":
            self._check(trainer, pl_module)

    on_test_start = on_predict_start = on_validation_start

    def _check(self, trainer: Trainer, pl_module: LightningModule) -> None:
        data, backbone = cast(Any, trainer).datamodule, cast(Any, pl_module).network.backbone
        if data.features and backbone is not None:
            FeatureStore(data.features, data.index).check_metadata(backbone_parts(backbone))
