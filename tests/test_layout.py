"""House rules, read from the source: who may import whom, where heavy libraries enter, sizes and names."""

import ast
import re
import sys
import tomllib
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[1]
PACKAGE = PROJECT / "abaw"
FILES = sorted(path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py" or path.parent == PACKAGE)
MAX_LINES = 400
MAX_ENTRIES = 14  # of a folder
MAX_MODULES = 120
NOT_COUNTED = {"__init__.py", "__main__.py", "py.typed", "__pycache__"}

GROUND = {"errors", "files", "randomness"}  # everyone may import these
MAY_IMPORT = {  # room -> rooms and modules, besides itself and the ground
    "errors": "",
    "files": "",
    "randomness": "",
    "tasks": "",
    "windows": "",
    "batch": "windows tasks",
    "data": "tasks",
    "model": "tasks batch",
    "evaluation": "data model.checkpoints windows tasks",
    "loading": "data batch windows tasks",
    "training": "model loading evaluation data report.figures report.style batch windows tasks",
    "inference": "model evaluation data batch windows tasks",
    "report": "evaluation data tasks inference",
    "cli": "training inference model loading evaluation data report batch windows tasks",
    "__main__": "cli",
    "__init__": "batch inference.predictor tasks cli.threads",
}
DATA_ORDER = (  # inside data, an import points to an earlier step or its own
    "labels processes progress",
    "formats",
    "cache",
    "layout",
    "index",
    "frames",
    "features packing check synth",
)
DOORS = {  # heavy library -> the rooms or modules through which it enters
    "timm": {"model.backbone", "model.weights"},
    "torchmetrics": {"evaluation.metrics"},
    "lightning": {"training", "loading.datamodule", "cli"},
    "albumentations": {"loading.transforms"},
    "av": {"inference.video"},
    "scenedetect": {"inference.identities"},
    "altair": {"report"},
    "vl_convert": {"report"},
    "onnx": {"inference", "model.weights"},
    "onnxruntime": {"inference", "model.weights"},
    "wandb": set(),  # a logger class is named in YAML
}
LIGHT = (  # what `abaw --help` imports
    *("errors", "files", "cli.threads"),
    *("cli.commands", "cli.track_commands", "cli.analyze", "cli.parser", "cli.help"),
)
COVERED_ELSEWHERE = {  # module without a test file of its name -> the file that tests it, and why there
    "__init__": ("tests/test_public_names.py", "named for what it holds: the public names"),
}
GONE = (
    r"Sight|Feeding|holding_labels|stand_in|EndRequest|in_words|EpochLines|MetricsFile|LossBar|MovingAverage"
    r"|Playwright|Society|Weather|images_mark|key_of|hide_frames|VERBS"
)
NO_NAMES = {"utils", "util", "helpers", "helper", "common", "base", "manager", "misc"}


def room(path: Path) -> str:
    """`data.index` for abaw/data/index.py."""
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts)


MODULES = {room(path) for path in FILES}


