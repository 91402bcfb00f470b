"""The trainer's precision on this machine: what `auto` stands for."""

import functools
import sys
import time
from dataclasses import dataclass
from pydoc import locate
from typing import Any

import torch
from lightning.pytorch.plugins.precision import Precision
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from abaw.cli.messages import as_list

AUTO = "auto"

BF16, FLOAT32 = "bf16-mixed", "32-true"

WORTH_IT = 1.25
"""From this speed of its products on, in units of float32's, bf16 makes up for what else it costs a CPU."""


@dataclass(frozen=True)
class Choice:
    """A precision and what it was chosen for.

    Attributes:
        precision: As the trainer takes it.
        reason: Half a sentence for the user.
    """

    precision: str
    reason: str

    @rank_zero_only
    def announce(self) -> None:
        """Prints the choice in one line, on standard error: standard output may be JSON."""
        print(f"precision: {self.precision} ({self.reason})", file=sys.stderr)


def best_precision(accelerator: Any = AUTO) -> Choice:
    """The fastest precision that trains as well as float32: bf16-mixed where that is fast, else 32-true.

    Args:
        accelerator: The trainer's setting: a name (auto, cpu, gpu, cuda, mps, ...) or a configured class.
    """
    device = _device(accelerator)
    if device == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
        return Choice(BF16 if native else FLOAT32, f"this GPU has {'' if native else 'no '}bf16 instructions")
    if device != "cpu":
        return Choice(FLOAT32, f"the accelerator is {device}")
    if not cpu_has_bf16():
        return Choice(FLOAT32, "this CPU has no bf16 instructions")
    speed = bf16_speed()
    return Choice(
        BF16 if speed >= WORTH_IT else FLOAT32,
        f"this CPU multiplies in bf16 at {speed:.1f} times the speed of float32",
    )


def cpu_has_bf16() -> bool:
    """Whether torch and oneDNN compute with bf16 instructions of this processor.

    What they pick counts, not the processor's list alone: both can be told to use fewer instructions
    (ATEN_CPU_CAPABILITY, ONEDNN_MAX_CPU_ISA), and oneDNN says yes to every AVX-512. Processors other than
    x86 are taken for one without, as none has been measured.
    """
    return (
        torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
        and torch.backends.cpu.get_cpu_capability().startswith("AVX512")
        and (torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    )


@functools.cache
def bf16_speed() -> float:
    """Speed of a matrix product in bfloat16 on one core of this CPU, in units of that in float32.

    The instructions do not tell: with AMX it is several times float32, with AVX-512 alone it may be half.
    Takes 50 ms; the core's own time is measured, so that a busy machine does not change the answer.
    """
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            factors = [torch.ones(512, 512, dtype=dtype) for dtype in (torch.float32, torch.bfloat16)]
            seconds = [[_seconds(factor) for factor in factors] for _ in range(8)]
    finally:
        torch.set_num_threads(n_threads)
    float32, bfloat16 = (min(times) for times in zip(*seconds[1:], strict=True))
    return float(float32 / bfloat16)


def _seconds(factor: Tensor) -> float:
    start = time.thread_time()
    factor @ factor
    return time.thread_time() - start


def settle_precision(trainer: Any, *, recorded: str | None = None) -> None:
    """Puts a concrete precision in the place of `auto`, and says which and why.

    Args:
        trainer: The trainer's settings, as parsed; changed in place.
        recorded: Precision that a run to be continued was started with; it is kept.
    """
    if trainer.precision != AUTO:
        return
    if any(_is_precision(plugin) for plugin in as_list(trainer.plugins)):
        trainer.precision = None  # the plugin decides
        return
    choice = best_precision(trainer.accelerator)
    if recorded is not None and recorded != choice.precision:
        choice = Choice(recorded, f"as the run began; this machine would choose {choice.precision}")
    trainer.precision = choice.precision
    choice.announce()


def _device(accelerator: Any) -> str:
    """The kind of device that Lightning takes: cuda, mps, cpu, or another name."""
    name = accelerator if isinstance(accelerator, str) else accelerator.class_path.rpartition(".")[2]
    name = name.removesuffix("Accelerator").lower()
    if name in ("auto", "gpu"):
        if torch.backends.mps.is_available():  # as Lightning's order is
            return "mps"
        return "cuda" if torch.cuda.is_available() or name == "gpu" else "cpu"
    return name


def _is_precision(plugin: Any) -> bool:
    kind = locate(str(getattr(plugin, "class_path", "")))
    return isinstance(kind, type) and issubclass(kind, Precision)
