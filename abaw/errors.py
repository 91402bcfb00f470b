"""Errors that users can fix; their messages name the problem, the value found and the cure."""

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from operator import attrgetter


class AbawError(ValueError):
    """Invalid input or state that the user can fix; the command line prints the message and exits with 1.

    The message names the file (and line) or option, the value found, and the cure.
    """


class UsageError(AbawError):
    """An invalid command or configuration; the command line exits with 2."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A suggestion for a misspelt `word`, to append to a message; empty if no known word is similar."""
    near = get_close_matches(word, list(known), n=1)
    return f"; did you mean {near[0]}?" if near else ""


def check_settings(key: str, settings: object, rules: Mapping[str, tuple[bool, str]]) -> None:
    """Raises a `UsageError` that names all invalid settings with their values.

    Args:
        key: Key of the settings in the configuration, such as `model.backbone`.
        settings: An object with an attribute per rule.
        rules: Per setting, which may be nested as `windows.stride`, whether it is valid, and a description
            of valid values.
    """
    wrong = [
        f"{key}.{name} is {what}, got {attrgetter(name)(settings)!r}"
        for name, (is_valid, what) in rules.items()
        if not is_valid
    ]
    if wrong:
        raise UsageError("; ".join(wrong))
