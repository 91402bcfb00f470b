"""Predictions drawn into videos and images."""

from pathlib import Path

import av
import cv2
import numpy as np
import pandas as pd
import pytest

from abaw.inference.inputs import ImageFile, ImageFolder
from abaw.inference.video import VideoFile
from abaw.report.overlay import write_overlay
from tests.support.videos import write_video

N, SIZE = 20, (480, 400)  # width, height
BOX = (150.0, 120.0, 100.0, 120.0)
AU1 = {"AU01": 0.9, "AU04": 0.1}


def table(
    path: Path, n: int = N, *, lost: tuple[int, ...] = (), absent: tuple[int, ...] = (), **changes
) -> Path:
    """A table of one face in a box: happy, valence 1, arousal 0, AU 1 active."""
    rows = []
    for k in range(n):
        box = (np.nan,) * 4 if k in (*lost, *absent) else BOX
        row = {"frame": k, "timestamp": k / 25, "face_id": -1 if k in absent else 0}
        row |= {"success": int(k not in (*lost, *absent))}
        row |= dict(zip(("FaceRectX", "FaceRectY", "FaceRectWidth", "FaceRectHeight"), box, strict=True))
        row |= {
            "FaceScore": 0.9,
            **AU1,
            "valence": 1.0,
            "arousal": 0.0,
            "happiness": 0.8,
            "expression": "happiness",
        }
        if k in absent:
            row |= dict.fromkeys((*AU1, "valence", "arousal", "happiness", "expression"), None)
        rows.append(row | changes)
    pd.DataFrame(rows).to_csv(path, index=False)
    return path


def grey(n: int = N, size: tuple[int, int] = SIZE) -> list[np.ndarray]:
    return [np.full((size[1], size[0], 3), 60, np.uint8)] * n


def changed(frame: np.ndarray) -> np.ndarray:
    """bool (H, W), True where something was drawn."""
    return np.abs(frame.astype(int) - 60).max(-1) > 40


def overlay(folder: Path, frames: list[np.ndarray], **options) -> list[np.ndarray]:
    video = VideoFile(write_video(folder / "a.mp4", frames, audio=True))
    out = folder / "a.overlay.mp4"
    write_overlay(video, table(folder / "a.csv", len(frames), **options), out)
    return [frame.pixels for frame in VideoFile(out).read()]


