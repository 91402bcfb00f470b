"""The verb `bench`: what `fit` is configured with, timed part by part and end to end."""

import functools
import json
import multiprocessing
import re
import resource
import subprocess
import sys
import tempfile
import time
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, Checkpoint, EarlyStopping, LearningRateMonitor
from lightning.pytorch.cli import LightningArgumentParser

from abaw.apply.bench import Rates, flop_per_frame, loader_parts, matmul_part, network_parts, time_parts, wait
from abaw.apply.bench_report import END_TO_END, Report, Setting, scaling_table
from abaw.batch import Batch
from abaw.cli import AbawCLI, run
from abaw.data.processes import available_cores
from abaw.data.samplers import Slot
from abaw.errors import UsageError
from abaw.runs import Run
from abaw.trackers import MetricsFile

_FOREVER = 1_000_000  # epochs: the clock ends the training, and the schedule wants to know an end


def bench(args: list[str]) -> int:
    """Runs the verb.

    Args:
        args: The options after it.

    Returns:
        The exit code.

    Raises:
        AbawError: What the user can mend.
        KeyboardInterrupt: Ctrl-C.
    """
    parser = ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--devices")
    given, rest = parser.parse_known_args(args)
    return run("bench", args, BenchCLI) if given.devices is None else _scaling(given.devices, rest)


def _scaling(devices: str, args: list[str]) -> int:
    """Runs the verb once for each number of devices, in a process of its own, and compares."""
    try:
        numbers = [int(number) for number in devices.strip("[]").split(",")]
    except ValueError as error:
        raise UsageError(f"bench: --devices takes numbers such as 1,2,4, got {devices!r}") from error
    reports = {}
    for number in numbers:
        options = [f"--trainer.devices={number}", *(["--trainer.strategy=ddp"] if number > 1 else [])]
        words = [sys.executable, "-m", "abaw", "bench", *args, *options, "--json"]
        done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode:
            return done.returncode
        reports[number] = json.loads(done.stdout)
    print(json.dumps(reports, indent=2) if "--json" in args else scaling_table(reports))
    return 0


