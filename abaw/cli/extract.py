"""The verb `extract`: what `fit` is configured with, but only its backbone is used, to cache its features."""

import warnings
from pathlib import Path
from typing import Any

from lightning.pytorch.callbacks import Callback
from lightning.pytorch.cli import LightningArgumentParser

from abaw.cli.trainer_commands import AbawCLI, n_weights, run
from abaw.data.frames import open_frames
from abaw.errors import AbawError, UsageError
from abaw.loading.workers import default_workers
from abaw.model.checkpoints import load_checkpoint
from abaw.training.extraction import Extractor, FeatureWriter
from abaw.training.preemption import EndOnSignal
from abaw.training.run_directory import Run

_BACKBONE = "network.backbone."  # in a checkpoint


def extract(args: list[str]) -> int:
    """Runs the verb.

    Args:
        args: The options after it.

    Returns:
        The exit code.

    Raises:
        AbawError: What the user can mend.
        KeyboardInterrupt: Ctrl-C.
    """
    return run("extract", args, ExtractCLI)


class ExtractCLI(AbawCLI):
    """Writes the features of the configured backbone to the first of `data.features`.

    The weights are those that the configuration names, or with `--ckpt_path` those of a checkpoint.

    Args:
        verb: extract.
        args: The options after it, those of `abaw predict`.
    """

    def __init__(self, verb: str, args: list[str]) -> None:  # noqa: ARG002
        super().__init__("predict", args)

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parses; a mistake becomes one message.

        Raises:
            UsageError: An option or a value that cannot be.
        """
        try:
            super().parse_arguments(parser, args)
        except UsageError as error:
            raise UsageError(str(error).replace("predict:", "extract:", 1)) from error

    def before_instantiate_classes(self) -> None:
        """Finds folder and checkpoint, and leaves out what only a training needs.

        Raises:
            UsageError: No folder is named.
            AbawError: The checkpoint is not there or damaged.
        """
        settings = self.config.predict
        if not settings.data.features:
            raise UsageError(
                "data.features: name the folder that the features go to, as --data.features '[DIR]'"
            )
        self.fitting, self.quick = False, False
        self.files = Run.named(settings.run, settings.config or [])
        settings.trainer.use_distributed_sampler = False
        settings.trainer.callbacks = None
        self._settle_precision(settings)
        asked, settings.ckpt_path = settings.ckpt_path, None
        self.ckpt_path = None if asked is None else self.files.trained(asked)

    def _weights_that_run(self) -> int:
        backbone = self.model.network.backbone
        return 0 if backbone is None else n_weights(backbone)

    def _obligatory(self, logs: bool, saves: bool) -> list[Callback]:  # noqa: ARG002
        self.writer = FeatureWriter()
        return [self.writer, EndOnSignal()]

    def _run_subcommand(self, subcommand: str) -> None:  # noqa: ARG002
        """Extracts, in place of the trainer verb.

        Raises:
            UsageError: The configuration has no backbone.
            AbawError: The weights are not those of the backbone, or the folder holds other features.
        """
        data, backbone = self.datamodule, self.model.network.backbone
        if backbone is None:
            raise UsageError("model.backbone: there is none whose features could be extracted")
        if self.ckpt_path is None:
            backbone.load_pretrained()
        else:
            _load_backbone(backbone, self.ckpt_path)
        data.prepare_data()
        data.setup("predict")
        extractor = Extractor(
            backbone,
            index=data.index,
            frames=open_frames(data.index, size=data.frame_size),
            folder=Path(data.features[0]),
            workers=default_workers(self.trainer.num_devices) if data.workers is None else data.workers,
            skip_bad_frames=data.on_bad_frame == "skip",
        )
        warnings.filterwarnings("ignore", "Total length of `DataLoader`")  # nothing may be left to do
        self.trainer.predict(extractor, return_predictions=False)
        if self.trainer.is_global_zero:
            n_before = len(extractor.videos) - len(extractor.todo)
            print(
                f"{extractor.folder}: features of {len(extractor.todo)} videos written"
                + (f", {n_before} were there" if n_before else "")
                + (f"; {self.writer.n_bad_frames} frames skipped" if self.writer.n_bad_frames else "")
            )


def _load_backbone(backbone: Any, path: str) -> None:
    weights = load_checkpoint(path)["state_dict"]
    own = {name.removeprefix(_BACKBONE): w for name, w in weights.items() if name.startswith(_BACKBONE)}
    try:
        backbone.load_state_dict(own)
    except RuntimeError as error:
        raise AbawError(
            f"{path}: holds another backbone than the configuration; use that of its own run, with --run DIR"
        ) from error
