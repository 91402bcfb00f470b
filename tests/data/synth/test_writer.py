"""The generated data: layout, shares, honesty of the labels, and faces whose parts move by themselves."""

import hashlib
import re
from pathlib import Path

import cv2
import numpy as np
import pytest

from abaw.data.formats.annotations import read_mtl_file, read_task_file
from abaw.data.labels import image_name, recording
from abaw.data.synth import writer as synthetic
from abaw.data.synth.animation import PRESENT, Animation, animate
from abaw.data.synth.camera import Camera, CaptureConditions
from abaw.data.synth.canvas import MARGIN, SCALE, SIZE
from abaw.data.synth.face import Face
from abaw.data.synth.identity import draw_identity
from abaw.data.synth.landmarks import MOVEMENTS, lines
from abaw.data.synth.presets import PRESETS, VideoSpec, plan_videos
from abaw.data.synth.script import ScriptSampler
from abaw.data.synth.writer import (
    ANNOTATIONS,
    IMAGE_ROOTS,
    SPLIT_FOLDERS,
    TASK_FOLDERS,
    TEST_LISTS,
    write_dataset,
    write_test_lists,
)
from abaw.errors import AbawError, UsageError
from abaw.evaluation.submission.formats import FORMS, Sample, read_sample
from abaw.tasks import AU_NAMES, EXPR_NAMES, Task
from docs.contact_sheet import contact_sheet

SETTINGS = {"videos": 7, "frames": 16, "seed": 3, "preset": "demo"}


