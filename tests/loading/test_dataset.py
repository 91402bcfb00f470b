import pickle

import cv2
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from abaw.batch import Batch
from abaw.data.features import FeatureStore
from abaw.data.formats.features import features_path, write_features
from abaw.data.frames import BadFrameError, BadFrameLog, RawFolder
from abaw.data.index import build_index
from abaw.data.layout import DataSource
from abaw.loading.dataset import ClipDataset, Draw, dropped_frames
from abaw.loading.loaders import loader_options
from abaw.loading.masking import RandomFrameMasking
from abaw.loading.sampling import Slot, training_windows
from abaw.loading.transforms import ClipAugmentation
from abaw.tasks import AU, EXPR, TASKS, VA
from abaw.windows import PADDING, Window, cut_videos
from tests.support.clips import images_of
from tests.support.tiny_set import SIZE, brightness, labels_of, write_tiny_mtl_set, write_tiny_set

ALL = TASKS
HALF = RandomFrameMasking(0.5)


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    return build_index(DataSource(write_tiny_set(tmp_path_factory.mktemp("set"))))


def make(index, *, videos=None, windows=None, length=8, stride=4, step=1, **kwargs):
    videos = range(len(index)) if videos is None else [index.videos.index(name) for name in videos]
    if windows is None:
        windows = cut_videos(index.n_frames, videos, length, stride, step)
    return ClipDataset(index=index, source=RawFolder(index, SIZE), windows=windows, **{"tasks": ALL} | kwargs)


def equal(one, other):
    names = [name for name in vars(one) if isinstance(getattr(one, name), torch.Tensor)]
    return one.where == other.where and all(torch.equal(getattr(one, k), getattr(other, k)) for k in names)


@pytest.mark.parametrize("step", [1, 3])
def test_every_frame_carries_its_own_pixels_and_labels(index, step):
    clips = make(index, step=step)
    for k in range(len(clips)):
        clip, window = clips[k], clips.windows[k]
        assert clip.where == (window,)
        images = images_of(clip)
        before = clips.windows[k - 1] if k else PADDING
        known = set(before.frames) if before.video == window.video else set()
        assert clip.overlaps == (len(known & set(window.frames)),)
        n, frames = len(window), list(window.frames)
        n_frames = int(index.n_frames[window.video])
        labels = index.labels(window.video, None, 0, n_frames)
        assert clip.present[0].tolist() == [True] * n + [False] * (8 - n)
        assert clip.visible[0, :n].tolist() == index.visible(window.video)[frames].tolist()
        assert not clip.visible[0, n:].any()
        for place, frame in enumerate(frames):
            if frame in known:
                assert not images[0, place].any()  # the window before has it
            elif clip.visible[0, place]:
                assert (images[0, place].int() - brightness(frame)).abs().max() <= 1
            for task in ALL:
                valid = clip.labels[task].valid[0, place].numpy()
                assert np.array_equal(valid, labels[task].valid[frame])
                value = clip.labels[task].values[0, place].numpy()
                assert np.array_equal(value, labels[task].values[frame])
        for task in ALL:
            assert not clip.labels[task].valid[0, n:].any()


def test_only_labels_that_are_asked_for(index):
    clip = make(index, videos=["d_val"], tasks=(AU,))[0]
    assert clip.labels[AU].valid.any()
    assert set(clip.labels) == {AU}
    of_val = make(index, videos=["d_val"], split="val")[0]
    assert of_val.labels[VA].valid.any()
    assert not of_val.labels[AU].valid.any()  # annotated in train
    assert not make(index, videos=["c_val"], tasks=())[0].labels


def test_padding_clip(index):
    clip = make(index)[-1]
    assert clip.where == (PADDING,)
    assert clip.frames.shape == (0, SIZE, SIZE, 3)
    for name in ("frames", "present", "visible", "n_bad_frames"):
        assert not getattr(clip, name).any()
    assert not any(clip.labels[task].valid.any() for task in ALL)
    assert len(Batch.cat([clip, make(index)[0]])) == 2