def test_box_title_cross_and_action_units(tmp_path: Path) -> None:
    frames = overlay(tmp_path, grey())
    assert len(frames) == N
    drawn = changed(frames[10])
    left, top, width, height = (round(x) for x in BOX)
    for side in (drawn[top, left : left + width], drawn[top : top + height, left]):
        assert side.mean() > 0.9  # the box
    assert not drawn[top + 20 : top + height - 20, left + 20 : left + width - 20].any()  # not its inside
    assert drawn[top - 30 : top - 4, left:].any()  # identity and expression above
    assert drawn[top + height + 4 : top + height + 40, left : left + width].any()  # action units below
    right = drawn[top:, left + width + 5 :]
    columns = right.any(0).nonzero()[0]
    assert len(columns) > 20  # the cross
    colour = frames[10][top, left + width // 2]
    similar = np.abs(frames[10].astype(int) - colour).max(-1) < 60
    dot = similar[top:, left + width + 8 :].nonzero()[1]
    assert dot.max() > 0.85 * columns.max()  # valence 1: at the right end


def test_a_lost_face_keeps_its_box_in_grey_and_no_face_draws_nothing(tmp_path: Path) -> None:
    frames = overlay(tmp_path, grey(), lost=(8, 9, 10), absent=(15, 16, 17, 18))
    seen, lost = frames[5][120, 200].astype(int), frames[9][120, 200].astype(int)
    assert np.ptp(seen) > 80  # in colour
    assert np.ptp(lost) < 30
    assert lost.mean() > 120
    assert changed(frames[17]).mean() < 0.001


def test_the_audio_and_the_times_are_kept(tmp_path: Path) -> None:
    times = 3.2 + np.cumsum([0, *np.random.default_rng(0).integers(20, 90, N - 1)]) / 1000
    video = VideoFile(write_video(tmp_path / "a.mkv", grey(), times, audio=True))
    rows = pd.read_csv(table(tmp_path / "a.csv"))
    rows["timestamp"] = [frame.timestamp for frame in video.read()]
    rows.to_csv(tmp_path / "a.csv", index=False)
    write_overlay(video, tmp_path / "a.csv", tmp_path / "o.mp4")
    found = [frame.timestamp for frame in VideoFile(tmp_path / "o.mp4").read()]
    np.testing.assert_allclose(found, times - times[0], atol=2e-3)
    with av.open(str(tmp_path / "o.mp4")) as container:
        assert container.streams.video[0].codec_context.name == "h264"


@pytest.mark.parametrize("every", [1, 3])
def test_only_analysed_frames(every: int, tmp_path: Path) -> None:
    video = VideoFile(write_video(tmp_path / "a.mp4", grey()))
    rows = pd.read_csv(table(tmp_path / "a.csv")).iloc[::every]
    rows.to_csv(tmp_path / "a.csv", index=False)
    write_overlay(video, tmp_path / "a.csv", tmp_path / "o.mp4", every=every)
    assert len(list(VideoFile(tmp_path / "o.mp4").read())) == len(rows)


def test_the_table_of_openface_gives_the_same_picture(tmp_path: Path) -> None:
    pyfeat = overlay(tmp_path, grey(5))[2]
    rows = pd.read_csv(tmp_path / "a.csv").rename(
        columns={"AU01": "AU01_c", "AU04": "AU04_c", "FaceScore": "confidence"}
    )
    rows["frame"] += 1
    rows["AU01_c"], rows["AU04_c"] = 1, 0
    rows.to_csv(tmp_path / "b.csv", index=False)
    write_overlay(VideoFile(tmp_path / "a.mp4"), tmp_path / "b.csv", tmp_path / "o.mp4")
    openface = [frame.pixels for frame in VideoFile(tmp_path / "o.mp4").read()][2]
    assert np.abs(openface.astype(int) - pyfeat).max() < 30


def test_an_image_and_small_aligned_crops(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "p.png"), grey(1)[0])
    write_overlay(ImageFile(tmp_path / "p.png"), table(tmp_path / "p.csv", 1), tmp_path / "p.overlay.jpg")
    assert changed(cv2.imread(str(tmp_path / "p.overlay.jpg"))).any()
    (tmp_path / "v").mkdir()
    for number in (1, 2, 4):
        cv2.imwrite(str(tmp_path / f"v/{number:05d}.jpg"), np.full((112, 112, 3), 60, np.uint8))
    box = dict(
        zip(("FaceRectX", "FaceRectY", "FaceRectWidth", "FaceRectHeight"), (0, 0, 112, 112), strict=True)
    )
    write_overlay(
        ImageFolder(tmp_path / "v"), table(tmp_path / "v.csv", 4, **box, timestamp=None), tmp_path / "v.mp4"
    )
    frames = list(VideoFile(tmp_path / "v.mp4").read())
    assert len(frames) == 4
    assert min(frames[0].pixels.shape[:2]) >= 360  # enlarged
    assert frames[2].pixels.mean() < 30  # the missing crop is black


def test_images_of_several_sizes_fit_into_one_video(tmp_path: Path) -> None:
    (tmp_path / "v").mkdir()
    for number, size in enumerate([(480, 400), (801, 599), (361, 700)]):
        cv2.imwrite(str(tmp_path / f"v/{number}.png"), np.full((size[1], size[0], 3), 60, np.uint8))
    write_overlay(
        ImageFolder(tmp_path / "v"), table(tmp_path / "v.csv", 3, timestamp=None), tmp_path / "v.mp4"
    )
    assert [frame.pixels.shape for frame in VideoFile(tmp_path / "v.mp4").read()] == [(400, 480, 3)] * 3
