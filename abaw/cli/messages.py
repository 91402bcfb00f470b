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

# messages of jsonargparse
_UNKNOWN = re.compile(r"unrecognized arguments: (\S+)|(?:not accept option|^Option) ('[^']+')")
_NESTED = re.compile(r"class_path '([\w.]+)':\s+Option '(\w+)' is not accepted")
_KEY = re.compile(r'Parser key "([^"]+)":\s*')
_VALUE = re.compile(r"(?:Got value|Given value type: .*\n\s*Given value): (.*)")
_LONGEST = 400
Seed = restricted_number_type("Seed", int, [(">=", 0), ("<", 2**32)])
"""A seed that the generators of all libraries accept."""


def friendly_error(message: str, known: Sequence[str]) -> str:
    """A message of jsonargparse in one line, with the option that was probably meant; others unchanged.

    Args:
        message: The message.
        known: Names of all options.
    """
    if "tensorboard" in message and "is available" in message:
        return "TensorBoardLogger needs a package that is not installed; pip install tensorboard"
    if (unknown := _UNKNOWN.search(message)) is not None:
        option = unknown[1] or unknown[2]
        name = option.strip("-'").partition("=")[0]
        return f"there is no option {option}{did_you_mean(name, known)}"
    keys = _KEY.findall(message)
    if not keys:
        return message
    key, text = ".".join(keys), _KEY.split(message)[-1]
    if (nested := _NESTED.search(message)) is not None:
        owner, option = nested.groups()
        hint = did_you_mean(option, inspect.signature(cast(Any, locate(owner))).parameters)
        return f"there is no option '{key}.{option}'{hint}"
    if (given := _VALUE.search(text)) is None:
        return f"{key}: {text}"
    errors = re.split(r"\n\s+- ", text[: given.start()].rpartition("Errors:")[2])
    reasons = [" ".join(error.split()) for error in errors if error.strip() and "NoneType" not in error]
    reason = next((each for each in reasons if not each.startswith("Expected")), "; ".join(reasons))
    value = given[1][:60]
    if reason.rstrip(".").endswith(("list'>", "Sequence'>")):
        reason = f"takes a list, such as [{value}]"
    return f"{key}: {reason.rstrip('.')[:_LONGEST]}; got {value}"


def as_list(value: Any) -> list[Any]:
    """The value of an option as a list: a list, a single value, or None for an empty list."""
    if value is None:
        return []
    return list(value) if isinstance(value, list) else [value]


def adjust_trainer_options(parser: Any) -> None:
    """Makes `auto` the default of `--trainer.precision`, and `--trainer.limit_val_batches 1` one batch.

    `TrainingSummary` takes the place of Lightning's model summary.
    Python may cache the annotation `int | float` in the reverse order; then 1 is parsed as 1.0, all batches.
    """
    for action in parser._actions:
        if action.dest.startswith("trainer.limit_"):
            action._typehint = int | float | None
        elif action.dest == "trainer.precision":
            action._typehint = Literal["auto"] | action._typehint
    parser.set_defaults({"trainer.precision": "auto", "trainer.enable_model_summary": False})


def check_training(trainer: Any) -> None:
    """Checks settings of the trainer that Lightning accepts but `fit` does not support.

    Raises:
        UsageError: Weights in half precision, stochastic weight averaging, a training without end, or a
            logging interval below 1.
    """
    if trainer.max_epochs == -1 and trainer.max_steps == -1:
        raise UsageError(
            "trainer.max_epochs: -1 trains without end, but the learning rate schedule needs one; give a"
            " number of epochs, or of steps with trainer.max_steps"
        )
    if trainer.log_every_n_steps is not None and trainer.log_every_n_steps < 1:
        raise UsageError(f"trainer.log_every_n_steps: {trainer.log_every_n_steps} must be at least 1 step")
    precision = str(trainer.precision)
    if precision.endswith("-true") and precision not in ("32-true", "64-true"):
        raise UsageError(
            f"trainer.precision: {precision} stores weights and optimizer state in half precision, in which"
            f" small updates are lost; use {precision.removesuffix('-true')}-mixed or 32-true"
        )
    classes = [str(getattr(given, "class_path", "")) for given in as_list(trainer.callbacks)]
    if any(name.endswith(".StochasticWeightAveraging") for name in classes):
        raise UsageError(
            "trainer.callbacks: StochasticWeightAveraging averages after the last checkpoint, so the average"
            " is not saved; use lightning.pytorch.callbacks.WeightAveraging or abaw.training.callbacks.EMA"
        )