def training(index, **kwargs):
    windows = training_windows(index, ALL, length=8, stride=4)
    settings = {"split": "train", "seed": 5, "augmentation": ClipAugmentation(), "masking": HALF, "jitter": 4}
    return make(index, windows=windows, **settings | kwargs)


def test_what_is_random_is_keyed(index):
    clips, again = training(index), training(index)
    slot = Slot(epoch=2, slot=9, window=1)
    for other in (Slot(0, 0, 0), Slot(2, 9, 0)):
        again[other]
    assert equal(clips[slot], again[slot])
    differing = [
        clips[Slot(3, 9, 1)],
        clips[Slot(2, 10, 1)],
        training(index, seed=6)[slot],
    ]
    for clip in differing:
        assert not torch.equal(clip.visible, clips[slot].visible)
    noise = Draw.keyed(5, slot, 8).mask_noise
    assert noise.min() >= 0
    assert noise.max() < 1
    assert noise.dtype == np.float32


def test_streams_are_independent(index):
    """Turning augmentation or jitter off leaves the masks as they are."""
    for number in range(10):
        slot = Slot(0, number, number % 5)
        moved, fixed = training(index, jitter=4)[slot], training(index, augmentation=None, jitter=0)[slot]
        for clip in (moved, fixed):
            visible = torch.from_numpy(index.visible(clip.where[0].video)[list(clip.where[0].frames)])[None]
            assert torch.equal(clip.visible, HALF(visible, noise_of(slot)))
        clip = training(index, augmentation=None)[slot]
        assert training(index)[slot].where == clip.where


def test_augmentation_is_one_draw_per_clip_and_differs_between_clips(index):
    flat = training(index, jitter=0, augmentation=ClipAugmentation(p_brightness_contrast=1))
    plain = training(index, jitter=0, augmentation=None)
    shifts = set()
    for number in range(12):
        before, after = (clips[Slot(0, number, 3)].frames.int() for clips in (plain, flat))
        assert torch.equal(after, after[:, :1, :1].expand_as(after))
        shifts.add(int(after[0, 0, 0, 0] - before[0, 0, 0, 0]))
    assert len(shifts) > 8
    assert torch.equal(flat[0].frames, plain[0].frames)  # a number asks for the window as it is


class Counting(RawFolder):
    """A frame source that notes which frames are read."""

    def read(self, video, indices):
        self.taken = [*getattr(self, "taken", []), *((video, int(k)) for k in indices)]
        return super().read(video, indices)


def test_masked_frames_are_not_read_and_the_others_are_as_without_a_mask(index):
    source = Counting(index, SIZE)
    draws = {"augmentation": ClipAugmentation(p_brightness_contrast=1, p_blur=1, p_affine=1, p_boxes=1)}
    masked, plain = training(index, **draws), training(index, **draws, masking=None)
    masked.source = source
    for number in range(30):
        slot = Slot(0, number, number % 5)
        source.taken = []
        clip, whole = masked[slot], plain[slot]
        assert clip.where == whole.where
        (window,) = clip.where
        kept = clip.visible[0, : len(window)].numpy()
        assert source.taken == [(window.video, k) for k in np.array(window.frames)[kept].tolist()]
        assert torch.equal(clip.visible, HALF(whole.visible, noise_of(slot)))
        assert torch.equal(images_of(clip)[clip.visible], images_of(whole)[clip.visible])
        assert len(clip.frames) == clip.visible.sum()


def test_the_ratio_follows_the_optimizer_step_of_the_slot(index):
    ramp = RandomFrameMasking(ratio=1.0, start_ratio=0.0, ramp_steps=8)
    clips = training(index, masking=ramp, jitter=0)
    number = next(k for k, w in enumerate(clips.windows) if index.visible(w.video)[w.frames].all())
    for step in range(10):
        n_visible = int(clips[Slot(0, 0, number, step)].visible.sum())
        assert n_visible == max(8 - step, 1)


def noise_of(slot):
    return torch.from_numpy(Draw.keyed(5, slot, 8).mask_noise)[None]


