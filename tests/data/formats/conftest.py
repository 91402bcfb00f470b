import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from abaw.data.layout import DataSource
from abaw.data.packing import pack
from tests.support.object_storage import Storage


@pytest.fixture(scope="session")
def packed(synth_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pack of `synth_root` in segments of 16 frames: read it, do not write into it."""
    pytest.importorskip("litdata")
    out = tmp_path_factory.mktemp("segments") / "pack"
    done = pack(DataSource(synth_root), out, format="litdata", segment=16, jobs=2)
    assert done.images == sum(1 for _ in synth_root.glob("cropped_aligned*/*/*.jpg"))
    return out


@pytest.fixture(scope="module")
def storage(packed: Path) -> Iterator[Storage]:
    """The same pack in a bucket."""
    moto = pytest.importorskip("moto.server", reason="pip install 'moto[s3]' flask flask-cors")
    import boto3

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        behind = moto.ThreadedMotoServer("127.0.0.1", 0, verbose=False)
        behind.start()
        storage = Storage(*behind.get_host_and_port())
        threading.Thread(target=storage.server.serve_forever, daemon=True).start()
        patch.setenv("AWS_ENDPOINT_URL", storage.url)
        client = boto3.client("s3")
        client.create_bucket(Bucket="data")
        for path in (*packed.glob("chunk-*.bin"), packed / "index.json"):
            client.upload_file(str(path), "data", f"faces/{path.name}")
        yield storage
        storage.server.shutdown()
        behind.stop()


@pytest.fixture(autouse=True)
def _steady(request: pytest.FixtureRequest) -> Iterator[None]:
    """Connections hold again after a test that broke them."""
    yield
    if "storage" in request.fixturenames:
        request.getfixturevalue("storage").every = 0
