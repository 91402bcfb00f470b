"""Sample submissions of a few videos."""

from abaw.data.labels import image_name

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
