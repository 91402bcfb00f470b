import pytest
import torch
from torch import Tensor

from abaw.errors import UsageError
from abaw.loading.masking import RandomFrameMasking


def noise(b: int, t: int, seed: int = 0) -> Tensor:
    return torch.rand(b, t, generator=torch.Generator().manual_seed(seed))


def some_visible(b: int, t: int, seed: int = 1) -> Tensor:
    """Clips from no visible frame to all of them."""
    share = torch.linspace(-0.01, 1.01, b)[:, None]
    return noise(b, t, seed) < share


@pytest.mark.parametrize("ratio", [0.0, 0.2, 0.5, 0.8, 1.0])
@pytest.mark.parametrize("span", [1, 4])
def test_hides_the_exact_share_of_the_visible_frames_and_never_all(ratio: float, span: int) -> None:
    visible = some_visible(64, 30)
    kept = RandomFrameMasking(ratio=ratio, span=span)(visible, noise(64, 30))
    assert not (kept & ~visible).any()
    for n, left in zip(visible.sum(1).tolist(), kept.sum(1).tolist(), strict=True):
        assert n - left == min(round(ratio * n), max(n - 1, 0))


@pytest.mark.parametrize("span", [1, 3])
def test_a_clip_is_masked_by_its_own_noise_alone(span: int) -> None:
    masking = RandomFrameMasking(ratio=0.5, span=span)
    visible, numbers = some_visible(16, 20), noise(16, 20)
    together = masking(visible, numbers)
    order = torch.randperm(16, generator=torch.Generator().manual_seed(5))
    assert torch.equal(masking(visible[order], numbers[order]), together[order])
    assert torch.equal(masking(visible[3:4], numbers[3:4]), together[3:4])


def test_masks_differ_between_clips_and_with_the_noise() -> None:
    masking = RandomFrameMasking(ratio=0.5)
    visible = torch.ones(32, 20, dtype=torch.bool)
    one, other = masking(visible, noise(32, 20, 0)), masking(visible, noise(32, 20, 1))
    assert len({tuple(row) for row in one.tolist()}) == 32  # not one mask for the whole batch
    assert not (one == other).all(1).any()


@pytest.mark.parametrize("span", [1, 2, 5])
def test_every_frame_is_hidden_equally_often(span: int) -> None:
    clips = 20_000
    kept = RandomFrameMasking(ratio=0.5, span=span)(torch.ones(clips, 20, dtype=torch.bool), noise(clips, 20))
    hidden = (~kept).float().mean(0)  # (20,)
    assert (hidden - 0.5).abs().max() < (0.015 if span == 1 else 0.04)  # runs do not always divide a clip


def test_spans_hide_runs_of_visible_frames() -> None:
    visible = some_visible(200, 60)
    kept = RandomFrameMasking(ratio=0.5, span=6)(visible, noise(200, 60))
    for seen, left in zip(visible, kept, strict=True):
        hidden = (~left[seen]).int()  # in the order of the visible frames: a missing face ends no run
        starts = int(hidden[:1].sum()) + int((hidden.diff() == 1).sum())
        # all runs are whole but the first, which is cut anywhere, and the last to be hidden
        assert starts <= int(hidden.sum()) // 6 + 2


def test_a_schedule_approaches_the_ratio() -> None:
    masking = RandomFrameMasking(ratio=0.8, start_ratio=0.0, ramp_steps=10)
    assert [masking.ratio_at(step) for step in (0, 5, 10, 99)] == pytest.approx([0.0, 0.4, 0.8, 0.8])
    visible = torch.ones(4, 10, dtype=torch.bool)
    assert [int(masking(visible, noise(4, 10), step)[0].sum()) for step in (0, 5, 10)] == [10, 6, 2]


@pytest.mark.parametrize("wrong", [{"ratio": 1.5}, {"start_ratio": -0.1}, {"span": 0}, {"ramp_steps": -1}])
def test_settings_out_of_range_are_named(wrong: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="masking"):
        RandomFrameMasking(**wrong)  # type: ignore[arg-type]
