"""A long video: bounded memory, and the same table after a kill; 36,000 frames with `long_video --frames`."""

from pathlib import Path

import pytest

from tests.faults.long_video import run
from tests.support.shared_media import needs_media


@needs_media
@pytest.mark.slow
def test_memory_is_bounded_and_a_kill_changes_nothing(tmp_path: Path) -> None:
    found = run(tmp_path, 3000)
    assert found["frames"] == 3000
    assert found["killed_with"] == -9
    assert 20 < found["chunks_kept"] < 47
    assert found["frames_after_the_kill"] == 3000 - 64 * found["chunks_kept"]
    assert max(found["peak_mb"], found["peak_mb_of_overlay_and_page"]) < 1500
    assert found["growth_mb"] < 50
