"""Reading and writing of videos: true times, rotation, damage, audio."""

import builtins
import math
from pathlib import Path

import av
import numpy as np
import pytest

from abaw.errors import AbawError
from abaw.inference.video import VideoFile, VideoFrame, VideoWriter
from tests.support.videos import rotate_video, write_video


def numbered(n: int, size: tuple[int, int] = (64, 48)) -> list[np.ndarray]:
    """Frames whose brightness is their number."""
    return [np.full((size[1], size[0], 3), 8 + 4 * k, np.uint8) for k in range(n)]


def numbers(frames: list[VideoFrame]) -> list[int]:
    return [round((float(frame.pixels.mean()) - 8) / 4) for frame in frames]


def test_frames_come_in_order_with_their_times(tmp_path: Path) -> None:
    video = VideoFile(write_video(tmp_path / "a.mp4", numbered(40), fps=25))
    frames = list(video.read())
    assert [frame.number for frame in frames] == numbers(frames) == list(range(40))
    np.testing.assert_allclose([frame.timestamp for frame in frames], np.arange(40) / 25, atol=1e-6)
    assert (video.name, video.n_frames, video.problem, video.aligned) == ("a", 40, "", False)
    assert video.fps == pytest.approx(25)


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "mov", "avi"])
def test_any_container(suffix: str, tmp_path: Path) -> None:
    video = VideoFile(write_video(tmp_path / f"a.{suffix}", numbered(30), fps=25))
    assert numbers(list(video.read())) == list(range(30))
    assert video.problem == ""


def test_variable_frame_rate_keeps_the_times_of_the_container(tmp_path: Path) -> None:
    times = np.cumsum([0, *np.random.default_rng(0).integers(10, 200, 39)]) / 1000
    path = write_video(tmp_path / "a.mp4", numbered(40), times)
    with av.open(str(path)) as container:
        expected = [frame.pts * frame.time_base for frame in container.decode(video=0)]
    frames = list(VideoFile(path).read())
    assert [frame.timestamp for frame in frames] == [float(time) for time in expected]
    np.testing.assert_allclose([frame.timestamp for frame in frames], times, atol=1e-3)


