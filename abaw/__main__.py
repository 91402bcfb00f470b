"""The front door: `main(args)` is the command line and the tests' harness; it imports nothing heavy."""

import os
import re
import select
import sys
import traceback
from collections.abc import Callable, Sequence

from abaw.cli.commands import VERBS
from abaw.cli.help import CONFIGURED, configured_page, front_page
from abaw.cli.parser import parser_of, with_underscores
from abaw.errors import AbawError, UsageError, did_you_mean
from abaw.files import CURES
from abaw.threads import wait_passively


def main(args: list[str] | None = None) -> int:
    """Runs one command.

    Args:
        args: The words after `abaw`; the process's own when None. `sys.argv` is left alone, because
            training on several devices starts the process again from it.

    Returns:
        The exit code: 0 fine, 1 findings or failure, 2 usage, 75 pre-empted, 130 interrupted by Ctrl-C.
    """
    wait_passively()
    try:
        code = _run(sys.argv[1:] if args is None else args)
        sys.stdout.flush()  # notices here that nobody reads any more, not when the interpreter ends
        return code
    except BrokenPipeError:
        if not _discard_unread_output():
            raise
        return 1


def _run(args: list[str]) -> int:
    """Runs one command and makes an exit code and a message of whatever ends it."""
    try:
        return _dispatch(args)
    except KeyboardInterrupt:
        return _fail("interrupted", 130)
    except UsageError as error:
        return _fail(str(error), 2)
    except AbawError as error:
        return _fail(str(error), 1)
    except OSError as error:  # of a file whose reader or writer says nothing better, such as the curves
        cure = CURES.get(error.errno or 0)
        if cure is None:
            raise
        return _fail(f"{error.filename or 'a file of the run'}: {error.strerror}; {cure}", 1)
    except SystemExit as stop:  # how argument parsers end after --help, and a pre-empted run with 75
        if stop.code is None or isinstance(stop.code, int):
            return stop.code or 0
        return _fail(str(stop.code), 1)


def _discard_unread_output() -> bool:
    """Sends stdout and stderr to nowhere where the other end of their pipe is closed, as by `| head`.

    Returns:
        Whether one of them was closed.
    """
    pipes = select.poll()
    for stream in (sys.stdout, sys.stderr):
        pipes.register(stream, 0)  # errors are reported always
    closed = [descriptor for descriptor, event in pipes.poll(0) if event & select.POLLERR]
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for descriptor in closed:
        os.dup2(nowhere, descriptor)
    os.close(nowhere)
    return bool(closed)


def _fail(message: str, code: int) -> int:
    if os.environ.get("ABAW_DEBUG"):
        traceback.print_exc()
    print(f"abaw: {_plain(message)}", file=sys.stderr)
    return code


def _plain(text: str) -> str:
    """Types by their names alone: `int` instead of `<class 'int'>`, `Path` instead of `pathlib.Path`."""
    return re.sub(r"<class '(?:\w+\.)*(\w+)'>|(?:typing|pathlib)\.(?=[A-Z])", r"\1", text)


def _dispatch(args: list[str]) -> int:
    if not args or args[0] in ("-h", "--help", "help"):
        print(front_page(VERBS), end="")
        return 0
    verb, rest = args[0], args[1:]
    if verb == "--version":
        import abaw

        print(f"abaw {abaw.__version__}")
        return 0
    known = [*CONFIGURED, *VERBS]
    if verb.startswith("-"):
        said = next((word for word in rest if word in known), "VERB")
        raise UsageError(f"options come after the verb: abaw {said} {verb} ...")
    if verb in CONFIGURED:
        return _run_configured_verb(verb, rest)
    if verb in VERBS:
        return _run_plain_verb(verb, VERBS[verb], rest)
    raise UsageError(f"there is no subcommand {verb!r}{did_you_mean(verb, known)}; `abaw --help` lists them")


def _run_configured_verb(verb: str, args: list[str]) -> int:
    if not args or args[0] in ("-h", "--help"):
        print(configured_page(verb), end="")
        return 0
    words = ["--help" if word == "--help-all" else word for word in args]
    if verb == "extract":
        from abaw.cli.extract import extract

        return extract(words)
    if verb == "bench":
        from abaw.cli.bench import bench

        return bench(words)
    from abaw.cli.trainer_commands import run

    return run(verb, words)


def _run_plain_verb(verb: str, does: Callable[..., int | None], args: Sequence[str]) -> int:
    from argparse import ArgumentError

    parser = parser_of(verb, does)
    try:
        values = parser.parse_args([with_underscores(word) for word in args])
    except ArgumentError as error:
        message = str(error).removeprefix("unrecognized arguments: ")
        options = [option for action in parser._actions for option in action.option_strings]
        if message != str(error):
            message = f"{message}: no such option or argument{did_you_mean(message.split()[0], options)}"
        raise UsageError(f"{verb}: {message}\n`abaw {verb} --help` shows what it takes") from error
    return does(**vars(values)) or 0


if __name__ == "__main__":
    sys.exit(main())
