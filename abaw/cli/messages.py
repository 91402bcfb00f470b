"""User messages: warnings that are filtered, and library errors turned into one clear message."""

import inspect
import logging
import re
import warnings
from argparse import ArgumentParser
from collections.abc import Mapping, Sequence
from pydoc import locate
from types import NoneType
from typing import Any, Literal, cast, get_args

from jsonargparse.typing import restricted_number_type
from lightning.fabric.utilities.exceptions import MisconfigurationException
from torch.distributed import DistError

from abaw.errors import AbawError, UsageError, did_you_mean

_CHOICE = re.compile(
    r'Parser key "([^"]+)":\n.*?\n  Errors:\n(.*)\n  Given value type: [^\n]*\n  Given value: (.*)', re.DOTALL
)

_LIST = re.compile(r'Parser key "([^"]+)":\s+Expected a .*\b(?:Sequence|List)\b.* Got value: (.*)')

_NESTED = re.compile(r"class_path '([\w.]+)':\s+Option '(\w+)' is not accepted")

_LONGEST = 400

Seed = restricted_number_type("Seed", int, [(">=", 0), ("<", 2**32)])
"""What the generators of all libraries take."""


def friendly_error(message: str, known: Sequence[str]) -> str:
    """Returns a parser's error in our words, with the option that was probably meant."""
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
        text = "; ".join(reason for reason in reasons if reason and "NoneType" not in reason)
        return f"{key}: {text[:_LONGEST]}; got {value[:60]}"
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
    """Makes auto the default of `--trainer.precision`; see `abaw.cli.precision`."""
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
        raise UsageError(f"trainer.log_every_n_steps: {trainer.log_every_n_steps} must be at least 1 step")
    precision = str(trainer.precision)
    if precision.endswith("-true") and precision not in ("32-true", "64-true"):
        raise UsageError(
            f"trainer.precision: {precision} keeps the weights and every running sum in few bits; train with"
            f" {precision.removesuffix('-true')}-mixed or 32-true"
        )
    classes = [str(getattr(given, "class_path", "")) for given in as_list(trainer.callbacks)]
    if any(name.endswith(".StochasticWeightAveraging") for name in classes):
        raise UsageError(
            "trainer.callbacks: StochasticWeightAveraging averages after the last checkpoint, which"
            " loses it; take lightning.pytorch.callbacks.WeightAveraging, or abaw.training.callbacks.EMA"
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


def user_message(error: Exception, subcommand: str) -> AbawError | None:
    """Returns the error to show for a failure that the user can correct; None if only a traceback helps.

    Args:
        error: What was raised.
        subcommand: What was running.
    """
    text = str(error).strip().partition("\n")[0]
    if isinstance(error, MisconfigurationException):
        return UsageError(f"{subcommand}: {error}")
    if isinstance(error, DistError) or "/gloo/" in text:
        return AbawError(
            f"{subcommand}: the connection to another process of the run broke ({text[:120]}); that"
            " process said why, unless it was killed, as for lack of memory"
        )
    if isinstance(error, RuntimeError) and text.startswith("DataLoader worker"):
        return AbawError(
            f"{subcommand}: a loader process ended ({text[:120]}); where memory is short, lower"
            " data.workers, or give the container more shared memory (--shm-size)"
        )
    if isinstance(error, RuntimeError) and "loading state_dict" in text:
        return UsageError(
            f"{subcommand}: the checkpoint holds another network than the configuration; use that of its own"
            " run, with --run DIR and without --config"
        )
    return None


WARNINGS = (
    ".*does not have many workers.*",  # `data.workers` is documented
    r"(?s)\s*(By default only one Jsonargparse|``instantiate_classes`` was deprecated)",  # Lightning's
    r".*isinstance\(treespec, LeafSpec\).*",  # between torch and Lightning
    ".*callbacks used to create the checkpoint need to be provided.*",  # evaluation needs none of them
    ".*WeightAveraging callback, but loading a checkpoint outside.*",  # the checkpoint has the averages
    ".*overridden `on_before_batch_transfer` in `LightningModule`.*",  # on purpose
    r".*recommended to use `self\.log\(.*sync_dist=True.*",  # scores are sums over all devices already
    ".*Checkpoint directory .* exists and is not empty.*",  # the run's directory was looked at before
)


def silence() -> None:
    """Drops those warnings, and Lightning's advertisements, for the rest of the process."""
    for message in WARNINGS:
        warnings.filterwarnings("ignore", message=message)
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(_is_news)


def _is_news(record: logging.LogRecord) -> bool:
    return "Tip:" not in record.getMessage()
