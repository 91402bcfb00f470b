"""Tracks on disk beside the labels of a data set."""

from collections.abc import Iterator
from pathlib import Path

from abaw.data.index import build_index
from abaw.data.labels import Labels
from abaw.data.layout import DataSource
from abaw.data.progress import Progress
from abaw.errors import AbawError
from abaw.evaluation.track_metadata import common_metadata
from abaw.evaluation.tracks import Track, find_tracks, read_track, track_path
from abaw.tasks import Task


class LabelledTracks:
    """The labels of one split of a data set, and the tracks predicted for its videos.

    Args:
        source: Location of the data set; its tasks are those that a track may hold.
        split: train, val or test.

    Raises:
        AbawError: A folder is missing, or an annotation is wrong.
    """

    def __init__(self, source: DataSource, split: str) -> None:
        self._source, self._split = source, split
        self._index = build_index(source, progress=True)
        self._place = {video: place for place, video in enumerate(self._index.videos)}

    def labels_of(self, video: str) -> Labels:
        """All label rows of a video in the split."""
        return self._index.labels(self._place[video], self._split)

    def videos_and_tasks(self, folder: Path) -> tuple[list[str], tuple[Task, ...]]:
        """Videos annotated for the tasks of the tracks in `folder`, and those tasks.

        Raises:
            AbawError: There is no such video, one with frames has no track, or the folder mixes tracks of
                several checkpoints.
        """
        paths = find_tracks(folder)
        common_metadata(folder, paths)
        tasks = read_track(next(iter(paths.values())), self._source.tasks).tasks
        places = self._index.annotated(self._split, tasks)
        # an annotation without rows and images has no frame, so no track is needed
        videos = [self._index.videos[place] for place in places if self._index.n_frames[place]]
        if not videos:
            raise AbawError(
                f"{self._source.root}: no video is annotated for {', '.join(map(str, tasks))} in the split"
                f" {self._split}"
            )
        if missing := [video for video in videos if video not in paths]:
            raise AbawError(
                f"{folder}: {len(missing)} of {len(videos)} annotated videos have no track, such as"
                f" {', '.join(missing[:5])}; every labelled frame counts, so predict them first"
            )
        return videos, tasks

    def read(self, folder: Path, videos: list[str]) -> Iterator[Track]:
        """Yields the tracks of the given videos.

        Raises:
            AbawError: A track is damaged or shorter than its video.
        """
        for video in Progress(videos, desc="tracks", unit="track"):
            track = read_track(track_path(folder, video), self._source.tasks)
            n_rows = len(self.labels_of(video))
            if len(track) < n_rows - 1:  # the official files have one row more than frames
                raise AbawError(
                    f"{track_path(folder, video)}: holds {len(track)} frames, but the video has"
                    f" {n_rows} label rows; predict it again from all its frames"
                )
            yield track