def test_jitter_moves_the_start_within_the_video(index):
    plain, clips = training(index, jitter=0), training(index, jitter=4)
    moves = set()
    for number in range(300):
        slot = Slot(0, number, number % len(plain.windows))
        table, moved = plain.windows[slot.window], clips[slot].where[0]
        n_frames = int(index.n_frames[table.video])
        assert moved.video == table.video
        assert moved.stop <= n_frames
        assert len(moved) == len(table)
        assert plain[slot].where == (table,)
        moves.add(moved.start - table.start)
    assert moves == {-2, -1, 0, 1}


def test_jitter_never_leaves_labels_or_visible_frames_behind(index):
    clips = training(index, jitter=40)
    for number in range(200):
        clip = clips[Slot(0, number, number % len(clips.windows))]
        assert clip.visible.any()
        assert clip.labels[VA].valid.any() or clip.labels[EXPR].valid.any() or clip.labels[AU].valid.any()


def test_windows_of_one_frame(tmp_path):
    index = build_index(DataSource(write_tiny_mtl_set(tmp_path), label_set="mtl"))
    windows = training_windows(index, ALL, length=1, stride=1)
    clips = make(index, windows=windows, split="train", jitter=1, augmentation=ClipAugmentation())
    seen = []
    for k in range(len(clips)):
        clip = clips[Slot(0, k, k)]
        assert clip.frames.shape == (1, SIZE, SIZE, 3)
        assert clip.visible.all()
        assert clip.labels[VA].valid.all()
        seen.append(clip.where[0].start)
    assert seen == [0, 7, 21, 28]  # 14 has no crop


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork.*")
def test_workers_and_epochs_change_nothing(index, workers):
    slots = [Slot(epoch, k, k % 5) for epoch in (0, 1) for k in range(6)]
    options = loader_options(workers=workers, pin_memory=False)
    loader = DataLoader(training(index), batch_size=3, sampler=slots, **options)
    batches, want = list(loader), training(index)
    for k, batch in enumerate(batches):
        assert equal(batch, Batch.cat([want[slot] for slot in slots[3 * k : 3 * k + 3]]))
    masks = torch.cat([batch.visible for batch in batches])
    assert len({tuple(row.tolist()) for row in masks}) > 9  # other masks for every clip and epoch


def test_a_pickled_dataset_is_small_and_the_same(index):
    clips = training(index)
    data = pickle.dumps(clips)
    assert len(data) < 10_000
    copy = pickle.loads(data)
    assert equal(copy[Slot(1, 2, 3)], clips[Slot(1, 2, 3)])


