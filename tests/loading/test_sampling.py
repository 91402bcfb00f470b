import numpy as np
import pytest
from torch.utils.data.distributed import DistributedSampler

from abaw.data.index import build_index
from abaw.data.labels import Labels
from abaw.data.layout import DataSource
from abaw.errors import AbawError
from abaw.loading.sampling import (
    EvalSampler,
    Slot,
    TrainSampler,
    class_weights,
    labelled_windows,
    sum_windows,
    training_windows,
)
from abaw.tasks import AU, EXPR, TASKS, VA
from abaw.windows import cut, cut_videos, window_at
from tests.support.tiny_set import labels_of, write_images, write_labels, write_tiny_mtl_set, write_tiny_set


def train(rank=0, world_size=1, batch_size=2, n_windows=23, **kwargs):
    return TrainSampler(
        n_windows=n_windows, batch_size=batch_size, rank=rank, world_size=world_size, seed=7, **kwargs
    )


def global_batches(world_size, batch_size, epoch=0, start=0):
    """What all ranks together see in each batch, in slot order."""
    samplers = [train(rank, world_size, batch_size) for rank in range(world_size)]
    for sampler in samplers:
        sampler.start_at(epoch, start)
    per_rank = [list(sampler) for sampler in samplers]
    assert len({len(slots) for slots in per_rank}) == 1
    n_batches = len(per_rank[0]) // batch_size
    return [
        sorted(slot for slots in per_rank for slot in slots[k * batch_size : (k + 1) * batch_size])
        for k in range(n_batches)
    ]


def test_every_window_once_in_shuffled_order():
    slots = list(train(batch_size=1))
    assert [slot.slot for slot in slots] == list(range(23))
    order = [slot.window for slot in slots]
    assert sorted(order) == list(range(23))
    assert order != sorted(order)


@pytest.mark.parametrize(("world_size", "batch_size"), [(1, 4), (2, 2), (4, 1)])
@pytest.mark.parametrize("epoch", [0, 3])
def test_batches_do_not_depend_on_the_split(world_size, batch_size, epoch):
    batches = global_batches(world_size, batch_size, epoch)
    assert batches == global_batches(1, 4, epoch)
    assert len(batches) == 23 // 4
    assert [slot.slot for batch in batches for slot in batch] == list(range(20))


def test_order_is_that_of_seed_and_epoch():
    sampler = train()
    first = list(sampler)
    assert list(sampler) == first  # no state but the epoch
    sampler.set_epoch(1)
    second = list(sampler)
    assert second != first
    assert {slot.epoch for slot in second} == {1}
    sampler.set_epoch(0)
    assert list(sampler) == first
    other = TrainSampler(n_windows=23, batch_size=2, seed=8)
    assert list(other) != first


@pytest.mark.parametrize("world_size", [1, 2])
def test_a_pass_can_begin_in_the_middle(world_size):
    for rank in range(world_size):
        sampler = train(rank, world_size)
        whole = list(train(rank, world_size))
        sampler.start_at(0, 3)
        sampler.set_epoch(0)  # what Lightning says before the pass
        assert list(sampler) == whole[3 * 2 :]
        assert list(sampler) == whole  # only the next pass
        assert len(sampler) == len(whole)
    sampler.start_at(0, 3)
    sampler.set_epoch(1)
    assert next(iter(sampler)).slot == rank


def test_weights_draw_with_replacement_in_proportion():
    weights = np.array([1.0] * 500 + [4.0] * 500)
    sampler = train(n_windows=1000, weights=weights)
    drawn = np.array([slot.window for slot in sampler])
    assert len(drawn) == 1000
    assert 0.74 < (drawn >= 500).mean() < 0.86
    assert len(set(drawn.tolist())) < 800
    again = train(n_windows=1000, weights=weights)
    assert [slot.window for slot in again] == drawn.tolist()


def test_weight_zero_is_never_drawn():
    sampler = train(n_windows=400, weights=np.arange(400) % 2.0)
    assert all(slot.window % 2 for slot in sampler)


def test_too_few_windows_are_named():
    with pytest.raises(AbawError, match="3 training windows do not fill one batch of 2 on each of 2"):
        train(world_size=2, n_windows=3)


def evaluate(counts, world_size, batch_size):
    video = np.repeat(np.arange(len(counts), dtype=np.int32) * 3, counts)  # numbers with gaps
    samplers = [
        EvalSampler(video=video, batch_size=batch_size, rank=rank, world_size=world_size)
        for rank in range(world_size)
    ]
    return video, [list(sampler) for sampler in samplers], samplers


COUNTS = [[5, 1, 9, 3, 3, 2], [1, 1], [40, 1, 1, 1], [7], [6, 6, 6, 6]]


