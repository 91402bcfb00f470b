"""Help texts: the list of subcommands, and the common options of those with a configuration."""

import inspect
from collections.abc import Callable, Mapping

CONFIGURED = {
    "fit": "Train a model; writes checkpoints/, scores.json, metrics.csv to the run's folder.",
    "validate": "Score a checkpoint on the validation videos; writes scores-val.json to the run's folder.",
    "test": "Score a checkpoint on the test videos, which need labels; writes scores-test.json.",
    "predict": "Predict every frame of the validation or other videos; writes one table each to tracks/.",
    "extract": "Cache the features of a backbone, on which `fit` then trains in minutes.",
    "bench": "Time loader, network and training on this machine, and show the bottleneck.",
}
"""Subcommands that are configured by YAML, with their descriptions."""

_FRONT = """\
usage: abaw SUBCOMMAND [options]

Frame-level affect from video: valence-arousal, expressions, action units.

{subcommands}

`abaw SUBCOMMAND --help` shows its options, `abaw --version` the version.
Exit codes: 0 success, 1 findings or failure, 2 usage, 75 pre-empted (run again), 130 interrupted.
"""

_PAGE = """\
usage: abaw {name} --config FILE [--config OVERLAY ...] [--run DIR] [options]

{summary}

Common options
{options}

Examples
{examples}
"""

_ALL = tuple(CONFIGURED)
_TRAINS = ("fit", "bench")

_OPTIONS = (  # option, description, subcommands
    ("--config FILE", "a file, or the name of one that comes with the package: demo.yaml, mtl.yaml,", _ALL),
    ("", "paper/va.yaml; later files override earlier ones", _ALL),
    ("--run DIR", "the run's folder (default: runs/<name of the first config>); the config.yaml", _ALL),
    ("", "of an existing run is used when no --config is given", _ALL),
    ("--ckpt_path last|FILE", "continue a run; `last` is its newest checkpoint that loads", ("fit",)),
    ("--init_from FILE", "start from the weights of a checkpoint that match by name and shape", ("fit",)),
    ("--ckpt_path best|last|FILE", "which checkpoint (default: best)", ("validate", "test", "predict")),
    ("--ckpt_path best|last|FILE", "whose backbone (default: the weights the config names)", ("extract",)),
    ("--data.root DIR", "the data set; or set the variable ABAW_ROOT", _ALL),
    ("--data.features [DIR]", "folder of the feature cache, in quotes: '[DIR]'", ("extract",)),
    ("--data.tasks [va,expr,au]", "what to predict: any of the three", ("fit",)),
    ("--data.evaluation.predict_split SPLIT", "", ("predict",)),
    ("", "train, val, test or all (default: val where it is annotated)", ("predict",)),
    ("--data.workers N", "number of processes that read frames", _ALL),
    ("--data.batch_size N", "windows per training batch and device", _TRAINS),
    ("--model.masking.ratio X", "share of the visible frames hidden in training (default: 0.5);", ("fit",)),
    ("", "--model.masking null: none", ("fit",)),
    (
        "--model.masking.span N",
        "number of consecutive frames masked together (default: 1)",
        ("fit",),
    ),
    (
        "--model.masking.start_ratio X",
        "ratio at the start of a linear ramp of --model.masking.ramp_steps",
        ("fit",),
    ),
    ("--model.optimizer.lr X", "learning rate", ("fit",)),
    ("--trainer.max_epochs N", "number of training epochs", ("fit",)),
    ("--trainer.devices N", "number of devices of this machine, used in parallel", _ALL),
    ("--trainer.accelerator cpu|gpu", "kind of device (default: a GPU if there is one)", _ALL),
    ("--trainer.precision P", "bf16-mixed, 32-true, ... (default: auto, the fastest on this machine)", _ALL),
    ("--seed_everything N", "random seed", ("fit",)),
    ("--seconds X", "seconds that each part is timed per round", ("bench",)),
    ("--rounds N", "number of rounds", ("bench",)),
    ("--devices 1,2,4", "train on each number of devices, and show the scaling", ("bench",)),
    ("--json", "print the figures as JSON", ("bench",)),
    ("--print_config", "print the resolved configuration and exit", _ALL),
    ("--help-all", "show all options", _ALL),
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
    """The list of all subcommands; `plain` are functions, described by their docstring."""
    lines = CONFIGURED | {name: (inspect.getdoc(does) or "").split("\n")[0] for name, does in plain.items()}
    return _FRONT.format(subcommands="\n".join(f"  {name:<10} {text}" for name, text in lines.items()))


def configured_page(name: str) -> str:
    """The common options of a configured subcommand; `--help-all` shows the hundreds of others."""
    options = [f"  {option:<30} {does}".rstrip() for option, does, names in _OPTIONS if name in names]
    examples = [f"  {line}" for line in _EXAMPLES.get(name, (f"abaw {name} --run runs/demo",))]
    return _PAGE.format(
        name=name, summary=CONFIGURED[name], options="\n".join(options), examples="\n".join(examples)
    )


def nested_options() -> str:
    """The options of classes that the parser shows as one value: those of masking and backbone."""
    import docstring_parser

    from abaw.loading.masking import RandomFrameMasking
    from abaw.model.backbone import BackboneSettings

    lines = []
    for name, example in (("model.masking", RandomFrameMasking()), ("model.backbone", BackboneSettings())):
        page = docstring_parser.parse_from_object(type(example), docstring_parser.DocstringStyle.GOOGLE)
        says = {entry.arg_name: " ".join(str(entry.description).split()) for entry in page.params}
        lines.append(f"\nOptions of {name}:")
        for option, default in vars(example).items():
            lines.append(f"  --{name}.{option}\n      {says[option]} (default: {default})")
    return "\n".join(lines)
