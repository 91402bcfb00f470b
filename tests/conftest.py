"""What every test relies on: no network, no traces in the user's folders, the same numbers in any order."""

import os
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
import torch

# before any library reads them, and inherited by the processes that tests start
os.environ |= {"NO_ALBUMENTATIONS_UPDATE": "1", "HF_HUB_OFFLINE": "1", "WANDB_MODE": "offline"}
for name in ("ABAW_ROOT", "ABAW_DEBUG", "WANDB_API_KEY"):
    os.environ.pop(name, None)

# the same examples every time, whatever the processor's load
hypothesis.settings.register_profile("seeded", derandomize=True, deadline=None)
hypothesis.settings.load_profile("seeded")


@pytest.hookimpl(tryfirst=True)
def pytest_fixture_setup() -> None:
    """Seeds every fixture, whichever test needs it first; pytest-randomly leaves torch alone."""
    torch.manual_seed(0)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call() -> None:
    """Seeds every test, whatever ran before it."""
    torch.manual_seed(1)


@pytest.fixture(scope="session", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Indices of the tests' data go to a folder of their own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ABAW_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def synth_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A generated data set in the official layout, shared by all tests: read it, do not write into it."""
    from abaw.data.synth.writer import write_dataset

    root = tmp_path_factory.mktemp("data") / "synth"
    write_dataset(root, videos=12, frames=40, seed=0, jobs=1, preset="demo", progress=False)
    return root
