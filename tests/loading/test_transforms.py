import pickle
import subprocess
import sys
from functools import partial

import numpy as np
import pytest

from abaw.errors import UsageError
from abaw.loading.transforms import ClipAugmentation, _pipeline

EVERYTHING = ClipAugmentation(p_affine=0.5, p_boxes=0.5)


@pytest.fixture(scope="module")
def clip():
    smooth = np.linspace(0, 255, 112 * 112 * 3).reshape(112, 112, 3)
    noise = np.random.default_rng(0).integers(-20, 20, (6, 112, 112, 3))
    return (smooth + noise).clip(0, 255).astype(np.uint8)


def same_frames(n_frames, seed):
    """n copies of one frame: whatever differs afterwards was drawn per frame."""
    frame = np.random.default_rng(seed).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    return np.repeat(frame[None], n_frames, axis=0)


def test_one_draw_for_all_frames():
    changed = 0
    for seed in range(60):
        before = same_frames(5, seed)
        after = EVERYTHING(before, seed)
        assert after.dtype == np.uint8
        assert after.shape == before.shape
        assert (after == after[:1]).all()
        changed += not np.array_equal(after, before)
    assert changed > 40


def test_the_seed_alone_decides(clip):
    first, second = ClipAugmentation(), ClipAugmentation()
    for seed in (3, 1, 2):  # the other has seen different clips in between
        first(clip[:1], seed)
    for seed in range(12):
        assert np.array_equal(first(clip, seed), second(clip, seed))
    assert len({first(clip, seed).tobytes() for seed in range(30)}) > 15


def test_input_is_never_written(clip):
    clip.flags.writeable = False
    for seed in range(40):
        EVERYTHING(clip, seed)


def test_coins_are_independent():
    """With one generator per transform, seeded alike, all transforms would happen together."""
    flip_and_boxes = ClipAugmentation(
        p_brightness_contrast=0, p_blur=0, p_sharpen=0, p_flip=0.5, p_boxes=0.5, box=1, n_boxes=1
    )
    before = np.full((1, 8, 8, 3), 200, np.uint8)
    before[:, :, :4] = 100  # the left half is darker
    seen = set()
    for seed in range(60):
        after = flip_and_boxes(before, seed)
        visible = after[after > 0]
        flipped = bool(len(visible)) and bool((after[0, :, -1] == 100).any() or (after[0, :, 0] == 200).any())
        seen.add((flipped, bool((after == 0).any())))
    assert len(seen) == 4


@pytest.mark.parametrize("n_frames", [1, 2, 200])
def test_any_number_of_frames(n_frames):
    before = same_frames(n_frames, 0)
    for seed in range(20):
        assert EVERYTHING(before, seed).shape == before.shape


def test_use_leaves_the_settings_plain(clip):
    used = ClipAugmentation()
    used(clip, 1)
    assert vars(used) == vars(ClipAugmentation())


def test_all_off_changes_nothing(clip):
    off = ClipAugmentation(p_brightness_contrast=0, p_flip=0, p_blur=0, p_sharpen=0)
    assert np.array_equal(off(clip, 1), clip)


@pytest.mark.parametrize("setting", ["p_affine", "p_flip", "p_boxes", "p_sharpen", "p_blur"])
def test_output_is_the_stock_one(clip, setting):
    """The loop over frames gives what the library's own way with clips gives."""
    names = ("p_brightness_contrast", "p_flip", "p_blur", "p_sharpen", "p_affine", "p_boxes")
    chances = {name: float(name == setting) for name in names}
    # settings that are alike share a pipeline, so the second differs in something that is off
    other = {"n_boxes": 3} if setting == "p_affine" else {"rotate": 11.0}
    ours, stock = ClipAugmentation(**chances), ClipAugmentation(**chances, **other)
    for transform in _pipeline(stock).transforms:
        of_library = next(c for c in type(transform).__mro__ if c.__module__.startswith("albumentations"))
        transform._key2func["images"] = partial(of_library.apply_to_images, transform)
    for seed in range(5):
        assert np.array_equal(ours(clip, seed), stock(clip, seed))
    assert any(not np.array_equal(ours(clip, seed), clip) for seed in range(5))


def test_worker_gets_the_settings_alone(clip):
    ours = ClipAugmentation(p_flip=1)
    ours(clip, 0)
    copy = pickle.loads(pickle.dumps(ours))
    assert copy == ours
    assert np.array_equal(copy(clip, 5), ours(clip, 5))


@pytest.mark.parametrize(
    ("setting", "value"),
    [("p_flip", 1.5), ("blur", (4, 7)), ("blur", (7, 3)), ("n_boxes", 0), ("rotate", -1.0), ("box", 2.0)],
)
def test_impossible_settings_are_named(setting, value):
    with pytest.raises(UsageError, match=rf"data\.loading\.augmentation.*{setting}"):
        ClipAugmentation(**{setting: value})


@pytest.mark.parametrize("setting", ["brightness_contrast", "shift", "scale", "rotate", "box"])
def test_zero_is_a_setting(setting, clip):
    assert ClipAugmentation(p_affine=1, p_boxes=1, **{setting: 0})(clip, 1).shape == clip.shape


def test_albumentations_comes_late_and_asks_no_network():
    code = (
        "import sys, os; from abaw.loading.transforms import ClipAugmentation as C; a = C();"
        "assert 'albumentations' not in sys.modules; import socket, numpy as np;"
        "socket.socket.connect = None; a(np.zeros((1, 8, 8, 3), np.uint8), 0);"
        "assert os.environ['NO_ALBUMENTATIONS_UPDATE'] == '1'"
    )
    subprocess.run([sys.executable, "-W", "error::UserWarning", "-c", code], check=True, timeout=600)


def test_unknown_argument_is_an_error(monkeypatch, clip):
    """The library would warn and go on with its default."""
    import albumentations

    real = albumentations.Sharpen
    monkeypatch.setattr(albumentations, "Sharpen", lambda p: real(p=p, strength=3))
    with pytest.raises(UserWarning, match="'strength' are not valid"):
        ClipAugmentation(p_sharpen=0.123)(clip, 0)  # settings whose pipeline is not there yet
