"""The files of a run, and what is refused before anything heavy is imported."""

import subprocess
import sys
from pathlib import Path

import pytest

from abaw.errors import AbawError, UsageError
from abaw.training.run_files import Run


def test_a_run_is_named_by_its_folder_or_its_first_configuration() -> None:
    assert Run.named("x", ["configs/mtl.yaml"]).folder == Path("x")
    assert Run.named(None, ["configs/mtl.yaml", "wandb.yaml"]).folder == Path("runs/mtl")
    with pytest.raises(UsageError, match="name a configuration with --config FILE"):
        Run.named(None, [])


@pytest.mark.parametrize("file", ["metrics.csv", "checkpoints/step-1.ckpt"])
def test_the_directory_of_another_run_is_not_free(file: str, tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.check_free()
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).touch()
    with pytest.raises(UsageError, match="already holds a run; continue it with --ckpt_path last"):
        run.check_free()
    with pytest.raises(UsageError, match="already holds a run"):
        run.start(None)


def test_a_run_without_a_best_checkpoint_is_not_trained(tmp_path: Path) -> None:
    run = Run(tmp_path)
    with pytest.raises(AbawError, match=r"checkpoints/best\.ckpt: there is no such checkpoint; train first"):
        run.check_trained()
    run.best.parent.mkdir()
    run.best.touch()
    run.check_trained()


def test_the_checks_import_nothing_heavy() -> None:
    code = (
        "import sys; from pathlib import Path; from abaw.training.run_files import Run;"
        " Run(Path('x')).check_free();"
        " print(sorted({'torch', 'lightning', 'numpy'} & set(sys.modules)))"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "[]\n"
