"""Docstrings of public names: what they raise, the shapes of arrays, and the units of numbers.

That there is a docstring at all is checked by `make lint`.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "abaw"
FILES = sorted(path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py")
ERRORS = {"AbawError", "UsageError", "DamagedFileError"}
SHAPE = re.compile(r"\((\.\.\.,?|[\w ]+([-+] \w+)?,|[A-Z])[^()]*\)|scalar|shape")
UNITS = {  # parameters whose numbers have a unit, and words that name it
    "fps": "frames per second|per second",
    "seconds": "second",
    "timeout": "second",
    "max_gap": "second",
    "smoothing": "Hz",
    "size": "pixel|side|[Nn]umber|length|items ahead",
    "image_size": "pixel",
    "frame_size": "pixel",
    "crop_size": "pixel",
    "max_side": "pixel",
    "window": "frames",
    "stride": "frames",
    "step": "frames|step",
}
Function = ast.FunctionDef | ast.AsyncFunctionDef


def public_functions(path: Path) -> Iterator[tuple[str, Function, str]]:
    """Name, node and docstring of every public function and method; a class's text counts for `__init__`."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, Function) and not node.name.startswith("_"):
            yield node.name, node, ast.get_docstring(node) or ""
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            about = ast.get_docstring(node) or ""
            for part in node.body:
                if isinstance(part, Function) and (part.name == "__init__" or not part.name.startswith("_")):
                    own = ast.get_docstring(part) or ""
                    yield (
                        f"{node.name}.{part.name}",
                        part,
                        f"{about}\n{own}" if part.name == "__init__" else own,
                    )


def raised(node: Function) -> set[str]:
    """Errors for users that a function raises itself and does not catch."""
    names = set()
    for part in ast.walk(node):
        if (
            isinstance(part, ast.Raise)
            and isinstance(part.exc, ast.Call)
            and isinstance(part.exc.func, ast.Name)
        ):
            names.add(part.exc.func.id)
    return names & ERRORS


def arrays(node: Function) -> list[str]:
    """Parameters that are annotated as one array, and `return`."""
    found = [
        a.arg for a in (*node.args.args, *node.args.kwonlyargs) if a.annotation and is_array(a.annotation)
    ]
    return [*found, *(["return"] if node.returns is not None and is_array(node.returns) else [])]


def is_array(annotation: ast.expr) -> bool:
    return re.match(r"(Tensor|NDArray|np\.ndarray)\b", ast.unparse(annotation)) is not None


CASES = [(path, *each) for path in FILES for each in public_functions(path)]


def place(path: Path, name: str) -> str:
    return f"{path.relative_to(PACKAGE.parent)}: {name}"


def test_errors_are_named() -> None:
    silent = [
        place(path, name)
        for path, name, node, text in CASES
        if raised(node) and "Raises:" not in text and "raise" not in text.lower()
    ]
    assert not silent, "\n".join(silent)


def test_arrays_have_shapes() -> None:
    silent = [
        place(path, name) for path, name, node, text in CASES if arrays(node) and not SHAPE.search(text)
    ]
    assert not silent, "\n".join(silent)


@pytest.mark.parametrize("parameter", sorted(UNITS))
def test_numbers_have_units(parameter: str) -> None:
    silent = []
    for path, name, node, text in CASES:
        names = {each.arg for each in (*node.args.args, *node.args.kwonlyargs)}
        if parameter in names and not re.search(UNITS[parameter], text):
            silent.append(place(path, name))
    assert not silent, "\n".join(silent)
