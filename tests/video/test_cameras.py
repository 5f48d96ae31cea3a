"""Several cameras on one detector and encoder: real streams on loopback."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from typing import Any

import numpy as np
import pytest
from PIL import Image

from benchmarks.streaming import streaming
from face_encode.errors import InputError, VideoError
from face_encode.model import Face_Encode_Model
from face_encode.photos.reading import read_image
from face_encode.types import ImageArray
from face_encode.video.cameras import Cameras, Turns, _RecentEvents, check_camera
from face_encode.video.watcher import video_detector
from tests.conftest import VERIFY_DATASET
from tests.video.test_sources import saying


def photo_of(person: str) -> ImageArray:
    return np.ascontiguousarray(read_image(VERIFY_DATASET / person / "1.jpg")[:, :392])


def wait_until(holds: Callable[[], object], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def states(cameras: Cameras) -> dict[str, dict[str, Any]]:
    return {each["name"]: each for each in cameras.states()}


def names(state: dict[str, Any]) -> list[str | None]:
    return [person["name"] for person in state["people"]]


@pytest.fixture(scope="module")
def ada() -> ImageArray:
    return photo_of("Ada_Mirova")


@pytest.fixture(scope="module")
def mei() -> ImageArray:
    return photo_of("Mei_Oshara")


def test_events_after_the_clock_was_set_back_are_not_missed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = time.time_ns()

    def told(hours: int) -> list[int]:
        """The numbers of three events of a run that begins so many hours later."""
        monkeypatch.setattr(time, "time_ns", lambda: now + hours * 3600 * 10**9)
        recent = _RecentEvents()
        for _ in range(3):
            recent.write({"event": "arrived"})
        return [event["number"] for event in recent.since(last, 10)]

    last = 0
    last = told(0)[-1]
    assert len(told(-1)) == 3
    # Of the run that wrote it, and of a later one, there is nothing twice and nothing missed.
    assert told(0) == []
    assert len(told(1)) == 3


def test_turns_go_round() -> None:
    turns, order = Turns(), list[str]()

    def take(name: str) -> None:
        with turns:
            order.append(name)

    threads = [threading.Thread(target=take, args=(name,)) for name in ("one", "other")]
    with turns:
        for count, thread in enumerate(threads, 2):
            thread.start()
            wait_until(lambda count=count: len(turns._queue) == count)  # type: ignore[misc]
    # Asked for again at once, and still after those who wait.
    take("first")
    assert order == ["one", "other", "first"]


def test_a_turn_that_ends_with_an_error_is_handed_on() -> None:
    turns = Turns()
    with pytest.raises(ValueError, match="fault"), turns:
        raise ValueError("fault")
    with turns:
        pass


@pytest.mark.parametrize(
    "source",
    ["film.mp4", "", "-1", "ftp://u:geheim@host/1", "rtsp://u:ge/heim@host/1", "geheim@host"],
)
def test_a_source_that_is_no_camera_is_refused_and_not_repeated(source: str) -> None:
    with pytest.raises(InputError, match="the camera 'front' is a webcam's number") as error:
        check_camera("front", source)
    assert "heim" not in str(error.value)
    with pytest.raises(InputError):
        Cameras({"front": source}, None, None)  # type: ignore[arg-type]


def test_sources_that_are_cameras() -> None:
    for source in ("0", "12", "/dev/video2", "rtsp://u:p@host:554/1", "https://host/a.mjpg"):
        check_camera("front", source)


@pytest.fixture
def watched(
    fitted_model: Face_Encode_Model, ada: ImageArray, mei: ImageArray
) -> Iterator[Callable[..., Cameras]]:
    opened: list[Cameras] = []

    def watch(**sources: str) -> Cameras:
        opened.append(Cameras(sources, fitted_model, video_detector("dlib_hog")))
        return opened[-1]

    yield watch
    for cameras in opened:
        cameras.close()


def test_two_cameras_and_one_that_is_cut_off(
    watched: Callable[..., Cameras], ada: ImageArray, mei: ImageArray
) -> None:
    # One sends far more than can be looked at, the other four pictures a second.
    with streaming(lambda _: ada, 100) as fast, streaming(lambda _: mei, 4) as slow:
        cameras = watched(fast=fast.address, slow=slow.address)
        assert [each["name"] for each in cameras.states()] == ["fast", "slow"]
        wait_until(lambda: names(states(cameras)["fast"]) == ["Ada_Mirova"])
        wait_until(lambda: names(states(cameras)["slow"]) == ["Mei_Oshara"])
        assert {each["state"] for each in cameras.states()} == {"live"}
        face = states(cameras)["slow"]["faces"][0]
        assert (face["name"], face["is_settled"]) == ("Mei_Oshara", True)
        fast.refuses = True
        fast.cut_off()
        wait_until(lambda: states(cameras)["fast"]["state"] == "lost")
        wait_until(lambda: names(states(cameras)["fast"]) == [])
        lost = states(cameras)["fast"]
        assert lost["faces"] == [] and lost["width"] is None
        assert cameras.picture("fast", 640, True) is None
        # The other one goes on.
        wait_until(lambda: names(states(cameras)["slow"]) == ["Mei_Oshara"])
        assert states(cameras)["fast"]["state"] == "lost"
        fast.refuses = False
        wait_until(lambda: names(states(cameras)["fast"]) == ["Ada_Mirova"])
        seen = [
            (event["source"], event["event"], event["name"])
            for event in cameras.events(0, 100)
            if event["event"] in ("arrived", "left")
        ]
        of_fast = [each[1:] for each in seen if each[0] == "fast"]
        # A machine that is busy looks too seldom, and somebody may seem to leave once more.
        assert of_fast[:3] == [
            ("arrived", "Ada_Mirova"),
            ("left", "Ada_Mirova"),
            ("arrived", "Ada_Mirova"),
        ]
        assert ("slow", "arrived", "Mei_Oshara") in seen
        last = cameras.events(0, 1)
        assert len(last) == 1 and cameras.events(last[0]["number"], 100) == []


def test_a_fast_camera_starves_no_slow_one(
    watched: Callable[..., Cameras], ada: ImageArray, mei: ImageArray
) -> None:
    with (
        streaming(lambda _: ada, 60) as fast,
        streaming(lambda _: ada, 60) as other,
        streaming(lambda _: mei, 2) as slow,
    ):
        cameras = watched(fast=fast.address, other=other.address, slow=slow.address)
        wait_until(lambda: names(states(cameras)["slow"]) == ["Mei_Oshara"])

        def is_fair() -> bool:
            rate = {name: state["frames_per_second"] for name, state in states(cameras).items()}
            # All that the slow one sends, or as much as the others get where this machine is busy.
            return bool(
                rate["slow"] >= 0.7 * min(2, rate["fast"])
                and rate["fast"] > 1
                and 0.5 < rate["other"] / rate["fast"] < 2
            )

        wait_until(is_fair)


def test_a_camera_that_stands_still_is_told(
    watched: Callable[..., Cameras], ada: ImageArray
) -> None:
    is_still = threading.Event()

    def frame(_: int) -> ImageArray:
        while is_still.is_set():
            time.sleep(0.01)
        return ada

    with streaming(frame, 10) as server:
        cameras = watched(front=server.address)
        wait_until(lambda: states(cameras)["front"]["state"] == "live")
        is_still.set()
        try:
            wait_until(lambda: states(cameras)["front"]["state"] == "stalled")
            still = states(cameras)["front"]
            assert still["people"] == [] and still["detail"] == "connected, and gives no picture"
            assert cameras.picture("front", 640, False) is None
        finally:
            is_still.clear()
        wait_until(lambda: names(states(cameras)["front"]) == ["Ada_Mirova"])


def test_nobody_is_there_after_a_fault_inside_the_program(
    fitted_model: Face_Encode_Model, ada: ImageArray
) -> None:
    class Faulty:
        """Fails in a way that is foreseen nowhere, once somebody has arrived."""

        def write(self, event: Mapping[str, Any]) -> None:
            if event["event"] == "arrived":
                raise RuntimeError("fault")

        def close(self) -> None:
            pass

    with streaming(lambda _: ada, 10) as server:
        detector, sinks = video_detector("dlib_hog"), {"front": [Faulty()]}
        sources = {"front": server.address}
        with closing(Cameras(sources, fitted_model, detector, sinks=sinks)) as cameras:
            wait_until(lambda: states(cameras)["front"]["state"] == "failed")
            wait_until(lambda: states(cameras)["front"]["people"] == [])
            assert "its log says more" in states(cameras)["front"]["detail"]


def test_events_that_cannot_be_written_are_counted_and_the_camera_goes_on(
    fitted_model: Face_Encode_Model, ada: ImageArray
) -> None:
    class FullForAWhile:
        """A file on a disk that is full until somebody makes room."""

        def __init__(self) -> None:
            self.is_full = True
            self.written: list[str] = []

        def write(self, event: Mapping[str, Any]) -> None:
            if self.is_full:
                raise VideoError("cannot write seen.jsonl: no space left on device")
            self.written.append(event["event"])

        def close(self) -> None:
            pass

    said: list[str] = []
    with streaming(lambda _: ada, 10) as server:
        file, detector = FullForAWhile(), video_detector("dlib_hog")
        sources, sinks = {"front": server.address}, {"front": [file]}
        with closing(
            Cameras(sources, fitted_model, detector, sinks=sinks, report=said.append)
        ) as cameras:
            wait_until(lambda: names(states(cameras)["front"]) == ["Ada_Mirova"])
            # That it began, and that she came; where others look, both are told.
            wait_until(lambda: states(cameras)["front"]["lost_events"] == 2)
            assert states(cameras)["front"]["state"] == "live"
            assert [each["event"] for each in cameras.events(0, 9)] == ["started", "arrived"]
            file.is_full = False
            server.cut_off()
            server.refuses = True
            wait_until(lambda: "left" in file.written)
        assert file.written == ["left", "stopped"]
    told = [line for line in said if "events are lost" in line]
    assert told == ["front: events are lost: cannot write seen.jsonl: no space left on device"]


def test_a_wrong_password_is_told_and_is_no_secret(watched: Callable[..., Cameras]) -> None:
    with saying(b"RTSP/1.0 401 Unauthorized\r\nCSeq: 1\r\n\r\n") as port:
        cameras = watched(front=f"rtsp://ada:geheim@127.0.0.1:{port}/1")
        wait_until(lambda: states(cameras)["front"]["state"] == "wrong-password")
        (state,) = cameras.states()
        assert "(401), and refuses those given" in state["detail"]
        assert "geheim" not in str(state)
        assert cameras.picture("front", 640, True) is None


def test_an_address_where_nobody_listens_is_told(watched: Callable[..., Cameras]) -> None:
    cameras = watched(nowhere="rtsp://127.0.0.1:1/1")
    wait_until(lambda: states(cameras)["nowhere"]["state"] == "lost")
    assert "127.0.0.1:1 does not answer" in states(cameras)["nowhere"]["detail"]


def test_pictures(watched: Callable[..., Cameras], ada: ImageArray) -> None:
    with streaming(lambda _: ada, 10) as server:
        cameras = watched(front=server.address)
        wait_until(lambda: names(states(cameras)["front"]) == ["Ada_Mirova"])

        def shown(width: int, annotated: bool) -> ImageArray:
            jpeg = cameras.picture("front", width, annotated)
            assert jpeg is not None
            with Image.open(io.BytesIO(jpeg)) as picture:
                return np.asarray(picture.convert("RGB"))

        plain, drawn = shown(10_000, False), shown(10_000, True)
        assert plain.shape == drawn.shape == ada.shape
        assert np.abs(plain.astype(int) - ada).mean() < 6
        assert np.abs(drawn.astype(int) - plain).mean() > 1
        small = shown(200, True)
        assert small.shape[1] == 200


def test_the_end_comes_soon_and_tells_who_has_left(
    fitted_model: Face_Encode_Model, ada: ImageArray
) -> None:
    with streaming(lambda _: ada, 10) as server:
        sources = {"front": server.address, "away": "rtsp://127.0.0.1:1/1"}
        with closing(Cameras(sources, fitted_model, video_detector("dlib_hog"))) as cameras:
            wait_until(lambda: names(states(cameras)["front"]) == ["Ada_Mirova"])
        last = [event["event"] for event in cameras.events(0, 100) if event["source"] == "front"]
        assert last == ["started", "arrived", "left", "stopped"]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("watch ")]
