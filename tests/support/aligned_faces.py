"""The faces of a real video, cropped and aligned as the challenge's images are."""

from pathlib import Path

import cv2
import numpy as np

SIZE = 112
TEMPLATE = np.array(  # both eyes, the nose, both corners of the mouth, left to right in the image
    [(38.2946, 51.6963), (73.5318, 51.5014), (56.0252, 71.7366), (41.5493, 92.3655), (70.7299, 92.2041)],
    np.float32,
)


def align_video(video: Path, out_folder: Path, detector: Path) -> int:
    """Writes `cropped_aligned/<stem>/00001.jpg`, … and gives how many; a frame without a face has no file.

    Args:
        video: What OpenCV can decode.
        out_folder: Where `cropped_aligned` is made.
        detector: A YuNet model, which finds five landmarks with every face.
    """
    folder = out_folder / "cropped_aligned" / video.stem
    folder.mkdir(parents=True)
    finder = cv2.FaceDetectorYN.create(str(detector), "", (SIZE, SIZE))
    capture = cv2.VideoCapture(str(video))
    number = n_written = 0
    while (decoded := capture.read())[0]:
        frame, number = decoded[1], number + 1
        finder.setInputSize((frame.shape[1], frame.shape[0]))
        faces = finder.detect(frame)[1]  # (n, 15): box, five landmarks, confidence
        if faces is None:
            continue
        landmarks = max(faces, key=lambda face: face[14])[4:14].reshape(5, 2)
        landmarks = landmarks[_left_to_right(landmarks)]
        warp, _ = cv2.estimateAffinePartial2D(landmarks, TEMPLATE, method=cv2.LMEDS)
        n_written += cv2.imwrite(str(folder / f"{number:05d}.jpg"), cv2.warpAffine(frame, warp, (SIZE, SIZE)))
    capture.release()
    return n_written


def _left_to_right(landmarks: np.ndarray) -> list[int]:
    """The order of the template, whichever eye and corner of the mouth a detector names first."""
    eyes, mouth = sorted((0, 1), key=lambda k: landmarks[k, 0]), sorted((3, 4), key=lambda k: landmarks[k, 0])
    return [*eyes, 2, *mouth]
