import functools
import io
import json
import statistics
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounter

from abaw.batch import Batch
from abaw.errors import AbawError, UsageError
from abaw.loading.masking import RandomFrameMasking
from abaw.model.backbone import BackboneSettings
from abaw.model.heads import HeadSettings
from abaw.model.network import Network
from abaw.tasks import AU, EXPR, VA, Task
from abaw.training.losses import LossSettings, TaskLosses
from tests.support.clips import images_of, masked, random_batch, relabelled, touched
from tests.support.networks import ALL, EYES, small_network


def gaps() -> Tensor:
    visible = torch.ones(3, 6, dtype=torch.bool)
    visible[0, [1, 4]] = False
    visible[2] = False  # a clip without any visible frame
    return visible


def everything(outputs: dict[Task, Tensor]) -> Tensor:
    return torch.cat([values.flatten() for values in outputs.values()])


def test_the_backbone_sees_visible_frames_only_and_each_once() -> None:
    network, batch = small_network(), random_batch(3, 6, visible=gaps())
    seen: list[Tensor] = []
    assert network.backbone is not None
    network.backbone.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    network(batch)
    network(masked(batch, batch.visible))
    for frames in seen:
        assert torch.equal(frames, images_of(batch)[batch.visible])
    assert len(seen) == 2


def test_masking_halves_what_the_backbone_sees() -> None:
    network, batch = small_network(), random_batch(2, 8)
    counts: list[int] = []
    assert network.backbone is not None
    network.backbone.register_forward_pre_hook(lambda module, inputs: counts.append(len(inputs[0])))
    for ratio in (0.0, 0.5, 1.0):
        visible = RandomFrameMasking(ratio=ratio)(batch.visible, torch.rand(2, 8))
        network(masked(batch, visible))
    assert counts == [16, 8, 2]


@pytest.mark.parametrize("attend_masked", [False, True])
def test_pixels_of_invisible_frames_change_nothing(attend_masked: bool) -> None:
    network, batch = small_network(attend_masked=attend_masked), random_batch(3, 6, visible=gaps())
    visible = batch.visible & (torch.arange(6) % 2 == 0)
    other = images_of(batch).masked_fill(~visible[..., None, None, None], 255)[batch.visible]
    same, changed = (network(masked(each, visible)) for each in (batch, replace(batch, frames=other)))
    assert torch.equal(everything(same), everything(changed))
    assert everything(same).isfinite().all()


def test_whole_frames_are_hidden_and_whole_frames_are_seen() -> None:
    batch = random_batch(1, 6, dim=32, visible=gaps()[:1])
    assert batch.features is not None
    features = batch.features.requires_grad_()
    everything(small_network()(replace(batch, features=features))).square().sum().backward()
    assert features.grad is not None
    seen = batch.visible[..., None].expand_as(features)  # not single elements
    assert torch.equal(touched(features.grad), seen)


def test_padding_changes_nothing() -> None:
    network, short = small_network(), random_batch(2, 4)
    present = torch.arange(7).expand(2, 7) < 4
    long = random_batch(2, 7, present=present)
    long = replace(long, frames=short.frames)
    for task, values in network(long).items():
        torch.testing.assert_close(values[:, :4], network(short)[task], atol=1e-5, rtol=1e-5)