def test_a_file_that_begins_at_3_2_seconds_does_so_in_the_table(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mkv", numbered(20), 3.2 + np.arange(20) / 25)
    frames = list(VideoFile(path).read())
    np.testing.assert_allclose([f.timestamp for f in frames], 3.2 + np.arange(20) / 25, atol=1e-3)


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_a_rotated_phone_video_is_upright(degrees: int, tmp_path: Path) -> None:
    picture = np.zeros((48, 96, 3), np.uint8)
    picture[:24, :48] = (250, 0, 0)  # red where up and left are in the sensor
    path = write_video(tmp_path / "a.mp4", [picture] * 5)
    rotate_video(path, degrees)
    pixels = next(VideoFile(path).read()).pixels
    expected = np.rot90(picture, -degrees // 90)  # players turn it clockwise
    assert pixels.shape == expected.shape
    assert np.abs(pixels.astype(int) - expected).mean() < 10


def test_every_third_frame_and_the_rest_after_a_stop(tmp_path: Path) -> None:
    video = VideoFile(write_video(tmp_path / "a.mp4", numbered(60)))
    whole = list(video.read(3))
    assert [frame.number for frame in whole] == numbers(whole) == list(range(0, 60, 3))
    for stop in (0, 7, 19):
        rest = list(video.read(3, after=whole[stop]))
        assert [frame.number for frame in rest] == numbers(rest) == list(range(3 * stop + 3, 60, 3))
        for frame, other in zip(rest, whole[stop + 1 :], strict=True):
            np.testing.assert_array_equal(frame.pixels, other.pixels)
            assert frame.timestamp == other.timestamp


@pytest.mark.parametrize("suffix", ["mkv", "avi"])
def test_a_video_that_is_cut_off_gives_its_frames_and_says_so(suffix: str, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (100, 48, 64, 3), dtype=np.uint8)
    path = write_video(tmp_path / f"a.{suffix}", noise)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    video = VideoFile(path)
    frames = list(video.read())
    assert 20 < len(frames) < 80
    assert "is truncated" in video.problem


def fast_start(path: Path) -> None:
    """Writes the index of an MP4 in front of its data, as for streaming."""
    source, target = (
        av.open(str(path)),
        av.open(f"{path}.2", "w", format="mp4", options={"movflags": "faststart"}),
    )
    stream = target.add_stream_from_template(source.streams.video[0])
    for packet in source.demux(source.streams.video[0]):
        if packet.dts is not None:
            packet.stream = stream
            target.mux(packet)
    target.close()
    source.close()
    Path(f"{path}.2").replace(path)


def test_an_mp4_that_is_cut_off_says_how_many_frames_are_there(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (100, 48, 64, 3), dtype=np.uint8)
    path = write_video(tmp_path / "a.mp4", noise)
    fast_start(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    video = VideoFile(path)
    frames = list(video.read())
    assert 20 < len(frames) < 80
    assert video.problem == f"is truncated: {len(frames)} of 100 frames are there"


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "the file is empty"),
        (b"just some text\n" * 50, "cannot be read as a video"),
        (np.random.default_rng(0).bytes(5000), "cannot be read as a video"),
    ],
)
def test_what_is_no_video_is_one_clear_error(content: bytes, what: str, tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(content)
    with pytest.raises(AbawError, match=rf"a\.mp4: {what}"):
        VideoFile(tmp_path / "a.mp4")


def test_an_mp4_without_its_index_is_one_clear_error(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", numbered(30))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(AbawError, match=r"a\.mp4: cannot be read as a video"):
        VideoFile(path)


def test_an_audio_file_has_no_video(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a.wav"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.int16), format="s16", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with pytest.raises(AbawError, match=r"a\.wav: has no video, only audio"):
        VideoFile(tmp_path / "a.wav")


def test_without_pyav_the_error_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_video(tmp_path / "a.mp4", numbered(3))
    real = builtins.__import__

    def hidden(name: str, *args, **kwargs):
        if name == "av":
            raise ModuleNotFoundError("No module named 'av'")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", hidden)
    with pytest.raises(AbawError, match="PyAV, which reads videos, cannot be imported") as refused:
        VideoFile(path)
    assert len(str(refused.value).splitlines()) == 1


def written(path: Path, source: Path | None, begins: float = 0.0, n: int = 25) -> None:
    with VideoWriter(path, (64, 48), audio_from=source, begins=begins) as writer:
        for k, pixels in enumerate(numbered(n)):
            writer.write(begins + k / 25, pixels)


def test_a_written_video_has_its_times_and_the_audio_of_its_source(tmp_path: Path) -> None:
    source = write_video(tmp_path / "a.mp4", numbered(25), audio=True)
    written(tmp_path / "b.mp4", source)
    frames = list(VideoFile(tmp_path / "b.mp4").read())
    assert numbers(frames) == list(range(25))
    np.testing.assert_allclose([f.timestamp for f in frames], np.arange(25) / 25, atol=1e-4)
    with av.open(str(source)) as one, av.open(str(tmp_path / "b.mp4")) as other:
        assert other.streams.video[0].codec_context.name == "h264"
        packets = [[bytes(p) for p in c.demux(c.streams.audio[0]) if p.size] for c in (one, other)]
    assert packets[0] == packets[1]  # copied, not encoded again
    assert len(packets[0]) > 10


def test_a_written_video_begins_at_0(tmp_path: Path) -> None:
    source = write_video(tmp_path / "a.mkv", numbered(25), 3.2 + np.arange(25) / 25)
    written(tmp_path / "b.mp4", source, begins=3.2)
    frames = list(VideoFile(tmp_path / "b.mp4").read())
    np.testing.assert_allclose([f.timestamp for f in frames], np.arange(25) / 25, atol=1e-3)


def test_times_that_do_not_increase_are_moved(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "b.mp4", (64, 48)) as writer:
        for pixels in numbered(4):
            writer.write(0.5, pixels)
    times = [frame.timestamp for frame in VideoFile(tmp_path / "b.mp4").read()]
    assert len(times) == 4
    assert all(math.isfinite(time) for time in times)


def test_a_failed_video_leaves_no_file(tmp_path: Path) -> None:
    def fail() -> None:
        with VideoWriter(tmp_path / "b.mp4", (64, 48)) as writer:
            for pixels in numbered(50):
                writer.write(0.0, pixels)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert list(tmp_path.iterdir()) == []
