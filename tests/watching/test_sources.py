from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from face_encode.errors import InputError, VideoError
from face_encode.video.output import Recorder
from face_encode.video.sources import RecordedVideo, open_source, without_password
from tests.conftest import VERIFY_DATASET


@pytest.fixture(scope="module")
def counted_video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty frames, each a little brighter than the one before."""
    path = tmp_path_factory.mktemp("videos") / "counted – 数.mp4"
    with Recorder(path, 10.0) as recorder:
        for number in range(20):
            recorder.write(np.full((48, 64, 3), 20 + 10 * number, np.uint8), number / 10)
    return path


def test_a_file_gives_every_frame_in_order_with_its_time(counted_video: Path) -> None:
    source = open_source(counted_video)
    assert not source.is_live
    assert source.frames_per_second == pytest.approx(10)
    frames = [frame for frame in source.frames() if frame is not None]
    source.close()
    assert [frame.number for frame in frames] == list(range(20))
    assert [frame.seconds for frame in frames] == pytest.approx([n / 10 for n in range(20)])
    means = [frame.image.mean() for frame in frames]
    assert means == pytest.approx([20 + 10 * n for n in range(20)], abs=4)


def test_frames_are_rgb(tmp_path: Path) -> None:
    red = np.zeros((48, 64, 3), np.uint8)
    red[..., 0] = 220
    with Recorder(tmp_path / "red.mp4", 10.0) as recorder:
        recorder.write(red, 0.0)
    (frame,) = open_source(tmp_path / "red.mp4").frames()
    assert frame is not None
    assert frame.image[..., 0].mean() > 180 > 40 > frame.image[..., 2].mean()


class Timeless:
    """A container that tells no time and an impossible rate."""

    def __init__(self, frames: int) -> None:
        self._left = frames

    def isOpened(self) -> bool:
        return True

    def read(self) -> tuple[bool, object]:
        self._left -= 1
        return self._left >= 0, np.zeros((4, 4, 3), np.uint8)

    def get(self, property_number: int) -> float:
        return float("nan")

    def release(self) -> None:
        pass


def test_time_is_counted_where_the_file_tells_none() -> None:
    source = RecordedVideo(Timeless(3), "timeless")
    assert [frame.seconds for frame in source.frames() if frame] == pytest.approx([0, 0.04, 0.08])


def test_a_video_without_frames_is_an_error() -> None:
    with pytest.raises(VideoError, match="without a single frame"):
        list(RecordedVideo(Timeless(0), "empty").frames())


def test_what_is_no_video_is_an_error(tmp_path: Path, counted_video: Path) -> None:
    with pytest.raises(VideoError, match=r"none\.mp4: no such file"):
        open_source(tmp_path / "none.mp4")
    with pytest.raises(VideoError, match="is a directory"):
        open_source(tmp_path)
    for name, content in (
        ("empty.mp4", b""),
        ("text.mp4", b"no video at all\n" * 50),
        ("cut off.mp4", counted_video.read_bytes()[:300]),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(VideoError, match="no video in a known format, or damaged"):
            open_source(tmp_path / name)


def test_a_photo_is_a_video_of_one_frame() -> None:
    frames = list(open_source(VERIFY_DATASET / "Ada_Mirova" / "1.jpg").frames())
    assert len(frames) == 1


def test_what_is_no_source_is_an_error() -> None:
    for wrong in (None, True, 1.5, b"0"):
        with pytest.raises(InputError, match=r"a webcam's number, an address or the path"):
            open_source(wrong)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="0 or more"):
        open_source(-1)
    with pytest.raises(InputError, match="not empty"):
        open_source("")
    for address in ("ftp://host/video", "rtsp://", "http://[::1", "file:///etc/passwd"):
        with pytest.raises(InputError, match="begins with one of rtsp://"):
            open_source(address)


def test_a_camera_that_is_not_there_is_an_error() -> None:
    with pytest.raises(VideoError, match="camera 97: no such camera"):
        open_source("97")


def test_passwords_are_not_shown() -> None:
    assert without_password("rtsp://ada:s:e/cret@host:554/1") == "rtsp://ada:s:e/cret@host:554/1"
    assert without_password("rtsp://ada:secret@host:554/1") == "rtsp://ada:***@host:554/1"
    assert without_password("http://host:80/a@b") == "http://host:80/a@b"
