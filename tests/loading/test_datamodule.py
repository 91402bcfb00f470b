import logging
import os
import shutil
import subprocess
import sys
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch.utils.data import DistributedSampler

from abaw.batch import Batch
from abaw.data.formats.annotations import write_task_file
from abaw.data.labels import Labels
from abaw.errors import AbawError, UsageError
from abaw.loading.datamodule import (
    AffectDataModule,
    EvaluationSettings,
    LoadingSettings,
    SourceSettings,
    WindowSettings,
)
from abaw.loading.masking import RandomFrameMasking
from abaw.loading.splits import write_folds
from abaw.tasks import AU, EXPR, VA
from tests.support.project import PROJECT
from tests.support.tiny_set import SIZE, labels_of, write_tiny_mtl_set, write_tiny_set

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*LeafSpec.*",
    "ignore::lightning.fabric.utilities.warnings.PossibleUserWarning",
    "ignore:.*multi-threaded, use of fork.*",
    "ignore:.*overridden `transfer_batch_to_device`.*",
    "ignore:.*You requested to overfit.*",
)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_tiny_set(tmp_path_factory.mktemp("set"))


def make(root, stage=None, **kwargs):
    settings = {"window": 8, "batch_size": 2, "workers": 0, "loading": LoadingSettings(frame_size=SIZE)}
    data = AffectDataModule(root=str(root), **settings | kwargs)
    if stage is not None:
        data.prepare_data()
        data.setup(stage)
    return data


def names(data, videos):
    return [data.video_name(video) for video in videos]


def frames_of(loader):
    """How often every frame of every video is in a window, and the videos in the order they come."""
    seen, order = {}, []
    for batch in loader:
        assert isinstance(batch, Batch)
        for window in batch.where:
            if window.video >= 0:
                seen.setdefault(window.video, []).extend(window.frames)
                order.append(window.video)
    return seen, order


@pytest.mark.parametrize("step", [1, 2])
@pytest.mark.parametrize("sizes", [{}, {"window": 5}, {"window": 4, "stride": 4}])
@pytest.mark.parametrize("stage", ["validate", "test"])
def test_evaluation_covers_every_frame_of_every_annotated_video(root, stage, sizes, step):
    evaluation = EvaluationSettings(test_split="val", **sizes)
    data = make(root, stage, evaluation=evaluation, windows=WindowSettings(step=step))
    loader = data.val_dataloader() if stage == "validate" else data.test_dataloader()
    seen, order = frames_of(loader)
    assert names(data, dict.fromkeys(order)) == ["c_val", "d_val"] == names(data, data.eval_videos(stage))
    for video, frames in seen.items():
        assert set(frames) == set(range(data.n_frames(video)))
    assert data.eval_split(stage) == "val"


def test_without_test_labels_nothing_is_tested(root):
    """Scores of other videos must not pass for those of the test."""
    data = make(root, "test")
    with pytest.raises(
        AbawError, match=r"no test labels of va.*`abaw validate`.*--data\.evaluation\.test_split val"
    ):
        data.test_dataloader()


def test_windows_overlap_outside_training_unless_told_otherwise(root):
    data = make(root, "validate")
    assert data.eval_window_sizes == {"window": 8, "stride": 4, "step": 1}
    starts = [window.start for batch in data.val_dataloader() for window in batch.where]
    assert starts == [0, 4, 8, 12, 13, 0]


def test_labels_are_of_the_stage_and_of_all_rows(root):
    data = make(root, "validate")
    video = data.index.videos.index("d_val")
    labels = data.labels(video, "validate")
    assert len(labels) == data.n_frames(video) + 1
    assert labels[VA].valid.all()
    assert not labels[AU].valid.any()  # annotated in train
    batch = next(iter(data.val_dataloader()))
    assert batch.labels[VA].valid.any()
    assert not batch.overlaps[0]


def test_label_counts_are_of_training(root):
    counts = make(root, "fit", tasks=["va", "expr"]).label_counts()
    assert counts[VA] == 48
    assert counts[EXPR].tolist() == [6] * 8
    assert AU not in counts


