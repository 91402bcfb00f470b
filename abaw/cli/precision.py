"""Resolution of the trainer's precision `auto` on this machine."""

import functools
import sys
import time
from dataclasses import dataclass
from pydoc import locate
from typing import Any

import torch
from torch import Tensor

AUTO = "auto"
BF16, FLOAT32 = "bf16-mixed", "32-true"
WORTH_IT = 1.25
"""Speedup of matrix products above which bf16 is used on a CPU, where other operations are slower in it."""


@dataclass(frozen=True)
class PrecisionChoice:
    """A precision and the reason for it.

    Attributes:
        precision: Name of the precision, as the trainer accepts it.
        reason: Reason, for the message.
    """

    precision: str
    reason: str

    def announce(self) -> None:
        """Prints the choice to standard error, as standard output may be JSON."""
        print(f"precision: {self.precision} ({self.reason})", file=sys.stderr)


def best_precision(accelerator: Any = AUTO) -> PrecisionChoice:
    """The fastest precision of equal accuracy: bf16-mixed where it is faster, else 32-true.

    Args:
        accelerator: The trainer's setting: a name (auto, cpu, gpu, cuda, mps, ...) or a configured class.
    """
    device = _device(accelerator)
    if device == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
        reason = f"this GPU has {'' if native else 'no '}bf16 instructions"
        return PrecisionChoice(BF16 if native else FLOAT32, reason)
    if device != "cpu":
        return PrecisionChoice(FLOAT32, f"the accelerator is {device}")
    if not cpu_has_bf16():
        return PrecisionChoice(FLOAT32, "this CPU has no bf16 instructions")
    speed = bf16_speed()
    return PrecisionChoice(
        BF16 if speed >= WORTH_IT else FLOAT32,
        f"this CPU multiplies in bf16 at {speed:.1f} times the speed of float32",
    )


def cpu_has_bf16() -> bool:
    """Whether torch and oneDNN use bf16 instructions of this processor.

    Its flags are not enough: ATEN_CPU_CAPABILITY and ONEDNN_MAX_CPU_ISA restrict the instruction set, and
    oneDNN reports support on every AVX-512. False on architectures other than x86, which were not measured.
    """
    return (
        torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
        and torch.backends.cpu.get_cpu_capability().startswith("AVX512")
        and (torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    )


@functools.cache
def bf16_speed() -> float:
    """Speed of a matrix product in bfloat16 relative to float32, on one core of this CPU.

    With AMX several times that of float32, with AVX-512-BF16 alone about half. Takes 50 ms, in CPU time of
    the thread, which other processes do not affect.
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
    """Replaces `auto` by a concrete precision and prints the reason.

    Args:
        trainer: Parsed settings of the trainer; changed in place.
        recorded: Precision of a resumed run, which is kept.
    """
    from lightning.pytorch.utilities import rank_zero_only

    from abaw.cli.messages import as_list

    if trainer.precision != AUTO:
        return
    if any(_is_precision(plugin) for plugin in as_list(trainer.plugins)):
        trainer.precision = None  # the plugin decides
        return
    choice = best_precision(trainer.accelerator)
    if recorded is not None and recorded != choice.precision:
        choice = PrecisionChoice(recorded, f"as recorded; this machine would choose {choice.precision}")
    trainer.precision = choice.precision
    if getattr(rank_zero_only, "rank", 0) == 0:
        choice.announce()


def set_matmul_precision(precision: str) -> None:
    """Sets PyTorch's precision of float32 matrix products, if there is an NVIDIA GPU."""
    if torch.cuda.is_available():
        torch.set_float32_matmul_precision(precision)


def _device(accelerator: Any) -> str:
    """The kind of device that Lightning selects: cuda, mps, cpu, or another name."""
    name = accelerator if isinstance(accelerator, str) else accelerator.class_path.rpartition(".")[2]
    name = name.removesuffix("Accelerator").lower()
    if name in ("auto", "gpu"):
        if torch.backends.mps.is_available():  # same order as Lightning
            return "mps"
        return "cuda" if torch.cuda.is_available() or name == "gpu" else "cpu"
    return name


def _is_precision(plugin: Any) -> bool:
    from lightning.pytorch.plugins.precision import Precision

    kind = locate(str(getattr(plugin, "class_path", "")))
    return isinstance(kind, type) and issubclass(kind, Precision)
