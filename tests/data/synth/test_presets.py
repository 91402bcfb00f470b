import re

import pytest

from abaw.data.labels import recording
from abaw.data.synth.presets import PRESETS, VideoSpec, plan_videos
from abaw.data.synth.writer import (
    SPLIT_FOLDERS,
)
from abaw.tasks import EXPR, TASKS


@pytest.mark.parametrize("videos", [2, 3, 6, 32])
@pytest.mark.parametrize("preset", PRESETS)
def test_every_task_is_annotated_in_both_splits_and_nobody_is_in_two(videos: int, preset: str) -> None:
    specs = plan_videos(videos=videos, frames=10, seed=videos, preset=PRESETS[preset])
    assert len(specs) == len({spec.video for spec in specs}) == videos
    people = {split: {recording(s.video) for s in specs if s.split == split} for split in SPLIT_FOLDERS}
    assert not people["train"] & people["val"]
    for split in SPLIT_FOLDERS:
        assert {task for spec in specs if spec.split == split for task in spec.tasks} == set(TASKS)
    assert all(bool(spec.tasks) == (spec.split != "test") for spec in specs)
    assert videos == 2 or any(spec.split == "test" for spec in specs)


def test_the_label_sets_overlap_only_in_part() -> None:
    specs = plan_videos(videos=60, frames=10, seed=0, preset=PRESETS["demo"])
    sets = {task: {s.video for s in specs if task in s.tasks} for task in TASKS}
    for one in TASKS:
        for other in set(TASKS) - {one}:
            assert sets[one] & sets[other]
            assert sets[one] - sets[other]


def test_two_people_of_a_recording_share_length_split_and_scene() -> None:
    specs = plan_videos(videos=60, frames=30, seed=0, preset=PRESETS["demo"])
    recordings: dict[str, list[VideoSpec]] = {}
    for spec in specs:
        recordings.setdefault(recording(spec.video), []).append(spec)
    pairs = [group for group in recordings.values() if len(group) == 2]
    endings = {tuple(re.search(r"(_left|_right)?\Z", s.video)[0] for s in pair) for pair in pairs}
    assert endings == {("", "_right"), ("_left", "_right")}
    assert all(len({(s.n_frames, s.split, s.scene) for s in pair}) == 1 for pair in pairs)


def test_a_small_validation_set_has_every_expression() -> None:
    specs = plan_videos(videos=32, frames=300, seed=0, preset=PRESETS["demo"])
    seen = {
        span.what
        for spec in specs
        if spec.split == "val" and EXPR in spec.tasks
        for span in spec.script.expressions
    }
    assert seen == set(range(len(EXPR.names)))
