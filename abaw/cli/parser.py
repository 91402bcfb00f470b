"""How a typed function becomes a command line."""

import inspect
from argparse import SUPPRESS
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

PLACEHOLDERS = {int: "N", float: "X", Path: "PATH", str: "NAME"}


def parser_of(verb: str, does: Callable[..., Any]) -> Any:
    """An argument parser made from a function: its signature gives the options, its docstring their help.

    What stands before the `*` are the command's words, what stands behind it its options, needed where
    they have no default. A list takes several words; a bool is a switch.
    """
    import docstring_parser
    from jsonargparse import ArgumentParser, DefaultHelpFormatter

    class Help(DefaultHelpFormatter):  # the placeholders say the types
        def _get_help_string(self, action: Any) -> str:
            default = action.default
            shown = action.option_strings and default not in (None, SUPPRESS) and default is not False
            return f"{action.help} (default: %(default)s)" if shown else str(action.help)

    page = docstring_parser.parse(inspect.getdoc(does) or "", docstring_parser.DocstringStyle.GOOGLE)
    says = {entry.arg_name: entry.description for entry in page.params}
    parser = ArgumentParser(
        prog=f"abaw {verb}",
        description=page.description,
        formatter_class=Help,
        exit_on_error=False,
        allow_abbrev=False,
    )
    for name, parameter in inspect.signature(does).parameters.items():
        settings = _settings(parameter.annotation) | {"help": says[name]}
        if parameter.kind is not parameter.KEYWORD_ONLY:
            settings.pop("metavar", None)
            parser.add_argument(name, **settings)
        elif parameter.default is parameter.empty:
            parser.add_argument(f"--{name}", required=True, **settings)
        else:
            parser.add_argument(f"--{name}", default=parameter.default, **settings)
    return parser


def with_underscores(word: str) -> str:
    """An option as the parser spells it, `--per_video` for `--per-video`; other words as they are."""
    if not word.startswith("--"):
        return word
    name, equals, value = word.partition("=")
    return f"--{name[2:].replace('-', '_')}{equals}{value}"


def _settings(kind: Any) -> dict[str, Any]:
    """What `add_argument` needs to know of a type."""
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
