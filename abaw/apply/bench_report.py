"""What the timings of a training run mean: shares of the device's peak, and what the rest waits for."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from abaw.apply.bench import MATMUL, Rates

END_TO_END = "end to end"


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What was timed, and on what.

    Attributes:
        device: Its name.
        accelerated: Whether it is another device than the CPU, which the loader shares with the network.
        devices: How many of them train together.
        precision: As in the trainer's settings.
        cores: Cores this process may use.
        workers: Loader processes per device.
        clips: Windows in a batch, per device.
        frames: Frames in a window.
        ratio: Share of the visible frames that training masks.
        network: The backbone's name, or what stands in its place.
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
    """The figures of one run of `abaw bench`.

    Attributes:
        setting: What was timed, and on what.
        rates: Per part its rate in every round, in frames per second; of `matmul` in FLOP per second.
        flop: FLOP per frame of the parts of the network.
        logging: Of every round end to end, the share of the time that metrics and logging took.
        memory: Bytes at the highest, by where.
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
        """Per part of the network, the share of the rate of bare matrix products that it reaches."""
        return {part: self.median(part) * flop / self.median(MATMUL) for part, flop in self.flop.items()}

    @property
    def training(self) -> float:
        """Frames per second that one device could train on."""
        return self.median(f"training p={self.setting.ratio:g}")

    @property
    def workers_needed(self) -> int:
        """Loader processes that would feed one device, if each gives what one of the present ones does."""
        return math.ceil(self.training * max(self.setting.workers, 1) / self.median("loader"))

    @property
    def verdict(self) -> str:
        """What the rest waits for, and the cure."""
        loader, training, setting = self.median("loader"), self.training, self.setting
        if loader >= training:
            found = (
                f"network-bound: the loader gives {loader:,.0f} frames/s, {loader / training:.1f} times what"
                f" training takes ({training:,.0f})"
            )
        else:
            needed = self.workers_needed
            found = (
                f"loader-bound: the loader gives {loader:,.0f} frames/s where training could take"
                f" {training:,.0f}; {needed} workers would feed this device (now {setting.workers})"
            )
            if needed * setting.devices > setting.cores:
                found += (
                    f", but this machine has {setting.cores} cores: augment less, or train on features cached"
                    " by `abaw extract`"
                )
        reached, possible = self.median(END_TO_END), self._possible
        if reached < 0.85 * possible:
            found += (
                f"; end to end reaches {reached:,.0f} of {possible:,.0f} possible: transfers, callbacks and"
                " logging take the rest"
            )
        return found

    @property
    def _possible(self) -> float:
        """Frames per second end to end if nothing but loader and network took time."""
        loader, training = self.median("loader"), self.training
        shared = not self.setting.accelerated or not self.setting.workers  # one after the other
        one = 1 / (1 / loader + 1 / training) if shared else min(loader, training)
        return one * self.setting.devices

    def to_json(self) -> str:
        """All figures as JSON."""
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
        """All figures as lines of text, the verdict last."""
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
    """How training speeds up with the number of devices, as lines of text, and each verdict.

    Args:
        reports: By number of devices what `Report.to_json` gives.
    """
    lines = [f"{'devices':<10}{'frames/s':>12}{'per device':>12}  of linear"]
    rates = {n: report["frames_per_second"][END_TO_END]["median"] for n, report in reports.items()}
    first = next(iter(rates))
    for n, rate in rates.items():
        linear = rate / n / (rates[first] / first)
        lines.append(f"{n:<10}{rate:>12,.0f}{rate / n:>12,.0f}{linear:11.0%}")
    return "\n".join([*lines, "", *(f"{n}: {report['verdict']}" for n, report in reports.items())])
