"""Sample files and configurations with accidents: read as they stand, or refused with file and line."""

import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from abaw.__main__ import main
from abaw.cli.config_files import places, refuse_old_options, with_location
from abaw.cli.trainer_commands import AbawCLI
from abaw.data.formats.annotations import parse_image
from abaw.errors import AbawError, UsageError
from abaw.evaluation.submission.formats import Sample, VideoList, read_sample
from abaw.training.checkpointing import OPTIONS, current_option
from tests.support.mutated_files import mutated
from tests.support.project import PROJECT

CONFIGS = sorted((PROJECT / "configs").rglob("*.yaml"))
IMAGES = [f"{video}/{number:05d}.jpg" for video in ("14-30-1920x1080", "b_left") for number in (1, 2, 4)]
SAMPLES = {
    "with header": "image_location,valence,arousal\n" + "".join(f"{image},\n" for image in IMAGES),
    "without": "".join(f"{image},0.1,0.2\n" for image in IMAGES),
    "list": "14-30-1920x1080\nb_left\nvideo45_1\n",
}
LINE = re.compile(r":(\d+): |, line (\d+): ")

BOM = b"\xef\xbb\xbf"

few_or_many = pytest.mark.parametrize("n_files", [100, pytest.param(2000, marks=pytest.mark.slow)])


def check_refusal(error: AbawError, path: Path, data: bytes) -> bool:
    """The message names the file; whether it names a line too, which must exist."""
    assert str(path) in str(error), error
    line = LINE.search(str(error))
    if line is not None:
        assert 1 <= int(line[1] or line[2]) <= len(data.splitlines()) + 1
    return line is not None


@few_or_many
@pytest.mark.parametrize("kind", SAMPLES)
def test_a_mutated_sample_is_read_as_it_stands_or_refused(kind: str, n_files: int, tmp_path: Path) -> None:
    path, rng = tmp_path / "sample.txt", random.Random(f"{kind}{n_files}")
    n_read = 0
    for _ in range(n_files):
        data = mutated(SAMPLES[kind].encode(), rng)
        path.write_bytes(data)
        rows: Any
        try:
            rows = read_sample(path)
        except AbawError as error:
            rows = error
        if isinstance(rows, AbawError):
            assert check_refusal(rows, path, data) or "names neither images nor videos" in str(rows)
            continue
        n_read += 1
        cells = [
            line.split(b",")[0].strip().decode("utf-8", "replace")
            for line in data.removeprefix(BOM).splitlines()
        ]
        cells = [cell for cell in cells if cell]
        if isinstance(rows, VideoList):
            assert [f"{video}.txt" for video in rows.videos] == [
                f"{c.removesuffix('.txt')}.txt" for c in cells
            ]
            assert not any(set(video) & set("/\\") or video == ".." for video in rows.videos)
        else:
            assert isinstance(rows, Sample)
            found = zip((rows.videos[k] for k in rows.video.tolist()), rows.frame.tolist(), strict=True)
            assert list(found) == [parse_image(image.encode()) for image in rows.images]
            assert rows.images == cells[len(cells) - len(rows) :]
    assert 0.05 * n_files < n_read < n_files  # both outcomes were met


class Parsed(Exception):  # noqa: N818
    """What a parser was made for is over."""


@pytest.fixture(scope="module")
def parse() -> Callable[..., Any]:
    """Parses words as `abaw fit` does, without making the parser each time."""

    class Parser(AbawCLI):
        def parse_arguments(self, parser: Any, args: Any) -> None:
            kept.append((self, parser))
            raise Parsed

    kept: list[tuple[AbawCLI, Any]] = []
    with pytest.raises(Parsed):
        Parser("fit", [])
    ((cli, parser),) = kept

    def parse(*words: str) -> Any:
        AbawCLI.parse_arguments(cli, parser, ["fit", *words])
        return cli.config["fit"]

    return parse


