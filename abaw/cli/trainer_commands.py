"""The trainer subcommands: LightningCLI with run directory, required callbacks and short errors.

Private names of other packages in `abaw`, for which there are no public ones; tested with Lightning 2.6.6,
jsonargparse 4.53.0, torch 2.15.0 and litdata 0.2.76:

    Lightning     _parser, _subcommand_parsers (here),
                  _average_model, _latest_update_step (training/callbacks),
                  _broadcast_sigterm_tensor (training/preemption),
                  _experiment, _check_log_dir_exists, _wandb_init (training/loggers)
    jsonargparse  _actions (here, cli/messages, __main__), _typehint (cli/messages)
    torch         _foreach_copy_, _foreach_lerp_ (training/callbacks), _dynamo (model/backbone),
                  _step_supports_amp_scaling (training/module), _is_amx_tile_supported,
                  _is_avx512_bf16_supported, _is_mkldnn_bf16_supported (cli/precision)
    litdata       _merge_no_wait (data/formats/litdata_shards)
"""

import signal
import sys
from argparse import ArgumentError
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
import yaml
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ProgressBar as LightningProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities import rank_zero_warn

from abaw.cli.config_files import (
    YAML,
    make_absolute,
    refuse_old_options,
    run_folder,
    with_location,
    with_own_config,
    with_shipped,
)
from abaw.cli.messages import (
    Seed,
    adjust_trainer_options,
    as_list,
    check_training,
    friendly_error,
    refuse_nulls,
    silence,
    user_message,
)
from abaw.cli.precision import AUTO, BF16, set_matmul_precision, settle_precision
from abaw.cli.threads import set_threads
from abaw.data.layout import named_root
from abaw.errors import AbawError, UsageError
from abaw.loading.datamodule import AffectDataModule
from abaw.model.checkpoints import load_checkpoint
from abaw.training.callbacks import EvaluationWriter, ScoreWriter, SkippedFrames, TrackWriter
from abaw.training.checkpointing import AtomicCheckpointIO, BestCheckpoint, LastCheckpoint
from abaw.training.extraction import FeatureCheck
from abaw.training.loggers import CSVLogger, logger_settings, without_unset
from abaw.training.module import AffectModule
from abaw.training.nonfinite import NonFiniteGuard
from abaw.training.preemption import EndOnSignal, Preempted, announce, how_to_continue
from abaw.training.progress import EpochLogger, ProgressBar, TrainingSummary
from abaw.training.run_directory import (
    SaveConfig,
    Settings,
    changed_settings,
    fixed_settings,
    refuse_changes,
    refuse_shortening,
    trained_settings,
)
from abaw.training.run_files import Run
from abaw.training.tracking import tracking_callbacks

SEED = 0