@pytest.fixture
def broken(tmp_path):
    """Frames 2 and 5 (from 1) of `c_val` are damaged."""
    root = write_tiny_set(tmp_path / "set")
    folder = root / "cropped_aligned" / "c_val"
    index = build_index(DataSource(root))
    whole = (folder / "00002.jpg").read_bytes()
    (folder / "00002.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "00006.jpg").write_bytes(b"")
    return index, [str(folder / name) for name in ("00002.jpg", "00006.jpg")]


def test_a_bad_frame_stops_by_name(broken):
    index, _ = broken
    with pytest.raises(BadFrameError, match=r"c_val/00002\.jpg"):
        make(index, videos=["c_val"])[0]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork.*")
def test_skipped_frames_are_invisible_counted_and_named(broken, tmp_path, workers):
    index, paths = broken
    log = tmp_path / "run" / "bad_frames.txt"
    clips = make(index, videos=["c_val"], on_bad_frame="skip", bad_frame_log=BadFrameLog(log))
    options = loader_options(workers=workers, pin_memory=False)
    for _ in range(2):
        batches = list(DataLoader(clips, batch_size=1, **options))
        counts = [int(batch.n_bad_frames) for batch in batches]
        assert counts == [2, 0, 0, 0, 0]  # each frame is read once
    first = make(index, videos=["c_val"], on_bad_frame="skip")[0]
    assert first.visible[0].tolist() == [True, False, True, False, False, False, True, True]
    assert first.keep.tolist() == [0, 2, 6, 7]
    assert first.labels[VA].valid.all()  # the labels stay
    assert sorted(log.read_text().splitlines()) == paths


def test_a_masked_bad_frame_is_neither_read_nor_counted(broken):
    index, _ = broken
    settings = {"videos": ["c_val"], "on_bad_frame": "skip", "masking": HALF, "seed": 5}
    clips = make(index, **settings)
    bad, n_read = {1, 5}, set()
    for slot in (Slot(0, k, 0) for k in range(40)):
        clip = clips[slot]
        masked = HALF(torch.from_numpy(index.visible(clip.where[0].video)[None, :8]), noise_of(slot))
        kept = set(np.flatnonzero(masked[0]).tolist())
        assert int(clip.n_bad_frames) == len(kept & bad)
        assert set(clip.keep.tolist()) == kept - bad
        n_read.add(len(kept & bad))
    assert n_read == {0, 1, 2}


def test_cached_features_take_the_place_of_frames(index, tmp_path):
    for video, name in enumerate(index.videos):
        visible = index.visible(video)
        values = np.arange(len(visible), dtype=np.float16)[:, None].repeat(3, 1) * visible[:, None]
        write_features(features_path(tmp_path, name), features=values, visible=visible, metadata={})
    store = FeatureStore([tmp_path], index)
    windows = training_windows(index, ALL, length=8, stride=4)
    clips = ClipDataset(
        index=index, source=store, windows=windows, tasks=ALL, augmentation=ClipAugmentation()
    )
    clip = clips[Slot(0, 0, 0)]
    assert clip.frames is None
    assert clip.features[0, :, 0].tolist() == list(windows[0].frames)
    assert clips[-1].features.shape == (1, 8, 3)


def test_labels_beyond_the_file_are_absent_and_a_frame_beyond_a_video_is_not_read(tmp_path):
    root = tmp_path / "set"
    write_tiny_set(root)
    extra = root / "cropped_aligned" / "c_val" / "00030.jpg"  # N grows to 30, labels stay at 22 rows
    cv2.imwrite(str(extra), np.full((SIZE, SIZE, 3), 99, np.uint8))
    index = build_index(DataSource(root))
    clips = make(index, videos=["c_val"], length=30, stride=30)
    clip = clips[0]
    assert clip.where == (Window(index.videos.index("c_val"), 0, 30),)
    assert clip.labels[VA].valid[0].tolist() == [True] * 22 + [False] * 8
    assert clip.visible[0, 21:].tolist() == [False] * 8 + [True]
    assert labels_of(22)[VA].values[21, 0] == clip.labels[VA].values[0, 21, 0]


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 1.0])
def test_hides_the_same_frames_whatever_the_windows_are(index, share):
    video = index.videos.index("c_val")
    seen = index.visible(video)
    hidden = dropped_frames("c_val", seen, share=share, seed=3)
    assert hidden.sum() == round(share * seen.sum())
    assert not (hidden & ~seen).any()
    assert not (hidden & ~dropped_frames("c_val", seen, share=1.0, seed=3)).any()
    for length, stride in ((8, 4), (5, 5), (1, 1)):
        clips = make(index, videos=["c_val"], length=length, stride=stride, drop_frames=share, seed=3)
        for k in range(len(clips)):
            frames = list(clips.windows[k].frames)
            assert clips[k].visible[0, : len(frames)].tolist() == (seen & ~hidden)[frames].tolist()


def test_more_hidden_frames_are_added_to_those_of_less_and_differ_between_videos_and_seeds():
    seen = np.arange(200) % 5 > 0
    few, many = (dropped_frames("v", seen, share=share, seed=0) for share in (0.25, 0.5))
    assert (many & few).sum() == few.sum()
    for other in (dropped_frames("w", seen, share=0.5, seed=0), dropped_frames("v", seen, share=0.5, seed=1)):
        assert (other != many).mean() > 0.2
