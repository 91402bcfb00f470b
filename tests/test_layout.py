"""The house rules, read from the source: who may import whom, where heavy libraries come in."""

import ast
import re
import sys
import tomllib
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[1]
PACKAGE = PROJECT / "abaw"
FILES = sorted(PACKAGE.rglob("*.py"))
MAX_LINES = 400

WINGS = ("data", "model", "outputs", "apply")
EVERYBODY_MAY = {"errors", "files", "randomness"}
MAY_IMPORT = {  # room or wing -> rooms and wings, besides its own wing and what everybody may
    "errors": "",
    "files": "",
    "randomness": "",
    # words and values
    "tasks": "",
    "windows": "",
    "recordings": "",
    "masking": "",
    "batch": "tasks windows",
    # scores
    "stitching": "tasks windows",
    "bootstrap": "recordings",
    "scores": "tasks recordings bootstrap",
    "comparison": "tasks recordings bootstrap scores",
    "score_table": "tasks",
    "metrics": "tasks stitching scores",
    # training
    "criteria": "",
    "losses": "tasks batch criteria",
    "checkpoints": "",
    "module": "initial_weights tasks batch masking losses metrics stitching checkpoints model",
    "initial_weights": "checkpoints model",
    "callbacks": "checkpoints tasks batch stitching score_table outputs data.bad_frames",
    "nonfinite": "batch windows",
    "averaging": "",
    "signals": "",
    "resume": "checkpoints signals",
    "fixed_settings": "",
    # wings
    "data": "tasks batch windows recordings",
    "model": "tasks batch masking",
    "outputs": "tasks recordings stitching bootstrap scores comparison data.annotations",
    "apply": "tasks windows masking batch stitching bootstrap scores comparison score_table metrics criteria"
    " losses checkpoints data model outputs module callbacks resume runs",
    # cached features: the one place where the data's and the network's side meet
    "feature_key": "data.feature_files data.features model.backbone",
    "extraction": "feature_key data model.backbone",
    # the command line
    "runs": "checkpoints fixed_settings",
    "trackers": "runs",
    "noise": "",
    "options": "",
    "failures": "",
    "config_files": "",
    "precision": "options",
    "threads": "",
    "cli": "tasks module data.datamodule data.processes checkpoints callbacks fixed_settings nonfinite resume"
    " signals feature_key runs trackers noise options precision threads config_files failures",
    "extract_cli": "cli runs signals checkpoints extraction data",
    "bench_cli": "cli runs trackers batch data apply",
    "signatures": "",
    "pages": "",
    "track_verbs": "checkpoints scores comparison score_table data outputs apply",
    "verbs": "track_verbs checkpoints scores comparison score_table data outputs apply",
    "__main__": "verbs signatures pages threads cli extract_cli bench_cli",
    "__init__": "apply.predictor threads",
}
DOORS = {  # heavy library -> the rooms through which it comes in
    "timm": {"model.backbone", "model.weights"},
    "torchmetrics": {"metrics"},
    "lightning": {
        *("module", "callbacks", "nonfinite", "averaging", "resume", "signals", "data.datamodule"),
        *("feature_key", "extraction", "failures", "precision", "runs", "trackers"),
        *("cli", "extract_cli", "bench_cli"),
    },
    "albumentations": {"data.transforms"},
    "matplotlib": {"outputs.report"},
    "plotly": {"outputs.report"},
    "onnx": {"apply.export"},
    "onnxruntime": {"apply.export"},
    "wandb": set(),  # a logger's class is named in YAML
}
LIGHT = ("errors", "files", "threads", "verbs", "track_verbs", "signatures", "pages")  # the front door's
NO_NAMES = {"utils", "util", "helpers", "helper", "common", "base", "manager", "misc"}


def room(path: Path) -> str:
    """`data.index` for abaw/data/index.py."""
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts)


def wing(name: str) -> str:
    first = name.split(".")[0]
    return first if first in WINGS else name


