"""Sample submissions of a few videos."""

import numpy as np

from abaw.data.labels import image_name
from abaw.evaluation.tracks import Track, write_track
from abaw.tasks import VA

VIDEOS = {"v-2_left": 9, "10-30-1280x720": 5, "a": 1}  # order of the sample, rows per video


HEADERS = {
    "va": "image_location,valence,arousal",
    "expr": "image_location,Neutral,Anger,Disgust,Fear,Happiness,Sadness,Surprise,Other",
    "au": "image_location,AU1,AU2,AU4,AU6,AU7,AU10,AU12,AU15,AU23,AU24,AU25,AU26",
    "mtl": "image,valence,arousal,expression,aus",
}


def write_sample(path, task, skip=()):
    images = [f"{video}/{image_name(k + 1)}" for video, n in VIDEOS.items() for k in range(n)]
    images = [image for image in images if image not in skip]
    path.write_text("\n".join([HEADERS[task], *(f"{image}," for image in images)]) + "\n")
    return path


def write_case(folder, seen, rows):
    """Tracks as `seen` gives them by video, and a sample with so many rows of each."""
    for video, frames in seen.items():
        frames = np.asarray(frames, bool)
        va = np.linspace(-1, 1, 2 * len(frames), dtype=np.float32).reshape(-1, 2)
        write_track(Track(video=video, seen=frames, values={VA: va}), folder / "tracks")
    images = [f"{video}/{image_name(k + 1)}," for video, n in rows.items() for k in range(n)]
    (folder / "sample.txt").write_text("\n".join([HEADERS["va"], *images]) + "\n")
    return folder / "tracks", folder / "sample.txt"
