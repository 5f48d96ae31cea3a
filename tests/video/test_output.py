from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from face_encode.detectors.alignment import crop_faces
from face_encode.detectors.registry import load_detector
from face_encode.encoders.encoder import Encoder
from face_encode.errors import VideoError
from face_encode.photos.drawing import KNOWN_COLOUR, UNKNOWN_COLOUR, blur_boxes
from face_encode.photos.reading import read_image
from face_encode.types import Box, ImageArray
from face_encode.video.frames import WatchedFace, WatchedFrame
from face_encode.video.output import UNSETTLED_COLOUR, Recorder, Window, draw_watched
from face_encode.video.sources import RecordedVideo
from tests.conftest import EXAMPLES


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


def test_a_recording_that_was_cut_off_is_an_error(
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


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere there is a screen without DISPLAY")
@pytest.mark.parametrize("display", [None, ":97"])
def test_without_a_screen_the_error_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, display: str | None
) -> None:
    for variable in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(variable, raising=False)
    if display is not None:
        monkeypatch.setenv("DISPLAY", display)
    with pytest.raises(VideoError, match=r"no screen .* use --headless"):
        Window("nowhere")


@pytest.fixture(scope="module")
def group() -> ImageArray:
    return read_image(EXAMPLES / "group.jpg")


def watched(image: ImageArray, *faces: WatchedFace) -> WatchedFrame:
    return WatchedFrame(image, 0, 0.0, faces)


def seen(box: Box, name: str | None, settled: bool = True) -> WatchedFace:
    return WatchedFace(1, box, 0.0, name, 0.95, settled, None)


def test_known_unknown_and_unsettled_faces_differ_in_colour() -> None:
    grey = np.full((200, 300, 3), 90, np.uint8)
    boxes = [Box(10, 80, 50, 50), Box(110, 80, 50, 50), Box(210, 80, 50, 50)]
    frame = watched(
        grey, seen(boxes[0], "Ada"), seen(boxes[1], None), seen(boxes[2], None, settled=False)
    )
    drawn = draw_watched(frame)
    for box, colour in zip(boxes, (KNOWN_COLOUR, UNKNOWN_COLOUR, UNSETTLED_COLOUR), strict=True):
        assert tuple(drawn[box.top + 25, box.left]) == colour
    # An unsettled face has no label; the others have one above the box.
    assert (drawn[:79, 205:] == 90).all()
    assert (drawn[:79, :160] != 90).any()
    assert (grey == 90).all()


def test_a_blurred_face_cannot_be_recognised(group: ImageArray, encoder: Encoder) -> None:
    faces = load_detector("dlib_hog").detect(group)
    assert len(faces) >= 2
    before = group.copy()
    blurred = blur_boxes(group, [face.box for face in faces])
    assert (group == before).all()
    # Aligned by the landmarks of the clear photo, which is more than anybody else knows.
    clear, hidden = (
        encoder.encode(crop_faces(image, faces, encoder.contract.crop))
        for image in (group, blurred)
    )
    similarities = (clear * hidden).sum(axis=1) / (
        np.linalg.norm(clear, axis=1) * np.linalg.norm(hidden, axis=1)
    )
    assert similarities.max() < encoder.contract.threshold


def test_only_enrolled_people_stay_recognisable(group: ImageArray) -> None:
    first, second = (face.box for face in load_detector("dlib_hog").detect(group)[:2])
    frame = watched(group, seen(first, "Ada"), seen(second, None, settled=False))
    third = Box(0, 0, 30, 30)
    frame = replace(frame, uncertain=(third,))
    plain, blurred = draw_watched(frame), draw_watched(frame, blur_unknown=True)
    assert (plain[:30, :30] == group[:30, :30]).all()
    assert (blurred[:30, :30] != group[:30, :30]).any()
    inside = [
        (
            slice(box.top + 5, box.top + box.height - 5),
            slice(box.left + 5, box.left + box.width - 5),
        )
        for box in (first, second)
    ]
    assert (plain[inside[0]] == blurred[inside[0]]).all()
    assert (plain[inside[1]] != blurred[inside[1]]).mean() > 0.5


def test_a_face_at_the_rim_is_blurred_too(group: ImageArray) -> None:
    rim = Box(0, 0, 40, 40)
    assert (blur_boxes(group, [rim])[:40, :40] != group[:40, :40]).any()
    corner = Box(group.shape[1] - 3, group.shape[0] - 3, 3, 3)
    assert blur_boxes(group, [corner]).shape == group.shape
