"""What every test relies on: no network, no traces in the user's folders, one small generated data set."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

# before any library reads them, and inherited by the processes that tests start
os.environ |= {"NO_ALBUMENTATIONS_UPDATE": "1", "HF_HUB_OFFLINE": "1", "WANDB_MODE": "offline"}
for name in ("ABAW_ROOT", "ABAW_DEBUG", "WANDB_API_KEY"):
    os.environ.pop(name, None)


@pytest.fixture(scope="session", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Indices of the tests' data go to a folder of their own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ABAW_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def synth_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A generated data set in the official layout, shared by all tests: read it, do not write into it."""
    from abaw.data.synthetic import write_dataset

    root = tmp_path_factory.mktemp("data") / "synth"
    write_dataset(root, videos=12, frames=40, seed=0, jobs=1, preset="demo", progress=False)
    return root
