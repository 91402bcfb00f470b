"""Argument parsers made from typed functions."""

import inspect
from argparse import SUPPRESS
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

PLACEHOLDERS = {int: "N", float: "X", Path: "PATH", str: "NAME"}


def parser_of(name: str, does: Callable[..., Any]) -> Any:
    """The argument parser of a function: options from its signature, help from its docstring.

    Keyword-only parameters are options, required if they have no default; other parameters are positional
    arguments. A list takes several values; a bool is a flag.
    """
    import docstring_parser
    from jsonargparse import ArgumentParser, DefaultHelpFormatter

    class Help(DefaultHelpFormatter):  # the metavars show the types
        def _get_help_string(self, action: Any) -> str:
            default = action.default
            shown = action.option_strings and default not in (None, SUPPRESS) and default is not False
            return f"{action.help} (default: %(default)s)" if shown else str(action.help)

    page = docstring_parser.parse(inspect.getdoc(does) or "", docstring_parser.DocstringStyle.GOOGLE)
    says = {entry.arg_name: entry.description for entry in page.params}
    parser = ArgumentParser(
        prog=f"abaw {name}",
        description=page.description,
        formatter_class=Help,
        exit_on_error=False,
        allow_abbrev=False,
    )
    for argument, parameter in inspect.signature(does).parameters.items():
        settings = _settings(parameter.annotation) | {"help": says[argument]}
        if parameter.kind is not parameter.KEYWORD_ONLY:
            settings.pop("metavar", None)
            if parameter.default is not parameter.empty:
                settings |= {"nargs": "?", "default": parameter.default}
            parser.add_argument(argument, **settings)
        elif parameter.default is parameter.empty:
            parser.add_argument(f"--{argument}", required=True, **settings)
        else:
            parser.add_argument(f"--{argument}", default=parameter.default, **settings)
    return parser


def with_underscores(word: str) -> str:
    """An option with underscores, `--per_video` for `--per-video`; other arguments unchanged."""
    if not word.startswith("--"):
        return word
    name, equals, value = word.partition("=")
    return f"--{name[2:].replace('-', '_')}{equals}{value}"


def _settings(kind: Any) -> dict[str, Any]:
    """Arguments of `add_argument` for a type."""
    if kind is bool:
        return {"action": "store_true"}
    parts = (kind, *get_args(kind))  # X | None has the parts X and None
    several = next((part for part in parts if get_origin(part) is list), None)
    if several is not None:
        kind = get_args(several)[0]
        return {"nargs": "+", "type": kind} | _metavar((kind,))
    return {"type": kind} | _metavar(parts)


def _metavar(parts: tuple[Any, ...]) -> dict[str, str]:
    for part in parts:
        if get_origin(part) is Literal:
            return {"metavar": f"{{{','.join(map(str, get_args(part)))}}}"}
        if part in PLACEHOLDERS:
            return {"metavar": PLACEHOLDERS[part]}
    return {}