def test_training_loader(root):
    data = make(root, "fit")
    loader = data.train_dataloader()
    assert isinstance(loader.sampler, DistributedSampler)
    batches = list(loader)
    assert all(len(batch) == 2 for batch in batches)
    assert all(batch.visible.shape == (2, 8) for batch in batches)
    again = list(make(root, "fit").train_dataloader())
    assert all(torch.equal(a.frames, b.frames) and a.where == b.where
               for a, b in zip(batches, again, strict=True))  # fmt: skip
    other = list(make(root, "fit", seed=1).train_dataloader())
    assert [batch.where for batch in other] != [batch.where for batch in batches]


def test_balance_draws_with_weights(root):
    data = make(root, "fit", windows=WindowSettings(balance=0.5))
    weights = data.train_dataloader().sampler._weights
    assert weights.std() > 0
    assert make(root, "fit").train_dataloader().sampler._weights is None


@pytest.mark.parametrize("tasks", [["va"], ["au"], ["va", "au"], ["va", "expr", "au"]])
def test_any_tasks(root, tasks):
    data = make(root, "fit", tasks=tasks)
    assert tuple(map(str, data.tasks)) == tuple(tasks)
    for batch in [*data.train_dataloader(), *data.val_dataloader()]:
        assert tuple(batch.labels) == data.tasks


def test_mtl_scores_every_labelled_frame_and_predicts_all(tmp_path):
    write_tiny_mtl_set(tmp_path)
    data = make(tmp_path, "validate", source=SourceSettings(label_set="mtl"), window=1, batch_size=3)
    ((video, frames),) = frames_of(data.val_dataloader())[0].items()
    assert data.video_name(video) == "q"
    assert frames == [0, 7, 14, 21]
    labels = data.labels(video, "validate")
    assert np.flatnonzero(labels[VA].valid).tolist() == frames
    data.setup("predict")
    ((_, predicted),) = frames_of(data.predict_dataloader())[0].items()
    assert predicted == list(range(data.n_frames(video)))
    data.setup("fit")
    assert [batch.frames.shape for batch in data.train_dataloader()] == [(3, SIZE, SIZE, 3)]


def test_predict_without_any_annotation_is_for_all_videos(root):
    data = make(root / "cropped_aligned", "predict")
    assert names(data, data.eval_videos("predict")) == ["a_train", "b_train", "c_val", "d_val", "e_free"]
    assert data.eval_split("predict") is None
    seen, _ = frames_of(data.predict_dataloader())
    assert all(set(frames) == set(range(data.n_frames(video))) for video, frames in seen.items())
    assert len(seen) == 5


@pytest.mark.parametrize(
    ("split", "videos"),
    [
        ("auto", ["c_val", "d_val"]),
        ("val", ["c_val", "d_val"]),
        ("train", ["a_train", "b_train", "d_val"]),
        ("test", ["a_train", "b_train", "d_val", "e_free"]),  # all but the one annotated for every task
        ("all", ["a_train", "b_train", "c_val", "d_val", "e_free"]),
    ],
)
def test_predict_split(root, split, videos):
    data = make(root, "predict", evaluation=EvaluationSettings(predict_split=split))
    assert names(data, data.eval_videos("predict")) == videos
    assert not any(batch.labels for batch in data.predict_dataloader())


@pytest.mark.parametrize(
    "text",
    [
        "e_free\n\na_train\n",
        "e_free.txt\r\na_train.txt\r\n",
        "image_location,valence,arousal\ne_free/00001.jpg,\na_train/00001.jpg,\na_train/00002.jpg,\n",
        '"image",valence\ne_free/00001.jpg\na_train/00001.jpg',
    ],
)
def test_predict_what_a_list_or_a_sample_asks_for(text, root, tmp_path):
    wanted = tmp_path / "videos.txt"
    wanted.write_bytes(text.encode())
    data = make(root, "predict", evaluation=EvaluationSettings(predict_videos=str(wanted)))
    assert names(data, data.eval_videos("predict")) == ["a_train", "e_free"]


def test_a_list_that_cannot_be_predicted_is_an_error(root, tmp_path):
    wanted = tmp_path / "videos.txt"
    data = make(root, "predict", evaluation=EvaluationSettings(predict_videos=str(wanted)))
    wanted.write_text("e_fre\n")
    with pytest.raises(AbawError, match=r"videos\.txt: .*'e_fre'; did you mean e_free"):
        data.eval_videos("predict")
    wanted.write_text("")
    with pytest.raises(AbawError, match=r"no video in .*videos"):
        data.eval_videos("predict")
    wanted.unlink()
    with pytest.raises(AbawError, match=r"videos\.txt: cannot be read"):
        data.eval_videos("predict")


