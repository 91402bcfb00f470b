"""Arguments of configured subcommands, checked before PyTorch is imported.

The parser checks everything again. `options.txt` lists its options; a test compares the two.
"""

import os
from argparse import ArgumentError, ArgumentParser, Namespace
from collections.abc import Iterable, Iterator, Sequence
from difflib import get_close_matches
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from abaw.errors import AbawError, UsageError, did_you_mean
from abaw.training.run_files import Run

ALIASES = {
    **dict.fromkeys(("epochs", "max_epoch", "num_epochs", "n_epochs"), "trainer.max_epochs"),
    **dict.fromkeys(("gpus", "gpu", "num_gpus", "ngpus"), "trainer.devices"),
    **dict.fromkeys(("learning_rate", "learning-rate", "model.lr"), "model.optimizer.lr"),
    **dict.fromkeys(("seed", "random_seed"), "seed_everything"),
    **dict.fromkeys(("checkpoint_path", "ckpt", "resume", "resume_from_checkpoint", "weights"), "ckpt_path"),
    **dict.fromkeys(("output", "output_dir", "out", "save_dir", "log_dir", "name"), "run"),
    **dict.fromkeys(("data", "data_dir", "data_path", "dataset", "path", "root_dir"), "data.root"),
    **dict.fromkeys(("num_workers", "n_workers", "jobs"), "data.workers"),
    **dict.fromkeys(("bs", "batch"), "data.batch_size"),
    **dict.fromkeys(("arch", "backbone", "model_name"), "model.backbone.name"),
    **dict.fromkeys(("fp16", "bf16", "amp", "half"), "trainer.precision"),
    **dict.fromkeys(("mask_ratio", "masking_ratio", "mask", "ratio"), "model.masking.ratio"),
    **dict.fromkeys(("task",), "data.tasks"),
    **dict.fromkeys(("cfg", "conf", "yaml"), "config"),
}
"""Names of options of other programs, with ours."""


def shipped() -> Path:
    """The folder of the shipped configurations: inside an installed package, beside it in a repository."""
    package = Path(str(files("abaw")))
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


def shipped_path(name: str) -> str:
    """A configuration given with `--config`: itself if it exists or is YAML text, else the shipped one.

    Raises:
        UsageError: There is no such file.
    """
    if os.path.exists(name) or set(name) & set(":{\n"):  # noqa: PTH110 - may be YAML text
        return name
    folder = shipped()
    path = folder / name.removeprefix("configs/")
    if path.is_file():
        return str(path)
    known = sorted(str(path.relative_to(folder)) for path in folder.rglob("*.yaml"))
    raise UsageError(
        f"--config {name}: there is no such file{did_you_mean(name, known)}\n"
        f"configurations that come with the package: {', '.join(known)}"
    )


def given_files(args: Sequence[str]) -> Namespace:
    """The options `--run`, `--config` and `--ckpt_path` of a command.

    Raises:
        UsageError: One has no value.
    """
    parser = ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--run", type=Path)
    parser.add_argument("-c", "--config", action="append", default=[])
    parser.add_argument("--ckpt_path")
    try:
        return parser.parse_known_args([word for word in args if word not in ("-h", "--help")])[0]
    except ArgumentError as error:
        option = str(error.argument_name).rpartition("/")[2]
        value = {"--config": "FILE", "--run": "DIR"}.get(option, "FILE")
        raise UsageError(f"{option} needs a value: {option} {value}") from error


def named_files(args: Sequence[str]) -> list[Path]:
    """The existing files given with `--config`, in order; the parser reports missing ones."""
    # a configuration may be YAML text, for which Path.is_file may raise
    return [Path(given) for given in given_files(args).config if os.path.isfile(given)]  # noqa: PTH113


def check_arguments(subcommand: str, args: Sequence[str]) -> None:
    """Checks what needs no heavy library: options, files, the run's directory, the data's folder.

    Args:
        subcommand: Name of a configured subcommand.
        args: The arguments after it.

    Raises:
        UsageError: An option is unknown or has no value, a configuration is missing, or `fit` would write
            into the directory of another run.
        AbawError: The data's folder does not exist.
    """
    check_options(subcommand, args)
    given = given_files(args)
    for name in given.config:
        shipped_path(name)
    if _has(args, "print_config"):
        return
    if given.run is not None or given.config or given.ckpt_path in (None, "best", "last"):
        run = Run.named(given.run, given.config)
        if subcommand == "fit" and given.ckpt_path is None and not _has(args, "trainer.fast_dev_run"):
            run.check_free()
        if (
            subcommand in ("validate", "test", "predict")
            and given.run is not None
            and given.ckpt_path is None
        ):
            run.check_trained()
    root = _value(args, "data.root")
    if root not in (None, "null") and not Path(str(root)).is_dir():
        raise AbawError(
            f"--data.root {root}: no such folder; give the folder that holds cropped_aligned and the"
            " annotations"
        )


def check_options(subcommand: str, args: Sequence[str]) -> None:
    """Refuses options that the subcommand does not have, and abbreviations.

    Raises:
        UsageError: There is no such option.
    """
    known = options_of(subcommand)
    for name in _names(args):
        above = name.split(".")
        parents = [".".join(above[:n]) for n in range(1, len(above))]
        if _earlier_names() & {name, *parents}:  # the parser says what they are called now
            continue
        # options of classes and mappings are known to the parser only
        if name in known or any(parent in known and _is_open(parent, known) for parent in parents):
            continue
        raise UsageError(f"{subcommand}: there is no option --{name}{suggestion(name, known)}")


def _is_open(name: str, known: set[str]) -> bool:
    """Whether an option may have others below it that are not listed: those of a class, or a mapping."""
    return not any(option.startswith(f"{name}.") and option != f"{name}.help" for option in known)


def suggestion(name: str, known: Iterable[str]) -> str:
    """A suggestion for an unknown option, from other programs' names, last parts and similar names."""
    options = [option for option in known if not option.endswith(".help")]
    meant = ALIASES.get(name, ALIASES.get(name.replace("-", "_")))
    if meant is None:
        last = name.rpartition(".")[2]
        same = sorted((option for option in options if option.rpartition(".")[2] == last), key=len)
        meant = same[0] if same else next(iter(get_close_matches(name, options, n=1)), None)
    return "" if meant is None else f"; did you mean --{meant}?"


def options_of(subcommand: str) -> set[str]:
    """The options of a configured subcommand, without dashes."""
    return {name for name, only in _listed().items() if not only or subcommand in only.split()}


def _earlier_names() -> set[str]:
    return {name for name, only in _listed().items() if only == "renamed"}


@cache
def _listed() -> dict[str, str]:
    """The options of `options.txt`, with the subcommands that have it if not all do, or `renamed`."""
    lines = files("abaw.cli").joinpath("options.txt").read_text(encoding="utf-8").split("\n")
    named = (line.partition("  ") for line in lines if line and not line.startswith("#"))
    return {name: only for name, _, only in named}


def _names(args: Sequence[str]) -> Iterator[str]:
    """The names of the options, without dashes, `=value` and the `+` that appends to a list."""
    for word in args:
        if word.startswith("--") and len(word) > 2:
            yield word[2:].partition("=")[0].removesuffix("+")


def _has(args: Sequence[str], option: str) -> bool:
    return option in _names(args)


def _value(args: Sequence[str], option: str) -> str | None:
    """The last value of an option."""
    found: Any = None
    for word, after in zip(args, [*args[1:], None], strict=True):
        name, equals, value = word.partition("=")
        if name == f"--{option}":
            found = value if equals else after
    return found
