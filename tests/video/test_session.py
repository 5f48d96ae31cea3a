from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from face_encode.errors import VideoError
from face_encode.model import Face_Encode_Model
from face_encode.photos.reading import read_image
from face_encode.types import Box, ImageArray
from face_encode.video.frames import Frame, WatchedFace, WatchedFrame
from face_encode.video.output import Recorder
from face_encode.video.session import Appearance, AppearanceLog, EventFile, Outlets, Session
from face_encode.video.sources import RecordedVideo
from face_encode.video.watcher import Watcher, WatchSettings, video_detector
from tests.conftest import REPOSITORY, VERIFY_DATASET


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


IMAGE = np.zeros((2, 2, 3), np.uint8)
ONE = np.array([1, 0], np.float32)
OTHER = np.array([0, 1], np.float32)


def seen(
    name: str | None,
    track: int = 1,
    similarity: float | None = 0.95,
    since: float = 0.0,
    settled: bool = True,
    embedding: npt.NDArray[np.float32] | None = ONE,
    missed: bool = False,
) -> WatchedFace:
    box = Box(0, 0, 2, 2)
    return WatchedFace(track, box, since, name, similarity, settled, embedding, missed)


def logged(*frames: tuple[float, list[WatchedFace]]) -> list[Appearance]:
    log = AppearanceLog(threshold=0.9, merge_seconds=2.0)
    appearances: list[Appearance] = []
    for number, (seconds, faces) in enumerate(frames):
        appearances += log.add(WatchedFrame(IMAGE, number, seconds, tuple(faces)))
    return appearances + log.close()


def test_one_entry_an_appearance_with_the_best_similarity() -> None:
    appearances = logged(
        (0.5, [seen("Ada", similarity=0.93, since=0.1)]),
        (1.0, [seen("Ada", similarity=0.97, since=0.1)]),
        (2.0, [seen("Ada", similarity=0.95, since=0.1)]),
    )
    assert appearances == [Appearance("Ada", 0.1, 2.0, 0.97)]
    assert appearances[0].as_dict() == {
        "name": "Ada",
        "from": 0.1,
        "to": 2.0,
        "best_similarity": 0.97,
    }


def test_short_gaps_are_merged_and_long_ones_are_not() -> None:
    appearances = logged(
        (1.0, [seen("Ada", track=1, since=1.0)]),
        (2.0, []),
        (2.9, [seen("Ada", track=2, since=2.5)]),
        (5.0, []),
        (6.0, [seen("Ada", track=3, since=5.9)]),
    )
    assert [(each.begin, each.end) for each in appearances] == [(1.0, 2.9), (5.9, 6.0)]


def test_an_appearance_is_returned_as_soon_as_it_is_over() -> None:
    log = AppearanceLog(threshold=0.9, merge_seconds=2.0)
    assert log.add(WatchedFrame(IMAGE, 0, 0.0, (seen("Ada"),))) == []
    assert log.add(WatchedFrame(IMAGE, 1, 1.9, ())) == []
    assert [each.name for each in log.add(WatchedFrame(IMAGE, 2, 2.1, ()))] == ["Ada"]
    assert log.close() == []


def test_two_people_have_an_entry_each() -> None:
    appearances = logged(
        (0.0, [seen("Ada", 1), seen("Bob", 2)]), (1.0, [seen("Ada", 1), seen("Bob", 2)])
    )
    assert [each.name for each in appearances] == ["Ada", "Bob"]


def test_a_person_recognised_late_was_there_from_the_beginning() -> None:
    appearances = logged(
        (1.0, [seen(None, similarity=0.8, since=0.2)]),
        (3.0, [seen(None, similarity=0.85, since=0.2)]),
        (3.1, [seen("Ada", similarity=0.95, since=0.2)]),
    )
    assert appearances == [Appearance("Ada", 0.2, 3.1, 0.95)]