def test_shuffled_clips_give_shuffled_outputs() -> None:
    network, batch = small_network(), random_batch(3, 6, visible=gaps())
    order = torch.tensor([2, 0, 1])
    visible = batch.visible[order]
    shuffled = replace(batch, frames=images_of(batch)[order][visible], visible=visible, keep=None)
    for task, values in network(shuffled).items():
        torch.testing.assert_close(values, network(batch)[task][order], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("length", [1, 5])
def test_outputs_have_a_row_per_frame_for_any_length(length: int) -> None:
    network = small_network(heads=HeadSettings(hidden=8))
    outputs = network(random_batch(2, length))
    assert {task: tuple(values.shape) for task, values in outputs.items()} == {
        task: (2, length, task.size) for task in ALL
    }
    assert all(values.dtype == torch.float32 for values in outputs.values())


def test_cached_features_give_what_the_frames_give() -> None:
    network, batch = small_network(), random_batch(3, 6, visible=gaps())
    features = network.encode(batch)
    assert features.shape == (3, 6, 32)
    assert not features[~batch.visible].any()
    cached = replace(batch, frames=None, features=features)
    torch.testing.assert_close(network(cached), network(batch))


def test_a_network_of_features_alone() -> None:
    network = small_network(backbone=None, dim=9)
    assert network(random_batch(2, 4, dim=9))[AU].shape == (2, 4, 12)
    with pytest.raises(AbawError, match="trained on cached features and has no backbone for frames"):
        network(random_batch(2, 4))
    with pytest.raises(AbawError, match=r"8 values per frame.*9"):
        network(random_batch(2, 4, dim=8))


@pytest.mark.parametrize(("backbone", "dim"), [(None, None), (EYES, 9)])
def test_a_length_of_features_that_does_not_fit_is_named(backbone: BackboneSettings | None, dim: Any) -> None:
    with pytest.raises(UsageError, match=r"model\.dim"):
        small_network(backbone=backbone, dim=dim)


# -- training


@pytest.mark.parametrize("unlabelled", [(), (VA,), (EXPR, AU), ALL])
@pytest.mark.parametrize("visible", [torch.ones(3, 6, dtype=torch.bool), gaps()], ids=["complete", "gaps"])
def test_every_parameter_has_a_gradient_whatever_is_labelled_and_visible(
    unlabelled: Any, visible: Tensor
) -> None:
    network = small_network().train()
    batch = random_batch(3, 6, visible=visible)
    for task in unlabelled:
        batch = relabelled(batch, task, valid=torch.zeros_like(batch.labels[task].valid))
    losses = TaskLosses(LossSettings(expr_weights="none", au_weights="none"), ALL)
    losses(network(batch), batch)[0].backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
    for task in ALL:
        head = network.heads.heads[str(task)][-1]
        assert bool(head.weight.grad.any()) == (task not in unlabelled)


def test_autocast_stays_close_and_gives_float32() -> None:
    network, batch = small_network(), random_batch(3, 6, visible=gaps())
    exact = network(batch)
    with torch.autocast("cpu", torch.bfloat16):
        rough = network(batch)
    assert all(values.dtype == torch.float32 for values in rough.values())
    torch.testing.assert_close(rough, exact, atol=0.05, rtol=0.05)


def test_groups_hold_every_trained_parameter_once_with_its_rate() -> None:
    network = small_network(backbone=replace(EYES, frozen=1))
    groups = network.param_groups(lr=1e-3, weight_decay=0.1, layer_decay=0.5, backbone_lr=0.1)
    held = [id(parameter) for group in groups for parameter in group["params"]]
    trained = [id(parameter) for parameter in network.parameters() if parameter.requires_grad]
    assert sorted(held) == sorted(trained)
    assert {group["name"].split("/")[0]: group["lr"] for group in groups} == {
        "backbone": pytest.approx(1e-4),
        "sequence": 1e-3,
    }
    for group in groups:
        assert all((p.ndim >= 2) == (group["weight_decay"] > 0) for p in group["params"])


def test_a_frozen_backbone_gives_no_groups_and_keeps_its_features() -> None:
    network = small_network(backbone=replace(EYES, frozen="all")).train()
    batch = random_batch()
    before = network.encode(batch)
    groups = network.param_groups(lr=0.1, weight_decay=0.1)
    assert {group["name"] for group in groups} == {"sequence/weights", "sequence/rest"}
    optimizer = torch.optim.AdamW(groups)
    everything(network(batch)).sum().backward()
    optimizer.step()
    assert torch.equal(network.encode(batch), before)
    assert not before.requires_grad


def small_step(ratio: float, network: Network, batch: Batch) -> float:
    visible = RandomFrameMasking(ratio=ratio)(batch.visible, torch.rand(batch.visible.shape))
    some = masked(batch, visible)
    start = time.process_time()
    everything(network(some)).sum().backward()
    return time.process_time() - start


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Work is counted in the processor's time, without that of threads waiting for each other."""
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(n_threads)


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_masking_half_the_frames_saves_a_third_of_the_time() -> None:
    vit = BackboneSettings(
        name="vit_tiny_patch16_224", weights="none", image_size=112, overrides={"depth": 4}
    )
    network, batch = small_network(backbone=vit, layers=2, width=128).train(), random_batch(4, 16, size=112)
    times: dict[float, list[float]] = {0.0: [], 0.5: []}
    for _ in range(9):
        for ratio in times:  # side by side, so that both meet the same machine
            times[ratio].append(small_step(ratio, network, batch))
    assert statistics.median(times[0.5]) < 0.65 * statistics.median(times[0.0])


# -- from a checkpoint


@pytest.mark.parametrize("backbone", [EYES, None], ids=["frames", "features"])
def test_a_network_comes_back_from_plain_values(backbone: BackboneSettings | None) -> None:
    dim = None if backbone else 7
    original = small_network((VA, AU), backbone=backbone, heads=HeadSettings(hidden=5), dim=dim)
    file = io.BytesIO()
    torch.save({"network": original.describe(), "state_dict": original.state_dict()}, file)
    file.seek(0)
    content = torch.load(file, weights_only=True)
    assert json.loads(json.dumps(content["network"])) == original.describe()  # nothing but plain values
    copy = Network.from_description(content["network"]).eval()
    copy.load_state_dict(content["state_dict"])
    batch = random_batch(dim=dim)
    torch.testing.assert_close(copy(batch), original(batch), atol=0, rtol=0)
    assert copy.describe() == original.describe()


def test_masked_training_compiles_three_graphs_for_any_number_of_frames(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    counter = CompileCounter()
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=counter))
    eyes = replace(EYES, compile=True, drop_path=0.1)
    network = small_network(backbone=eyes, compile=True, drop_path=0.1).train()
    plain = small_network(backbone=replace(eyes, compile=False), drop_path=0.1)
    plain.load_state_dict(network.state_dict())
    g = torch.Generator().manual_seed(0)
    for n_visible in (*range(25), 24, 1, 0, 13):
        visible = torch.zeros(24, dtype=torch.bool)
        visible[torch.randperm(24, generator=g)[:n_visible]] = True
        outputs = network(random_batch(3, 8, visible=visible.view(3, 8), seed=n_visible))
        everything(outputs).square().sum().backward()
    assert counter.frame_count <= 3
    batch = random_batch(3, 8, visible=torch.arange(24).view(3, 8) == 5)  # a single frame
    for task, values in network.eval()(batch).items():
        torch.testing.assert_close(values, plain.eval()(batch)[task], atol=1e-5, rtol=1e-5)


def test_loading_neither_downloads_nor_compiles() -> None:
    described = small_network().describe()
    described["backbone"] |= {"weights": "hub", "compile": True}
    described["temporal"] |= {"compile": True}
    network = Network.from_description(described)
    assert network.backbone is not None
    assert not network.backbone.settings.compile
    assert not network.temporal.settings.compile
