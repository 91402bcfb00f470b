"""What goes wrong for a user's reason: one sentence that says what, the value met and the cure."""

from collections.abc import Iterable, Mapping
from difflib import get_close_matches


class AbawError(ValueError):
    """Bad input or state that the user can mend; the command line prints it alone and exits with 1.

    The message names the file (and line) or option, the value met there, and what to do about it.
    """


class UsageError(AbawError):
    """A command or configuration that cannot mean anything; the command line exits with 2."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A hint to append to a message about a misspelt `word`; empty when no known word is near."""
    near = get_close_matches(word, list(known), n=1)
    return f"; did you mean {near[0]}?" if near else ""


def check_settings(key: str, settings: object, rules: Mapping[str, tuple[bool, str]]) -> None:
    """Raises one `UsageError` that names every setting that is out of its rule, with the value met.

    Args:
        key: Where the settings lie in the configuration, such as `model.backbone`.
        settings: An object with an attribute for every rule.
        rules: Per setting whether it is fine, and what it has to be.
    """
    wrong = [
        f"{key}.{name} is {what}, got {getattr(settings, name)!r}"
        for name, (fine, what) in rules.items()
        if not fine
    ]
    if wrong:
        raise UsageError("; ".join(wrong))