def test_a_face_that_another_person_took_over_is_two_appearances() -> None:
    appearances = logged(
        (1.0, [seen("Ada", since=0.0)]), (2.0, [seen("Bob", since=0.0)]), (3.0, [seen("Bob")])
    )
    assert [(each.name, each.begin, each.end) for each in appearances] == [
        ("Ada", 0.0, 1.0),
        ("Bob", 2.0, 3.0),
    ]


def test_faces_not_settled_or_not_found_are_not_reported() -> None:
    appearances = logged(
        (1.0, [seen("Ada")]),
        (1.5, [seen("Ada", missed=True)]),
        (1.6, [seen(None, track=2, settled=False)]),
        (3.0, [seen(None, track=2, settled=False)]),
    )
    assert appearances == [Appearance("Ada", 0.0, 1.0, 0.95)]


def test_unknown_people_are_told_apart_and_known_again() -> None:
    appearances = logged(
        (1.0, [seen(None, 1, 0.8), seen(None, 2, 0.7, embedding=OTHER)]),
        (2.0, [seen(None, 1, 0.8), seen(None, 2, 0.7, embedding=OTHER)]),
        # The first is lost for a moment and followed under another number.
        (3.0, [seen(None, 3, 0.82, since=2.8), seen(None, 2, 0.7, embedding=OTHER)]),
    )
    assert appearances == [Appearance(None, 0.0, 3.0, 0.82), Appearance(None, 0.0, 3.0, 0.7)]


def test_unknown_faces_do_not_flood() -> None:
    passing = [
        (0.4 * index, [seen(None, index, embedding=None, since=0.4 * index)]) for index in range(50)
    ]
    assert logged(*passing) == []


def test_nobody_enrolled_has_no_similarity() -> None:
    appearances = logged((0.0, [seen(None, similarity=None)]), (2.0, [seen(None, similarity=None)]))
    assert appearances == [Appearance(None, 0.0, 2.0, None)]


def lines(path: Path) -> list[object]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_lines_are_appended(tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "events.jsonl"
    for name in ("Ada", "王小明"):
        events = EventFile(path)
        events.write({"name": name})
        assert lines(path)[-1] == {"name": name}  # there at once, not only at the end
        events.close()
    assert lines(path) == [{"name": "Ada"}, {"name": "王小明"}]


def test_a_line_that_was_cut_off_spoils_no_other(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_text('{"name": "Ada"}\n{"na')
    events = EventFile(path)
    events.write({"name": "Bob"})
    events.close()
    assert path.read_text().splitlines()[0] == '{"name": "Ada"}'
    assert path.read_text().splitlines()[-1] == '{"name": "Bob"}'


def test_a_kill_cuts_off_the_last_line_at_most(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    script = (
        "import sys\n"
        "from face_encode.video.session import EventFile\n"
        "events = EventFile(sys.argv[1])\n"
        "while True: events.write({'name': 'A' * 3000})\n"
    )
    child = subprocess.Popen([sys.executable, "-c", script, str(path)], cwd=REPOSITORY)
    deadline = time.monotonic() + 60
    while (not path.exists() or path.stat().st_size < 100_000) and time.monotonic() < deadline:
        time.sleep(0.01)
    child.kill()
    child.wait()
    # The kernel may stop a killed process' write between two pages of memory.
    *whole, last = path.read_text().split("\n")
    assert len(whole) > 30
    assert all(json.loads(line) == {"name": "A" * 3000} for line in whole)
    events = EventFile(path)
    events.write({"name": "Bob"})
    events.close()
    assert path.read_text().split("\n") == [*whole, *[last] * bool(last), '{"name": "Bob"}', ""]


def test_a_place_that_cannot_be_written_to_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(VideoError, match="it is a folder"):
        EventFile(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(VideoError, match="is no folder"):
        EventFile(tmp_path / "file" / "events.jsonl")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux only")
def test_a_full_disk_is_an_error() -> None:
    events = EventFile("/dev/full")
    with pytest.raises(VideoError, match="cannot write /dev/full: no space left"):
        events.write({"name": "Ada"})
    events.close()
