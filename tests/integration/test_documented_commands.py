"""Every command of the README and the pages runs as it stands there, on generated data and tiny networks."""

import os
import shlex
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import yaml

from abaw.__main__ import main
from abaw.data.formats.features import features_path, write_features
from abaw.data.index import build_index
from abaw.data.layout import DataSource
from abaw.data.synth.writer import write_dataset
from tests.integration.test_docs import PAGES, blocks
from tests.integration.test_docs import commands as commands_of
from tests.integration.test_own_task import annotate
from tests.support.feature_run import BACKBONE
from tests.support.marker_faces import MarkerDetector, scene
from tests.support.project import PROJECT
from tests.support.tiny_run import TINY
from tests.support.video_predictor import video_checkpoint
from tests.support.videos import write_video

pytestmark = pytest.mark.slow

ELSEWHERE = {
    "make setup": "every test runs in what it makes",
    "make demo": "five minutes; tried by hand, see docs/terminal.txt",
    ". .venv/bin/activate": "a matter of the shell",
    "pip install optuna": "a matter of the network",
    "python docs/search/study.py --trials 20 -- --config demo.yaml --data.root data/demo": "test_search.py",
    "wandb sweep docs/search/sweep.yaml": "needs an account; test_search.py checks the file",
    "wandb agent NAME": "needs an account; test_search.py runs what it would",
    "export ABAW_ROOT=/data/affwild2": "a matter of the shell",
}
"""Lines of the pages that this test does not run, and why."""

NEEDS = {"--trainer.devices 8": "eight GPUs", "slurm.yaml": "a cluster"}
"""Parts of commands that are parsed only, and what they need."""

BLOCKS = {"CONFIG=${CONFIG": "word for word by test_readme.py", "#SBATCH": "needs a cluster"}
"""Parts of blocks whose other lines this test does not run, and why."""

RUNS = ("mtl", "other", "small", "pain", "1", "2")


def documented() -> list[tuple[str, str]]:
    """Page and command of abaw, each once."""
    found = [(page.name, shlex.join(words)) for page in PAGES for words in commands_of(page)]
    return [each for each in dict.fromkeys(found) if "$seed" not in each[1] and "$SAMPLE" not in each[1]]


def test_every_other_line_is_accounted_for() -> None:
    for page in PAGES:
        known = [block for block in blocks(page) if not any(part in block for part in BLOCKS)]
        for line in "\n".join(known).replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words and "abaw" not in words:
                assert shlex.join(words) in ELSEWHERE, f"{page.name}: {line}"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory with data, and tiny configurations under the names of the shipped ones."""
    folder = tmp_path_factory.mktemp("place")
    write_dataset(folder / "data_set", videos=12, frames=20, seed=0, progress=False)
    annotate(folder / "data_set")
    tiny = TINY | {
        "model": TINY["model"] | {"backbone": BACKBONE},
        "trainer": TINY["trainer"] | {"limit_train_batches": 2},
    }
    data = {"tasks": ["va", "expr", "au"], "root": str(folder / "data_set")}
    for name in ("mtl.yaml", "demo.yaml", "features.yaml"):
        content = tiny | {"data": tiny["data"] | data}
        if name == "features.yaml":
            content["data"]["features"] = ["data/features"]
            content["model"] |= {"backbone": BACKBONE | {"frozen": "all"}}
        text = yaml.safe_dump(content)
        for path in (folder / name, folder / "configs" / name):
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
    for name in ("ddp", "slurm", "wandb", "tensorboard"):
        shutil.copy(PROJECT / f"configs/{name}.yaml", folder / f"configs/{name}.yaml")
    (folder / "pain.py").write_text(
        "from abaw import Task\n\n"
        'PAIN = Task(name="pain", kind="real", names=("pain",), high=16, loss="ccc", scores=("ccc", "mae"))\n'
    )
    (folder / "my_losses.py").write_text(
        "def absolute_error(x):\n    return (x.output - x.target).abs().mean(-1)\n"
    )
    write_video(folder / "interview.mp4", [scene(("red", 60 + k, 80)) for k in range(20)])
    index = build_index(DataSource(folder / "data_set"))
    for name, dim in (("vit_base", 768), ("vit_small", 384)):
        for video, n_frames in zip(index.videos, index.n_frames.tolist(), strict=True):
            write_features(
                features_path(folder / "data/features" / name, video),
                features=np.random.default_rng(0).normal(size=(n_frames, dim)).astype(np.float16),
                visible=np.ones(n_frames, bool),
            )
    return folder


@pytest.fixture(scope="module")
def trained(place: Path) -> Path:
    """A run with tracks."""
    before = Path.cwd()
    os.chdir(place)
    try:
        assert main(["fit", "--config=mtl.yaml", "--run=trained"]) == 0
        assert main(["predict", "--run=trained"]) == 0
    finally:
        os.chdir(before)
    return place / "trained"


@pytest.fixture
def _as_documented(place: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The working directory, a run under each name that the pages use, and a detector without a network."""
    monkeypatch.chdir(place)
    monkeypatch.setenv("ABAW_ROOT", str(place / "data_set"))
    monkeypatch.setattr("abaw.inference.analysis.FaceDetector", MarkerDetector)
    detector = tmp_path / "detector.onnx"
    detector.write_bytes(b"")
    for module in ("faces", "results"):
        monkeypatch.setattr(f"abaw.inference.{module}.find_detector", lambda path: detector)
    shutil.rmtree(place / "runs", ignore_errors=True)
    for name in RUNS:
        shutil.copytree(trained, place / "runs" / name)
    shutil.copytree(trained / "tracks", place / "runs/mean")
    for name in ("analysis", "models", "d"):  # what a command creates
        shutil.rmtree(place / name, ignore_errors=True)


@pytest.mark.usefixtures("_as_documented")
@pytest.mark.parametrize(("page", "line"), documented())
def test_a_command_runs(page: str, line: str, place: Path) -> None:
    words = [os.path.expandvars(word) for word in shlex.split(line.replace("/data/more", "data_set"))[1:]]
    if any(part in line for part in NEEDS):
        words.append("--print_config")
    elif words[0] == "fit" and "--ckpt_path" not in words:  # as the first training of its name
        configs = [word for before, word in pairwise(words) if before == "--config"]
        folder = words[words.index("--run") + 1] if "--run" in words else f"runs/{Path(configs[0]).stem}"
        shutil.rmtree(place / folder, ignore_errors=True)
    elif words[0] == "analyze" and words[-1].startswith("runs"):
        video_checkpoint(place / words[-1])
    elif words[0] == "analyze":
        assert main(["export", "runs/mtl", words[-1]]) == 0
    elif words[0] == "ensemble":
        shutil.rmtree(words[-1])
    if "--data.root d " in line:
        shutil.copytree("data_set", "d")
    if "[data/pack]" in words and not (place / "data/pack").exists():
        assert main(["pack", "data_set", "data/pack"]) == 0
    if words[:1] == ["fit"] and line.count("features.yaml") and "1152" not in words:
        assert main(["extract", "--config", "features.yaml"]) == 0
    if "wandb.yaml" in line:  # whose service would stay in the environment of later tests
        environment = os.environ | {"PYTHONPATH": str(PROJECT)}
        subprocess.run([sys.executable, "-m", "abaw", *words], env=environment, check=True)
    else:
        assert main(words) == 0
