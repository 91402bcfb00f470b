"""Configuration files: shipped ones, those named on the command line, and the lines of their options."""

import os
import re
from argparse import ArgumentError, ArgumentParser, Namespace
from collections.abc import Iterator, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import get_loader, set_loader

from abaw.errors import UsageError, did_you_mean
from abaw.training.checkpointing import (
    OPTIONS,
    current_option,
    with_current_class_paths,
    with_current_options,
)
from abaw.training.run_directory import Run

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


def shipped() -> Path:
    """The folder of the shipped configurations: inside an installed package, beside it in a repository."""
    package = Path(str(files("abaw")))
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


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
            words.append(_shipped_path(word))
        elif option == "--config" and equals:
            words.append(f"--config={_shipped_path(value)}")
        else:
            words.append(with_current_class_paths(word))
    return words


def _shipped_path(name: str) -> str:
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


def _given(args: Sequence[str]) -> Namespace:
    """The options `--run` and `--config` of a command; raises UsageError if one has no value."""
    parser = ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--run", type=Path)
    parser.add_argument("-c", "--config", action="append", default=[])
    try:
        return parser.parse_known_args([word for word in args if word not in ("-h", "--help")])[0]
    except ArgumentError as error:
        option = str(error.argument_name).rpartition("/")[2]
        raise UsageError(
            f"{option} needs a value: {option} {'FILE' if option == '--config' else 'DIR'}"
        ) from error


def named_files(args: Sequence[str]) -> list[Path]:
    """The existing files given with `--config`, in order; the parser reports missing ones."""
    # a configuration may be YAML text, for which Path.is_file may raise
    return [Path(given) for given in _given(args).config if os.path.isfile(given)]  # noqa: PTH113


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


def with_own_config(args: list[str]) -> list[str]:
    """The arguments; without `--config`, the configuration of an existing run is added.

    Raises:
        UsageError: `--run` or `--config` has no value.
    """
    given = _given(args)
    own = Run(given.run).config if given.run is not None and not given.config else None
    return ["--config", str(own), *args] if own is not None and own.is_file() else args
