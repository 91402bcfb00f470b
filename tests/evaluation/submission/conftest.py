import pytest

from abaw.evaluation.tracks import write_track
from abaw.tasks import VA
from tests.support.submissions import VIDEOS
from tests.support.tracks import make_track


@pytest.fixture
def tracks(tmp_path):
    """A folder of tracks, shorter than the sample for v-2_left; and the tracks."""
    made = {video: make_track(video, n=min(n, 7), seed=n) for video, n in VIDEOS.items()}
    made["v-2_left"].values[VA][2] = [1.5, -1.5]
    for track in (*made.values(), make_track("not in the sample")):
        write_track(track, tmp_path / "tracks")
    return tmp_path / "tracks", made