class AbawCLI(LightningCLI):
    """LightningCLI with the files, callbacks and error messages of `abaw`.

    Args:
        subcommand: One of `not_options`; the method of that name runs it.
        args: Arguments after the subcommand.
    """

    not_options: ClassVar[Mapping[str, set[str]]] = LightningCLI.subcommands()  # arguments of each's method
    module_type: type[AffectModule] = AffectModule
    trainer_type: type[Trainer] = Trainer

    def __init__(self, subcommand: str, args: list[str]) -> None:
        self._asked = subcommand
        header = [f"abaw {version('abaw')}"]
        short: dict[str, Any] = {"exit_on_error": False, "allow_abbrev": False}
        short |= {"dump_header": header, "parser_mode": YAML}
        super().__init__(
            self.module_type,
            AffectDataModule,
            trainer_class=self.trainer_type,
            args=[subcommand, *with_own_config(with_shipped(args))],
            save_config_callback=None,  # replaced by SaveConfig: Lightning's does not resume
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,  # a checkpoint describes its network
            parser_kwargs={"prog": "abaw", **short} | {name: dict(short) for name in self.subcommands()},
        )

    # -- options

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]
        """The asked one of Lightning's subcommands, as the options of each take a quarter of a second."""
        return {self._asked: self.not_options[self._asked]}

    def add_default_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Adds the seed, whose default is a fixed number."""
        parser.add_argument("--seed_everything", type=Seed, default=SEED, help="Random seed.")

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Adds options of `abaw`, and links shared options of model and data."""
        for name, text in (
            ("--run", "Directory of the run (default: runs/<first config>)."),
            ("--init_from", "fit: checkpoint from whose matching weights a new training starts."),
        ):
            parser.add_argument(name, type=str | None, default=None, help=text)
        text = "Precision of float32 matrix products on an NVIDIA GPU; high uses TF32."
        choices = Literal["highest", "high", "medium"]
        parser.add_argument("--float32_matmul_precision", type=choices, default="high", help=text)
        parser.add_class_arguments(LastCheckpoint, "checkpoint", skip={"folder"}, instantiate=False)
        parser.add_class_arguments(NonFiniteGuard, "nonfinite", skip={"folder"}, instantiate=False)
        adjust_trainer_options(parser)
        parser.link_arguments("data.tasks", "model.tasks")
        parser.link_arguments("seed_everything", "data.seed")

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parses the options.

        Raises:
            UsageError: An option is unknown, or a value invalid.
        """
        self._words = list(args)
        # an option only: in a configuration it is the record of a run
        self._starts_from_weights = any(word.partition("=")[0] == "--init_from" for word in args)
        if self._starts_from_weights and args[0] not in ("fit", "bench"):
            raise UsageError(f"{args[0]}: --init_from is for fit; name a checkpoint with --ckpt_path")
        options = self._subcommand_parsers[args[0]]
        refuse_old_options(args)
        try:
            self.config = parser.parse_args(args)
            refuse_nulls(options, self.config[args[0]])
        except (ArgumentError, UsageError, RecursionError) as error:
            message = friendly_error(str(error), [action.dest for action in options._actions])
            raise UsageError(f"{args[0]}: {with_location(message, args, in_file=True)}") from error
        # Lightning would read the checkpoint, whose settings would override the command line
        settings = self.config[args[0]]
        self._asked_checkpoint, settings.ckpt_path = settings.ckpt_path, None

    # -- checks

    def before_instantiate_classes(self) -> None:
        """Finds the run's directory and the checkpoint, and checks the settings.

        Raises:
            AbawError: See `Run.start` and `Run.trained`.
            UsageError: No directory is named, or settings are invalid.
        """
        settings = self.config[self.subcommand]
        self.fitting = self.subcommand == "fit"
        if self.fitting:
            check_training(settings.trainer)
        self.files = Run.named(settings.run, settings.config or [])
        settings.run = str(self.files.folder)
        make_absolute(settings.data)
        settings.trainer.use_distributed_sampler = False  # our samplers are distributed
        self.quick = bool(settings.trainer.fast_dev_run)  # writes no files
        self.ckpt_path = self._start(settings) if self.fitting else self.files.trained(self._asked_checkpoint)
        self._settle_precision(settings)  # unless `_resume` has
        self.config_text = self._dump(settings)
        for logger in as_list(settings.trainer.logger) if self.fitting else ():
            if path := str(getattr(logger, "class_path", "")):
                for name, value in logger_settings(self.files, path, logger.init_args.as_dict()).items():
                    logger.init_args[name] = value

    def _start(self, settings: Any) -> str | None:
        """The checkpoint that `fit` resumes, with compatible settings; None for a new training."""
        asked = self._asked_checkpoint
        if self._starts_from_weights and asked not in (None, "last"):
            raise UsageError(
                f"--init_from {settings.init_from} starts a new training, but --ckpt_path {asked} resumes"
                " one; give one of them (the script of a job can give both with --ckpt_path last)"
            )
        path = None if self.quick else self.files.start(asked)
        if path is not None:
            self._resume(Path(path), settings)
        elif settings.init_from is not None:
            load_checkpoint(settings.init_from)  # fail before the data is read
        return path

    def _resume(self, path: Path, settings: Any) -> None:
        """Compares the settings with those that a checkpoint was trained with."""
        checkpoint = load_checkpoint(path)
        limits = settings.trainer
        refuse_shortening(path, checkpoint, max_epochs=limits.max_epochs, max_steps=limits.max_steps)
        trained = trained_settings(path, checkpoint)
        if trained is None:
            rank_zero_warn(f"{path}: holds no settings to compare with those given")
            return
        if settings.init_from is None:
            settings.init_from = trained.get("init_from")
        self._settle_precision(settings, trained.get("trainer", {}))
        now, default = (fixed_settings(plain) for plain in (self._plain(settings), self._plain()))
        refuse_changes(path, trained, now, default)

    def _dump(self, settings: Any) -> str:
        """The configuration as YAML."""
        return str(self._parser(self.subcommand).dump(settings, skip_unset=False, skip_validation=True))

    def _plain(self, settings: Any = None) -> Settings:
        """The configuration as plain values; None: the default configuration."""
        given = self._parser(self.subcommand).get_defaults() if settings is None else settings
        return dict(yaml.safe_load(self._dump(given)))

    def _settle_precision(self, settings: Any, resumed: Any = None) -> None:
        """Resolves the precision `auto`: that of a resumed run, or else the best one on this machine.

        An evaluation with the run's own config.yaml resolves a recorded bf16-mixed again, which may be slow
        on this machine.

        Args:
            settings: All settings; changed in place.
            resumed: Settings of the trainer of a resumed run.
        """
        trainer, own = settings.trainer, str(self.files.config)
        given = any(word.startswith("--trainer.precision") for word in self._words)
        inherited = not given and [str(path) for path in settings.config or []] == [own]
        if inherited and (resumed is not None or (trainer.precision == BF16 and not self.fitting)):
            trainer.precision = AUTO
        settle_precision(trainer, recorded=None if resumed is None else resumed.get("precision"))
        set_matmul_precision(settings.float32_matmul_precision)

    def instantiate_classes(self) -> None:
        """Builds data, model and trainer.

        Raises:
            AbawError: One of them rejects its settings.
        """
        try:
            super().instantiate_classes()
            named_root(self.config[self.subcommand].data.root, "--data.root DIR")
        except (ArithmeticError, AttributeError, TypeError, ValueError) as error:
            # jsonargparse wraps errors of optional settings
            refusal = error.__cause__ if isinstance(error.__cause__, AbawError) else error
            if isinstance(refusal, AbawError) and not isinstance(refusal, UsageError):
                raise AbawError(with_location(str(refusal), self._words)) from None
            ours = isinstance(refusal, AbawError)
            message = str(refusal) if ours else f"settings do not fit: {friendly_error(str(refusal), [])}"
            raise UsageError(with_location(message, self._words, in_file=not ours)) from error
        if self.fitting:
            self.model.init_from = self.config_init[self.subcommand].init_from
            self.model.resumed = self.ckpt_path is not None
        if self.trainer.strategy.root_device.type == "cpu":
            set_threads(self._n_active_weights(), n_processes=self.trainer.num_devices)

    def _n_active_weights(self) -> int:
        """Number of weights of the network, without the backbone if its features are cached."""
        network = self.model.network
        parts = [network.temporal, network.heads] if self.datamodule.features else [network]
        return sum(weight.numel() for part in parts for weight in part.parameters())

    # -- the trainer

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """The trainer, with the callbacks and loggers of the run.

        Raises:
            UsageError: The trainer rejects its settings.
        """
        given = self.config_init[self.subcommand].trainer
        callbacks = self._callbacks(given.callbacks)
        plugins = as_list(given.plugins)
        if SLURMEnvironment.detect() and not any(isinstance(p, ClusterEnvironment) for p in plugins):
            plugins.append(SLURMEnvironment(auto_requeue=False))  # the job script requeues
        loggers = self._loggers(given.logger)
        bar = any(isinstance(callback, LightningProgressBar) for callback in callbacks)
        if given.enable_progress_bar is not False and not bar:
            given.enable_progress_bar = sys.stderr.isatty()
            callbacks.append(ProgressBar() if given.enable_progress_bar else EpochLogger())
        try:
            return super().instantiate_trainer(
                default_root_dir=str(self.files.folder),
                logger=loggers or False,
                plugins=[AtomicCheckpointIO(), *plugins],
                callbacks=callbacks
                + self._required_callbacks(bool(loggers), given.enable_checkpointing is not False),
                **kwargs,
            )
        except (MisconfigurationException, ValueError) as error:
            raise UsageError(f"trainer: {error}") from error

    def _callbacks(self, given: Any) -> list[Callback]:
        return as_list(given)

    def _loggers(self, given: Any) -> list[Any]:
        if not self.fitting or self.quick or given is False:
            return []
        asked = [without_unset(logger) for logger in as_list(given) if logger is not True]
        return [CSVLogger(str(self.files.folder)), *asked]

    def _required_callbacks(self, logs: bool, saves: bool) -> list[Callback]:
        """Callbacks of the subcommand, in addition to those of the configuration."""
        always = [FeatureCheck(), SkippedFrames(str(self.files.folder))]
        if self.subcommand == "predict":
            return [*always, TrackWriter(str(self.files.tracks), str(self.files.folder)), EndOnSignal()]
        self.score_writer: ScoreWriter | EvaluationWriter
        if not self.fitting:
            assert self.ckpt_path is not None
            changed = changed_settings(self.files.config, yaml.safe_load(self.config_text), self._plain())
            path = str(self.files.evaluation(str(self.subcommand)))
            self.score_writer = EvaluationWriter(path, self.ckpt_path, changed)
            return [*always, self.score_writer, EndOnSignal()]
        always.append(TrainingSummary())
        if self.quick:
            return always
        settings = self.config.fit
        self.score_writer = ScoreWriter(str(self.files.scores), self.files.best if saves else None)
        callbacks = [*always, SaveConfig(self.files, self.config_text), self.score_writer]
        callbacks.append(NonFiniteGuard(str(self.files.folder), **settings.nonfinite.as_dict()))
        if logs:
            callbacks += tracking_callbacks(self.files, self.score_writer)
        if saves:
            folder = str(self.files.checkpoints)
            callbacks += [BestCheckpoint(folder), LastCheckpoint(folder, **settings.checkpoint.as_dict())]
        return callbacks

    # -- the subcommands

    @property
    def _checkpoint(self) -> dict[str, Any]:
        """Arguments of the trainer's methods: the checkpoint, loaded without executing code."""
        return {"ckpt_path": self.ckpt_path, "weights_only": True}

    def fit(self, **kwargs: Any) -> None:
        """Trains, and prints the official scores."""
        self.trainer.fit(**kwargs | self._checkpoint)
        if not self.quick:
            self.score_writer.show()

    def validate(self, **kwargs: Any) -> None:
        """Scores the videos of the stage, and prints the official scores instead of Lightning's table."""
        evaluate = self.trainer.test if self.subcommand == "test" else self.trainer.validate
        evaluate(**kwargs | self._checkpoint | {"verbose": False})
        self.score_writer.show()

    test = validate

    def predict(self, **kwargs: Any) -> None:
        """Writes the tracks, and prints their folder."""
        self.trainer.predict(**kwargs | self._checkpoint | {"return_predictions": False})
        if self.trainer.is_global_zero:
            print(f"tracks: {self.files.tracks}")


def run(subcommand: str, args: list[str], kind: type[AbawCLI] = AbawCLI) -> int:
    """Runs a configured subcommand.

    Args:
        subcommand: Name of the subcommand.
        args: Arguments after it.
        kind: Class with the subcommand as a method.

    Returns:
        The exit code.

    Raises:
        AbawError: An error that the user can correct.
        KeyboardInterrupt: Ctrl-C.
    """
    silence()
    n_threads_before, matmul_before = torch.get_num_threads(), torch.get_float32_matmul_precision()
    try:
        kind(subcommand, args)
    except Preempted as stop:
        announce(stop, subcommand, run_folder(args))
        return stop.code
    except (MisconfigurationException, RuntimeError) as error:
        message = user_message(error, subcommand)
        if message is None:
            raise
        raise message from error
    except SystemExit as stop:
        if isinstance(stop.__context__, KeyboardInterrupt):  # Lightning exits with 1 after Ctrl-C
            signal.signal(signal.SIGINT, signal.default_int_handler)  # which Lightning leaves ignored
            raise KeyboardInterrupt(how_to_continue(subcommand, run_folder(args))) from None
        raise
    finally:
        torch.set_num_threads(n_threads_before)
        torch.set_float32_matmul_precision(matmul_before)
    return 0
