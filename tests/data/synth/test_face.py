import cv2
import numpy as np
import pytest

from abaw.data.synth.canvas import MARGIN, SCALE, SIZE
from abaw.data.synth.face import Face
from abaw.data.synth.identity import draw_identity
from abaw.data.synth.landmarks import MOVEMENTS
from abaw.tasks import AU

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
    poses = np.concatenate([np.zeros((1, len(MOVEMENTS))), np.eye(len(AU.names), len(MOVEMENTS))])
    inner = slice(MARGIN * SCALE, (MARGIN + SIZE) * SCALE)
    drawn = Face(who, scene=0).draw(poses.astype(np.float32), np.zeros((len(poses), 2), np.float32))
    crops = [
        cv2.resize(canvas[inner, inner], (SIZE, SIZE), interpolation=cv2.INTER_AREA).astype(float)
        for canvas in drawn
    ]
    for name, crop in zip(AU.names, crops[1:], strict=True):
        change = np.abs(crop - crops[0]).sum(axis=2)
        change += change[:, ::-1]
        (top, bottom), (left, right) = REGIONS[name]
        inside = change[top:bottom, left:right].sum() / change[:, :56].sum()
        assert inside > 0.95, (name, inside)
        assert (change > 40).sum() > 60, name  # visible