@pytest.mark.parametrize("counts", COUNTS)
@pytest.mark.parametrize("world_size", [1, 2, 3, 5])
@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_eval_sees_every_window_once_and_no_video_is_split(counts, world_size, batch_size):
    video, ranks, samplers = evaluate(counts, world_size, batch_size)
    real = [[window for window in windows if window >= 0] for windows in ranks]
    assert sorted(window for windows in real for window in windows) == list(range(len(video)))
    assert all(windows == sorted(windows) for windows in real)
    owners = [{int(video[window]) for window in windows} for windows in real]
    assert sum(len(owner) for owner in owners) == len(counts)
    assert len({-(-len(windows) // batch_size) for windows in ranks}) == 1  # as many batches everywhere
    assert all(len(sampler) == len(windows) for sampler, windows in zip(samplers, ranks, strict=True))
    # padding stands at the end and fills no more than is needed
    assert all(windows[: len(kept)] == kept for windows, kept in zip(ranks, real, strict=True))
    assert all(len(windows) == len(kept) or len(windows) % batch_size in (0, 1)
               for windows, kept in zip(ranks, real, strict=True))  # fmt: skip


def test_one_rank_takes_the_table_as_it_is():
    video, (windows,), _ = evaluate([5, 1, 9], 1, 4)
    assert windows == list(range(len(video)))


def test_ranks_are_balanced():
    rng = np.random.default_rng(0)
    counts = rng.integers(5, 300, 76).tolist()
    _, ranks, _ = evaluate(counts, 4, 8)
    loads = [sum(window >= 0 for window in windows) for windows in ranks]
    assert max(loads) - min(loads) <= 8


def test_samplers_are_left_alone_by_lightning():
    assert isinstance(train(), DistributedSampler)
    assert issubclass(EvalSampler, DistributedSampler)
    assert Slot(1, 2, 3).window == 3


ALL = TASKS


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    return build_index(DataSource(write_tiny_set(tmp_path_factory.mktemp("set"))))


@pytest.mark.parametrize("n_frames", [1, 5, 16, 41])
@pytest.mark.parametrize(("length", "stride", "step"), [(1, 1, 1), (8, 4, 1), (8, 8, 3), (5, 2, 2)])
def test_sums_are_those_of_the_windows(n_frames, length, stride, step):
    values = np.random.default_rng(0).random(n_frames)
    starts = np.array(cut(n_frames, length, stride, step), np.int32)
    want = [values[list(window_at(0, s, n_frames, length, step).frames)].sum() for s in starts.tolist()]
    assert np.allclose(sum_windows(values, starts, length, step), want)


def usable(index, window, tasks, split="train"):
    frames = list(window.frames)
    labels = index.labels(window.video, split, 0, int(index.n_frames[window.video]))
    labelled = [any(labels[task].valid[frame].any() for task in tasks) for frame in frames]
    return any(labelled) and bool(index.visible(window.video)[frames].any())


@pytest.mark.parametrize("tasks", [ALL, (VA,), (AU,), (EXPR, AU)])
@pytest.mark.parametrize(("length", "stride", "step"), [(1, 1, 1), (8, 4, 1), (10, 5, 2)])
def test_training_windows_hold_a_label_and_a_visible_frame(index, tasks, length, stride, step):
    table = training_windows(index, tasks, length=length, stride=stride, step=step)
    videos = index.annotated("train", tasks)
    everything = cut_videos(index.n_frames, videos, length, stride, step)
    wanted = [window for window in map(everything.__getitem__, range(len(everything)))
              if usable(index, window, tasks)]  # fmt: skip
    assert [table[k] for k in range(len(table))] == wanted
    assert wanted
    assert len(wanted) < len(everything) or VA not in tasks


def test_windows_of_one_frame_are_the_labelled_visible_frames(index):
    table = training_windows(index, (EXPR,), length=1, stride=1)
    frames = [(index.videos[table[k].video], table[k].start) for k in range(len(table))]
    assert frames == [("a_train", frame) for frame in [*range(20), *range(45, 48)]]


def test_labels_of_another_split_do_not_count(index):
    """d_val is annotated for AU in train, for VA in val."""
    table = training_windows(index, (VA,), length=4, stride=4)
    assert index.videos.index("d_val") not in table.video
    assert index.videos.index("d_val") in training_windows(index, (AU,), length=4, stride=4).video


def test_labelled_frames_take_any_task():
    labels = Labels(4, {**Labels.unlabelled(4).by_task, AU: labels_of(4, unlabelled=range(2, 4))[AU]})
    assert labels.labelled_rows(ALL).tolist() == [True, True, False, False]
    assert not labels.labelled_rows((VA, EXPR)).any()
    assert not labels.labelled_rows(()).any()


def test_sparse_labels_need_few_windows(tmp_path):
    index = build_index(DataSource(write_tiny_mtl_set(tmp_path), label_set="mtl"))
    videos = index.annotated("val", ALL)
    everything = cut_videos(index.n_frames, videos, 1, 1)
    needed = labelled_windows(everything, index, ALL, "val")
    assert needed.start.tolist() == [0, 7, 14, 21]  # frame 14 has no crop and is scored all the same
    longer = labelled_windows(cut_videos(index.n_frames, videos, 5, 5), index, ALL, "val")
    assert longer.start.tolist() == [0, 5, 10, 19]


def test_a_label_behind_the_last_frame_needs_that_frame(index):
    video = index.videos.index("c_val")
    assert len(index.labels(video, "val")) == index.n_frames[video] + 1
    one_row = cut_videos(index.n_frames, [video], 1, 1)

    class OnlyTheLastRow:
        n_frames = index.n_frames

        def labels(self, video, split):
            return labels_of(22, unlabelled=range(21))

    assert labelled_windows(one_row, OnlyTheLastRow(), ALL, "val").start.tolist() == [20]


def test_rare_classes_are_drawn_more_often(index):
    table = training_windows(index, ALL, length=1, stride=1)
    uniform = class_weights(index, table, ALL, strength=0)
    assert np.allclose(uniform, 1)
    full = class_weights(index, table, (EXPR,), strength=1)
    half = class_weights(index, table, (EXPR,), strength=0.5)
    video = index.videos.index("a_train")
    of_a = table.video == video
    counts = index.label_counts("train", (EXPR,))[EXPR]
    classes = table.start[of_a] % 8
    assert np.allclose(full[of_a] * counts[classes], (full[of_a] * counts[classes])[0])  # inverse share
    assert np.allclose(half[of_a] ** 2 * counts[classes], (half[of_a] ** 2 * counts[classes])[0])
    assert np.allclose(full[~of_a], 1)  # no label of the task: neither rare nor frequent


def test_a_class_without_labels_does_no_harm(index):
    """AU24 and others are never present in the tiny set."""
    table = training_windows(index, (AU,), length=4, stride=2)
    weights = class_weights(index, table, (AU,), strength=1)
    assert np.isfinite(weights).all()
    assert (weights > 0).all()
    assert np.array_equal(class_weights(index, table, (VA,), strength=1), np.ones(len(table)))


def rarity(labels, strength):
    """Of every class among some labels: the inverse of its share, 1 on average over these labels."""
    raw = {label: labels.count(label) ** -float(strength) for label in set(labels)}
    mean = np.mean([raw[label] for label in labels])
    return {label: value / mean for label, value in raw.items()}


def labels_in(index, video, frames, task):
    """Per kind of label its valid values in frames of a video: one kind for EXPR, twelve for AU."""
    labels = index.labels(video, "train")
    values = labels[task].values.astype(int).reshape(len(labels), -1)[frames]
    valid = labels[task].valid.reshape(len(labels), -1)[frames]
    return [values[valid[:, kind], kind].tolist() for kind in range(values.shape[1])]


@pytest.mark.parametrize("tasks", [(EXPR,), (AU,), ALL], ids=["expr", "au", "all"])
@pytest.mark.parametrize("strength", [0.5, 1])
@pytest.mark.parametrize(("length", "stride", "step"), [(1, 1, 1), (8, 3, 1), (6, 5, 2)])
def test_a_window_weighs_the_mean_rarity_of_its_valid_labels(tmp_path, tasks, strength, length, stride, step):
    n_frames = {"a": 40, "b": 23}
    for video, unlabelled in (("a", [*range(5, 17), 30]), ("b", [0, 3, 4, 20, 21, 22])):
        write_images(tmp_path, video, n_frames[video])
        labels = labels_of(n_frames[video], unlabelled=unlabelled)
        write_labels(tmp_path, video, "train", (EXPR, AU) if video == "a" else (AU,), labels)
    index = build_index(DataSource(tmp_path))
    table = cut_videos(index.n_frames, range(2), length, stride, step)
    wanted = np.ones((2, len(table)))
    classed = [task for task in tasks if task != VA]
    for row, task in zip(wanted, classed, strict=False):
        everywhere = zip(*(labels_in(index, video, slice(None), task) for video in range(2)), strict=True)
        rare = [rarity([label for part in parts for label in part], strength) for parts in everywhere]
        for place in range(len(table)):
            window = table[place]
            found = labels_in(index, window.video, list(window.frames), task)
            values = [of_kind[label] for of_kind, part in zip(rare, found, strict=True) for label in part]
            row[place] = np.mean(values) if values else 1
    weights = class_weights(index, table, tasks, strength=strength)
    np.testing.assert_allclose(weights, wanted[: len(classed)].mean(0), rtol=1e-9)
    assert np.ptp(weights) > 0.05
