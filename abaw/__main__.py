"""The command line: `main(args)` runs one subcommand."""

import os
import re
import select
import sys
import traceback
from collections.abc import Callable, Sequence

from abaw.cli.commands import SUBCOMMANDS
from abaw.cli.help import CONFIGURED, configured_page, front_page, nested_options
from abaw.cli.parser import parser_of, with_underscores
from abaw.cli.threads import wait_passively
from abaw.errors import AbawError, UsageError, did_you_mean
from abaw.files import CURES


def main(args: list[str] | None = None) -> int:
    """Runs one subcommand.

    Args:
        args: The arguments after `abaw`; None: those of the process. `sys.argv` is not changed, because
            Lightning starts further processes with it.

    Returns:
        The exit code: 0 success, 1 findings or failure, 2 usage, 75 pre-empted, 130 interrupted by Ctrl-C.
    """
    wait_passively()
    try:
        code = _run(sys.argv[1:] if args is None else args)
        sys.stdout.flush()  # raises BrokenPipeError here, not when the interpreter exits
        return code
    except BrokenPipeError:
        if not _discard_unread_output():
            raise
        return 1


def _run(args: list[str]) -> int:
    """Runs one subcommand and turns exceptions into a message and an exit code."""
    try:
        return _dispatch(args)
    except KeyboardInterrupt as stop:
        return _fail("; ".join(("interrupted", *map(str, stop.args))), 130)
    except UsageError as error:
        return _fail(str(error), 2)
    except AbawError as error:
        return _fail(str(error), 1)
    except OSError as error:  # of files that other packages write, such as metrics.csv
        cure = CURES.get(error.errno or 0)
        if cure is None:
            raise
        return _fail(f"{error.filename or 'a file of the run'}: {error.strerror}; {cure}", 1)
    except SystemExit as stop:  # raised by argument parsers after --help, and by a pre-empted run (75)
        if stop.code is None or isinstance(stop.code, int):
            return stop.code or 0
        return _fail(str(stop.code), 1)


def _discard_unread_output() -> bool:
    """Redirects stdout and stderr to /dev/null if their pipe is closed, as by `| head`; returns whether."""
    pipes = select.poll()
    for stream in (sys.stdout, sys.stderr):
        pipes.register(stream, 0)  # errors are always reported
    closed = [descriptor for descriptor, event in pipes.poll(0) if event & select.POLLERR]
    devnull = os.open(os.devnull, os.O_WRONLY)
    for descriptor in closed:
        os.dup2(devnull, descriptor)
    os.close(devnull)
    return bool(closed)


def _fail(message: str, code: int) -> int:
    if os.environ.get("ABAW_DEBUG"):
        traceback.print_exc()
    print(f"abaw: {_plain(message)}", file=sys.stderr)
    return code


def _plain(text: str) -> str:
    """The text with bare type names: `int` for `<class 'int'>`, `Path` for `pathlib.Path`."""
    return re.sub(r"<class '(?:\w+\.)*(\w+)'>|(?:typing|pathlib)\.(?=[A-Z])", r"\1", text)


def _dispatch(args: list[str]) -> int:
    if not args or args[0] in ("-h", "--help", "help"):
        print(front_page(SUBCOMMANDS), end="")
        return 0
    subcommand, rest = args[0], args[1:]
    if subcommand == "--version":
        import abaw

        print(f"abaw {abaw.__version__}")
        return 0
    known = [*CONFIGURED, *SUBCOMMANDS]
    if subcommand.startswith("-"):
        given = next((word for word in rest if word in known), "SUBCOMMAND")
        raise UsageError(f"options come after the subcommand: abaw {given} {subcommand} ...")
    if subcommand in CONFIGURED:
        return _run_configured(subcommand, rest)
    if subcommand in SUBCOMMANDS:
        return _run_plain(subcommand, SUBCOMMANDS[subcommand], rest)
    hint = _MEANT.get(subcommand) or did_you_mean(subcommand, known)
    raise UsageError(f"there is no subcommand {subcommand!r}{hint or ';'} `abaw --help` lists them")


