"""`abaw bench`: frames/s of loader, network and training step, and the bottleneck."""

import json
import math
import subprocess
import sys
import tempfile
from argparse import ArgumentParser
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any, ClassVar

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback, Checkpoint, EarlyStopping, LearningRateMonitor
from lightning.pytorch.cli import LightningArgumentParser

from abaw.cli.trainer_commands import AbawCLI, run
from abaw.data.processes import available_cores
from abaw.errors import UsageError
from abaw.loading.datamodule import AffectDataModule
from abaw.training.module import AffectModule
from abaw.training.run_files import Run
from abaw.training.throughput import (
    MATMUL,
    Clock,
    Rates,
    TimedLogger,
    TimedModule,
    flop_per_frame,
    loader_parts,
    masked_batch,
    matmul_part,
    network_parts,
    time_parts,
)

_EPOCHS = 1_000_000  # `Clock` stops the training, but the schedule needs a length


def bench(args: list[str]) -> int:
    """Runs `abaw bench` with some options, once for each of several `--devices`; returns the exit code."""
    parser = ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--devices")
    given, rest = parser.parse_known_args(args)
    return run("bench", args, BenchCLI) if given.devices is None else _scaling(given.devices, rest)


def _scaling(devices: str, args: list[str]) -> int:
    """Runs the subcommand in a new process for each number of devices, and prints the scaling."""
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


class BenchTrainer(Trainer):
    """A trainer with the method `bench`, whose parameters become options."""

    def bench(
        self,
        model: AffectModule,
        datamodule: AffectDataModule,
        ckpt_path: str | None = None,
        weights_only: bool | None = None,
    ) -> None:
        """Trains until a callback stops it; options of checkpoints in a run's config.yaml have no effect."""
        self.fit(model, datamodule)


