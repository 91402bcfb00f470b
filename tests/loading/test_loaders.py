import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from torch.utils.data import Dataset

from abaw.data.processes import available_cores
from abaw.errors import AbawError
from abaw.loading.loaders import loader_options
from abaw.loading.workers import default_workers
from tests.support.project import PROJECT
from tests.support.slots import make_loader, slots_of


class Recorder(LightningModule):
    """Writes down every slot it is trained on."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)
        self.seen = []

    def transfer_batch_to_device(self, batch, device, dataloader_idx):
        return batch

    def training_step(self, batch, batch_idx):
        self.seen.append(slots_of(batch))
        return self.layer(batch.features).mean()

    def validation_step(self, batch, batch_idx):
        self.log("score", 1.0)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.0)


class SaveAt(Callback):
    """Saves a checkpoint in one hook after a number of steps."""

    def __init__(self, hook, step, path):
        def save(trainer, *args, **kwargs):
            if trainer.global_step == step and not trainer.sanity_checking and not path.exists():
                trainer.save_checkpoint(path)

        setattr(self, hook, save)


def fit(loader, *, epochs=3, callbacks=(), ckpt_path=None, **kwargs):
    module = Recorder()
    trainer = Trainer(
        accelerator="cpu", max_epochs=epochs, logger=False,
        enable_progress_bar=False, enable_model_summary=False, callbacks=list(callbacks),
        use_distributed_sampler=False, num_sanity_val_steps=1,
        **{"enable_checkpointing": False} | kwargs,
    )  # fmt: skip
    validation = torch.utils.data.DataLoader(torch.zeros(2, 1))
    trainer.fit(module, loader, validation, ckpt_path=ckpt_path, weights_only=True if ckpt_path else None)
    return module.seen


pytestmark = pytest.mark.filterwarnings(
    "ignore:.*LeafSpec.*",
    "ignore:.*callbacks used to create the checkpoint.*",
    "ignore::lightning.fabric.utilities.warnings.PossibleUserWarning",
    "ignore:.*`batch_size` from an ambiguous collection.*",
    "ignore:.*multi-threaded, use of fork.*",
)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    ("hook", "step"),
    [
        ("on_train_batch_end", 3),  # in the middle of the first epoch
        ("on_train_batch_end", 8),  # in the middle of a later one
        ("on_train_batch_end", 5),  # after the last step, before validation
        ("on_validation_end", 5),  # where the best checkpoint is saved
        ("on_train_epoch_end", 5),
        ("on_train_epoch_end", 10),
    ],
)
def test_resume_continues_the_sequence(tmp_path, workers, hook, step):
    whole = fit(make_loader(workers), callbacks=[SaveAt(hook, step, tmp_path / "a.ckpt")])
    assert len(whole) == 15
    assert len({slots[0] for slots in whole}) == 15  # no two epochs alike
    resumed = fit(make_loader(workers), ckpt_path=tmp_path / "a.ckpt")
    assert resumed == whole[step:]


@pytest.mark.parametrize("hook", ["on_train_batch_end", "on_train_epoch_end", "on_validation_end"])
@pytest.mark.parametrize("limit", [3, 0.6])
def test_resume_of_epochs_cut_short(tmp_path, hook, limit):
    def run(**kwargs):
        return fit(make_loader(limit=limit), limit_train_batches=limit, **kwargs)

    whole = run(callbacks=[SaveAt(hook, 3, tmp_path / "a.ckpt")])
    assert len(whole) == 9
    assert run(ckpt_path=tmp_path / "a.ckpt") == whole[3:]


def test_resume_within_an_epoch_with_validations(tmp_path):
    def run(**kwargs):
        return fit(make_loader(), val_check_interval=2, **kwargs)

    whole = run(callbacks=[SaveAt("on_validation_end", 7, tmp_path / "a.ckpt")])
    assert run(ckpt_path=tmp_path / "a.ckpt") == whole[7:]


def test_lightnings_own_checkpoints_resume(tmp_path):
    whole = fit(make_loader(), epochs=4)
    every = ModelCheckpoint(tmp_path, monitor="score", save_top_k=-1)
    assert fit(make_loader(), epochs=2, callbacks=[every], enable_checkpointing=True) == whole[:10]
    for name, step in (("epoch=0-step=5.ckpt", 5), ("epoch=1-step=10.ckpt", 10)):
        assert fit(make_loader(), epochs=4, ckpt_path=tmp_path / name) == whole[step:]


@pytest.mark.parametrize("workers", [0, 2])
def test_counts_what_was_handed_out(workers):
    loader = make_loader(workers)
    batches = iter(loader)
    assert loader.state_dict()["batches"] == 0
    for n in range(1, 5):
        next(batches)
        assert (loader.state_dict()["epoch"], loader.state_dict()["batches"]) == (0, n)
    next(batches)
    assert (loader.state_dict()["epoch"], loader.state_dict()["batches"]) == (1, 0)


@pytest.mark.parametrize("world_size", [1, 2])
def test_state_of_rank_0_continues_all(world_size):
    ranks = [make_loader(rank=rank, world_size=world_size) for rank in range(world_size)]
    whole = [[slots_of(batch) for batch in loader] for loader in ranks]
    part = iter(ranks[0])
    next(part)
    ranks[0].state_dict()
    state = ranks[0].state_dict()
    for rank in range(world_size):
        loader = make_loader(rank=rank, world_size=world_size)
        loader.load_state_dict(state)
        assert loader.state_dict() == state
        assert len(loader) == len(whole[rank])
        assert [slots_of(batch) for batch in loader] == whole[rank][1:]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"batch_size": 4}, r"data\.batch_size: .* 2, now it is 4"),
        ({"world_size": 2}, r"trainer\.devices.* 1, now it is 2"),
        ({"n_windows": 12}, "windows: .* 11, now it is 12"),
        ({"seed": 4}, "seed_everything: .* 3, now it is 4"),
    ],
)
def test_a_changed_condition_is_refused(change, named):
    state = make_loader().state_dict()
    with pytest.raises(AbawError, match=named):
        make_loader(**change).load_state_dict(state)


def test_the_global_stream_is_left_alone():
    torch.manual_seed(0)
    want = torch.rand(3)
    torch.manual_seed(0)
    list(make_loader())
    assert torch.equal(torch.rand(3), want)


def worker_facts(_):
    import cv2

    return torch.tensor([cv2.getNumThreads(), torch.get_num_threads()])


class Facts(Dataset):
    def __getitem__(self, index):
        return worker_facts(index)

    def __len__(self):
        return 2


def test_workers_use_one_core():
    options = loader_options(workers=2, pin_memory=False) | {"collate_fn": torch.stack}
    for facts in torch.utils.data.DataLoader(Facts(), **options):
        assert facts[0].tolist() == [1, 1]


@pytest.fixture
def heeded():
    """Ctrl-C, also in what a shell runs in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heeded")