def imports(path: Path, *, top_level: bool = False) -> set[str]:
    """Full names of all that a file imports, inside functions too unless `top_level`."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found: set[str] = set()
    for node in tree.body if top_level else ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            module = str(node.module)
            for alias in node.names:  # `from abaw.data import index` means the module
                inner = f"{module}.{alias.name}"
                found.add(inner if inner.removeprefix("abaw.") in MODULES else module)
    return found


def modules_imported(path: Path) -> set[str]:
    return {name.removeprefix("abaw.") for name in imports(path) if name.startswith("abaw.")}


def allows(rooms: set[str], module: str) -> bool:
    """Whether a module, or a folder that holds it, is among the rooms."""
    parts = module.split(".")
    return any(".".join(parts[: n + 1]) in rooms for n in range(len(parts)))


@pytest.mark.parametrize("path", FILES, ids=room)
def test_imports_follow_the_table(path: Path) -> None:
    here = room(path).split(".")[0]
    assert here in MAY_IMPORT, f"{here}: a new room needs a line in the table"
    allowed = {here} | GROUND | set(MAY_IMPORT[here].split())
    for module in modules_imported(path):
        assert allows(allowed, module), f"{room(path)} must not import {module}"


@pytest.mark.parametrize("path", [p for p in FILES if room(p).startswith("data.")], ids=room)
def test_inside_data_imports_point_backwards(path: Path) -> None:
    def step(module: str) -> int:
        name = module.split(".")[1]
        return next(k for k, names in enumerate(DATA_ORDER) if name in names.split())

    here = room(path)
    for module in modules_imported(path):
        if module.startswith("data."):
            same = here.split(".")[1] == module.split(".")[1]
            assert same or step(module) < step(here), f"{here} must not import {module}"


def test_no_two_modules_need_each_other() -> None:
    needs = {room(path): modules_imported(path) for path in FILES}

    def visit(name: str, way: tuple[str, ...]) -> None:
        assert name not in way, f"a circle: {' -> '.join((*way[way.index(name) :], name))}"
        if name not in done:
            for there in needs.get(name, ()):
                visit(there, (*way, name))
            done.add(name)

    done: set[str] = set()
    for name in needs:
        visit(name, ())


def test_no_two_public_classes_have_one_name() -> None:
    names = [
        node.name
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    ]
    assert sorted({name for name in names if names.count(name) > 1}) == []


@pytest.mark.parametrize("path", FILES, ids=room)
def test_heavy_libraries_enter_by_their_own_door(path: Path) -> None:
    for library in {name.split(".")[0] for name in imports(path)} & set(DOORS):
        assert allows(DOORS[library], room(path)), f"{room(path)} imports {library}"


@pytest.mark.parametrize("name", ["tasks", "windows", "evaluation.scores", "evaluation.tables"])
def test_scores_need_no_torch(name: str) -> None:
    path = PACKAGE / f"{name.replace('.', '/')}.py"
    assert "torch" not in {module.split(".")[0] for module in imports(path)}


@pytest.mark.parametrize("name", [*LIGHT, "__main__", "__init__"])
def test_help_needs_no_library(name: str) -> None:
    allowed = set(sys.stdlib_module_names) | {"abaw"}
    found = imports(PACKAGE / f"{name.replace('.', '/')}.py", top_level=True)
    assert {module.split(".")[0] for module in found} <= allowed
    assert {module for module in found if module.startswith("abaw")} <= {f"abaw.{room}" for room in LIGHT}


def test_packages_have_empty_init_files() -> None:
    for path in PACKAGE.rglob("__init__.py"):
        assert path == PACKAGE / "__init__.py" or path.read_text() == "", f"{path} must stay empty"


@pytest.mark.parametrize("path", FILES, ids=room)
def test_a_file_is_named_for_its_subject_and_stays_short(path: Path) -> None:
    assert not NO_NAMES & set(path.stem.lower().split("_"))
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MAX_LINES


def test_a_folder_shows_at_a_glance_what_it_holds() -> None:
    folders = {path.parent for path in PACKAGE.rglob("*.py")}
    sizes = {folder: {path.name for path in folder.iterdir()} - NOT_COUNTED for folder in folders}
    assert {str(folder): len(names) for folder, names in sizes.items() if len(names) > MAX_ENTRIES} == {}
    assert len([path for path in FILES if path.name not in NOT_COUNTED]) <= MAX_MODULES


def own_tests(module: str) -> Path:
    """tests/data/test_index.py for `data.index`, tests/test_main.py for `__main__`."""
    *folders, name = module.split(".")
    return PROJECT.joinpath("tests", *folders, f"test_{name.strip('_')}.py")


@pytest.mark.parametrize("module", sorted(MODULES))
def test_a_module_has_tests_of_its_name(module: str) -> None:
    if not own_tests(module).is_file():
        assert module in COVERED_ELSEWHERE, f"{own_tests(module).relative_to(PROJECT)} is missing"


def test_few_modules_are_tested_elsewhere_and_for_a_reason() -> None:
    assert len(COVERED_ELSEWHERE) <= 10
    for module, (file, reason) in COVERED_ELSEWHERE.items():
        assert module in MODULES, f"{module} is gone"
        assert not own_tests(module).exists(), f"{module} has tests of its own"
        assert (PROJECT / file).is_file(), f"{file} is gone"
        assert reason


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


@pytest.mark.parametrize(
    "path",
    [
        path
        for names in ("abaw/**/*.py", "docs/**/*.md", "docs/**/*.py", "README.md")
        for path in PROJECT.glob(names)
    ],
    ids=lambda path: str(path.relative_to(PROJECT)),
)
def test_names_that_are_gone_stay_gone(path: Path) -> None:
    gone = re.compile(rf"\b({GONE})\b")
    translated = re.compile(r' +"[\w.]+": "[\w.]+",')  # rows of the tables of earlier names
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        assert translated.fullmatch(line) or not gone.search(line), f"{path}:{number}: {line.strip()}"


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
