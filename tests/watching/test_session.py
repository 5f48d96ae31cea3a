from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest

from face_encode.errors import VideoError
from face_encode.model import Face_Encode_Model
from face_encode.photos.reading import read_image
from face_encode.types import ImageArray
from face_encode.video.frames import Frame
from face_encode.video.output import Recorder
from face_encode.video.session import EventFile, Outlets, Session
from face_encode.video.sources import RecordedVideo
from face_encode.video.watcher import Watcher, WatchSettings, video_detector
from tests.conftest import VERIFY_DATASET


class Gone:
    """A live source that gives some frames, pauses, and is then lost for good or goes on."""

    name, is_live, frames_per_second = "camera 0", True, 5.0

    def __init__(self, image: ImageArray, frames: int, *, is_lost: bool) -> None:
        self._image, self._frames, self._is_lost = image, frames, is_lost

    def frames(self) -> Iterator[Frame | None]:
        for number in range(self._frames):
            # Every second frame came too fast.
            yield Frame(self._image, 2 * number, number / 5)
            yield None
        if self._is_lost:
            raise VideoError("camera 0: lost")

    def close(self) -> None:
        pass


@pytest.fixture(scope="module")
def ada() -> ImageArray:
    return read_image(VERIFY_DATASET / "Ada_Mirova" / "1.jpg")


@pytest.fixture
def watcher(fitted_model: Face_Encode_Model) -> Watcher:
    return Watcher(fitted_model, video_detector("dlib_hog"), WatchSettings(detect_every=1))


def frames_of(path: Path) -> int:
    return sum(1 for _ in RecordedVideo.of_file(path).frames())


def test_a_camera_lost_for_good_leaves_everything_finished(
    tmp_path: Path, ada: ImageArray, watcher: Watcher
) -> None:
    events = EventFile(tmp_path / "events.jsonl")
    recorder = Recorder(tmp_path / "out.mp4", 5.0, keeps_time=True)
    outlets = Outlets(recorder=recorder, events=events)
    report = Session(Gone(ada, 8, is_lost=True), watcher, outlets).run()
    events.close()
    assert str(report.error) == "camera 0: lost"
    assert (report.frames, report.passed_over) == (8, 7)
    assert frames_of(tmp_path / "out.mp4") == 8
    (event,) = (json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines())
    assert event["name"] == "Ada_Mirova"
    assert (event["from"], event["to"]) == (0.0, 1.4)
    begin, end = (datetime.fromisoformat(event[key]) for key in ("from_time", "to_time"))
    assert (end - begin).total_seconds() == pytest.approx(1.4)
    assert begin.tzinfo is not None


def test_somebody_ends_it(tmp_path: Path, ada: ImageArray, watcher: Watcher) -> None:
    asked = []

    def is_to_end() -> bool:
        asked.append(True)
        return len(asked) >= 9  # asked while no frame comes, too

    outlets = Outlets(recorder=Recorder(tmp_path / "out.mp4", 5.0))
    report = Session(Gone(ada, 50, is_lost=False), watcher, outlets).run(is_to_end)
    assert (report.frames, report.error) == (5, None)
    assert frames_of(tmp_path / "out.mp4") == 5


def test_time_ends_it(ada: ImageArray, watcher: Watcher) -> None:
    report = Session(Gone(ada, 50, is_lost=False), watcher, max_seconds=1.0).run()
    assert report.seconds == 1.0
    assert report.frames == 6
    assert [each.name for each in report.appearances] == ["Ada_Mirova"]


class FullDisk:
    def write(self, event: object) -> None:
        raise VideoError("cannot write events.jsonl: no space left on device")


def test_events_that_cannot_be_written_leave_the_recording(
    tmp_path: Path, ada: ImageArray, watcher: Watcher
) -> None:
    outlets = Outlets(recorder=Recorder(tmp_path / "out.mp4", 5.0), events=FullDisk())  # type: ignore[arg-type]
    report = Session(Gone(ada, 8, is_lost=False), watcher, outlets).run()
    assert "no space left" in str(report.error)
    assert frames_of(tmp_path / "out.mp4") == 8


def test_a_source_without_a_frame_is_an_error(tmp_path: Path, watcher: Watcher) -> None:
    nothing = np.zeros((4, 4, 3), np.uint8)
    outlets = Outlets(recorder=Recorder(tmp_path / "out.mp4", 5.0))
    report = Session(Gone(nothing, 0, is_lost=True), watcher, outlets).run()
    assert str(report.error) == "camera 0: lost"
    assert not (tmp_path / "out.mp4").exists()