def test_ctrl_c_while_processes_are_started_is_not_lost(monkeypatch):
    start, n_started = multiprocessing.process.BaseProcess.start, []

    def disturbed(process):
        with contextlib.suppress(KeyboardInterrupt):  # as Python does in the middle of a fork
            signal.raise_signal(signal.SIGINT)
        start(process)
        n_started.append(process)

    monkeypatch.setattr(multiprocessing.process.BaseProcess, "start", disturbed)
    loader = make_loader(2)
    with pytest.raises(KeyboardInterrupt):
        next(iter(loader))
    assert len(n_started) == 2
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


SIGNAL_WORKERS = """
import os, subprocess, sys, multiprocessing
from tests.support.slots import make_loader
loader = make_loader(2)
batches = iter(loader)
next(batches), next(batches)  # one of each, so both are under way
workers = [worker.pid for worker in multiprocessing.active_children()]
subprocess.run(["kill", "-" + sys.argv[1], *map(str, workers)], check=True)  # not by the trainer itself
print(len(list(batches)), *workers)
kept = [loader, batches]  # alive until the interpreter ends
if sys.argv[2] == "error":
    raise RuntimeError
"""


@pytest.mark.parametrize(
    ("number", "end"), [("TERM", "error"), ("TERM", "well"), ("USR1", "error"), ("INT", "well")]
)
def test_workers_outlive_a_signal_and_end_with_the_trainer(number, end):
    command = [sys.executable, "-c", SIGNAL_WORKERS, number, end]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=600)
    n_batches, *workers = map(int, done.stdout.split())
    assert n_batches == 3
    assert len(workers) == 2
    assert not any(Path(f"/proc/{worker}").exists() for worker in workers)


def test_default_workers(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(12)), raising=False)
    assert available_cores() == 12
    assert [default_workers(n) for n in (1, 2, 4, 8, 12, 24)] == [8, 6, 3, 0, 0, 0]