def imports(path: Path, *, top_level: bool = False) -> set[str]:
    """Full names of all that a file imports, inside functions too unless `top_level`."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found: set[str] = set()
    for node in tree.body if top_level else ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            # `from abaw.data import index` means the room, `from abaw.data.index import Index` a word of it
            found |= names if node.module in {"abaw", *(f"abaw.{w}" for w in WINGS)} else {str(node.module)}
    return found


def rooms_imported(path: Path) -> set[str]:
    return {name.removeprefix("abaw.") for name in imports(path) if name.startswith("abaw.")}


@pytest.mark.parametrize("path", FILES, ids=room)
def test_imports_follow_the_table(path: Path) -> None:
    here = room(path)
    if here.endswith("__init__") and here != "__init__":
        return  # empty, see below
    assert wing(here) in MAY_IMPORT, f"{here}: a new room needs a line in the table"
    allowed = EVERYBODY_MAY | set(MAY_IMPORT[wing(here)].split())
    for there in rooms_imported(path):
        same_wing = here.split(".")[0] == there.split(".")[0]
        assert same_wing or allowed & {there, wing(there)}, f"{here} must not import {there}"


def test_no_two_rooms_need_each_other() -> None:
    needs = {room(path): rooms_imported(path) for path in FILES}

    def visit(name: str, way: tuple[str, ...]) -> None:
        assert name not in way, f"a circle: {' -> '.join((*way[way.index(name) :], name))}"
        if name not in done:
            for there in needs.get(name, ()):
                visit(there, (*way, name))
            done.add(name)

    done: set[str] = set()
    for name in needs:
        visit(name, ())


@pytest.mark.parametrize("path", FILES, ids=room)
def test_heavy_libraries_come_in_by_their_own_door(path: Path) -> None:
    for library in {name.split(".")[0] for name in imports(path)} & set(DOORS):
        assert room(path) in DOORS[library], f"{room(path)} imports {library}"


@pytest.mark.parametrize("name", ["tasks", "windows", "scores", "bootstrap", "comparison", "score_table"])
def test_scores_need_no_torch(name: str) -> None:
    assert "torch" not in {module.split(".")[0] for module in imports(PACKAGE / f"{name}.py")}


@pytest.mark.parametrize("name", [*LIGHT, "__main__", "__init__"])
def test_the_front_door_is_light(name: str) -> None:
    allowed = set(sys.stdlib_module_names) | {"abaw"}
    found = imports(PACKAGE / f"{name}.py", top_level=True)
    assert {module.split(".")[0] for module in found} <= allowed
    assert {module for module in found if module.startswith("abaw")} <= {f"abaw.{room}" for room in LIGHT}


def test_only_the_package_itself_has_a_door() -> None:
    for path in PACKAGE.rglob("__init__.py"):
        assert path == PACKAGE / "__init__.py" or path.read_text() == "", f"{path} must stay empty"


@pytest.mark.parametrize("path", FILES, ids=room)
def test_a_file_is_named_for_what_it_answers_and_stays_short(path: Path) -> None:
    assert not NO_NAMES & set(path.stem.lower().split("_"))
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MAX_LINES


def tracked_texts() -> list[Path]:
    patterns = (
        "abaw/**/*.py",
        "tests/**/*.py",
        "configs/**/*.yaml",
        "docs/**/*.md",
        "*.md",
        "*.toml",
        "Makefile",
    )
    return [path for pattern in patterns for path in PROJECT.glob(pattern) if path != Path(__file__)]


@pytest.mark.parametrize("path", tracked_texts(), ids=lambda path: str(path.relative_to(PROJECT)))
def test_nothing_points_outside_the_repository(path: Path) -> None:
    strangers = re.compile(r"/work/|/opt/|\.\./shared|\b(DESIGN|FACTS|TRAPS|PERF|STYLE)\b(\.md)?|index-url")
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        assert not strangers.search(line), f"{path}:{number}: {line.strip()}"


def test_constraints_hold_every_dependency() -> None:
    lines = (PROJECT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.!+]+", pin) for pin in pins)
    pinned = {re.sub(r"[-_.]+", "-", pin.split("==")[0]).lower() for pin in pins}
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [
        *project["dependencies"],
        *(d for extra in project["optional-dependencies"].values() for d in extra),
    ]
    names = {re.sub(r"[-_.]+", "-", re.split(r"[^A-Za-z0-9._-]", want)[0]).lower() for want in wanted}
    assert names - {"abaw"} <= pinned  # an extra may ask for another one