class BenchCLI(AbawCLI):
    """Times loader, network and the training of the configuration; leaves nothing behind.

    Args:
        verb: bench.
        args: The options after it, those of `abaw fit`, and `--seconds`, `--rounds`, `--json`.
            `--devices` is taken out before.
    """

    def __init__(self, verb: str, args: list[str]) -> None:  # noqa: ARG002
        super().__init__("fit", args)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Ours, beside those of `fit`."""
        super().add_arguments_to_parser(parser)
        parser.add_argument("--seconds", type=float, default=1.0, help="How long each part takes in a round.")
        parser.add_argument("--rounds", type=int, default=5, help="How often every part is timed.")
        parser.add_argument("--json", action="store_true", help="Print the figures as JSON.")

    def before_instantiate_classes(self) -> None:
        """Leaves out what writes files, validates or needs the network.

        Raises:
            UsageError: There is no time to measure in.
        """
        settings = self.config.fit
        if settings.seconds <= 0 or settings.rounds < 1:
            raise UsageError(
                f"bench: --seconds must be positive and --rounds at least 1, got {settings.seconds} and"
                f" {settings.rounds}"
            )
        self.fitting, self.quick = False, True
        self.files = Run.named(settings.run, settings.config or [])
        self._settle_precision(settings)
        trainer = settings.trainer
        trainer.use_distributed_sampler = False
        trainer.enable_checkpointing = trainer.enable_progress_bar = trainer.enable_model_summary = False
        trainer.limit_val_batches, trainer.num_sanity_val_steps = 0, 0
        trainer.max_epochs, trainer.max_steps, trainer.max_time = _FOREVER, -1, None
        if settings.model.backbone is not None:
            settings.model.backbone.weights = "none"  # any weights are equally fast

    def _callbacks(self, given: Any) -> list[Callback]:
        """Without those that wait for a score, which never comes."""
        return [
            each for each in super()._callbacks(given) if not isinstance(each, EarlyStopping | Checkpoint)
        ]

    def _loggers(self, given: Any) -> list[Any]:  # noqa: ARG002
        """Curves are kept as in a training, but nowhere for long."""
        self.folder = tempfile.TemporaryDirectory()
        return [MetricsFile(self.folder.name)]

    def _obligatory(self, logs: bool, saves: bool) -> list[Callback]:  # noqa: ARG002
        self.clock = Clock(self.config.fit.seconds, self.config.fit.rounds)
        return [LearningRateMonitor("step"), self.clock]

    def _run_subcommand(self, subcommand: str) -> None:  # noqa: ARG002
        """Times everything, in place of the trainer verb."""
        settings, trainer, data, module = self.config.fit, self.trainer, self.datamodule, self.model
        device = trainer.strategy.root_device
        ratio = 0.0 if module.masking is None else module.masking.ratio
        ratios = tuple(sorted({0.0, 0.5, ratio}))
        data.trainer = trainer
        data.prepare_data()
        data.setup("fit")
        rates: Rates = {}
        flop: dict[str, float] = {}
        loader = data.train_dataloader()
        if trainer.is_global_zero:
            module.losses.set_label_counts(data.label_counts())
            module.to(device)
            autocast = trainer.precision_plugin.forward_context
            clip = loader.dataset[Slot(0, 0, 0)]
            batch = Batch.cat([loader.dataset[Slot(0, k, k)] for k in range(loader.batch_size)])
            parts = loader_parts(loader)
            parts |= network_parts(module.network, module.losses, batch, ratios=ratios, autocast=autocast)
            parts |= {"matmul": matmul_part(device, autocast)}
            flop = flop_per_frame(module.network, module.losses, clip, ratios)
            rates = time_parts(parts, seconds=settings.seconds, rounds=settings.rounds, device=device)
            del parts
        n_workers = loader.num_workers
        del loader
        trainer.fit(module, data)
        if not trainer.is_global_zero:
            return
        rates[END_TO_END] = self.clock.rates
        backbone = module.network.backbone
        setting = Setting(
            device=torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
            accelerated=device.type != "cpu",
            devices=trainer.world_size,
            precision=str(trainer.precision),
            cores=available_cores(),
            workers=n_workers,
            clips=data.batch_size,
            frames=data.window,
            ratio=ratio,
            network="cached features" if backbone is None else backbone.settings.name,
        )
        report = Report(
            setting=setting, rates=rates, flop=flop, logging=self.clock.logging, memory=self.clock.memory
        )
        print(report.to_json() if settings.json else report.table())

    def after_fit(self) -> None:
        """There are no scores to show."""


class Clock(Callback):
    """Times training as it is, in rounds, and ends it.

    Args:
        seconds: Length of a round.
        rounds: How many; one more comes before, while everything warms up.

    Attributes:
        rates: Of every round, frames per second of all devices together.
        logging: Of every round, the share of the time that this process spent on metrics and logging.
        memory: Bytes at the highest, by where.
    """

    def __init__(self, seconds: float, rounds: int) -> None:
        self.rates: list[float] = []
        self.logging: list[float] = []
        self.memory: dict[str, int] = {}
        self._seconds = seconds
        self._left = rounds + 1
        self._frames = 0
        self._start = self._spent = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts the first round."""
        self._watch(pl_module, "log")
        self._watch(trainer._logger_connector, "on_batch_end")
        for logger in trainer.loggers:
            self._watch(logger, "log_metrics")
            self._watch(logger, "save")
        self._start = time.perf_counter()

    def _watch(self, owner: Any, name: str) -> None:
        """Adds up the time that a method takes."""
        method = getattr(owner, name)

        @functools.wraps(method)
        def timed(*args: Any, **kwargs: Any) -> None:
            start = time.perf_counter()
            method(*args, **kwargs)
            self._spent += time.perf_counter() - start

        setattr(owner, name, timed)

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,  # noqa: ARG002
        batch: Batch,
        batch_idx: int,  # noqa: ARG002
    ) -> None:
        """Counts frames; at the end of a round notes the rate of all devices together."""
        self._frames += batch.present.numel()
        over = time.perf_counter() - self._start >= self._seconds
        if not trainer.strategy.reduce_boolean_decision(over, all=False):
            return
        wait(pl_module.device)
        now = time.perf_counter()
        self.rates.append(self._frames * trainer.world_size / (now - self._start))
        self.logging.append(self._spent / (now - self._start))
        self._frames, self._start, self._spent, self._left = 0, now, 0.0, self._left - 1
        if not self._left:
            self.rates, self.logging = self.rates[1:], self.logging[1:]
            self.memory = _memory(pl_module.device)
            trainer.should_stop = True


def _memory(device: torch.device) -> dict[str, int]:
    """Bytes: the most that tensors held on the device, the most this process held, and the workers' own."""
    unit = 1 if sys.platform == "darwin" else 1024
    memory = {"process": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit}
    if device.type == "cuda":
        memory["device"] = torch.cuda.max_memory_allocated(device)
    workers = [Path(f"/proc/{child.pid}/smaps_rollup") for child in multiprocessing.active_children()]
    if workers and all(path.exists() for path in workers):
        private = [re.findall(r"Private_\w+:\s+(\d+) kB", path.read_text()) for path in workers]
        memory["workers"] = sum(1024 * int(size) for sizes in private for size in sizes)
    return memory
