"""Options that do not mean what they seem to, and what to say about those that mean nothing."""

import inspect
import re
from argparse import ArgumentParser
from collections.abc import Mapping, Sequence
from pydoc import locate
from types import NoneType
from typing import Any, Literal, cast, get_args

from jsonargparse.typing import restricted_number_type

from abaw.errors import UsageError, did_you_mean

_CHOICE = re.compile(
    r'Parser key "([^"]+)":\n.*?\n  Errors:\n(.*)\n  Given value type: [^\n]*\n  Given value: (.*)', re.DOTALL
)
_LIST = re.compile(r'Parser key "([^"]+)":\s+Expected a .*\b(?:Sequence|List)\b.* Got value: (.*)')
_NESTED = re.compile(r"class_path '([\w.]+)':\s+Option '(\w+)' is not accepted")
_LONGEST = 400

Seed = restricted_number_type("Seed", int, [(">=", 0), ("<", 2**32)])
"""What the generators of all libraries take."""


def explained(message: str, known: Sequence[str]) -> str:
    """A parser's complaint, with the option that was probably meant."""
    if message.startswith("unrecognized arguments: "):
        word = message.split()[2]
        option = word.lstrip("-").split("=")[0]
        return f"there is no option {word}{did_you_mean(option, known)}"
    if "does not accept option" in message:
        option = message.rsplit("'", 2)[1]
        return f"the configuration has {option!r}, which is no option{did_you_mean(option, known)}"
    if (single := _LIST.fullmatch(message)) is not None:
        key, value = single.groups()
        return f"{key}: takes a list, such as [{value}]; got {value}"
    if (choice := _CHOICE.fullmatch(message)) is not None:
        key, errors, value = choice.groups()
        if (nested := _NESTED.search(errors)) is not None:
            owner, option = nested.groups()
            hint = did_you_mean(option, inspect.signature(cast(Any, locate(owner))).parameters)
            return f"there is no option '{key}.{option}'{hint}"
        reasons = [" ".join(reason.split()) for reason in errors.split("    - ")]
        told = "; ".join(reason for reason in reasons if reason and "NoneType" not in reason)
        return f"{key}: {told[:_LONGEST]}; got {value[:60]}"
    return message


def as_list(value: Any) -> list[Any]:
    """The value of an option that is one thing, several or none."""
    if value is None:
        return []
    return list(value) if isinstance(value, list) else [value]


def count_whole_batches(parser: ArgumentParser) -> None:
    """Makes `--trainer.limit_val_batches 1` one batch.

    The trainer's signature says int or float; typing may hand that over turned round, and then 1 becomes
    1.0, which is all batches.
    """
    for action in parser._actions:
        if action.dest.startswith("trainer.limit_"):
            cast(Any, action)._typehint = int | float | None


def take_auto_precision(parser: ArgumentParser) -> None:
    """Lets `--trainer.precision` be auto, which it is unless said otherwise; see `abaw.precision`."""
    for action in parser._actions:
        if action.dest == "trainer.precision":
            cast(Any, action)._typehint = Literal["auto"] | cast(Any, action)._typehint
    cast(Any, parser).set_defaults({"trainer.precision": "auto"})


def check_training(trainer: Any) -> None:
    """Refuses to train in a way whose result is lost.

    Args:
        trainer: Its settings, as parsed.

    Raises:
        UsageError: It asks for weights of few bits, for an average that no checkpoint would hold, for a
            training without end, or to log never.
    """
    if trainer.max_epochs == -1 and trainer.max_steps == -1:
        raise UsageError(
            "trainer.max_epochs: -1 trains without end, and the learning rate follows the length of the"
            " training; give a number of epochs, or of steps with trainer.max_steps"
        )
    if trainer.log_every_n_steps is not None and trainer.log_every_n_steps < 1:
        raise UsageError(
            f"trainer.log_every_n_steps: {trainer.log_every_n_steps} is no number of steps; give at least 1"
        )
    precision = str(trainer.precision)
    if precision.endswith("-true") and precision not in ("32-true", "64-true"):
        raise UsageError(
            f"trainer.precision: {precision} keeps the weights and every running sum in few bits; train with"
            f" {precision.removesuffix('-true')}-mixed or 32-true"
        )
    classes = [str(getattr(given, "class_path", "")) for given in as_list(trainer.callbacks)]
    if any(name.endswith(".StochasticWeightAveraging") for name in classes):
        raise UsageError(
            "trainer.callbacks: StochasticWeightAveraging makes its average behind the last checkpoint, which"
            " loses it; take lightning.pytorch.callbacks.WeightAveraging, or abaw.averaging.MovingAverage"
        )


def refuse_nulls(parser: ArgumentParser, settings: Mapping[str, Any]) -> None:
    """Refuses null for what has to have a value; the parser takes it for an option that is not given.

    Raises:
        UsageError: An option is null that may not be.
    """
    for action in parser._actions:
        kind = getattr(action, "_typehint", action.type)
        optional = kind is None or NoneType in get_args(kind)
        if not optional and action.default is not None and settings.get(action.dest, "") is None:
            raise UsageError(f"{action.dest} is null, but needs a value such as {action.default}")
