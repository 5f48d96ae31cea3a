from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from face_encode.errors import VideoError
from face_encode.types import ImageArray
from face_encode.video.output import Recorder
from face_encode.video.sources import RecordedVideo


def picture(blue: int, height: int = 48, width: int = 64) -> ImageArray:
    image = np.zeros((height, width, 3), np.uint8)
    image[..., 0], image[..., 2] = 200, blue
    return image


def read_back(path: Path) -> list[ImageArray]:
    source = RecordedVideo.of_file(path)
    frames = [frame.image for frame in source.frames() if frame is not None]
    source.close()
    return frames


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "画.mp4"
    with Recorder(path, 25.0) as recorder:
        for blue in range(0, 200, 20):
            recorder.write(picture(blue), blue / 500)
        assert not path.exists()  # not before it is whole
    frames = read_back(path)
    assert len(frames) == 10
    # The codec is lossy; red stays red, and blue comes in the order in which it was written.
    assert all(abs(int(frame[20, 30, 0]) - 200) < 12 for frame in frames)
    assert abs(int(frames[9][20, 30, 2]) - 180) < 12
    assert list(tmp_path.iterdir()) == [path]


def test_an_error_leaves_the_former_file(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    path.write_bytes(b"former")
    with pytest.raises(KeyError), Recorder(path, 25.0) as recorder:
        recorder.write(picture(0), 0)
        raise KeyError
    assert path.read_bytes() == b"former"
    assert list(tmp_path.iterdir()) == [path]


def test_no_frame_is_an_error_and_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(VideoError, match="no frame to record"), Recorder(tmp_path / "o.mp4", 25.0):
        pass
    assert list(tmp_path.iterdir()) == []


def test_odd_sizes_and_a_change_of_size(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    with Recorder(path, 25.0) as recorder:
        recorder.write(picture(0, 49, 65), 0)
        recorder.write(picture(0, 100, 130), 0.04)
    assert [frame.shape for frame in read_back(path)] == [(48, 64, 3)] * 2


def test_a_live_source_keeps_its_time(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    with Recorder(path, 10.0, keeps_time=True) as recorder:
        for seconds in (0.0, 0.01, 0.5, 1.0):  # two at once, then only two a second
            recorder.write(picture(0), seconds)
    assert len(read_back(path)) == 11


def test_only_mp4_is_written(tmp_path: Path) -> None:
    with pytest.raises(VideoError, match=r"\.mp4 file\. Received: .*out\.avi"):
        Recorder(tmp_path / "out.avi", 25.0)
    with pytest.raises(VideoError, match="it is a folder"):
        (tmp_path / "f.mp4").mkdir()
        Recorder(tmp_path / "f.mp4", 25.0)


def test_a_recording_that_was_cut_off_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "out.mp4"
    with pytest.raises(VideoError, match="disk full"), Recorder(path, 25.0) as recorder:
        recorder.write(picture(0), 0)
        # What a full disk leaves behind.
        release = recorder._writer.release  # type: ignore[union-attr]
        writing = next(tmp_path.iterdir())

        class CutOff:
            def release(self) -> None:
                release()
                writing.write_bytes(writing.read_bytes()[:200])

        monkeypatch.setattr(recorder, "_writer", CutOff())
    assert not path.exists()
    assert cv2.VideoCapture(str(path)).isOpened() is False
