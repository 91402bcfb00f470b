"""The short help pages: of the front door, and of the verbs that take a whole configuration."""

import inspect
from collections.abc import Callable, Mapping

CONFIGURED = {
    "fit": "Train a model; leaves checkpoints/, scores.json, metrics.csv in the run's folder.",
    "validate": "Score a checkpoint on the validation videos; leaves scores-val.json in the run's folder.",
    "test": "Score a checkpoint on the test videos, which need labels; leaves scores-test.json.",
    "predict": "Predict every frame of the validation or other videos; leaves one table each in tracks/.",
    "extract": "Cache the features of a backbone, on which `fit` then trains in minutes.",
    "bench": "Time loader, network and training on this machine, and say where the time goes.",
}
"""Verbs that are configured by YAML, and what they do."""

_FRONT = """\
usage: abaw VERB [options]

Frame-level affect from video: valence-arousal, expressions, action units.

{verbs}

`abaw VERB --help` shows a verb's options, `abaw --version` the version.
Exit codes: 0 fine, 1 findings or failure, 2 usage, 75 pre-empted (run again), 130 interrupted.
"""

_PAGE = """\
usage: abaw {verb} --config FILE [--config OVERLAY ...] [--run DIR] [options]

{says}

Options most people use
{options}

Examples
{examples}
"""

_ALL = tuple(CONFIGURED)

_TRAINS = ("fit", "bench")

_OPTIONS = (  # option, what it does, for which verbs
    ("--config FILE", "a file, or the name of one that comes with the package: demo.yaml, mtl.yaml,", _ALL),
    ("", "paper/va.yaml; a further --config is laid over the ones before it", _ALL),
    ("--run DIR", "the run's folder (default: runs/<name of the first config>); the config.yaml", _ALL),
    ("", "of a run that is there already serves when no --config is given", _ALL),
    ("--ckpt_path last|FILE", "continue a run; `last` is its newest checkpoint that loads", ("fit",)),
    ("--init_from FILE", "start from the weights of any checkpoint, as far as they fit", ("fit",)),
    ("--ckpt_path best|last|FILE", "which checkpoint (default: best)", ("validate", "test", "predict")),
    ("--ckpt_path best|last|FILE", "whose backbone (default: the weights the config names)", ("extract",)),
    ("--data.root DIR", "the data set; or set the variable ABAW_ROOT", _ALL),
    ("--data.features [DIR]", "folder for the features, in quotes: '[DIR]'", ("extract",)),
    ("--data.tasks [va,expr,au]", "what to predict: any of the three", ("fit",)),
    (
        "--data.predict_split SPLIT",
        "train, val, test or all (default: val where it is annotated)",
        ("predict",),
    ),
    ("--data.workers N", "processes that read frames", _ALL),
    ("--data.batch_size N", "windows in a training batch, per device", _TRAINS),
    ("--model.optimizer.lr X", "learning rate", ("fit",)),
    ("--trainer.max_epochs N", "length of the training", ("fit",)),
    ("--trainer.devices N", "devices of this machine; more than one work in parallel", _ALL),
    ("--trainer.accelerator cpu|gpu", "which kind of device (default: a GPU if there is one)", _ALL),
    (
        "--trainer.precision P",
        "bf16-mixed, 32-true, ... (default: auto, by what this machine is fast with)",
        _ALL,
    ),
    ("--seed_everything N", "the seed of everything random", ("fit",)),
    ("--seconds X", "how long each part is timed in a round", ("bench",)),
    ("--rounds N", "how often each part is timed", ("bench",)),
    ("--devices 1,2,4", "train on so many devices in turn, and show how it scales", ("bench",)),
    ("--json", "print the figures as JSON", ("bench",)),
    ("--print_config", "show the configuration that results, and stop", _ALL),
    ("--help-all", "every option there is", _ALL),
)

_EXAMPLES = {
    "fit": (
        "abaw fit --config demo.yaml",
        "abaw fit --config mtl.yaml --config wandb.yaml --data.root /data/affwild2",
        "abaw fit --run runs/mtl --ckpt_path last",
    ),
    "extract": ("abaw extract --config features.yaml --data.root /data/affwild2",),
    "bench": ("abaw bench --config demo.yaml",),
}


def front_page(plain: Mapping[str, Callable[..., object]]) -> str:
    """Every verb with a line; `plain` are those that are functions, described by their docstring."""
    says = CONFIGURED | {verb: (inspect.getdoc(does) or "").split("\n")[0] for verb, does in plain.items()}
    return _FRONT.format(verbs="\n".join(f"  {verb:<10} {text}" for verb, text in says.items()))


def configured_page(verb: str) -> str:
    """The options of a configured verb that people use; `--help-all` shows the hundreds of others."""
    options = [f"  {option:<30} {does}" for option, does, verbs in _OPTIONS if verb in verbs]
    examples = [f"  {line}" for line in _EXAMPLES.get(verb, (f"abaw {verb} --run runs/demo",))]
    return _PAGE.format(
        verb=verb, says=CONFIGURED[verb], options="\n".join(options), examples="\n".join(examples)
    )
