import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import DistributedSampler

from abaw.data.frames import RawFolder
from abaw.data.index import build_index
from abaw.data.layout import DataSource
from abaw.errors import AbawError
from abaw.loading.loaders import LoaderFactory
from abaw.loading.sampling import training_windows
from abaw.tasks import AU, TASKS
from abaw.windows import cut_videos
from tests.support.slots import make_loader, slots_of
from tests.support.tiny_set import SIZE, write_tiny_set


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


ALL = TASKS


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    return build_index(DataSource(write_tiny_set(tmp_path_factory.mktemp("set"))))


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("batch_size", [1, 4])
def test_ranks_together_evaluate_every_window_once(index, world_size, batch_size):
    table = cut_videos(index.n_frames, range(len(index)), 8, 4)
    windows, lengths, owners = [], set(), []
    for rank in range(world_size):
        feeding = LoaderFactory(index=index, source=RawFolder(index, SIZE), rank=rank, world_size=world_size)
        loader = feeding.eval_loader(table, ALL, split=None, batch_size=batch_size)
        assert isinstance(loader.sampler, DistributedSampler)
        batches = list(loader)
        mine = [window for batch in batches for window in batch.where if window.video >= 0]
        lengths.add(len(batches))
        owners += sorted({window.video for window in mine})
        windows += mine
    assert sorted(windows, key=str) == sorted((table[k] for k in range(len(table))), key=str)
    assert len(lengths) == 1
    assert len(owners) == len(set(owners)) == 5


def test_more_ranks_than_videos(index):
    table = cut_videos(index.n_frames, [0], 8, 4)
    feeding = LoaderFactory(index=index, source=RawFolder(index, SIZE), rank=1, world_size=2)
    batches = list(feeding.eval_loader(table, ALL, split=None, batch_size=4))
    assert len(batches) == -(-len(table) // 4)
    assert not any(batch.present.any() for batch in batches)


def test_training_starts_at_the_epoch_asked_for(index):
    table = training_windows(index, ALL, length=8, stride=4)
    feeding = LoaderFactory(index=index, source=RawFolder(index, SIZE))

    def windows(epoch):
        loader = feeding.train_loader(table, ALL, batch_size=2, epoch=epoch)
        return [batch.where for batch in loader]

    assert windows(1) != windows(0)
    assert windows(1) == windows(1)


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork.*")
def test_batches_stay_what_they_were_while_workers_use_their_memory_again(index, workers):
    table = training_windows(index, ALL, length=4, stride=1)

    def batches(workers):
        feeding = LoaderFactory(index=index, source=RawFolder(index, SIZE), workers=workers)
        loader = feeding.train_loader(table, ALL, batch_size=2)
        return [batch for _ in range(2) for batch in loader]  # the second pass goes on with the same workers

    alone, fed = batches(0), batches(workers)
    assert len(fed) > 8 * workers
    for one, other in zip(alone, fed, strict=True):
        assert one.where == other.where
        for name in ("frames", "keep", "visible"):
            assert torch.equal(getattr(one, name), getattr(other, name))
        assert torch.equal(one.labels[AU].values, other.labels[AU].values)
