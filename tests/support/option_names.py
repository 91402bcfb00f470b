"""The options of the configured subcommands, as the parser has them.

python -m tests.support.option_names > abaw/cli/options.txt
"""

from typing import Any

from abaw.cli.bench import BenchCLI
from abaw.cli.extract import ExtractCLI
from abaw.cli.trainer_commands import AbawCLI
from abaw.training.checkpointing import OPTIONS

CLASSES: dict[str, Any] = {
    **dict.fromkeys(("fit", "validate", "test", "predict"), AbawCLI),
    "extract": ExtractCLI,
    "bench": BenchCLI,
}


class _ParsedError(Exception):
    pass


def options(subcommand: str) -> set[str]:
    """The options of a subcommand, without dashes."""
    found: set[str] = set()

    def collect(self: Any, parser: Any, args: Any) -> None:
        for action in self._subcommand_parsers[subcommand]._actions:
            long = [name for name in action.option_strings if name.startswith("--")]
            found.update(name[2:].removesuffix("+") for name in long)
        raise _ParsedError

    kind = type("Collecting", (CLASSES[subcommand],), {"parse_arguments": collect})
    try:
        kind(subcommand, [])
    except _ParsedError:
        return found
    raise AssertionError("nothing was parsed")


def text() -> str:
    """The content of `options.txt`: an option a line, followed by the subcommands if not all have it."""
    of = {name: options(name) | {"help-all"} for name in CLASSES}
    of["bench"].add("devices")  # which `bench` reads itself
    lines = ["# Options of configured subcommands; written by `python -m tests.support.option_names`."]
    for name in sorted(set().union(*of.values())):
        having = [subcommand for subcommand in CLASSES if name in of[subcommand]]
        lines.append(name if len(having) == len(CLASSES) else f"{name}  {' '.join(having)}")
    lines += [f"{name}  renamed" for name in sorted(set(OPTIONS) - set().union(*of.values()))]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(text(), end="")
