"""Real clips, a photo and the face detector beside the project; tests of them are skipped elsewhere."""

import pytest

from tests.support.project import PROJECT

SHARED = PROJECT.parent / "shared"
DETECTOR = SHARED / "models/face_detection_yunet_2023mar.onnx"
ONE_FACE = SHARED / "media/single_face.mp4"
NO_FACE = SHARED / "media/no_face.mp4"
FIVE_FACES = SHARED / "media/multi_face.jpg"

needs_media = pytest.mark.skipif(
    not all(path.exists() for path in (DETECTOR, ONE_FACE, NO_FACE, FIVE_FACES)), reason="no real videos here"
)
