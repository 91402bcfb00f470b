"""Names of videos, and which of them are parts of one recording."""

WHOLE = {
    "video45": [f"video45_{part}" for part in range(1, 8)],
    "122-60-1920x1080": [f"122-60-1920x1080-{part}" for part in range(1, 6)],
    "9": ["9_left", "9_right"],
    "10": ["10", "10_left"],
    "video7": ["video7_2_left", "video7_2_right", "video7_3"],
}
"""Recordings of several videos, by name."""


ALONE = [
    "video2",
    *(f"clip_{n:03d}" for n in range(1, 11)),
    "1-30-1280x720",
    "102",
    "a_2",
    "1-2-3",
    "3-30-4x5_1",
]
"""Videos that are a recording of their own."""


NAMES = [*(name for names in WHOLE.values() for name in names), *ALONE]
