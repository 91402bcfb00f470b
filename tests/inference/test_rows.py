"""Rows: every frame once per identity that spans it, in order, as soon as they are final."""

import math

import numpy as np
import pytest

from abaw.evaluation.calibration import Calibration, Smoothing
from abaw.inference.faces import TEMPLATE
from abaw.inference.identities import TrackedFace
from abaw.inference.rows import NO_FACE, FaceRows, RowBuilder
from abaw.tasks import VA

DIM = 2
SOME = np.array([1, 2, 30, 40], np.float32)


class Model:
    """Valence is the first feature, arousal the share of visible frames in the window."""

    tasks = (VA,)
    dim, window, stride, step, batch_size = DIM, 6, 3, 1, 4

    def encode(self, crops):
        raise NotImplementedError

    def predict_windows(self, features, visible, present):
        share = (visible.sum(1) / present.sum(1))[:, None].repeat(self.window, 1)
        return {VA: np.stack([np.where(visible, features[..., 0], -1), share], -1).astype(np.float32)}


def face(number: int, visible: bool = True) -> TrackedFace:
    return TrackedFace(number, SOME + number, TEMPLATE.astype(np.float32), 0.5 + number / 10, visible=visible)


def built(script: list[tuple[list[int], list[int]]], every: int = 1, calibration=None) -> list[FaceRows]:
    """The rows of frames with (identities seen, identities active)."""
    builder, parts = RowBuilder(Model(), calibration), []
    for k, (seen, active) in enumerate(script):
        features = np.array([[0.1 * number, 0] for number in seen], np.float32).reshape(-1, DIM)
        builder.add(k * every, k / 10, [face(number) for number in seen], features, active)
        parts += [builder.pop()]
    parts += [builder.finish()]
    return [part for part in parts if part is not None]


def joined(parts: list[FaceRows]) -> dict[str, np.ndarray]:
    names = ("frame", "timestamp", "face_id", "success", "boxes", "scores")
    whole = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
    return whole | {"va": np.concatenate([part.values[VA] for part in parts])}


def test_one_face_has_a_row_for_each_frame_and_rows_come_while_it_lasts() -> None:
    parts = built([([0], [0])] * 20, every=3)
    assert len(parts) > 3
    rows = joined(parts)
    assert rows["frame"].tolist() == list(range(0, 60, 3))
    np.testing.assert_allclose(rows["timestamp"], np.arange(20) / 10)
    assert (rows["face_id"] == 0).all()
    assert rows["success"].all()
    np.testing.assert_array_equal(rows["boxes"], [SOME] * 20)
    np.testing.assert_allclose(rows["scores"], 0.5)
    np.testing.assert_allclose(rows["va"], [[0.0, 1.0]] * 20)


def test_frames_of_a_gap_are_predicted_from_context_and_marked() -> None:
    rows = joined(built([([1], [1])] * 8 + [([], [1])] * 4 + [([1], [1])] * 8))
    assert rows["frame"].tolist() == list(range(20))
    assert (rows["face_id"] == 1).all()
    assert (~rows["success"]).nonzero()[0].tolist() == [8, 9, 10, 11]
    assert np.isnan(rows["boxes"][8:12]).all()
    assert np.isnan(rows["scores"][8:12]).all()
    assert np.isfinite(rows["va"]).all()
    assert (rows["va"][8:12, 0] == -1).all()  # what the network says of an invisible frame
    assert rows["va"][9, 1] < 1


def test_frames_without_any_face_have_one_row() -> None:
    rows = joined(built([([], [])] * 3 + [([0], [0])] * 7 + [([], [0])] * 2 + [([], [])] * 3))
    assert rows["frame"].tolist() == list(range(15))
    empty = rows["face_id"] == NO_FACE
    assert empty.nonzero()[0].tolist() == [0, 1, 2, 10, 11, 12, 13, 14]  # a lost face ends where it was seen
    assert not rows["success"][empty].any()
    for name in ("boxes", "scores", "va"):
        assert np.isnan(rows[name][empty]).all()
    np.testing.assert_allclose(rows["timestamp"], np.arange(15) / 10)


def test_no_window_mixes_identities() -> None:
    rows = joined(built([([1], [1])] * 10 + [([5], [5])] * 10))
    np.testing.assert_allclose(rows["va"][:, 0], [0.1] * 10 + [0.5] * 10)
    np.testing.assert_allclose(rows["va"][:, 1], 1.0)


def test_rows_are_ordered_by_frame_and_identity() -> None:
    rows = joined(built([([2, 7], [2, 7])] * 5 + [([7], [2, 7])] * 9 + [([2, 7, 9], [2, 7, 9])] * 9))
    assert list(zip(rows["frame"], rows["face_id"], strict=True)) == sorted(
        zip(rows["frame"], rows["face_id"], strict=True)
    )
    counts = np.bincount(rows["frame"])
    assert counts.tolist() == [2] * 14 + [3] * 9
    np.testing.assert_allclose(rows["va"][rows["face_id"] == 9, 0], 0.9)
    own = rows["success"] & (rows["face_id"] == 7)
    np.testing.assert_allclose(rows["scores"][own], 1.2)


def test_memory_does_not_grow_with_the_video() -> None:
    builder = RowBuilder(Model())
    for k in range(3000):
        builder.add(k, k / 10, [face(k // 50)], np.zeros((1, DIM), np.float32), [k // 50])
        builder.pop()
        assert len(builder._frames) <= 3 * Model.window
        assert len(builder._identities) <= 2


def test_a_calibration_is_that_of_whole_tracks() -> None:
    calibration = Calibration(smoothing={VA: Smoothing("box", 3)})
    script = [([0], [0])] * 8 + [([], [0])] * 3 + [([0], [0])] * 9
    raw, smooth = joined(built(script)), joined(built(script, calibration=calibration))
    np.testing.assert_allclose(smooth["va"], Smoothing("box", 3)(raw["va"]), atol=1e-6)
    assert not np.allclose(smooth["va"], raw["va"])


def test_an_aligned_crop_that_is_missing_is_not_visible() -> None:
    builder = RowBuilder(Model())
    for k in range(9):
        shown = k % 3 > 0
        features = np.ones((int(shown), DIM), np.float32)
        builder.add(k, math.nan, [face(0, visible=shown)], features, [0])
    rows = joined([part for part in [builder.pop(), builder.finish()] if part is not None])
    assert rows["success"].tolist() == [False, True, True] * 3
    assert np.isnan(rows["boxes"][0]).all()
    assert np.isfinite(rows["va"]).all()


@pytest.mark.parametrize("n", [0, 1])
def test_a_video_of_no_or_one_frame(n: int) -> None:
    assert sum(map(len, built([([0], [0])] * n))) == n
