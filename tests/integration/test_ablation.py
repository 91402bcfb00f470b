"""The ablation's rows are what they say, and its report says what was found."""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from tests.support.project import PROJECT


@pytest.fixture(scope="module")
def ablation() -> ModuleType:
    """docs/ablation.py."""
    spec = importlib.util.spec_from_file_location("ablation", PROJECT / "docs" / "ablation.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["ablation"] = module  # dataclasses look there
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_every_row_changes_what_it_says_and_nothing_else(
    ablation: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(PROJECT)

    def resolved(row: Any) -> dict[str, Any]:
        words = [str(word) for name, value in row.change.items() for word in (f"--{name}", value)]
        assert ablation.abaw(["fit", "--config", row.config, "--data.root=x", *words, "--print_config"]) == 0
        return dict(flat(yaml.safe_load(capsys.readouterr().out)))

    for config in (ablation.FEATURES, ablation.IMAGES):
        base = resolved(ablation.Row("base", "", {}, config))
        for row in (row for row in ablation.ROWS if row.config == config):
            here = resolved(row)
            changed = {name for name in base.keys() | here.keys() if base.get(name) != here.get(name)}
            for name in row.change:
                assert any(key.startswith(name) for key in changed), f"{row.name}: {name} is as it was"
            assert all(any(key.startswith(name) for name in row.change) for key in changed), row.name


def flat(value: Any, name: str = "") -> list[tuple[str, Any]]:
    if not isinstance(value, dict):
        return [(name, value)]
    return [pair for key, inner in value.items() for pair in flat(inner, f"{name}.{key}".strip("."))]


@pytest.mark.parametrize("masked_keeps", [0.9, 0.5])
def test_the_report_says_what_was_found(
    ablation: ModuleType, masked_keeps: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("RUNS", tmp_path), ("PAGE", tmp_path / "page.md"), ("FIGURE", tmp_path / "x.png")):
        monkeypatch.setattr(ablation, name, value)
    ablation.PAGE.write_text("before\n<!-- results -->\nold\n<!-- end -->\nafter\n")
    for name, kept in (("p0", 0.5), ("p50", masked_keeps)):
        for seed, clean in enumerate((0.6, 0.7)):
            run = tmp_path / name / f"seed-{seed}"
            run.mkdir(parents=True)
            for percent in ablation.REMOVED:
                score = clean * (kept + 0.01 * seed if percent == 50 else 1)
                scores = {task: {"score": score} for task in ("va", "expr", "au")}
                (run / f"removed-{percent}.json").write_text(json.dumps(scores))
    ablation.report(3)
    said = ablation.PAGE.read_text()
    assert said.startswith("before\n")
    assert said.endswith("\nafter\n")
    assert "old" not in said
    assert said.count("0.650 ± 0.071") == 18  # two rows, three tasks, all but 50 %
    assert ("beyond one standard deviation" in said) == (masked_keeps > 0.5)
    assert ("is **not** ahead" in said) == (masked_keeps == 0.5)
    assert ablation.FIGURE.stat().st_size > 10_000