def test_folds(root, tmp_path):
    path = tmp_path / "folds.json"
    write_folds(path, {"a_train": 1, "b_train": 0, "c_val": 0, "d_val": 1})
    data = make(root, "validate", folds=str(path), fold=1)
    assert names(data, data.eval_videos("validate")) == ["a_train", "d_val"]
    data.setup("fit")
    assert data.label_counts()[VA] == 22


def test_root_from_the_environment(root, monkeypatch):
    monkeypatch.setenv("ABAW_ROOT", str(root))
    assert AffectDataModule().source.root == root
    monkeypatch.delenv("ABAW_ROOT")
    with pytest.raises(UsageError, match=r"--data\.root DIR.*ABAW_ROOT"):
        AffectDataModule()


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"window": 0}, r"data\.window is at least 1, got 0"),
        ({"windows": WindowSettings(stride=9)}, r"data\.windows\.stride is from 1 to the window's 8, got 9"),
        (
            {"evaluation": EvaluationSettings(window=4, stride=5)},
            r"data\.evaluation\.stride is from 1 to the window's 4",
        ),
        ({"workers": -1, "batch_size": 0}, r"data\.batch_size .*data\.workers"),
        ({"seed": -1}, r"data\.seed"),
        ({"windows": WindowSettings(balance=1.0), "tasks": ["va"]}, r"data\.windows\.balance is 0 unless"),
        ({"fold": 1}, r"data\.fold is given together with data\.folds"),
        ({"tasks": ["smile"]}, "smile"),
    ],
)
def test_impossible_settings_are_named(settings, named, root):
    with pytest.raises(UsageError, match=named):
        make(root, **settings)


def test_a_stage_without_data_is_an_error(root, tmp_path):
    write_tiny_mtl_set(tmp_path)
    with pytest.raises(AbawError, match=rf"no label of va, expr, au to train on(.|\n)*--data.root {root}\?"):
        make(root / "cropped_aligned", "fit")
    with pytest.raises(AbawError, match=r"no video annotated for va, expr, au in val to validate"):
        make(root / "cropped_aligned", "validate").val_dataloader()
    with pytest.raises(AbawError, match="do not fill one batch of 500"):
        make(root, "fit", batch_size=500).train_dataloader()
    annotations = tmp_path / "only"
    (annotations / "VA_Estimation_Challenge" / "Train_Set").mkdir(parents=True)
    source = root / "VA_Estimation_Challenge" / "Train_Set" / "a_train.txt"
    (annotations / "VA_Estimation_Challenge" / "Train_Set" / "a_train.txt").write_text(source.read_text())
    with pytest.raises(
        AbawError, match=r"no label of au to train on(.|\n)*`abaw check .*` names label files"
    ):
        make(annotations, "fit", tasks=["va", "au"])
    with pytest.raises(AbawError, match="no video with training labels has images"):
        make(annotations, "fit", tasks=["va"])