def hashes(root: Path) -> dict[str, str]:
    files = (path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("synthetic") / "data"
    write_dataset(out, **SETTINGS, jobs=1, progress=False)
    return out


@pytest.fixture(scope="module")
def specs() -> list[VideoSpec]:
    settings = SETTINGS | {"preset": PRESETS["demo"]}
    return plan_videos(**settings)


def images(root: Path, video: str) -> set[str]:
    folders = [root / image_root / video for image_root in IMAGE_ROOTS]
    return {path.name for folder in folders if folder.is_dir() for path in folder.glob("*.jpg")}


def annotated(root: Path, split: str, task: Task) -> set[str]:
    folder = root / ANNOTATIONS / TASK_FOLDERS[task] / SPLIT_FOLDERS[split]
    return {path.stem for path in folder.glob("*.txt")}


def test_same_seed_same_bytes_whatever_the_jobs(root: Path, tmp_path: Path) -> None:
    write_dataset(tmp_path / "two", **SETTINGS, jobs=2, progress=False)
    assert hashes(tmp_path / "two") == hashes(root)


def test_another_seed_gives_other_people(root: Path, tmp_path: Path) -> None:
    write_dataset(tmp_path / "other", **(SETTINGS | {"seed": 4}), jobs=1, progress=False)
    one, other = hashes(root), hashes(tmp_path / "other")
    assert not set(one.values()) & {digest for name, digest in other.items() if name.endswith(".jpg")}


def test_an_annotation_has_one_line_more_than_the_video_has_frames(
    root: Path, specs: list[VideoSpec]
) -> None:
    n_files = 0
    for spec in specs:
        for task in spec.tasks:
            folder = root / ANNOTATIONS / TASK_FOLDERS[task] / SPLIT_FOLDERS[spec.split]
            assert len(read_task_file(folder / f"{spec.video}.txt", task)) == spec.n_frames + 1
            n_files += 1
    assert n_files == len(list((root / ANNOTATIONS).glob("*/*_Set/*.txt")))


def test_every_video_has_images_and_some_lack_a_burst(root: Path, specs: list[VideoSpec]) -> None:
    lengths = []
    for spec in specs:
        found = images(root, spec.video)
        assert found
        assert found <= {image_name(k + 1) for k in range(spec.n_frames)}
        lengths.append(len(found) - spec.n_frames)
    assert lengths[0] < 0  # the plan asks for a gap in the first
    assert sum(spec.n_frames for spec in specs) == pytest.approx(7 * 16, abs=7)


def test_an_image_is_an_aligned_colour_jpeg_of_about_five_kilobytes(synth_root: Path) -> None:
    paths = list((synth_root / IMAGE_ROOTS[0]).glob("*/*.jpg"))
    assert {cv2.imread(str(path)).shape for path in paths[:50]} == {(SIZE, SIZE, 3)}
    assert 3000 < np.mean([path.stat().st_size for path in paths]) < 8000


def test_oddities_of_the_official_archives(root: Path, specs: list[VideoSpec]) -> None:
    assert [len(list((root / name).iterdir())) > 0 for name in IMAGE_ROOTS] == [True, True]
    assert len(list(root.rglob(".DS_Store"))) == 3
    videos = [spec.video for spec in specs]
    assert any(recording(video) != video for video in videos)
    assert any("-30-1280x720" in video for video in videos)
    assert "not Aff-Wild2" in (root / "README.txt").read_text()


@pytest.mark.parametrize("videos", [2, 3, 6, 32])
@pytest.mark.parametrize("preset", PRESETS)
def test_every_task_is_annotated_in_both_splits_and_nobody_is_in_two(videos: int, preset: str) -> None:
    specs = plan_videos(videos=videos, frames=10, seed=videos, preset=PRESETS[preset])
    assert len(specs) == len({spec.video for spec in specs}) == videos
    people = {split: {recording(s.video) for s in specs if s.split == split} for split in SPLIT_FOLDERS}
    assert not people["train"] & people["val"]
    for split in SPLIT_FOLDERS:
        assert {task for spec in specs if spec.split == split for task in spec.tasks} == set(Task)
    assert all(bool(spec.tasks) == (spec.split != "test") for spec in specs)
    assert videos == 2 or any(spec.split == "test" for spec in specs)


def test_the_label_sets_overlap_only_in_part() -> None:
    specs = plan_videos(videos=60, frames=10, seed=0, preset=PRESETS["demo"])
    sets = {task: {s.video for s in specs if task in s.tasks} for task in Task}
    for one in Task:
        for other in set(Task) - {one}:
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


def test_labels_have_gaps_where_the_preset_says(synth_root: Path) -> None:
    """Unlabelled rows of every task, and action units missing one by one."""
    missing = dict.fromkeys(Task, 0)
    alone = 0
    for task in Task:
        for split in SPLIT_FOLDERS:
            for video in annotated(synth_root, split, task):
                path = synth_root / ANNOTATIONS / TASK_FOLDERS[task] / SPLIT_FOLDERS[split] / f"{video}.txt"
                valid = (
                    read_task_file(path, task).valid(task).reshape(-1, task.size if task is Task.AU else 1)
                )
                missing[task] += int((~valid).sum())
                alone += int((valid.any(1) & ~valid.all(1)).sum())
    assert all(missing.values()), missing
    assert alone > 0


@pytest.mark.parametrize(("split", "name"), [("train", "train_set"), ("val", "validation_set")])
def test_the_mtl_file_lists_single_seen_frames_with_any_labels(
    root: Path, specs: list[VideoSpec], split: str, name: str
) -> None:
    labels = read_mtl_file(root / ANNOTATIONS / "MTL_Challenge" / f"{name}.txt")
    known = {spec.video for spec in specs if spec.split == split}
    assert set(labels) <= known
    for video, of_video in labels.items():
        rows = np.flatnonzero(of_video.va_valid | of_video.expr_valid | of_video.au_valid.any(1))
        assert {image_name(row + 1) for row in rows.tolist()} <= images(root, video)
        assert np.all(np.diff(rows) >= 8)


def test_the_test_set_comes_with_samples_and_a_list(root: Path, tmp_path: Path) -> None:
    settings = SETTINGS | {"preset": PRESETS["demo"], "videos": 40}
    specs = plan_videos(**settings)
    frames = {spec.video: spec.n_frames for spec in specs if spec.split == "test"}
    write_test_lists(tmp_path / TEST_LISTS, specs)
    asked = {name: read_sample(tmp_path / TEST_LISTS / f"{name.upper()}_sample.txt") for name in FORMS}
    for name, sample in asked.items():
        header = (tmp_path / TEST_LISTS / f"{name.upper()}_sample.txt").read_text().splitlines()[0]
        assert header == FORMS[name].header
        assert isinstance(sample, Sample)
        step = 8 if name == "mtl" else 1  # single frames; else all of them, also those without a crop
        wanted = [
            f"{video}/{image_name(n + 1)}" for video in sample.videos for n in range(0, frames[video], step)
        ]
        assert sample.images == wanted
    assert {*asked["va"].videos, *asked["expr"].videos, *asked["au"].videos} == set(frames)
    assert set(asked["va"].videos) != set(asked["expr"].videos)
    assert asked["mtl"].videos == read_sample(tmp_path / TEST_LISTS / "videos.txt").videos == tuple(frames)
    assert (root / TEST_LISTS / "VA_sample.txt").is_file()


def animations(preset: str, videos: int, frames: int) -> list[Animation]:
    statistics = PRESETS[preset].statistics
    rng = np.random.default_rng(0)
    sampler = ScriptSampler(rng, statistics)
    return [animate(sampler.sample(frames), statistics, rng) for _ in range(videos)]


@pytest.mark.parametrize(("preset", "videos", "frames"), [("real", 30, 2500), ("demo", 25, 300)])
def test_imbalance_is_that_of_the_preset(preset: str, videos: int, frames: int) -> None:
    statistics = PRESETS[preset].statistics
    animation = animations(preset, videos, frames)
    expr = np.bincount(np.concatenate([a.labels.expr for a in animation]), minlength=len(EXPR_NAMES))
    np.testing.assert_allclose(expr / expr.sum(), statistics.expressions, atol=0.015)
    units = np.concatenate([a.labels.au for a in animation]).mean(axis=0)
    np.testing.assert_allclose(units, statistics.units, atol=0.07)
    rare = np.array(statistics.units) < 0.06
    assert np.all(units[rare] < 0.09)


def test_a_small_validation_set_has_every_expression() -> None:
    specs = plan_videos(videos=32, frames=300, seed=0, preset=PRESETS["demo"])
    seen = {
        span.what
        for spec in specs
        if spec.split == "val" and Task.EXPR in spec.tasks
        for span in spec.script.expressions
    }
    assert seen == set(range(len(EXPR_NAMES)))


def test_labels_follow_from_what_is_drawn() -> None:
    for animation in animations("demo", 5, 200):
        present = animation.moves[:, : len(AU_NAMES)] >= PRESENT
        assert np.array_equal(animation.labels.au.astype(bool), present)
        jaw, lips = AU_NAMES.index("AU26"), AU_NAMES.index("AU25")
        assert np.all(present[:, lips] | ~present[:, jaw])


def test_movements_come_and_go_smoothly() -> None:
    for animation in animations("demo", 5, 200):
        assert animation.moves.min() >= 0
        assert animation.moves.max() <= 1
        assert np.abs(np.diff(animation.moves[:, : len(AU_NAMES)], axis=0)).max() < 0.45


def test_annotators_of_valence_are_late_by_the_lag_of_the_preset() -> None:
    statistics = PRESETS["demo"].statistics
    lags = []
    for animation in animations("demo", 20, 400):
        smile = (animation.labels.expr == EXPR_NAMES.index("Happiness")).astype(float)
        valence = animation.labels.va[:, 0] - animation.labels.va[:, 0].mean()
        if smile.any():
            lags.append(max(range(-30, 31), key=lambda lag: float(np.roll(smile, lag) @ valence)))
    assert statistics.lag[0] - 4 <= np.median(lags) <= statistics.lag[1] + 4


REGIONS = {  # rows and columns of the crop (the right half mirrors the left)
    "AU1": ((22, 50), (30, 56)),
    "AU2": ((22, 50), (14, 56)),
    "AU4": ((28, 56), (26, 56)),
    "AU6": ((36, 78), (12, 56)),
    "AU7": ((42, 66), (20, 56)),
    "AU10": ((62, 102), (30, 56)),
    "AU12": ((62, 102), (18, 56)),
    "AU15": ((84, 112), (26, 56)),
    "AU23": ((78, 106), (34, 56)),
    "AU24": ((78, 108), (30, 56)),
    "AU25": ((84, 106), (38, 56)),
    "AU26": ((70, 112), (22, 56)),
}


@pytest.mark.parametrize("seed", range(3))
def test_every_action_unit_moves_its_own_part_of_the_face(seed: int) -> None:
    who = draw_identity(np.random.default_rng(seed))
    poses = np.concatenate([np.zeros((1, len(MOVEMENTS))), np.eye(len(AU_NAMES), len(MOVEMENTS))])
    inner = slice(MARGIN * SCALE, (MARGIN + SIZE) * SCALE)
    drawn = Face(who, scene=0).draw(poses.astype(np.float32), np.zeros((len(poses), 2), np.float32))
    crops = [
        cv2.resize(canvas[inner, inner], (SIZE, SIZE), interpolation=cv2.INTER_AREA).astype(float)
        for canvas in drawn
    ]
    for name, crop in zip(AU_NAMES, crops[1:], strict=True):
        change = np.abs(crop - crops[0]).sum(axis=2)
        change += change[:, ::-1]
        (top, bottom), (left, right) = REGIONS[name]
        inside = change[top:bottom, left:right].sum() / change[:, :56].sum()
        assert inside > 0.95, (name, inside)
        assert (change > 40).sum() > 60, name  # visible


@pytest.mark.parametrize("seed", range(5))
def test_a_resting_face_lies_on_the_alignment_template(seed: int) -> None:
    who = draw_identity(np.random.default_rng(seed))
    rest = lines(who, np.zeros((1, len(MOVEMENTS)), np.float32))
    eyes = (rest["lid"][0].mean(axis=1) + rest["lower_lid"][0].mean(axis=1)) / 2
    np.testing.assert_allclose(eyes, [(38.29, 51.70), (73.53, 51.50)], atol=2)
    corners = rest["mouth_top"][0, :, -1]
    np.testing.assert_allclose(corners, [(41.55, 92.37), (70.73, 92.20)], atol=2.5)


def test_the_camera_spoils_single_frames() -> None:
    """A still face before a still camera: frames that differ are as many as the conditions say."""
    who = draw_identity(np.random.default_rng(1))
    n, conditions = 300, CaptureConditions(pose=0, jitter=0, degraded=0.35, bursts=0, occluded=0)
    rest = np.zeros((1, len(MOVEMENTS)), np.float32)
    canvas = next(Face(who, scene=0).draw(rest, np.zeros((1, 2), np.float32)))
    camera = Camera(np.random.default_rng(0), n_frames=n, conditions=conditions, skin=who.skin)
    film = np.stack([camera.render(canvas, 0.0, t) for t in range(n)]).astype(float)
    off = np.abs(film - np.median(film, axis=0)).mean(axis=(1, 2, 3))
    assert np.mean(off > 1.4 * np.median(off)) == pytest.approx(conditions.degraded, abs=0.06)


def test_a_folder_that_holds_something_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "keep").write_text("mine")
    with pytest.raises(AbawError, match="is not empty"):
        write_dataset(tmp_path, videos=2, frames=10, progress=False)
    assert [path.name for path in tmp_path.iterdir()] == ["keep"]


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    summary = write_dataset(tmp_path, videos=2, frames=10, jobs=1, progress=False)
    assert (tmp_path / ANNOTATIONS).is_dir()
    assert summary.videos == 2
    assert summary.images == len(list(tmp_path.rglob("*.jpg"))) <= summary.frames


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"videos": 1}, "videos: 1 is too small"),
        ({"frames": 3}, "frames: 3 is too small"),
        ({"seed": -1}, "seed: -1 is too small"),
        ({"jobs": 0}, "jobs: 0 is too small"),
        ({"preset": "wild"}, "'wild' is unknown; choose one of demo, real"),
    ],
)
def test_settings_that_mean_nothing_are_refused(tmp_path: Path, wrong: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        write_dataset(tmp_path / "out", **wrong, progress=False)
    assert not list(tmp_path.iterdir())


def test_nothing_is_left_of_a_failed_attempt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(synthetic, "write_task_file", full)
    with pytest.raises(AbawError, match=r"could not be written \(No space left on device\)"):
        write_dataset(tmp_path / "out", videos=2, frames=10, jobs=1, progress=False)
    assert not list(tmp_path.iterdir())


def test_contact_sheet(tmp_path: Path) -> None:
    contact_sheet(tmp_path / "sheet.png")
    sheet = cv2.imread(str(tmp_path / "sheet.png"))
    assert sheet.shape == (820, 960, 3)
    assert (tmp_path / "sheet.png").stat().st_size < 400_000
