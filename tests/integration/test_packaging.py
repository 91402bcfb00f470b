"""What a user gets from the package index: dependencies, configurations, types, licence."""

import ast
import re
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from tests.support.project import PROJECT

SETTINGS = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
NEVER_IMPORTED = {
    "opencv-python-headless": "imported as cv2, a name that another distribution may claim too",
    "torchvision": "timm imports it, and the partner of torch must be named with it",
    "wandb": "its logger is named in configs/wandb.yaml",
}


def normalised(requirement: str) -> str:
    """The name of a distribution, in the one spelling that indices compare."""
    return re.sub(r"[-_.]+", "-", re.split(r"[^A-Za-z0-9._-]", requirement)[0]).lower()


def declared() -> set[str]:
    """What users install, with the extras that are no developer's tools."""
    extras = SETTINGS["optional-dependencies"]
    lists = [SETTINGS["dependencies"], *(extras[name] for name in extras if name not in ("dev", "docs"))]
    return {normalised(requirement) for requirements in lists for requirement in requirements}


def imported() -> set[str]:
    """Top-level names of all that the package imports, in functions too."""
    names: set[str] = set()
    for path in (PROJECT / "abaw").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                names.add(node.module.partition(".")[0])
    return names - set(sys.stdlib_module_names) - {"abaw"}


def test_whatever_is_imported_is_declared_and_the_other_way_round() -> None:
    providers = packages_distributions()
    needed = {name: {normalised(d) for d in providers.get(name, [name])} for name in imported()}
    for name, distributions in needed.items():
        assert distributions & declared(), f"{name} is imported, but none of {distributions} is declared"
    used = set().union(*needed.values())
    assert declared() - used - set(NEVER_IMPORTED) == set()


def test_every_bound_has_its_reason() -> None:
    text = (PROJECT / "pyproject.toml").read_text(encoding="utf-8")
    lines = text[text.index("dependencies = [") : text.index("[project.optional")].splitlines()[1:-2]
    assert len(lines) == len(SETTINGS["dependencies"])
    assert all("#" in line for line in lines)


@pytest.mark.parametrize("version", ["2.6.2", "2.6.3"])
def test_the_releases_with_malware_are_excluded(version: str) -> None:
    (lightning,) = (want for want in SETTINGS["dependencies"] if normalised(want) == "lightning")
    assert f"!={version}" in lightning


# -- the wheel


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel that `pip wheel .` makes, of a copy of what git knows: building leaves files behind."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    names = subprocess.check_output(["git", "ls-files", "-z"], cwd=PROJECT, text=True).split("\0")
    for name in filter(None, names):
        if (PROJECT / name).is_file() and not name.startswith(("tests/", "docs/", "benchmarks/")):
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((PROJECT / name).read_bytes())
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-q", "-w", str(out)]
    subprocess.run([*build, str(source)], check=True)
    (path,) = out.glob("abaw-*.whl")
    return path


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment with the wheel, which borrows the libraries it needs from this one."""
    folder = tmp_path_factory.mktemp("environment") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    (site,) = folder.glob("lib/python*/site-packages")
    borrowed = site / "borrowed"
    borrowed.mkdir()
    for path in Path(sysconfig.get_path("purelib")).iterdir():
        if not path.name.startswith(("abaw", "__editable__", "_virtualenv")) and path.suffix != ".pth":
            (borrowed / path.name).symlink_to(path)
    (site / "borrowed.pth").write_text(f"{borrowed}\n", encoding="utf-8")
    install = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        str(folder / "bin/python"),
        "install",
        "--no-deps",
        "-q",
    ]
    subprocess.run([*install, str(wheel)], check=True)
    return folder / "bin"


def in_environment(
    command: list[str | Path], cwd: Path, extra: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    import os

    clean = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    return subprocess.run(
        list(map(str, command)),
        cwd=cwd,
        env=clean | (extra or {}),
        capture_output=True,
        text=True,
        timeout=600,
    )


def test_the_wheel_holds_all_that_users_need_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    configs = {f"abaw/{path.relative_to(PROJECT)}" for path in (PROJECT / "configs").rglob("*.yaml")}
    modules = {str(path.relative_to(PROJECT)) for path in (PROJECT / "abaw").rglob("*.py")}
    assert configs | modules | {"abaw/py.typed"} <= names
    assert any(re.fullmatch(r"abaw-.*\.dist-info/licenses/LICENSE", name) for name in names)
    assert {name.partition("/")[0] for name in names if ".dist-info/" not in name} == {"abaw"}


@pytest.mark.slow
def test_the_installed_wheel_trains_outside_the_repository(environment: Path, tmp_path: Path) -> None:
    abaw = environment / "abaw"
    where = in_environment([environment / "python", "-c", "import abaw; print(abaw.__file__)"], tmp_path)
    assert where.stdout.startswith(str(environment.parent)), where.stderr
    made = in_environment([abaw, "synth", "d", "--videos", "10", "--frames", "100"], tmp_path)
    assert made.returncode == 0, made.stderr
    words = ["fit", "--config", "demo.yaml", "--data.root", "d", "--trainer.fast_dev_run", "1"]
    done = in_environment([abaw, *words], tmp_path)
    assert done.returncode == 0, done.stderr


USER_SCRIPT = """
import abaw
model = abaw.load("best.ckpt", device="cpu")
reveal_type(model.predict_frames)
{line}
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("version: str = abaw.__version__", None),
        ("abaw.load(3)", '"load" has incompatible type "int"; expected "str | Path"'),
        ("abaw.laod", 'Module has no attribute "laod"'),
        ("model.predict(3)", '"Predictor" has no attribute "predict"'),
    ],
)
def test_a_type_checker_sees_the_types(
    line: str, says: str | None, environment: Path, tmp_path: Path
) -> None:
    (tmp_path / "script.py").write_text(USER_SCRIPT.format(line=line), encoding="utf-8")
    check = [environment / "python", "-m", "mypy", "--strict", "--cache-dir", tmp_path.parent / "mypy"]
    done = in_environment([*check, tmp_path / "script.py"], tmp_path)
    assert re.search(r"-> pandas\.(\w+\.)*DataFrame", done.stdout), done.stdout
    errors = [text for text in done.stdout.splitlines() if ": error: " in text]
    assert len(errors) == (says is not None), done.stdout
    assert says is None or says in errors[0]