class Stub(LightningModule):
    """Steps through every stage and keeps what it is given."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)
        self.masking = RandomFrameMasking(0.5)
        self.seen = {"train": [], "val": [], "test": [], "predict": []}

    def transfer_batch_to_device(self, batch, device, dataloader_idx):
        return batch

    def training_step(self, batch, batch_idx):
        self.seen["train"].append((batch.where, batch.visible, batch.frames.double().sum()))
        return self.layer(torch.ones(1, 1)).sum()

    def validation_step(self, batch, batch_idx):
        self.seen["val"].append(batch.where)

    def test_step(self, batch, batch_idx):
        self.seen["test"].append(batch.where)

    def predict_step(self, batch, batch_idx):
        self.seen["predict"].append(batch.where)
        return torch.zeros(1)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.0)


class Save(Callback):
    def __init__(self, path, step):
        self.path, self.step = path, step

    def on_train_batch_end(self, trainer, *args):
        if trainer.global_step == self.step:
            trainer.save_checkpoint(self.path)


def trainer(tmp_path, **kwargs):
    return Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, use_distributed_sampler=False, default_root_dir=tmp_path, **kwargs,
    )  # fmt: skip


@pytest.mark.parametrize("workers", [0, 2])
def test_stages_under_lightning(root, tmp_path, workers):
    module = Stub()
    run = trainer(tmp_path, max_epochs=2)
    data = make(root, workers=workers, evaluation=EvaluationSettings(test_split="val"))
    run.fit(module, datamodule=data)
    run.validate(module, datamodule=data, verbose=False)
    run.test(module, datamodule=data, verbose=False)
    run.predict(module, datamodule=data)
    one = [batch.where for batch in data.val_dataloader()]
    assert module.seen["test"] == module.seen["predict"] == one
    assert module.seen["val"][-3:] == one
    where = [where for where, _, _ in module.seen["train"]]
    assert where[: len(where) // 2] != where[len(where) // 2 :]  # epochs differ


@pytest.mark.parametrize("workers", [0, 2])
def test_a_resumed_run_sees_the_same_pixels_and_masks(root, tmp_path, workers):
    whole, rest = Stub(), Stub()
    path = tmp_path / "a.ckpt"
    trainer(tmp_path, max_epochs=3, callbacks=[Save(path, 5)]).fit(whole, datamodule=make(root))
    resumed = trainer(tmp_path, max_epochs=3)
    resumed.fit(rest, datamodule=make(root, workers=workers), ckpt_path=path, weights_only=True)
    assert len(rest.seen["train"]) == len(whole.seen["train"]) - 5 > 0
    for (where, noise, pixels), want in zip(rest.seen["train"], whole.seen["train"][5:], strict=True):
        assert where == want[0]
        assert torch.equal(noise, want[1])
        assert pixels == want[2]


def fit_said(root, tmp_path, caplog, **settings):
    with caplog.at_level(logging.INFO, logger="lightning.pytorch.utilities.rank_zero"):
        trainer(tmp_path, max_epochs=1).fit(Stub(), datamodule=make(root, **settings))
    return [line for line in caplog.messages if line.startswith(("train:", "val:", "warning:"))]


def test_fit_says_what_it_trains_on(root, tmp_path, caplog):
    data = make(root, "fit")
    n_windows = len(data._train_windows)
    assert fit_said(root, tmp_path, caplog) == [
        f"train: 3 videos, {n_windows} windows, labelled rows: va 48, expr 48, au 14;"
        " 47 of 72 frames visible",
        "val: 2 videos, 6 windows, labelled rows: va 28, expr 22, au 22; 24 of 26 frames visible",
    ]
    caplog.clear()
    with caplog.at_level(logging.INFO, logger="lightning.pytorch.utilities.rank_zero"):
        data.setup("fit")  # as `bench` does, which trains later
    assert not caplog.messages


@pytest.mark.parametrize("suffix", [".JPG", ".png"])
def test_labelled_videos_without_images_are_named(suffix, tmp_path, caplog):
    root = write_tiny_set(tmp_path / "set")
    for path in sorted((root / "cropped_aligned" / "b_train").iterdir()):
        path.rename(path.with_suffix(suffix))
    shutil.rmtree(root / "cropped_aligned" / "d_val")
    warnings = [line for line in fit_said(root, tmp_path, caplog) if line.startswith("warning:")]
    met = root / "cropped_aligned" / "b_train"
    assert warnings[0].startswith(
        f"warning: 2 of 3 labelled videos of train have no image 00001.jpg, …: b_train, d_val; met {met}/"
    )
    assert f"{suffix}; `abaw check` names them all" in warnings[0]
    assert warnings[1].endswith("of val have no image 00001.jpg, …: d_val; `abaw check` names them all")
    for path in (root / "cropped_aligned").rglob("*.jpg"):
        path.rename(path.with_suffix(suffix))
    with pytest.raises(AbawError, match=rf"<video>/00001\.jpg, but there is .*{suffix}; correct data.root"):
        make(root, "fit")


@pytest.mark.parametrize(
    ("labels", "is_labelled"),
    [
        (lambda video: constant_va(0.5, -0.5), False),
        (lambda video: constant_va(0.5 if video == "a_train" else 0.25, -0.5), True),
        (lambda video: labels_of(10), True),
        (lambda video: Labels.unlabelled(10), False),
    ],
    ids=["placeholders", "two values", "labels", "none labelled"],
)
def test_a_test_split_of_placeholders_is_not_labelled(labels, is_labelled, tmp_path):
    root = write_tiny_set(tmp_path)
    for path in (root / "VA_Estimation_Challenge" / "Train_Set").iterdir():
        path.unlink()
    for video in ("a_train", "e_free"):
        path = root / "VA_Estimation_Challenge" / "Test_Set" / f"{video}.txt"
        write_task_file(path, VA, labels(video))
    data = make(root, "test", tasks=["va"])
    assert data.eval_split("test") == "test"
    with nullcontext() if is_labelled else pytest.raises(AbawError, match="or only placeholders"):
        assert names(data, data.eval_videos("test")) == ["a_train", "e_free"]
    asked = make(root, "test", tasks=["va"], evaluation=EvaluationSettings(test_split="test"))
    assert names(asked, asked.eval_videos("test")) == ["a_train", "e_free"]
    predicted = make(root, "predict", tasks=["va"], evaluation=EvaluationSettings(predict_split="test"))
    assert names(predicted, predicted.eval_videos("predict")) == ["a_train", "e_free"]


def constant_va(valence, arousal):
    labels = labels_of(10)
    labels[VA].values[:] = valence, arousal
    return labels


def test_overfit_batches_is_refused(root, tmp_path):
    with pytest.raises(UsageError, match="limit_train_batches"):
        trainer(tmp_path, max_epochs=1, overfit_batches=1).fit(Stub(), datamodule=make(root))


@pytest.mark.parametrize("workers", [0, 2])
def test_bad_frames_are_named_in_the_run_directory(tmp_path, workers):
    root = write_tiny_set(tmp_path / "set")
    loading = LoadingSettings(frame_size=SIZE, on_bad_frame="skip")
    data = make(root, "validate", loading=loading, workers=workers)
    bad = root / "cropped_aligned" / "c_val" / "00007.jpg"
    bad.write_bytes(b"")
    run = trainer(tmp_path / "run")
    run.validate(Stub(), datamodule=data, verbose=False)
    assert (tmp_path / "run" / "bad_frames.txt").read_text().splitlines() == [str(bad)]
    with pytest.raises(AbawError) as stop:
        run.validate(Stub(), datamodule=make(root, workers=workers), verbose=False)
    assert str(stop.value).startswith(str(bad))  # one message, from a worker too
    assert len(str(stop.value).splitlines()) == 1


TWO_RANKS = """
import sys
import torch
from tests.loading.test_datamodule import Stub, make, trainer

