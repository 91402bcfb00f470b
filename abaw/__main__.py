"""The front door: `main(args)` is the command line and the tests' harness; it imports nothing heavy."""

import inspect
import os
import re
import sys
import traceback
from collections.abc import Callable, Sequence

from abaw.errors import AbawError, UsageError, did_you_mean
from abaw.signatures import parser_of
from abaw.verbs import VERBS

TRAINER_VERBS = {
    "fit": "Train a model; leaves checkpoints/, scores.json, metrics.csv in the run's folder.",
    "validate": "Score a checkpoint on the validation videos; leaves scores.json in the run's folder.",
    "test": "Score a checkpoint on the test videos, where they have labels; leaves scores.json.",
    "extract": "Cache the features of a backbone; leaves a file per video in the first of data.features.",
    "predict": "Predict every frame of every video; leaves one table per video in the run's tracks/.",
    "extract": "Cache the features of the backbone, on which `fit` then trains in minutes.",
    "bench": "Time loader, network and training on this machine, and say where the time goes.",
}

FRONT_PAGE = """\
usage: abaw VERB [options]

Frame-level affect from video: valence-arousal, expressions, action units.

{verbs}

`abaw VERB --help` shows a verb's options, `abaw --version` the version.
Exit codes: 0 fine, 1 findings or failure, 2 usage, 75 pre-empted (run again), 130 interrupted.
"""

TRAINER_PAGE = """\
usage: abaw {verb} --config FILE [--config OVERLAY ...] [--run DIR] [options]

{says}

Options most people use
  --config FILE             a file of configs/; a further --config is laid over the ones before it
  --run DIR                 the run's folder (default: runs/<name of the first config>); of a run that is
                            there already, its own config.yaml serves when no --config is given
  --ckpt_path best|last|FILE   {ckpt}
  --data.root DIR           the data set; or set the variable ABAW_ROOT
  --data.tasks [va,expr,au]    what to predict, any of the three
  --data.workers N          processes that read frames
  --data.batch_size N       windows in a training batch, per device
  --model.optimizer.lr X    learning rate
  --trainer.max_epochs N    length of the training
  --trainer.devices N       devices of this machine; more than one trains in parallel
  --trainer.accelerator cpu|gpu|auto
  --seed_everything N       the seed of everything random
{more}  --print_config            show the configuration that results and stop
  --help-all                every option there is

Examples
  {example}
"""

CKPT = {
    "fit": "continue a run: `last` is the newest checkpoint there that loads",
    "extract": "take the backbone of a checkpoint (default: the weights in the configuration)",
    "predict": "what to predict with (default: best)",
    "extract": "whose backbone (default: the weights that the configuration names)",
    "bench": "has no effect",
}
MORE = {
    "extract": "  --data.features [DIR]     where the features go\n",
    "bench": """\
  --seconds X               how long each part is timed in a round
  --rounds N                how often
  --json                    print the figures as JSON
""",
}
EXAMPLES = {
    "fit": """abaw fit --config configs/demo.yaml
  abaw fit --config configs/mtl.yaml --config configs/wandb.yaml --data.root /data/affwild2
  abaw fit --run runs/mtl --ckpt_path last""",
    "extract": "abaw extract --config configs/features.yaml --data.root /data/affwild2",
    "bench": "abaw bench --config configs/demo.yaml",
    "extract": "abaw extract --config configs/features.yaml --data.root /data/affwild2",
}


def main(args: list[str] | None = None) -> int:
    """Runs one command.

    Args:
        args: The words after `abaw`; the process's own when None. `sys.argv` is left alone, because
            training on several devices starts the process again from it.

    Returns:
        The exit code: 0 fine, 1 findings or failure, 2 usage, 75 pre-empted, 130 interrupted by Ctrl-C.
    """
    try:
        return _run(sys.argv[1:] if args is None else args)
    except KeyboardInterrupt:
        return _fail("interrupted", 130)
    except UsageError as error:
        return _fail(str(error), 2)
    except AbawError as error:
        return _fail(str(error), 1)
    except SystemExit as stop:  # how argument parsers end after --help, and a pre-empted run with 75
        if stop.code is None or isinstance(stop.code, int):
            return stop.code or 0
        return _fail(str(stop.code), 1)


def _fail(message: str, code: int) -> int:
    if os.environ.get("ABAW_DEBUG"):
        traceback.print_exc()
    print(f"abaw: {_plain(message)}", file=sys.stderr)
    return code


def _plain(text: str) -> str:
    """Types by their names alone: `int` instead of `<class 'int'>`, `Path` instead of `pathlib.Path`."""
    return re.sub(r"<class '(?:\w+\.)*(\w+)'>|(?:typing|pathlib)\.(?=[A-Z])", r"\1", text)


def _run(args: list[str]) -> int:
    if not args or args[0] in ("-h", "--help", "help"):
        print(_front_page(), end="")
        return 0
    verb, rest = args[0], args[1:]
    if verb == "--version":
        import abaw

        print(f"abaw {abaw.__version__}")
        return 0
    known = [*TRAINER_VERBS, *VERBS]
    if verb.startswith("-"):
        said = next((word for word in rest if word in known), "VERB")
        raise UsageError(f"options come after the verb: abaw {said} {verb} ...")
    if verb in TRAINER_VERBS:
        return _run_trainer_verb(verb, rest)
    if verb in VERBS:
        return _run_plain_verb(verb, VERBS[verb], rest)
    raise UsageError(f"there is no verb {verb!r}{did_you_mean(verb, known)} `abaw --help` lists them")


def _front_page() -> str:
    says = TRAINER_VERBS | {verb: (inspect.getdoc(does) or "").split("\n")[0] for verb, does in VERBS.items()}
    verbs = "\n".join(f"  {verb:<10} {text}" for verb, text in says.items())
    return FRONT_PAGE.format(verbs=verbs)


def _run_trainer_verb(verb: str, args: list[str]) -> int:
    if not args or args[0] in ("-h", "--help"):
        page = TRAINER_PAGE.format(
            verb=verb,
            says=TRAINER_VERBS[verb],
            more=MORE.get(verb, ""),
            ckpt=CKPT.get(verb, "what to score (default: best)"),
            example=EXAMPLES.get(verb, f"abaw {verb} --run runs/demo"),
        )
        print(page, end="")
        return 0
    words = ["--help" if word == "--help-all" else word for word in args]
    if verb == "extract":
        from abaw.extract_cli import extract

        return extract(words)
    from abaw.cli import run

    return run(verb, words)


def _run_plain_verb(verb: str, does: Callable[..., int | None], args: Sequence[str]) -> int:
    from argparse import ArgumentError

    parser = parser_of(verb, does)
    try:
        values = parser.parse_args(list(args))
    except ArgumentError as error:
        message = str(error).removeprefix("unrecognized arguments: ")
        options = [option for action in parser._actions for option in action.option_strings]
        if message != str(error):
            message = f"{message}: no such option or argument{did_you_mean(message.split()[0], options)}"
        raise UsageError(f"{verb}: {message}\n`abaw {verb} --help` shows what it takes") from error
    return does(**vars(values)) or 0


if __name__ == "__main__":
    sys.exit(main())