_TRAIN, _SCORE = "; did you mean fit?", "; did you mean validate (with its network) or score (its tracks)?"
_PREDICT = "; did you mean predict (a data set) or analyze (any video)?"
_MEANT = {
    **dict.fromkeys(("train", "training", "finetune", "resume"), _TRAIN),
    **dict.fromkeys(("eval", "evaluate", "evaluation", "val", "valid"), _SCORE),
    **dict.fromkeys(("inference", "infer", "run", "prediction", "demo"), _PREDICT),
    **dict.fromkeys(("video", "detect", "track", "webcam"), "; did you mean analyze?"),
    **dict.fromkeys(("generate", "data", "dataset", "download"), "; did you mean synth (generated data)?"),
    **dict.fromkeys(("doctor", "validate_data", "lint"), "; did you mean check?"),
    **dict.fromkeys(("benchmark", "profile", "speed"), "; did you mean bench?"),
    **dict.fromkeys(("features", "cache"), "; did you mean extract?"),
    **dict.fromkeys(("threshold", "thresholds", "tune"), "; did you mean calibrate?"),
    **dict.fromkeys(("submission", "export_submission"), "; did you mean submit?"),
}
"""Subcommands of other programs, with the hint."""


def _run_configured(subcommand: str, args: list[str]) -> int:
    if not args or args[0] in ("-h", "--help"):
        print(configured_page(subcommand), end="")
        return 0
    words = ["--help" if word == "--help-all" else word for word in args]
    if "--help" not in words:
        from abaw.cli.arguments import check_arguments

        check_arguments(subcommand, words)
        _say_loading(subcommand)
    else:
        from jsonargparse import set_parsing_settings

        set_parsing_settings(docstring_parse_attribute_docstrings=True)  # takes a second
    try:
        return _run_heavy(subcommand, words)
    except SystemExit as stop:
        if "--help" in words and not stop.code:
            print(nested_options())
        raise


def _run_heavy(subcommand: str, words: list[str]) -> int:
    from abaw.cli.trainer_commands import run

    if subcommand == "extract":
        from abaw.cli.extract import ExtractCLI

        return run(subcommand, words, ExtractCLI)
    if subcommand == "bench":
        from abaw.cli.bench import bench

        return bench(words)
    return run(subcommand, words)


_WRONG_VALUE = re.compile(r'Parser key "([^"]+)":\s*Expected an? (.+?)\.? Got value: (.*)', re.DOTALL)


def _takes(found: re.Match[str]) -> str:
    """`--task takes va, expr, au or mtl; got vad`."""
    key, kind, value = found.groups()
    if "Literal[" in kind:
        choices = [choice.strip(" '") for choice in kind.partition("Literal[")[2].rstrip("]").split(",")]
        kind = f"{', '.join(choices[:-1])} or {choices[-1]}"
    return f"--{key} takes {kind}; got {value.strip()}"


def _say_loading(subcommand: str) -> None:
    """Says something before seconds of imports, in the first process of a run."""
    if "torch" not in sys.modules and "LOCAL_RANK" not in os.environ:
        print(f"abaw {subcommand}: loading PyTorch", file=sys.stderr, flush=True)


def _run_plain(subcommand: str, does: Callable[..., int | None], args: Sequence[str]) -> int:
    from argparse import ArgumentError

    parser = parser_of(subcommand, does)
    try:
        values = parser.parse_args([with_underscores(word) for word in args])
    except ArgumentError as error:
        message = str(error).removeprefix("unrecognized arguments: ")
        options = [option for action in parser._actions for option in action.option_strings]
        if message != str(error):
            message = f"{message}: no such option or argument{did_you_mean(message.split()[0], options)}"
        message = _WRONG_VALUE.sub(_takes, message)
        raise UsageError(f"{subcommand}: {message}\nsee `abaw {subcommand} --help`") from error
    if subcommand == "analyze":
        _say_loading(subcommand)
    return does(**vars(values)) or 0


if __name__ == "__main__":
    sys.exit(main())
