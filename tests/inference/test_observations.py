"""Observations in threads, in order; the journal of an unfinished analysis."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from abaw.errors import AbawError
from abaw.inference.faces import Detections
from abaw.inference.observations import Journal, Observation, ObservedChunk, Observer, in_background
from abaw.inference.video import VideoFrame
from tests.support.marker_faces import MarkerDetector, scene


class Reader:
    """Frames with a red face that moves, a cut at 30, no image at 35."""

    aligned, fps, problem, name, path = False, 25.0, "", "v", Path("v")
    n_frames = 40

    def read(self, every: int = 1, after: VideoFrame | None = None) -> Iterator[VideoFrame]:
        for k in range(0, 40, every):
            if after is None or k > after.number:
                picture = scene(("red", 40 + 3 * k, 80), tone=40 if k < 30 else 210)
                yield VideoFrame(k, k / 25, None if k == 35 else picture, k * 10)


def slow(pixels: np.ndarray) -> Detections:
    """A detector whose time varies, so that results come in another order than frames."""
    found = MarkerDetector(Path())(pixels)
    time.sleep(0.001 * (int(found.boxes[0, 0]) % 5) if len(found) else 0)
    return found


def observe(last: list[VideoFrame] | None = None, **settings: int) -> list[Observation]:
    return list(Observer(Reader(), [slow, slow, slow], **settings).observe(last or []))


def test_observations_come_in_order_with_their_faces_and_cuts() -> None:
    seen = observe()
    assert [each.frame.number for each in seen] == list(range(40))
    assert [each.frame.number for each in seen if each.cut] == [30]
    for k, each in enumerate(seen):
        if k == 35:
            assert each.detections is None
        else:
            assert each.detections.boxes[0, 0] == 20 + 3 * k


def test_detection_in_every_third_frame_and_at_cuts() -> None:
    searched = [each.frame.number for each in observe(every=2, detect_every=3) if each.detections is not None]
    assert searched == [0, 6, 12, 18, 24, 30, 36]
    searched = [each.frame.number for each in observe(detect_every=4) if each.detections is not None]
    assert searched == [*range(0, 30, 4), 30, 32, 36]  # 28, then the cut at 30


def test_after_a_stop_the_rest_is_observed_with_the_same_cuts() -> None:
    whole = observe()
    for n in (1, 2, 30, 31, 40):
        last = [each.frame for each in whole[:n]][-2:]
        rest = observe(last)
        assert [(e.frame.number, e.cut) for e in rest] == [(e.frame.number, e.cut) for e in whole[n:]]


def test_aligned_crops_are_not_searched() -> None:
    seen = list(Observer(Reader(), []).observe([]))
    assert [each.detections for each in seen] == [None] * 40
    assert not any(each.cut for each in seen)


def test_an_error_of_the_reader_or_a_detector_reaches_the_caller() -> None:
    class Broken(Reader):
        def read(self, every: int = 1, after: VideoFrame | None = None) -> Iterator[VideoFrame]:
            yield from list(super().read(every, after))[:10]
            raise AbawError("the disk is gone")

    with pytest.raises(AbawError, match="the disk is gone"):
        list(Observer(Broken(), [slow]).observe([]))

    def fails(pixels: np.ndarray) -> Detections:
        raise RuntimeError("no detector")

    with pytest.raises(RuntimeError, match="no detector"):
        list(Observer(Reader(), [fails]).observe([]))


def test_a_thread_runs_ahead_by_a_bounded_number_and_ends_with_its_caller() -> None:
    made = []

    def numbers() -> Iterator[int]:
        for k in range(10**9):
            made.append(k)
            yield k

    before = threading.active_count()
    items = in_background(numbers(), 5)
    assert [next(items) for _ in range(3)] == [0, 1, 2]
    time.sleep(0.1)
    assert len(made) <= 3 + 5 + 2
    items.close()
    assert threading.active_count() == before


def chunks() -> list[ObservedChunk]:
    seen = [each.without_pixels() for each in observe()]
    random = np.random.default_rng(0)
    return [
        ObservedChunk(seen[first : first + 16], random.normal(size=(n, 5)).astype(np.float32))
        for first, n in ((0, 16), (16, 16), (32, 7))
    ]


def same(one: ObservedChunk, other: ObservedChunk) -> bool:
    def plain(chunk: ObservedChunk) -> list:
        frames = [(e.frame.number, e.frame.timestamp, e.frame.pts, e.cut) for e in chunk.observations]
        images = [e.frame.pixels is not None for e in chunk.observations]
        faces = [
            None
            if e.detections is None
            else [np.asarray(getattr(e.detections, n)).tolist() for n in ("boxes", "landmarks", "scores")]
            + [e.detections.thumbnails.tolist()]
            for e in chunk.observations
        ]
        return [frames, images, faces, chunk.features.tolist()]

    return plain(one) == plain(other)


def test_a_journal_gives_back_what_was_written(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j", "mark")
    assert list(journal.read()) == []
    for chunk in chunks():
        journal.append(chunk)
    again = Journal(tmp_path / "j", "mark")
    assert all(same(a, b) for a, b in zip(again.read(), chunks(), strict=True))
    again.append(chunks()[0])  # after the last
    assert len(list(Journal(tmp_path / "j", "mark").read())) == 4
    again.remove()
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_or_foreign_chunk_ends_the_journal(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j", "mark")
    for chunk in chunks():
        journal.append(chunk)
    assert list(Journal(tmp_path / "j", "other").read()) == []
    second = sorted((tmp_path / "j").iterdir())[1]
    second.write_bytes(second.read_bytes()[:-10])
    again = Journal(tmp_path / "j", "mark")
    assert len(list(again.read())) == 1
    again.append(chunks()[1])
    assert len(list(Journal(tmp_path / "j", "mark").read())) == 3


def test_a_journal_of_frames_without_faces(tmp_path: Path) -> None:
    seen = [Observation(VideoFrame(k, float("nan"), None), None, False) for k in range(3)]
    Journal(tmp_path / "j", "m").append(ObservedChunk(seen, np.empty((0, 5), np.float32)))
    (chunk,) = Journal(tmp_path / "j", "m").read()
    assert [each.detections for each in chunk.observations] == [None] * 3
    assert [each.frame.pixels for each in chunk.observations] == [None] * 3
    assert np.isnan(chunk.observations[0].frame.timestamp)
    assert chunk.features.shape == (0, 5)
