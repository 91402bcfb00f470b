"""What a newcomer types by mistake or meets on a new machine: one message of few lines, and an exit code."""

import os
from pathlib import Path

import pytest

from abaw.__main__ import main
from abaw.cli.arguments import shipped
from abaw.cli.config_files import with_shipped
from abaw.cli.trainer_commands import AbawCLI
from abaw.errors import AbawError
from abaw.files import check_writable
from tests.support.project import PROJECT

NAMES = sorted(str(path.relative_to(PROJECT / "configs")) for path in (PROJECT / "configs").rglob("*.yaml"))
FIT, OTHER = "fit --config demo.yaml", "--model.backbone.overrides={} --model.backbone"
WANDB = "trainer: {logger: {class_path: lightning.pytorch.loggers.WandbLogger, init_args: {log_model: %s}}}"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory outside the repository, with a file, and no key of W&B."""
    monkeypatch.chdir(tmp_path)
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_IDENTITY_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    monkeypatch.setenv("HOME", str(tmp_path))
    Path("file").write_text("x")
    for value in ("all", "true"):
        Path(f"wandb-{value}.yaml").write_text(WANDB % value)
    return tmp_path


def check_message(capfd: pytest.CaptureFixture[str], says: str) -> None:
    """Nothing but one message of at most three lines was printed."""
    printed = capfd.readouterr()
    message = printed.err[printed.err.index("abaw: ") :]
    assert says in message
    assert len(message.splitlines()) <= 3
    assert "Traceback" not in printed.err
    assert printed.out == ""


MISTAKES = [
    ("fit --config", 2, "--config needs a value"),
    ("fit --config=demo.yaml --run", 2, "--run needs a value"),
    ("validate --run", 2, "--run needs a value"),
    ("extract --config", 2, "--config needs a value"),
    ("fit --config demo.yaml --data.root", 2, "data.root"),
    ("fit --config dmo.yaml", 2, "did you mean demo.yaml?"),
    ("fit --config demo.yaml --config configs/slrm.yaml", 2, "did you mean slurm.yaml?"),
    ("fit --config=nothing-like-it.yaml", 2, "paper/va.yaml"),
    ("fit --config=demo.yaml --run=file/run", 1, "file/run: could not be written (Not a directory)"),
    ("pack {root} file/pack", 1, "could not be written (Not a directory)"),
    ("synth file/out", 1, "file/out: could not be written (Not a directory)"),
    ("fit --config demo.yaml --model.backbone.overrides null", 2, "model.backbone.overrides is "),
    ("fit --config demo.yaml --trainer.max_epochs -1", 2, "trainer.max_epochs: -1 "),
    ("fit --config demo.yaml --trainer.log_every_n_steps 0", 2, "trainer.log_every_n_steps: 0 "),
    ("fit --config demo.yaml --trainer.log_every_n_steps -3", 2, "trainer.log_every_n_steps: -3 "),
    ("fit --config demo.yaml --config wandb-all.yaml", 2, "WANDB_API_KEY, or log_model: false"),
    ("fit --config demo.yaml --config wandb-true.yaml", 2, "WANDB_API_KEY, or log_model: false"),
    (f"{FIT} {OTHER}.name=crossvit_tiny_240 {OTHER}.image_size=240", 2, "crossvit_tiny_240"),
    (f"{FIT} {OTHER}.name=coat_mini {OTHER}.image_size=224", 2, "its features are a list"),
    (
        f"{FIT} {OTHER}.name=convit_tiny {OTHER}.image_size=224"
        f" {OTHER}.gradient_checkpointing=true",
        2,
        "model.backbone.gradient_checkpointing: timm does not support it for convit_tiny",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("words", "code", "says"), MISTAKES, ids=[words for words, *_ in MISTAKES])
def test_a_mistake_is_one_message(
    words: str,
    code: int,
    says: str,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    synth_root: Path,
) -> None:
    monkeypatch.setattr(AbawCLI, "_run_subcommand", lambda *_: pytest.fail("it began to train"))
    if words.startswith("fit"):
        words = (
            f"{words} --data.root={synth_root}" if not words.endswith(("root", "run", "config")) else words
        )
    assert main(words.replace("{root}", str(synth_root)).split()) == code
    check_message(capfd, says)


NEWCOMER = [  # what somebody types who knows other programs
    ("train --config demo.yaml", 2, "did you mean fit?"),
    ("eval --run runs/demo", 2, "did you mean validate"),
    ("evaluate", 2, "score (its tracks)?"),
    ("inference clip.mp4", 2, "analyze (any video)?"),
    ("video clip.mp4", 2, "did you mean analyze?"),
    ("benchmark", 2, "did you mean bench?"),
    ("fitt --config demo.yaml", 2, "did you mean fit?"),
    ("--config demo.yaml fit", 2, "options come after the subcommand: abaw fit --config"),
    ("fit --data.root=x", 2, "name a configuration with --config FILE"),
    ("fit --config demo.yaml --lr 0.1", 2, "did you mean --model.optimizer.lr?"),
    ("fit --config demo.yaml --learning_rate 0.1", 2, "did you mean --model.optimizer.lr?"),
    ("fit --config demo.yaml --max_epochs 3", 2, "did you mean --trainer.max_epochs?"),
    ("fit --config demo.yaml --epochs=3", 2, "did you mean --trainer.max_epochs?"),
    ("fit --config demo.yaml --gpus 2", 2, "did you mean --trainer.devices?"),
    ("fit --config demo.yaml --devices 2", 2, "did you mean --trainer.devices?"),
    ("fit --config demo.yaml --batch_size 4", 2, "did you mean --data.batch_size?"),
    ("fit --config demo.yaml --num_workers 4", 2, "did you mean --data.workers?"),
    ("fit --config demo.yaml --seed 4", 2, "did you mean --seed_everything?"),
    ("fit --config demo.yaml --resume x", 2, "did you mean --ckpt_path?"),
    ("fit --config demo.yaml --output_dir x", 2, "did you mean --run?"),
    ("fit --config demo.yaml --data_dir x", 2, "did you mean --data.root?"),
    ("fit --config demo.yaml --backbone vit", 2, "did you mean --model.backbone.name?"),
    ("fit --config demo.yaml --mask_ratio 0.5", 2, "did you mean --model.masking.ratio?"),
    ("fit --cfg demo.yaml", 2, "did you mean --config?"),
    ("fit --conf demo.yaml", 2, "did you mean --config?"),
    ("fit --config demo.yaml --trainer.max_epoch 3", 2, "did you mean --trainer.max_epochs?"),
    ("fit --config demo.yaml --trainer.prec 16", 2, "there is no option --trainer.prec"),
    ("fit --config demo.yaml --data.root nowhere", 1, "--data.root nowhere: no such folder"),
    ("fit --config demo.yml", 2, "did you mean demo.yaml?"),
    ("predict --run runs/none", 1, "there is no such checkpoint; train first with `abaw fit`"),
    ("validate --run runs/none", 1, "name the run's directory with --run"),
    ("test --ckpt_path best", 2, "a run's directory with --run DIR"),
    ("score tracks", 2, "required: root"),
    ("score tracks root --splt val", 2, "did you mean --split?"),
    ("check nowhere", 1, "nowhere: no such folder"),
    ("check", 2, "ABAW_ROOT"),
    ("submit tracks out.txt --task va", 2, "required: sample"),
    ("submit tracks out.txt --sample file --task vad", 2, "--task takes va, expr, au or mtl; got vad"),
    ("synth", 2, "required: out"),
    ("analyze clip.mp4", 2, "required: ckpt"),
    ("analyze clip.mp4 --ckpt file", 1, "damaged or not a checkpoint"),
    ("analyze none.mp4 --ckpt none.ckpt", 1, "none.ckpt: there is no such checkpoint"),
    ("calibrate none file", 1, "holds no tracks"),
    ("verify file --sample none.txt", 1, "none.txt"),
    ("ensemble one two", 2, "at least two folders"),
    ("folds file out.json", 1, "file"),
]


@pytest.mark.parametrize(("words", "code", "says"), NEWCOMER, ids=[words for words, *_ in NEWCOMER])
def test_a_newcomer_is_told_the_next_step(
    words: str, code: int, says: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ABAW_ROOT", raising=False)
    assert main(words.split()) == code
    check_message(capfd, says)


# -- configurations that come with the package


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("prefix", ["", "configs/"])
def test_a_shipped_configuration_is_found_by_its_name(prefix: str, name: str) -> None:
    for words in (["--config", prefix + name], [f"--config={prefix}{name}"], ["-c", prefix + name]):
        (found,) = (part for word in with_shipped(words) for part in word.split("=") if ".yaml" in part)
        assert Path(found).read_bytes() == (PROJECT / "configs" / name).read_bytes()


def test_a_file_of_the_working_directory_comes_first_and_other_words_stay() -> None:
    Path("demo.yaml").write_text("data: {}\n")
    words = [
        "--config",
        "demo.yaml",
        "--config={data: {window: 3}}",
        "--run",
        "mtl.yaml",
        "--data.root=va.yaml",
    ]
    assert with_shipped(words) == words
    assert with_shipped(["--config", "mtl.yaml"]) == ["--config", str(shipped() / "mtl.yaml")]


def test_the_package_comes_before_the_repository(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As in a wheel, where the folder beside the package would be anybody's."""
    monkeypatch.setattr("abaw.cli.arguments.files", lambda _: tmp_path / "site-packages/abaw")
    for folder in ("site-packages/configs", "site-packages/abaw"):
        Path(folder).mkdir(parents=True)
    assert shipped() == tmp_path / "site-packages/configs"
    Path("site-packages/abaw/configs").mkdir()
    assert shipped() == tmp_path / "site-packages/abaw/configs"


# -- places that cannot be written


def test_a_folder_without_permission_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine").mkdir()
    check_writable(tmp_path / "mine/new/run")
    assert not (tmp_path / "mine/new").exists()
    monkeypatch.setattr(
        os, "access", lambda path, mode: mode == os.F_OK and Path(path).exists()
    )  # root may all
    with pytest.raises(AbawError, match=r"mine/new/run: could not be written \(Permission denied\); change"):
        check_writable(tmp_path / "mine/new/run")
    with pytest.raises(AbawError, match=r"file/run: could not be written \(Not a directory\)"):
        check_writable(tmp_path / "file/run")