class BenchCLI(AbawCLI):
    """Times loader, network and training of a configuration, without writing files."""

    not_options: ClassVar = {"bench": {"model", "datamodule"}}
    module_type = TimedModule
    trainer_type = BenchTrainer
    trainer: BenchTrainer

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Adds the options of `bench` to those of `fit`."""
        super().add_arguments_to_parser(parser)
        parser.add_argument("--seconds", type=float, default=1.0, help="Seconds per part and round.")
        parser.add_argument("--rounds", type=int, default=5, help="Number of rounds.")
        parser.add_argument("--json", action="store_true", help="Print the figures as JSON.")

    def before_instantiate_classes(self) -> None:
        """Disables what writes files, validates or downloads.

        Raises:
            UsageError: `--seconds` or `--rounds` is too small.
        """
        settings = self.config.bench
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
        trainer.max_epochs, trainer.max_steps, trainer.max_time = _EPOCHS, -1, None
        if settings.model.backbone is not None:
            settings.model.backbone.weights = "none"  # any weights are equally fast

    def _callbacks(self, given: Any) -> list[Callback]:
        """The configured callbacks, without those that need a validation score."""
        return [
            each for each in super()._callbacks(given) if not isinstance(each, EarlyStopping | Checkpoint)
        ]

    def _loggers(self, given: Any) -> list[Any]:
        """A logger as in training, in a temporary folder."""
        self.folder = tempfile.TemporaryDirectory()
        return [TimedLogger(self.folder.name)]

    def _required_callbacks(self, logs: bool, saves: bool) -> list[Callback]:
        self.clock = Clock(self.config.bench.seconds, self.config.bench.rounds)
        return [LearningRateMonitor("step"), self.clock]

    def bench(self, **kwargs: Any) -> None:
        """Times the parts separately and a training end to end, and prints a report."""
        settings, trainer, data, module = self.config.bench, self.trainer, self.datamodule, self.model
        device = trainer.strategy.root_device
        ratio = 0.0 if module.masking is None else module.masking.ratio
        ratios = tuple(sorted({0.0, 0.5, ratio}))
        data.trainer = trainer
        trainer.strategy.connect(module)  # the loader asks it for the masking
        data.prepare_data()
        data.setup("fit")
        rates: Rates = {}
        flop: dict[str, float] = {}
        loader = data.train_dataloader()
        if trainer.is_global_zero:
            module.losses.set_label_counts(data.label_counts())
            module.to(device)
            autocast = trainer.precision_plugin.forward_context
            one, all_ = (
                {ratio: masked_batch(loader.dataset, size, ratio) for ratio in ratios}
                for size in (1, loader.batch_size)
            )
            parts = loader_parts(loader)
            parts |= network_parts(module.network, module.losses, all_, autocast=autocast)
            parts |= {"matmul": matmul_part(device, autocast)}
            flop = flop_per_frame(module.network, module.losses, one)
            rates = time_parts(parts, seconds=settings.seconds, rounds=settings.rounds, device=device)
            del parts
        n_workers = loader.num_workers
        del loader
        trainer.bench(**kwargs)
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


END_TO_END = "end to end"


@dataclass(frozen=True, kw_only=True)
class Setting:
    """Settings and machine of a benchmark.

    Attributes:
        device: Name of the device.
        accelerated: Whether it is not the CPU, which loader and network share.
        devices: Number of devices.
        precision: Precision of the trainer.
        cores: Number of available cores.
        workers: Loader processes per device.
        clips: Windows per batch and device.
        frames: Frames per window.
        ratio: Masking ratio of the training.
        network: Name of the backbone, or `cached features`.
    """

    device: str
    accelerated: bool
    devices: int
    precision: str
    cores: int
    workers: int
    clips: int
    frames: int
    ratio: float
    network: str


@dataclass(frozen=True, kw_only=True)
class Report:
    """Measurements of `abaw bench`.

    Attributes:
        setting: Settings and machine.
        rates: Rates per round, by part: in frames per second, of `matmul` in FLOP per second.
        flop: FLOP per frame, by part of the network.
        logging: Share of the time end to end that was spent on logging, per round.
        memory: Peak memory in bytes, by location.
    """

    setting: Setting
    rates: Rates
    flop: Mapping[str, float]
    logging: Sequence[float]
    memory: Mapping[str, int]

    def median(self, part: str) -> float:
        """The median rate of a part."""
        return median(self.rates[part])

    @property
    def shares(self) -> dict[str, float]:
        """The FLOP rate of each part of the network as a share of that of matrix products."""
        return {part: self.median(part) * flop / self.median(MATMUL) for part, flop in self.flop.items()}

    @property
    def training(self) -> float:
        """Frames per second of the training step on one device."""
        return self.median(f"training p={self.setting.ratio:g}")

    @property
    def workers_needed(self) -> int:
        """Number of workers that keep one device busy, if the rate of the loader grows linearly."""
        return math.ceil(self.training * max(self.setting.workers, 1) / self.median("loader"))

    @property
    def verdict(self) -> str:
        """The bottleneck and its remedy."""
        loader, training, setting = self.median("loader"), self.training, self.setting
        if loader >= training:
            found = (
                f"network-bound: the loader reads {loader:,.0f} frames/s, {loader / training:.1f} times as"
                f" many as training ({training:,.0f})"
            )
        else:
            needed = self.workers_needed
            found = (
                f"loader-bound: the loader reads {loader:,.0f} frames/s, training could use {training:,.0f};"
                f" {needed} workers would serve this device (now {setting.workers})"
            )
            if needed * setting.devices > setting.cores:
                found += (
                    f", but this machine has {setting.cores} cores: augment less, or train on features cached"
                    " by `abaw extract`"
                )
        reached, possible = self.median(END_TO_END), self._possible
        if reached < 0.85 * possible:
            found += (
                f"; end to end reaches {reached:,.0f} of {possible:,.0f} possible: the rest is transfers,"
                " callbacks and logging"
            )
        return found

    @property
    def _possible(self) -> float:
        """Frames per second end to end if only loader and network took time."""
        loader, training = self.median("loader"), self.training
        shared = not self.setting.accelerated or not self.setting.workers  # one after the other
        one = 1 / (1 / loader + 1 / training) if shared else min(loader, training)
        return one * self.setting.devices

    def to_json(self) -> str:
        """The measurements as JSON."""
        rates = {
            part: {"median": median(values), "min": min(values), "max": max(values)}
            for part, values in self.rates.items()
        }
        peak = rates.pop(MATMUL)
        content: dict[str, Any] = {
            "setting": asdict(self.setting),
            "frames_per_second": rates,
            "matmul_flop_per_second": peak,
            "flop_per_frame": dict(self.flop),
            "share_of_matmul": self.shares,
            "share_of_logging": median(self.logging),
            "memory_bytes": dict(self.memory),
            "workers_needed": self.workers_needed,
            "verdict": self.verdict,
        }
        return json.dumps(content, indent=2)

    def table(self) -> str:
        """The measurements as a table, followed by the verdict."""
        s = self.setting
        lines = [
            f"{s.network} on {s.devices} × {s.device}, {s.precision}, {s.cores} cores, {s.workers} workers,"
            f" batches of {s.clips} × {s.frames} frames",
            "",
            f"{'':<20}{'frames/s':>12}{'lowest':>12}{'highest':>12}  of matmul",
        ]
        for part, values in self.rates.items():
            if part != MATMUL:
                share = f"{self.shares[part]:11.0%}" if part in self.flop else ""
                lines.append(
                    f"{part:<20}{median(values):>12,.0f}{min(values):>12,.0f}{max(values):>12,.0f}{share}"
                )
        lines.append(f"{MATMUL:<20}{self.median(MATMUL) / 1e12:>12.2f} TFLOP/s on a ViT-B's matrices")
        lines.append(f"{'logging':<20}{median(self.logging):>12.2%} of the time end to end")
        lines += [f"memory, {where:<12}{size / 2**30:>12.2f} GiB" for where, size in self.memory.items()]
        return "\n".join([*lines, "", self.verdict])


def scaling_table(reports: Mapping[int, Mapping[str, Any]]) -> str:
    """A table of the speedup by number of devices, followed by the verdicts.

    Args:
        reports: Content of `Report.to_json` by number of devices.
    """
    lines = [f"{'devices':<10}{'frames/s':>12}{'per device':>12}  of linear"]
    rates = {n: report["frames_per_second"][END_TO_END]["median"] for n, report in reports.items()}
    first = next(iter(rates))
    for n, rate in rates.items():
        linear = rate / n / (rates[first] / first)
        lines.append(f"{n:<10}{rate:>12,.0f}{rate / n:>12,.0f}{linear:11.0%}")
    return "\n".join([*lines, "", *(f"{n}: {report['verdict']}" for n, report in reports.items())])
