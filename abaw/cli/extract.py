"""`abaw extract`: caches the features of the configured backbone."""

import warnings
from pathlib import Path
from typing import Any, ClassVar

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback

from abaw.cli.trainer_commands import AbawCLI
from abaw.data.frames import open_frames
from abaw.errors import AbawError, UsageError
from abaw.loading.datamodule import AffectDataModule
from abaw.loading.workers import default_workers
from abaw.model.checkpoints import load_checkpoint, network_weights
from abaw.training.extraction import Extractor, FeatureWriter
from abaw.training.module import AffectModule
from abaw.training.preemption import EndOnSignal
from abaw.training.run_files import Run

_BACKBONE = "backbone."  # prefix of its weights in the network


class ExtractTrainer(Trainer):
    """A trainer with the method `extract`, whose parameters become options."""

    def extract(
        self,
        model: AffectModule,
        datamodule: AffectDataModule,
        ckpt_path: str | None = None,
        weights_only: bool | None = None,
    ) -> Extractor:
        """Caches the features of a backbone in the first folder of `datamodule.features`.

        Args:
            model: Module with the backbone.
            datamodule: Data module with the frames.
            ckpt_path: Checkpoint with the weights of the backbone, instead of those that its settings name.
            weights_only: Without effect: checkpoints never execute code.

        Returns:
            The extractor, with the extracted videos in `todo`.

        Raises:
            UsageError: The configuration has no backbone.
            AbawError: The weights do not fit the backbone, or the folder holds other features.
        """
        backbone = model.network.backbone
        if backbone is None:
            raise UsageError("model.backbone is null; extract needs the backbone whose features it caches")
        if ckpt_path is None:
            backbone.load_pretrained()
        else:
            _load_backbone(backbone, ckpt_path)
        datamodule.prepare_data()
        datamodule.setup("predict")
        assert datamodule.features is not None
        workers = datamodule.workers
        extractor = Extractor(
            backbone,
            index=datamodule.index,
            frames=open_frames(datamodule.index, size=datamodule.loading.frame_size),
            folder=Path(datamodule.features[0]),
            workers=default_workers(self.num_devices) if workers is None else workers,
            skip_bad_frames=datamodule.loading.on_bad_frame == "skip",
        )
        warnings.filterwarnings("ignore", "Total length of `DataLoader`")  # which may be 0
        self.predict(extractor, return_predictions=False)
        return extractor


class ExtractCLI(AbawCLI):
    """Builds the model and data of `fit`, and runs `extract`."""

    not_options: ClassVar = {"extract": {"model", "datamodule"}}
    trainer_type = ExtractTrainer
    trainer: ExtractTrainer

    def before_instantiate_classes(self) -> None:
        """Finds run directory and checkpoint, and removes callbacks of the training.

        Raises:
            UsageError: `data.features` is not given.
            AbawError: The checkpoint is missing or damaged.
        """
        settings = self.config.extract
        if not settings.data.features:
            raise UsageError(
                "data.features is not given; name the folder of the cache with --data.features '[DIR]'"
            )
        self.fitting, self.quick = False, False
        self.files = Run.named(settings.run, settings.config or [])
        settings.trainer.use_distributed_sampler = False
        settings.trainer.callbacks = None
        self._settle_precision(settings)
        asked = self._asked_checkpoint
        self.ckpt_path = None if asked is None else self.files.trained(asked)

    def _n_active_weights(self) -> int:
        backbone = self.model.network.backbone
        return 0 if backbone is None else sum(weight.numel() for weight in backbone.parameters())

    def _required_callbacks(self, logs: bool, saves: bool) -> list[Callback]:
        self.writer = FeatureWriter()
        return [self.writer, EndOnSignal()]

    def extract(self, **kwargs: Any) -> None:
        """Caches the features, and prints the number of videos."""
        extractor = self.trainer.extract(**kwargs | {"ckpt_path": self.ckpt_path})
        if self.trainer.is_global_zero:
            n_before = len(extractor.videos) - len(extractor.todo)
            print(
                f"{extractor.folder}: features of {len(extractor.todo)} videos written"
                + (f", {n_before} were cached already" if n_before else "")
                + (f"; {self.writer.n_bad_frames} frames skipped" if self.writer.n_bad_frames else "")
            )
            option = f"--data.features '[{extractor.folder}]'"
            print(f"train on them with: abaw fit --config features.yaml {option}")


def _load_backbone(backbone: Any, path: str) -> None:
    weights = network_weights(load_checkpoint(path))
    own = {name.removeprefix(_BACKBONE): w for name, w in weights.items() if name.startswith(_BACKBONE)}
    try:
        backbone.load_state_dict(own)
    except RuntimeError as error:
        raise AbawError(
            f"{path}: holds another backbone than the configuration; use that of its own run, with --run DIR"
        ) from error
