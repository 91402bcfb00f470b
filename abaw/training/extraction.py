"""Feature extraction: every visible frame through the backbone once, whole videos per device, resumable."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from numpy.typing import NDArray
from torch import Tensor, nn
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

_CHUNK = 256  # frames at once where the settings leave it open

_CPU_CHUNK = 32  # as fast there as any larger one, and the progress bar moves


class Extractor(LightningModule):
    """Shows a backbone the visible frames of videos; `trainer.predict` with a `FeatureWriter` caches them.

    Videos that the folder already has are left out. The frames of a chunk are of one video, so the file of
    a video is the same however the work is divided and wherever it was interrupted.

    Args:
        backbone: With its final weights.
        index: The data set.
        frames: Where its pixels are.
        folder: The cache.
        videos: Which videos; None: all that have frames.
        workers: Loader processes.
        skip_bad_frames: Count a frame that cannot be read as not visible, instead of raising.

    Attributes:
        key: Name of all that the features depend on; every file carries it.
        todo: The videos that are still missing, known after `setup`.
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

    def setup(self, stage: str) -> None:  # noqa: ARG002
        """Takes possession of the folder and finds what is left to do.

        Raises:
            AbawError: There are no images, or the folder holds features of another kind.
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
        # decided once: another process may see the first new file before it has looked for old ones
        self.todo = self.trainer.strategy.broadcast(todo)

    def predict_dataloader(self) -> DataLoader[Chunk]:
        """The chunks of this device's share of the videos."""
        size = self.backbone.settings.chunk or _CHUNK
        if self.device.type == "cpu":
            size = min(size, _CPU_CHUNK)
        chunks = VisibleFrames(
            self.index,
            self.frames,
            videos=self.todo,
            size=size,
            skip_bad_frames=self.skip_bad_frames,
        )
        sampler = EvalSampler(
            video=chunks.video, batch_size=1, rank=self.global_rank, world_size=self.trainer.world_size
        )
        options = loader_options(workers=self.workers, pin_memory=self.device.type == "cuda")
        return DataLoader(chunks, batch_size=1, sampler=sampler, **options | {"collate_fn": _only})

    def predict_step(self, chunk: Chunk, batch_idx: int) -> Tensor:  # noqa: ARG002
        """Gives the features, float16 (m, D)."""
        return cast(Tensor, self.backbone(chunk.pixels)).half()

    def _claim(self, parts: dict[str, Any]) -> None:
        cached = read_metadata(self.folder)
        if cached is None and any(self.folder.glob(f"*{SUFFIX}")):
            raise AbawError(
                f"{self.folder}: holds features that were made elsewhere; name another folder with"
                " --data.features '[FOLDER]'"
            )
        if cached is not None and (found := differences(cached, parts)):
            raise AbawError(
                f"{self.folder}: holds features made with {'; '.join(found)}; {rebuild(self.folder)}"
            )
        if self.trainer.is_global_zero:
            for abandoned in self.folder.glob(f".*{SUFFIX}.*.tmp"):  # by a run that was killed
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
    """Writes the features of a video as soon as its last chunk is there.

    Every video lives on one device, so every file has one writer; until a video is complete its features
    stay on that device.

    Attributes:
        n_frames: Frames whose features this device has written.
        n_bad_frames: Frames it could not read.
    """

    def __init__(self) -> None:
        self.n_frames = self.n_bad_frames = 0
        self._features: list[Tensor] = []
        self._places: list[NDArray[np.int64]] = []

    def on_predict_batch_end(
        self,
        trainer: Trainer,  # noqa: ARG002
        pl_module: LightningModule,
        outputs: Any,
        batch: Chunk,
        batch_idx: int,  # noqa: ARG002
        dataloader_idx: int = 0,  # noqa: ARG002
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


def _only(chunks: list[Chunk]) -> Chunk:
    """A batch is one chunk."""
    return chunks[0]


def weights_hash(module: nn.Module) -> str:
    """SHA-256 over the names, types, shapes and bytes of all weights, wherever they lie."""
    total = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        total.update(tensor.detach().cpu().flatten().contiguous().view(torch.uint8).numpy().data)
    return total.hexdigest()


def backbone_parts(backbone: Backbone) -> dict[str, Any]:
    """All of a backbone that its features depend on, as plain values; how it is trained is left out."""
    settings = backbone.settings.describe()
    return {
        "format": FORMAT,
        "backbone": {name: settings[name] for name in ("name", "overrides")},
        "weights": weights_hash(backbone),
        "transform": {name: settings[name] for name in ("image_size", "mean", "std", "interpolation")},
    }


class FeatureCheck(Callback):
    """Refuses, once the weights are loaded, features that the run's backbone would not have made.

    Without it a checkpoint could hold a backbone that its own transformer has never met. Runs on images,
    and networks without a backbone, pass.
    """

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Checks before training.

        Raises:
            UsageError: The backbone is to be trained, which features do not allow.
            AbawError: See `FeatureStore.check_metadata`.
        """
        backbone = cast(Any, pl_module).network.backbone
        trained = backbone is not None and any(weight.requires_grad for weight in backbone.parameters())
        if trained and cast(Any, trainer).datamodule.features:
            raise UsageError(
                "model.backbone.frozen: cached features train nothing of the backbone; set it to all, or"
                " leave out data.features to train on images"
            )
        self._check(trainer, pl_module)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Checks before a validation that is no part of a training."""
        if trainer.state.fn == "validate":
            self._check(trainer, pl_module)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """As for validation."""
        self._check(trainer, pl_module)

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """As for validation."""
        self._check(trainer, pl_module)

    def _check(self, trainer: Trainer, pl_module: LightningModule) -> None:
        data, backbone = cast(Any, trainer).datamodule, cast(Any, pl_module).network.backbone
        if data.features and backbone is not None:
            FeatureStore(data.features, data.index).check_metadata(backbone_parts(backbone))
