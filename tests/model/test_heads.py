"""One head per task: what its outputs mean."""

from typing import Any

import pytest
import torch

from abaw.errors import UsageError
from abaw.model.heads import HeadSettings
from abaw.tasks import AU, EXPR, VA, Task
from tests.support.clips import random_batch
from tests.support.networks import ALL, small_network


def test_predictions_are_values_and_probabilities_made_once() -> None:
    outputs = {task: torch.linspace(-3, 3, task.size).expand(1, 2, -1) for task in ALL}
    outputs[VA] = outputs[VA] / 3
    got = small_network().predictions(outputs)
    assert torch.equal(got[VA], outputs[VA])  # squashed by the head already
    torch.testing.assert_close(got[EXPR].sum(-1), torch.ones(1, 2))
    torch.testing.assert_close(got[EXPR].log().diff(), outputs[EXPR].diff())
    torch.testing.assert_close(got[AU], 1 / (1 + (-outputs[AU]).exp()))


def test_the_network_gives_va_values_and_raw_logits() -> None:
    network = small_network()
    with torch.no_grad():
        for parameter in network.heads.parameters():
            parameter.mul_(50)
    outputs = network(random_batch())
    assert 0.9 < outputs[VA].abs().max() <= 1
    for task in (EXPR, AU):  # neither a softmax nor a sigmoid has been over them
        assert outputs[task].min() < -1
        assert outputs[task].max() > 2
    network.heads.heads["va"][-1].bias.data.fill_(40.0)
    assert network(random_batch())[VA].max() <= 1


@pytest.mark.parametrize("tasks", [(VA,), (EXPR, AU), ALL])
def test_any_subset_of_tasks(tasks: tuple[Task, ...]) -> None:
    assert tuple(small_network(tasks)(random_batch())) == tasks


def test_heads_do_not_share_outputs() -> None:
    network, batch = small_network(), random_batch()
    before = network(batch)
    network.heads.heads["au"][-1].bias.data[3] += 1.0
    after = network(batch)
    changed = (network.predictions(after)[AU] != network.predictions(before)[AU]).flatten(0, 1)
    assert changed.all(0).tolist() == [unit == 3 for unit in range(12)]  # one unit is no other's business
    assert torch.equal(after[EXPR], before[EXPR])


@pytest.mark.parametrize("wrong", [{"hidden": 0}, {"dropout": 1.0}])
def test_head_settings_that_mean_nothing_are_named(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=r"model\.heads"):
        HeadSettings(**wrong)
