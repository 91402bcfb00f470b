"""Identities stay with people who move, cross, are lost for a while, or are replaced at a cut."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from abaw.inference.faces import Detections, FaceDetector
from abaw.inference.identities import CutDetector, IdentityTracker, TrackedFace
from abaw.inference.inputs import read_image
from abaw.inference.video import VideoFile
from tests.support.marker_faces import MarkerDetector, scene
from tests.support.shared_media import DETECTOR, FIVE_FACES, ONE_FACE, needs_media
from tests.support.videos import background, cut_faces, scenes, write_video

FPS = 25
find = MarkerDetector(Path())


def track(
    frames: list[np.ndarray], detect: Callable[[np.ndarray], Detections] = find, **settings: float
) -> list[list[TrackedFace]]:
    tracker, cuts = IdentityTracker(**settings), CutDetector()
    return [tracker.update(k / FPS, detect(frame), cut=cuts(frame)) for k, frame in enumerate(frames)]


def ids(tracked: list[list[TrackedFace]]) -> list[list[int]]:
    return [[face.id for face in faces] for faces in tracked]


def test_a_face_keeps_its_identity_while_it_moves_and_grows() -> None:
    frames = [scene(("red", 60 + 2 * k, 80)) for k in range(60)]
    tracked = track(frames)
    assert ids(tracked) == [[0]] * 60
    assert tracked[0][0].restarts
    assert not any(face.restarts for faces in tracked[1:] for face in faces)
    assert tracked[7][0].score == pytest.approx(0.9)


def test_faces_are_numbered_in_the_order_of_appearance() -> None:
    frames = [scene(("red", 60, 80))] * 5 + [scene(("red", 60, 80), ("blue", 180, 80))] * 5
    assert ids(track(frames)) == [[0]] * 5 + [[0, 1]] * 5


def test_people_who_cross_keep_their_identities() -> None:
    def frame(k: int) -> np.ndarray:  # blue passes in front of red
        return scene(("red", 40 + 3 * k, 80), ("blue", 210 - 3 * k, 84), size=(260, 160))

    tracked = track([frame(k) for k in range(58)])
    first, last = ({face.id: face.box[0] for face in tracked[k]} for k in (0, -1))
    assert set(last) == {0, 1}
    for k in (0, 1):
        assert (first[k] < 130) == (last[k] > 130)
    assert max(face.id for faces in tracked for face in faces) == 1


def test_another_face_in_the_same_place_is_another_identity() -> None:
    frames = [scene(("red", 100, 80))] * 10 + [scene(("green", 100, 80))] * 10
    assert ids(track(frames)) == [[0]] * 10 + [[1]] * 10


def test_a_cut_ends_all_identities() -> None:
    same = [scene(("red", 100, 80), tone=40)] * 10 + [scene(("red", 100, 80), tone=200)] * 10
    assert ids(track(same)) == [[0]] * 10 + [[1]] * 10


def test_a_face_that_is_lost_for_three_seconds_is_the_same_if_it_looks_alike_and_is_near() -> None:
    here, nobody = [scene(("red", 100, 80))] * 10, [scene()] * (3 * FPS)
    tracked = track([*here, *nobody, *here])
    assert ids(tracked) == [[0]] * 10 + [[]] * len(nobody) + [[0]] * 10
    assert tracked[10 + len(nobody)][0].restarts
    far = [scene(("red", 210, 80))] * 5
    assert ids(track([*here, *nobody, *far]))[-1] == [1]
    other = [scene(("green", 100, 80))] * 5
    assert ids(track([*here, *nobody, *other]))[-1] == [1]
    assert ids(track([*here, *nobody, *here], max_gap=2.0))[-1] == [1]


def with_score(score: float) -> Callable[[np.ndarray], Detections]:
    def detect(pixels: np.ndarray) -> Detections:
        found = find(pixels)
        return Detections(found.boxes, found.landmarks, np.full_like(found.scores, score), found.thumbnails)

    return detect


def test_a_weak_detection_continues_an_identity_but_begins_none() -> None:
    frame = scene(("red", 100, 80))
    tracker = IdentityTracker()
    weak, strong = with_score(0.4)(frame), with_score(0.9)(frame)
    assert tracker.update(0.0, weak) == []
    assert [face.id for face in tracker.update(0.04, strong)] == [0]
    assert [face.id for face in tracker.update(0.08, weak)] == [0]
    assert tracker.update(2.0, weak) == []  # nor does it continue one after a long gap
    assert tracker.active == (0,)
    assert tracker.update(6.0, Detections.none()) == []
    assert tracker.active == ()


def test_between_detections_faces_move_at_constant_velocity() -> None:
    tracker = IdentityTracker()
    for k in range(10):
        tracker.update(k / FPS, find(scene(("red", 60 + 4 * k, 80))))
    (face,) = tracker.predict(12 / FPS)
    assert face.id == 0
    assert face.box[0] + face.box[2] / 2 == pytest.approx(60 + 4 * 12, abs=2)
    assert face.landmarks[:, 0].mean() == pytest.approx(face.box[0] + face.box[2] / 2, abs=3)
    tracker.update(13 / FPS, Detections.none())
    assert tracker.predict(14 / FPS) == []  # a lost face is not made up


def test_cuts_are_seen_and_motion_is_none() -> None:
    shots = [background(tone=60 + k % 3) for k in range(10)] + [background(tone=190) for _ in range(10)]
    cuts = CutDetector()
    assert [k for k, frame in enumerate(shots) if cuts(frame)] == [10]
    cuts = CutDetector()
    assert not any(cuts(scene(("red", 40 + 8 * k, 80))) for k in range(20))


# -- real faces on a plain background

Path2D = Callable[[int], tuple[float, float] | None]


@pytest.fixture(scope="module")
def people() -> list[np.ndarray]:
    """Six heads: five of the photo, of which 0 and 1 look alike, and one of the clip."""
    detector = FaceDetector(DETECTOR)
    photo, clip = read_image(FIVE_FACES), next(VideoFile(ONE_FACE).read()).pixels
    return cut_faces(photo, detector(photo).boxes) + cut_faces(clip, detector(clip).boxes[:1])


def seen(
    folder: Path, n_frames: int, people: list[tuple[np.ndarray, Path2D]], **options: object
) -> list[list[TrackedFace]]:
    """The faces of a video that is written and read again."""
    video = write_video(folder / "v.mp4", scenes(n_frames, people, **options), fps=FPS)
    detector = FaceDetector(DETECTOR)
    return track([frame.pixels for frame in VideoFile(video).read()], detector)


@needs_media
@pytest.mark.parametrize(
    ("one", "two"),
    [(0, 1), *(pytest.param(*pair, marks=pytest.mark.slow) for pair in [(2, 3), (4, 5), (1, 4), (5, 2)])],
)
@pytest.mark.parametrize("speed", [3, 6])
def test_real_people_who_cross(
    one: int, two: int, speed: int, people: list[np.ndarray], tmp_path: Path
) -> None:
    n = 400 // speed
    tracked = seen(
        tmp_path,
        n,
        [
            (people[one], lambda k: (120 + speed * k, 180)),
            (people[two], lambda k: (520 - speed * k, 190)),
        ],
    )
    first, last = ({face.id: float(face.box[0]) for face in tracked[k]} for k in (0, -1))
    assert set(first) == set(last) == {0, 1}
    assert all((first[k] < 300) == (last[k] > 300) for k in (0, 1))
    assert {face.id for faces in tracked for face in faces} == {0, 1}


@needs_media
@pytest.mark.parametrize(("one", "two"), [(0, 1), (2, 3), (5, 4)])
def test_a_cut_between_real_people_in_the_same_place(
    one: int, two: int, people: list[np.ndarray], tmp_path: Path
) -> None:
    tracked = seen(
        tmp_path,
        40,
        [
            (people[one], lambda k: (320, 180) if k < 20 else None),
            (people[two], lambda k: (320, 180) if k >= 20 else None),
        ],
    )
    assert ids(tracked) == [[0]] * 20 + [[1]] * 20


@needs_media
def test_a_real_face_lost_for_three_seconds(people: list[np.ndarray], tmp_path: Path) -> None:
    tracked = seen(tmp_path, 115, [(people[2], lambda k: None if 20 <= k < 95 else (300, 180))])
    assert ids(tracked) == [[0]] * 20 + [[]] * 75 + [[0]] * 20


@needs_media
def test_five_real_people(people: list[np.ndarray], tmp_path: Path) -> None:
    def at(k: int) -> Path2D:
        return lambda n: (80 + 120 * k + 6 * np.sin(n / 5 + k), 120 + 60 * (k % 2))

    tracked = seen(tmp_path, 40, [(head, at(k)) for k, head in enumerate(people[:5])])
    assert ids(tracked) == [[0, 1, 2, 3, 4]] * 40