class Keeping(Stub):
    def on_fit_end(self):
        torch.save(self.seen, f"{sys.argv[2]}/{self.global_rank}.pt")

if __name__ == "__main__":
    run = trainer(sys.argv[2], max_epochs=2, devices=2, strategy="ddp_spawn", num_sanity_val_steps=0)
    run.fit(Keeping(), datamodule=make(sys.argv[1], batch_size=1))
"""


@pytest.mark.slow
def test_two_ranks_see_what_one_does(root, tmp_path):
    script = tmp_path / "two_ranks.py"
    script.write_text(TWO_RANKS)
    env = os.environ | {"PYTHONPATH": str(PROJECT)}
    subprocess.run([sys.executable, script, root, tmp_path], check=True, timeout=600, env=env)
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=False) for rank in range(2))
    one = Stub()
    trainer(tmp_path, max_epochs=2, num_sanity_val_steps=0).fit(one, datamodule=make(root, batch_size=2))
    for a, b, both in zip(first["train"], second["train"], one.seen["train"], strict=True):
        assert a[0] + b[0] == both[0]  # a batch is made of the same windows
        assert torch.equal(torch.cat([a[1], b[1]]), both[1])  # under the same masks
        assert a[2] + b[2] == both[2]  # with the same pixels
    assert len(first["val"]) == len(second["val"])
    windows = [w for rank in (first, second) for where in rank["val"] for w in where if w.video >= 0]
    assert sorted(windows, key=str) == sorted((w for where in one.seen["val"] for w in where), key=str)