def refuse_nulls(parser: ArgumentParser, settings: Mapping[str, Any]) -> None:
    """Raises a UsageError if an option is null that needs a value; the parser accepts null for any option."""
    for action in parser._actions:
        group = action.dest.removesuffix(".help").rpartition(".")[0]
        if group and settings.get(group, "") is None:
            raise UsageError(f"{group} is null, but is a group of options; leave it out for their defaults")
        kind = getattr(action, "_typehint", action.type)
        optional = kind is None or NoneType in get_args(kind)
        if not optional and action.default is not None and settings.get(action.dest, "") is None:
            raise UsageError(f"{action.dest} is null, but needs a value such as {action.default}")


def user_message(error: Exception, subcommand: str) -> AbawError | None:
    """The error to show for a failure that the user can correct; None for others, which need a traceback.

    Args:
        error: The exception of Lightning or torch.
        subcommand: Name of the subcommand, for the message.
    """
    text = str(error).strip().partition("\n")[0]
    if isinstance(error, MisconfigurationException):
        return UsageError(f"{subcommand}: {error}")
    if isinstance(error, DistError) or "/gloo/" in text:
        return AbawError(
            f"{subcommand}: the connection to another process of the run broke ({text[:120]}); see the"
            " message of that process, or, if there is none, whether it was killed for lack of memory"
        )
    if isinstance(error, RuntimeError) and text.startswith("DataLoader worker"):
        return AbawError(
            f"{subcommand}: a loader process ended ({text[:120]}); if memory is short, lower data.workers, or"
            " give the container more shared memory (--shm-size)"
        )
    if isinstance(error, RuntimeError) and "loading state_dict" in text:
        return UsageError(
            f"{subcommand}: the checkpoint holds another network than the configuration; use the"
            " configuration of its run, with --run DIR and without --config"
        )
    return None


WARNINGS = (
    ".*does not have many workers.*",  # `data.workers` is documented
    r"(?s)\s*(By default only one Jsonargparse|``instantiate_classes`` was deprecated)",  # Lightning's
    r".*isinstance\(treespec, LeafSpec\).*",  # between torch and Lightning
    ".*callbacks used to create the checkpoint need to be provided.*",  # evaluation needs none of them
    ".*WeightAveraging callback, but loading a checkpoint outside.*",  # the checkpoint has the averages
    ".*overridden `on_before_batch_transfer` in `LightningModule`.*",  # on purpose
    r".*recommended to use `self\.log\(.*sync_dist=True.*",  # scores are already sums over all devices
    ".*Checkpoint directory .* exists and is not empty.*",  # `Run.start` checks it
    ".*number of training batches .* is smaller than the logging interval.*",  # epochs are logged too
)


LOGS = (
    "Tip:",
    "Seed set to",
    *("GPU available", "TPU available", "HPU available"),  # the summary of the training names the device
    "Loading `train_dataloader` to estimate",
    *("Restoring states from", "Restored all states", "Loaded model weights"),
    "`Trainer.fit` stopped",  # the end of the training says why
    "Using ",  # bfloat16 mixed precision
    "Found current_model_state in the checkpoint",  # of an averaged training
)
"""Beginnings of Lightning's messages that are left out."""


def silence() -> None:
    """Ignores `WARNINGS` and Lightning's `LOGS` for the rest of the process."""
    for message in WARNINGS:
        warnings.filterwarnings("ignore", message=message)
    for name in ("pytorch.utilities.rank_zero", "fabric.utilities.rank_zero", "fabric.utilities.seed"):
        logger = logging.getLogger(f"lightning.{name}")
        if not any(getattr(known, "__name__", "") == _is_shown.__name__ for known in logger.filters):
            logger.addFilter(_is_shown)


def _is_shown(record: logging.LogRecord) -> bool:
    return not record.getMessage().lstrip("💡 ").startswith(LOGS)
