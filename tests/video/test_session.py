from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from face_encode.errors import GalleryError, VideoError
from face_encode.model import Face_Encode_Model
from face_encode.photos.reading import read_image
from face_encode.types import ImageArray
from face_encode.video.events import EventFile
from face_encode.video.frames import Frame
from face_encode.video.output import Recorder
from face_encode.video.session import Outlets, Session
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
            now = datetime.now(timezone.utc)
            yield Frame(self._image, 2 * number, number / 5, taken_at=now)
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
    outlets = Outlets(recorder=recorder, events=[events])
    report = Session(Gone(ada, 8, is_lost=True), watcher, outlets).run()
    events.close()
    assert str(report.error) == "camera 0: lost"
    assert (report.frames, report.passed_over) == (8, 7)
    assert frames_of(tmp_path / "out.mp4") == 8
    lines = (tmp_path / "events.jsonl").read_text().splitlines()
    started, arrived, event, stopped = (json.loads(line) for line in lines)
    assert [each["event"] for each in (started, arrived, event, stopped)] == [
        "started",
        "arrived",
        "left",
        "stopped",
    ]
    assert {each["source"] for each in (started, arrived, event, stopped)} == {"camera 0"}
    assert stopped["error"] == "camera 0: lost"
    assert arrived["id"] == event["id"]
    assert event["name"] == "Ada_Mirova"
    assert (event["from"], event["to"]) == (0.0, 1.4)
    begin, end = (datetime.fromisoformat(event[key]) for key in ("from_time", "to_time"))
    # The source's frames come faster than it says.
    assert 0 < (end - begin).total_seconds() < 60
    assert begin.tzinfo is not None


