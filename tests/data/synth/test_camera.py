import numpy as np
import pytest

from abaw.data.synth.camera import Camera, CaptureConditions
from abaw.data.synth.face import Face
from abaw.data.synth.identity import draw_identity
from abaw.data.synth.landmarks import MOVEMENTS


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
