"""Configuration files of a command: where its options are, and those of earlier versions."""

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import get_loader, set_loader

from abaw.cli.arguments import given_files, named_files, shipped_path
from abaw.errors import UsageError
from abaw.training.checkpointing import (
    OPTIONS,
    current_option,
    with_current_class_paths,
    with_current_options,
)
from abaw.training.run_files import Run

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the loader of jsonargparse
YAML = "abaw"
"""Parser mode of jsonargparse that reads YAML with class paths of earlier versions, and with their options if
abaw wrote the file."""

_OURS = "# abaw "  # start of configurations that abaw writes


def _load(text: str) -> Any:
    settings = get_loader("yaml")(with_current_class_paths(text))
    return with_current_options(settings) if text.startswith(_OURS) else settings


set_loader(YAML, _load, (yaml.YAMLError,))

_OPTION = re.compile(r"""['"]([^'"\n]+)['"]|([a-z]\w*(?:\.\w+)+)""")


def with_shipped(args: Sequence[str]) -> list[str]:
    """The arguments of a command, with paths of shipped configurations and current class paths.

    A file in the working directory takes precedence over a shipped one of the same name.

    Raises:
        UsageError: There is no such file.
    """
    words: list[str] = []
    for word in args:
        option, equals, value = word.partition("=")
        if words and words[-1] in ("-c", "--config"):
            words.append(shipped_path(word))
        elif option == "--config" and equals:
            words.append(f"--config={shipped_path(value)}")
        else:
            words.append(with_current_class_paths(word))
    return words


def refuse_old_options(args: Sequence[str]) -> None:
    """Refuses old names of options, in arguments and configuration files that abaw has not written.

    Raises:
        UsageError: An option has the name of an earlier version, or a file is not a configuration.
    """
    given = [word[2:].partition("=")[0].removesuffix("+") for word in args if word.startswith("--")]
    renamed = {name: "" for name in given if current_option(name) != name}
    for path in named_files(args):
        renamed |= {name: f"{place}: " for name, place in places(path).items() if name in OPTIONS}
    if renamed:
        raise UsageError(
            "; ".join(f"{place}{name} is now {current_option(name)}" for name, place in renamed.items())
        )


def places(path: Path) -> dict[str, str]:
    """The place of every option in a file, as `file:line` by dotted name (the current one if abaw wrote it).

    Raises:
        UsageError: The file is not YAML, or not a mapping of options to values.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
        root = yaml.compose(text, Loader=_LOADER)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror}); check its permissions") from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise UsageError(f"{path}:{line}: is not text ({error.reason}); save it as UTF-8") from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise UsageError(f"{path}:{line}: holds a control character; remove it") from error
    except yaml.MarkedYAMLError as error:
        line = 1 if error.problem_mark is None else error.problem_mark.line + 1
        raise UsageError(f"{path}:{line}: is not YAML ({error.problem}); correct the line") from error
    except RecursionError as error:
        raise UsageError(f"{path}: is nested too deeply; correct it") from error
    if not isinstance(root, yaml.MappingNode):
        raise UsageError(f"{path}:1: has no options; a configuration has lines such as `data:`")
    current = current_option if text.startswith(_OURS) else str
    return {current(name): f"{path}:{line}" for name, line in _options(root, "", [])}


def _options(node: yaml.MappingNode, prefix: str, above: list[yaml.Node]) -> Iterator[tuple[str, int]]:
    for key, value in node.value:
        name = prefix + (key.value.removesuffix("+") if isinstance(key, yaml.ScalarNode) else "")
        yield name, key.start_mark.line + 1
        if isinstance(value, yaml.MappingNode) and value not in above:
            yield from _options(value, f"{name}.", [*above, node])


def with_location(message: str, args: Sequence[str], *, in_file: bool = False) -> str:
    """A message about an option, prefixed with `file:line` if a file sets the option.

    Args:
        message: Message with the name of the option, as `data.window` or in quotation marks.
        args: Arguments of the command.
        in_file: Whether the error is in a file unless the message names an argument.
    """
    configs = named_files(args)
    of_files = {name: place for path in configs for name, place in places(path).items()}
    given = {word.lstrip("-").partition("=")[0] for word in args if word.startswith("-")}
    for quoted, dotted in _OPTION.findall(message):
        name = quoted or dotted
        if any(f".{option}".endswith(f".{name}") or option.startswith(f"{name}.") for option in given):
            return message
        for option, place in reversed(of_files.items()):  # the innermost of nested options
            if f".{option}".endswith(f".{name}") or name.startswith(f"{option}."):
                return f"{place}: {message}"
    return f"{', '.join(map(str, configs))}: {message}" if configs and in_file else message


def make_absolute(data: Any) -> None:
    """Makes the paths of the data absolute, in place, so that a recorded run is found from any directory."""
    for name in ("root", "folds"):
        if data[name] is not None:
            data[name] = os.path.abspath(data[name])  # noqa: PTH100 - links stay
    if data["features"] is not None:
        data["features"] = [os.path.abspath(folder) for folder in data["features"]]  # noqa: PTH100


def run_folder(args: Sequence[str]) -> Path | None:
    """The directory of the run that the arguments of a command name; None if they name none."""
    given = given_files(args)
    return Run.named(given.run, given.config).folder if given.run is not None or given.config else None


def with_own_config(args: list[str]) -> list[str]:
    """The arguments; without `--config`, the configuration of an existing run is added.

    The run is that of `--run`, or else the one that a checkpoint named with `--ckpt_path` lies in.

    Raises:
        UsageError: An option has no value.
    """
    given = given_files(args)
    if given.config:
        return args
    added = []
    if given.run is None and given.ckpt_path not in (None, "best", "last"):
        given.run = Path(given.ckpt_path).resolve().parent.parent
        added = [f"--run={given.run}"]
    own = None if given.run is None else Run(given.run).config
    return [*added, "--config", str(own), *args] if own is not None and own.is_file() else args
