"""Options that do not mean what they seem to, and what to say about those that mean nothing."""

from argparse import ArgumentParser
from collections.abc import Sequence
from typing import Any, cast

from abaw.errors import UsageError, did_you_mean


def explained(message: str, known: Sequence[str]) -> str:
    """A parser's complaint, with the option that was probably meant."""
    if message.startswith("unrecognized arguments: "):
        word = message.split()[2]
        option = word.lstrip("-").split("=")[0]
        return f"there is no option {word}{did_you_mean(option, known)}"
    if "does not accept option" in message:
        option = message.rsplit("'", 2)[1]
        return f"the configuration has {option!r}, which is no option{did_you_mean(option, known)}"
    return message


def count_whole_batches(parser: ArgumentParser) -> None:
    """Makes `--trainer.limit_val_batches 1` one batch.

    The trainer's signature says int or float; typing may hand that over turned round, and then 1 becomes
    1.0, which is all batches.
    """
    for action in parser._actions:
        if action.dest.startswith("trainer.limit_"):
            cast(Any, action)._typehint = int | float | None


def check_precision(precision: str) -> None:
    """Refuses to train with weights of few bits.

    Raises:
        UsageError: Such a precision is asked for.
    """
    if precision.endswith("-true") and precision not in ("32-true", "64-true"):
        raise UsageError(
            f"trainer.precision: {precision} keeps the weights and every running sum in few bits; train with"
            f" {precision.removesuffix('-true')}-mixed or 32-true"
        )