@pytest.mark.parametrize("n_files", [100, pytest.param(1500, marks=pytest.mark.slow)])
def test_a_mutated_configuration_is_parsed_or_refused(
    n_files: int, parse: Callable[..., Any], tmp_path: Path
) -> None:
    path, rng = tmp_path / "config.yaml", random.Random(n_files)
    originals = [config.read_bytes() for config in CONFIGS]
    n_lines = n_parsed = 0
    for k in range(n_files):
        data = mutated(originals[k % len(originals)], rng)
        path.write_bytes(data)
        try:
            config = parse(f"--config={path}")
        except UsageError as error:
            n_lines += check_refusal(error, path, data)
        else:
            n_parsed += 1
            assert config.data.window > 0 or str(config.data.window) in data.decode()
    assert 0.1 * n_files < n_parsed < n_files
    assert n_lines > 0.9 * (n_files - n_parsed)


BAD = {
    "a misspelt option": (
        "data:\n  batch_szie: 3\n",
        "bad.yaml:2: there is no option 'data.batch_szie'; did you mean data.batch_size",
    ),
    "a misspelt part": ("dat:\n  window: 3\n", "bad.yaml:2: there is no option 'dat.window"),
    "a wrong kind": ("data:\n  seed: 0\n  window: long\n", "bad.yaml:3: .*data.window.*long"),
    "null": ("data:\n  window: null\n", "bad.yaml:2: data.window is null, but needs a value such as 64"),
    "a group that is null": ("data:\n  windows: null\n", "bad.yaml:2: data.windows is null, but is a group"),
    "in an optional part": (
        "model:\n  masking:\n    ratoi: 0.5\n",
        "bad.yaml:3: there is no option 'model.masking.ratoi'",
    ),
    "a choice": (
        "data:\n  loading:\n    on_bad_frame: ignore\n",
        "bad.yaml:3: .*data.loading.on_bad_frame.*ignore",
    ),
    "a class": (
        "trainer:\n  callbacks:\n  - class_path: abaw.Nothing\n",
        "bad.yaml:2: trainer.callbacks: .*Noth",
    ),
    "out of range": ("data:\n  window: 0\n", "bad.yaml:2: data.window is at least 1, got 0"),
    "in a part, out of range": ("model:\n  masking: {ratio: 2}\n", "bad.yaml:2: masking.ratio is"),
    "of no use": ("model:\n  temporal:\n    heads: 7\n", r"bad.yaml:2: model.temporal: heads \(7\)"),
    "no YAML": ("data:\n  window: [1\n", "bad.yaml:3: is not YAML"),
    "a list": ("- data\n", "bad.yaml:1: has no options"),
    "nothing": ("# only a comment\n", "bad.yaml:1: has no options"),
    "a control character": ("data:\n  window: \x03\n", "bad.yaml:2: holds a control character"),
    "no text": ("data:\n  root: \udcff\n", "bad.yaml:2: is not text"),
    "a circle": ("data: &x\n  root: *x\n", "bad.yaml"),
    "depth": ("data: " + "[" * 5000 + "]" * 5000 + "\n", "bad.yaml"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_mistake_is_told_with_file_and_line(
    name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(AbawCLI, "_run_subcommand", lambda *_: pytest.fail("built"))
    text, says = BAD[name]
    bad = tmp_path / "bad.yaml"
    bad.write_bytes(text.encode("utf-8", "surrogateescape"))
    configs = [f"--config={PROJECT / 'configs/demo.yaml'}", f"--config={bad}"]
    assert main(["fit", *configs, f"--run={tmp_path / 'run'}"]) == 2
    error = capfd.readouterr().err
    message = error[error.index("abaw: ") :]
    assert re.search(says, message, re.DOTALL), message
    assert len(message.splitlines()) <= 3


OLD_NAMES = """trainer:
  callbacks:
  - class_path: abaw.averaging.MovingAverage
    init_args: {decay: 0.5}
data:
  loading:
    augmentation:
      class_path: abaw.data.transforms.ClipAugmentation
      init_args: {p_flip: 0.25}
model:
  masking: {class_path: abaw.masking.RandomFrameMasking, init_args: {ratio: 0.3}}
"""


def test_class_paths_of_earlier_versions_are_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "old.yaml"
    path.write_text(OLD_NAMES)
    words = ["fit", f"--config={path}", f"--data.root={tmp_path}", "--model.backbone.name=x"]
    assert main([*words, "--trainer.callbacks+=abaw.signals.EndOnSignal", "--print_config"]) == 0
    settings = yaml.safe_load(capsys.readouterr().out)
    average, signals = settings["trainer"]["callbacks"]
    assert average == {"class_path": "abaw.training.callbacks.EMA", "init_args": {"decay": 0.5}}
    assert signals["class_path"] == "abaw.training.preemption.EndOnSignal"
    assert "'p_flip': 0.25" in str(settings["data"]["loading"]["augmentation"])
    assert "'ratio': 0.3" in str(settings["model"]["masking"])


def test_a_mistake_under_an_earlier_name_is_told_with_its_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "old.yaml"
    path.write_text(OLD_NAMES.replace("decay", "decya"))
    assert main(["fit", f"--config={path}", f"--data.root={tmp_path}"]) == 2
    message = capsys.readouterr().err
    assert f"{path}:2: " in message
    assert "decya" in message


@pytest.mark.parametrize(("old", "new"), OPTIONS.items())
def test_an_earlier_name_of_an_option_is_answered_with_the_current_one(
    old: str, new: str, tmp_path: Path
) -> None:
    for words in ([f"--{old}=1"], [f"--{old}", "1"], [f"--{old}+=1"]):
        with pytest.raises(UsageError, match=rf"^{old} is now {new}$"):
            refuse_old_options(["fit", *words])
    path = tmp_path / "mine.yaml"
    *groups, name = old.split(".")
    lines = [f"{'  ' * depth}{group}:" for depth, group in enumerate(groups)]
    lines += [f"{'  ' * len(groups)}{option}: 1" for option in ("window", name)]
    path.write_text("\n".join(lines))
    with pytest.raises(UsageError, match=rf"^{path}:{len(lines)}: {old} is now {new}$"):
        refuse_old_options(["fit", f"--config={path}"])
    path.write_text(f"# abaw 0.1.0\n{path.read_text()}")
    refuse_old_options(["fit", f"--config={path}"])
    assert places(path)[new] == f"{path}:{len(lines) + 1}"


def test_all_earlier_names_are_one_message(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("data:\n  augmentation: {p_flip: 0.5}\n  hide_frames: 0.5\n")
    assert main(["fit", f"--config={path}", "--data.augmentation.p_blur=0.5", f"--data.root={tmp_path}"]) == 2
    assert capsys.readouterr().err == (
        "abaw: data.augmentation.p_blur is now data.loading.augmentation.p_blur;"
        f" {path}:2: data.augmentation is now data.loading.augmentation;"
        f" {path}:3: data.hide_frames is now data.evaluation.drop_frames\n"
    )


def test_a_configuration_that_an_earlier_version_wrote_is_read(capsys: pytest.CaptureFixture[str]) -> None:
    old = PROJECT / "tests/data/v0_1/run/config.yaml"
    given, words = yaml.safe_load(old.read_text())["data"], [f"--config={old}", "--print_config"]
    assert main(["fit", *words, "--data.evaluation.window=5"]) == 0
    data = yaml.safe_load(capsys.readouterr().out)["data"]
    assert data["evaluation"].pop("window") == 5
    for name, value in given.items():
        *groups, key = current_option(f"data.{name}").split(".")[1:]
        if name != "eval_window":
            assert (data[groups[0]] if groups else data)[key] == value
    n_values = sum(len(value) if isinstance(value, dict) else 1 for value in data.values())
    assert n_values == len(given) - 1  # and there are no others


def test_what_the_command_line_says_is_no_file_s_fault(tmp_path: Path) -> None:
    config = tmp_path / "a.yaml"
    config.write_text("data:\n  window: 3\ntrainer:\n  callbacks+:\n  - x\n")
    assert places(config)["data.window"] == f"{config}:2"
    assert places(config)["trainer.callbacks"] == f"{config}:4"
    words = [f"--config={config}"]
    assert with_location("data.window is bad", words) == f"{config}:2: data.window is bad"
    assert with_location("data.windows.stride is bad", words) == f"{config}:1: data.windows.stride is bad"
    assert with_location("data.window is bad", [*words, "--data.window=0"]) == "data.window is bad"
    assert with_location("data.window is bad", [*words, "--data.window", "0"]) == "data.window is bad"
    assert with_location("all is bad", words) == "all is bad"
    assert with_location("all is bad", words, in_file=True) == f"{config}: all is bad"