def test_a_gallery_that_is_lost_leaves_everything_finished(
    tmp_path: Path, ada: ImageArray, watcher: Watcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(*_: object) -> None:
        raise GalleryError("people.sqlite: cannot be read")

    monkeypatch.setattr(watcher.model.gallery, "search", lost)
    events = EventFile(tmp_path / "events.jsonl")
    outlets = Outlets(recorder=Recorder(tmp_path / "out.mp4", 5.0), events=[events])
    report = Session(Gone(ada, 8, is_lost=False), watcher, outlets).run()
    events.close()
    assert str(report.error) == "people.sqlite: cannot be read"
    *_, stopped = (tmp_path / "events.jsonl").read_text().splitlines()
    assert json.loads(stopped)["error"] == "people.sqlite: cannot be read"


def test_the_callback_ends_it(tmp_path: Path, ada: ImageArray, watcher: Watcher) -> None:
    asked = []

    def should_stop() -> bool:
        asked.append(True)
        return len(asked) >= 9  # asked while no frame comes, too

    outlets = Outlets(recorder=Recorder(tmp_path / "out.mp4", 5.0))
    report = Session(Gone(ada, 50, is_lost=False), watcher, outlets).run(should_stop)
    assert (report.frames, report.error) == (5, None)
    assert frames_of(tmp_path / "out.mp4") == 5


def test_time_ends_it(ada: ImageArray, watcher: Watcher) -> None:
    report = Session(Gone(ada, 50, is_lost=False), watcher, max_seconds=1.0).run()
    assert report.seconds == 1.0
    assert report.frames == 6
    assert [each.name for each in report.appearances] == ["Ada_Mirova"]


class FullDisk:
    """Takes some events, and then none."""

    def __init__(self, room: int) -> None:
        self._room = room

    def write(self, event: object) -> None:
        self._room -= 1
        if self._room < 0:
            raise VideoError("cannot write events.jsonl: no space left on device")

    def close(self) -> None:
        pass


def test_events_that_cannot_be_written_leave_the_recording(
    tmp_path: Path, ada: ImageArray, watcher: Watcher
) -> None:
    outlets = Outlets(recorder=Recorder(tmp_path / "out.mp4", 5.0), events=[FullDisk(1)])
    report = Session(Gone(ada, 8, is_lost=False), watcher, outlets).run()
    # Ada's arrival finds no room.
    assert "no space left" in str(report.error)
    assert 1 <= report.frames < 8
    assert frames_of(tmp_path / "out.mp4") >= report.frames - 1


def test_a_source_without_a_frame_is_an_error(tmp_path: Path, watcher: Watcher) -> None:
    nothing = np.zeros((4, 4, 3), np.uint8)
    outlets = Outlets(recorder=Recorder(tmp_path / "out.mp4", 5.0))
    report = Session(Gone(nothing, 0, is_lost=True), watcher, outlets).run()
    assert str(report.error) == "camera 0: lost"
    assert not (tmp_path / "out.mp4").exists()


class Broken:
    """A source whose pictures stop for an hour, by its clock; ``waits`` if it says so meanwhile."""

    name, is_live, frames_per_second = "camera 0", True, 10.0

    def __init__(self, image: ImageArray, *, waits: bool) -> None:
        self._image, self._waits = image, waits

    def frames(self) -> Iterator[Frame | None]:
        for number in range(20):
            yield Frame(self._image, number, number / 10)
        deadline = time.monotonic() + (2.0 if self._waits else 0)
        while time.monotonic() < deadline:
            time.sleep(0.1)
            yield None
        for number in range(20):
            yield Frame(self._image, 20 + number, 3605 + number / 10)

    def close(self) -> None:
        pass


@pytest.mark.parametrize("waits", [False, True])
def test_an_hour_without_frames_lies_between_two_appearances(
    ada: ImageArray, watcher: Watcher, waits: bool
) -> None:
    heard: list[tuple[str, float]] = []
    outlets = Outlets(on_event=lambda event: heard.append((event.kind, event.appearance.end)))
    report = Session(Broken(ada, waits=waits), watcher, outlets).run()
    stays = [(each.name, each.begin, each.end) for each in report.appearances]
    assert stays == [("Ada_Mirova", 0.0, 1.9), ("Ada_Mirova", 3605.0, 3606.9)]
    assert [kind for kind, _ in heard] == ["arrived", "left", "arrived", "left"]


class Remembered:
    """Keeps the events."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []

    def write(self, event: Mapping[str, Any]) -> None:
        self.events.append(dict(event))

    def close(self) -> None:
        pass


def test_events_carry_the_face_where_asked_to(ada: ImageArray, watcher: Watcher) -> None:
    sink = Remembered()
    Session(Gone(ada, 8, is_lost=True), watcher, Outlets(events=[sink], event_crops=True)).run()
    assert ["crop" in each for each in sink.events] == [False, True, False, False]
    crop = np.frombuffer(base64.b64decode(sink.events[1]["crop"]), np.uint8)
    picture = cv2.imdecode(crop, cv2.IMREAD_COLOR)
    assert picture is not None and 100 < max(picture.shape) <= 320


def test_an_outlet_that_fails_keeps_nothing_from_the_others(
    ada: ImageArray, watcher: Watcher
) -> None:
    sink = Remembered()
    report = Session(
        Gone(ada, 8, is_lost=False), watcher, Outlets(events=[FullDisk(0), sink])
    ).run()
    assert "no space left" in str(report.error)
    assert [each["event"] for each in sink.events] == ["started", "stopped"]


def test_an_outlet_that_fails_keeps_no_later_event_from_the_others(
    ada: ImageArray, watcher: Watcher
) -> None:
    mei = np.ascontiguousarray(read_image(VERIFY_DATASET / "Mei_Oshara" / "1.jpg")[:, :392])
    both = np.hstack([ada[:400], mei[:400]])
    sink, source = Remembered(), Gone(both, 8, is_lost=False)
    # Room for the start and both arrivals.
    outlets = Outlets(events=[FullDisk(3), sink])
    report = Session(source, watcher, outlets, keeps_appearances=False).run()
    assert "no space left" in str(report.error)
    left = [each["name"] for each in sink.events if each["event"] == "left"]
    assert sorted(left) == ["Ada_Mirova", "Mei_Oshara"]
    assert report.appearances == []
