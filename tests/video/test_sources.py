from __future__ import annotations

import os
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from benchmarks.streaming import streaming
from face_encode.errors import InputError, VideoError, WrongPasswordError
from face_encode.types import ImageArray
from face_encode.video.frames import Frame
from face_encode.video.output import Recorder
from face_encode.video.sources import Camera, Patience, RecordedVideo, open_source, without_password
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
    """A container that states no time and an impossible rate."""

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


def test_time_is_counted_where_the_file_states_none() -> None:
    source = RecordedVideo(Timeless(3), "timeless")
    assert [frame.seconds for frame in source.frames() if frame] == pytest.approx([0, 0.04, 0.08])


def test_a_video_without_frames_is_an_error() -> None:
    with pytest.raises(VideoError, match="without a single frame"):
        list(RecordedVideo(Timeless(0), "empty").frames())


def written(path: Path, codec: str, frames: int, rate: float = 10) -> Path:
    """A video of noise, so that no frame is much smaller than another one."""
    noise = np.random.default_rng(0).integers(0, 256, (frames, 48, 64, 3), np.uint8)
    if path.suffix == ".gif":
        first, *rest = map(Image.fromarray, noise)
        first.save(path, save_all=True, append_images=rest, duration=1000 / rate)
        return path
    code = cv2.VideoWriter.fourcc(*codec)
    writer = cv2.VideoWriter(os.fspath(path), cv2.CAP_FFMPEG, code, rate, (64, 48))
    assert writer.isOpened()
    for image in noise:
        writer.write(image)
    writer.release()
    return path


KINDS = {
    "mp4": "mp4v",
    "mov": "mp4v",
    "avi": "MJPG",
    "mkv": "MJPG",
    "webm": "VP80",
    "gif": "",
    "mpg": "mpg1",
    "wmv": "WMV2",
}


@pytest.mark.parametrize("frames", [1, 2, 45])
@pytest.mark.parametrize("kind", KINDS)
def test_a_whole_video_never_breaks_off(
    tmp_path: Path, kind: str, frames: int, caplog: pytest.LogCaptureFixture
) -> None:
    video = written(tmp_path / f"whole.{kind}", KINDS[kind], frames, 25)
    assert len(list(open_source(video).frames())) == frames
    assert not caplog.messages


def test_a_video_that_breaks_off_is_told_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = written(tmp_path / "whole.avi", "MJPG", 60).read_bytes()
    (tmp_path / "half.avi").write_bytes(whole[: len(whole) // 2])
    source = open_source(tmp_path / "half.avi")
    frames = source.frames()
    # Who stops before the end is not told of it.
    assert next(frames) is not None
    frames.close()  # type: ignore[attr-defined]
    assert not caplog.messages
    taken = list(open_source(tmp_path / "half.avi").frames())
    assert 25 < len(taken) < 35
    (told,) = caplog.messages
    assert f"has 60 frames by what it states, of which {len(taken)} were read" in told


@pytest.mark.parametrize(
    ("stated", "rate", "frames", "is_whole"),
    [
        (200, 25, 100, False),
        (200, 25, 179, True),
        (30, 25, 15, True),
        # A rate that the frames do not keep: they fill the length all the same.
        (8000, 1000, 200, True),
        (200, 0, 100, True),
        (-9e15, 25, 100, True),
        (float("nan"), 25, 100, True),
    ],
)
def test_a_video_breaks_off_where_much_is_missing(
    stated: float, rate: float, frames: int, is_whole: bool, caplog: pytest.LogCaptureFixture
) -> None:
    class Stating(Timeless):
        """States its frames and its rate."""

        def get(self, property_number: int) -> float:
            known = {cv2.CAP_PROP_FRAME_COUNT: stated, cv2.CAP_PROP_FPS: rate}
            return known.get(property_number, float("nan"))

    source = RecordedVideo(Stating(frames), "stating")
    assert len(list(source.frames())) == frames
    assert bool(caplog.messages) != is_whole


def test_a_file_that_is_no_video_is_an_error(tmp_path: Path, counted_video: Path) -> None:
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


def test_a_value_that_is_no_source_is_an_error() -> None:
    for wrong in (None, True, 1.5, b"0"):
        with pytest.raises(InputError, match=r"a webcam's number, an address or the path"):
            open_source(wrong)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="0 or more"):
        open_source(-1)
    with pytest.raises(InputError, match="not empty"):
        open_source("")
    no_host = ("ftp://host/video", "rtsp://", "http://[::1", "file:///etc/passwd")
    for address in (*no_host, "rtsp://host:99999/1", "rtsp://host:front/1", "http://host:0/1"):
        with pytest.raises(InputError, match="begins with one of rtsp://"):
            open_source(address)


def test_a_camera_that_is_not_there_is_an_error() -> None:
    with pytest.raises(VideoError, match="camera 97: no such camera"):
        open_source("97")


def test_a_name_that_no_host_can_have_is_an_error() -> None:
    with pytest.raises(VideoError, match=r"a\.\.b/1: a\.\.b is no name that a host can have"):
        open_source("rtsp://a..b/1")


def test_passwords_are_not_shown() -> None:
    for password in ("secret", "s:e/cret", "sec@ret", "1/@", ""):
        shown = without_password(f"rtsp://ada:{password}@host:554/1")
        assert shown == "rtsp://ada:***@host:554/1"
    assert without_password("rtsp://a@da:secret@host/1") == "rtsp://a@da:***@host/1"
    assert without_password("rtsp://ada@host:554/1") == "rtsp://ada@host:554/1"
    query = "http://cam:80/x.cgi?user=a@b&pwd=secret&12345&channel=2"
    assert without_password(query) == "http://cam:80/x.cgi?user=***&pwd=***&***&channel=2"
    assert without_password("rtsp://ada:12?34@host/1") == "rtsp://***"
    assert without_password("http://cam/x#secret") == "http://cam/x"


@pytest.mark.parametrize("password", ["kept/hidden", "kept#hidden", "kept?hidden"])
@pytest.mark.parametrize("scheme", ["rtsp", "ftp"])
def test_an_address_that_cannot_be_read_is_not_repeated(scheme: str, password: str) -> None:
    with pytest.raises(InputError, match="is written %2F") as error:
        open_source(f"{scheme}://user:{password}@host/1")
    assert "kept" not in str(error.value) and "hidden" not in str(error.value)


QUICK = Patience(first=0.02, longest=0.05, in_all=30)


class Plug:
    """A camera that can be pulled out: what is opened while it is out is not there."""

    def __init__(self, frames_per_second: float = 200.0) -> None:
        self.is_in = True
        self.opened = 0
        self.released = 0
        self.given = 0
        self.is_still = threading.Event()
        self._wait = 1 / frames_per_second

    def open(self) -> PluggedCapture:
        self.opened += 1
        return PluggedCapture(self)

    def next(self) -> tuple[bool, Any]:
        time.sleep(self._wait)
        while self.is_still.is_set():
            time.sleep(0.01)
        if not self.is_in:
            return False, None
        self.given += 1
        return True, np.full((4, 6, 3), self.given % 256, np.uint8)


class PluggedCapture:
    def __init__(self, plug: Plug) -> None:
        self._plug = plug
        self._is_open = plug.is_in

    def isOpened(self) -> bool:
        return self._is_open

    def read(self) -> tuple[bool, Any]:
        found, image = self._plug.next() if self._is_open else (False, None)
        self._is_open = found
        return found, image

    def get(self, property_number: int) -> float:
        return 30.0 if property_number == cv2.CAP_PROP_FPS else 0.0

    def release(self) -> None:
        self._plug.released += 1


def take(frames: Iterator[Frame | None], wanted: Callable[[Frame | None], bool]) -> Frame | None:
    """The first of the frames that is wanted; fails after a time."""
    deadline = time.monotonic() + 30
    for frame in frames:
        if wanted(frame):
            return frame
        assert time.monotonic() < deadline
    raise AssertionError("the frames ended")


def test_a_camera_that_is_pulled_out_and_put_back_reconnects() -> None:
    plug, said = Plug(), list[str]()
    camera = Camera(plug.open, "camera 0", patience=QUICK, report=said.append)
    frames = camera.frames()
    before = take(frames, lambda frame: frame is not None)
    plug.is_in = False
    take(frames, lambda _: plug.opened >= 2)
    plug.is_in = True
    given = plug.given
    after = take(frames, lambda frame: frame is not None and plug.given > given)
    camera.close()
    assert camera.is_live and camera.frames_per_second == 30
    assert before is not None and after is not None
    assert after.number > before.number and after.seconds > before.seconds
    assert camera.losses == 1
    assert said[0] == "camera 0: lost; trying again"
    assert re.fullmatch(r"camera 0: back after \d+\.\d seconds", said[-1])
    assert plug.released == plug.opened  # nothing is left open


def test_a_camera_that_stays_away_is_given_up() -> None:
    plug = Plug()
    camera = Camera(plug.open, "camera 0", patience=replace(QUICK, in_all=1.5))
    frames = camera.frames()
    take(frames, lambda frame: frame is not None)
    plug.is_in = False
    with pytest.raises(VideoError, match=r"camera 0: lost, and not back after 1\.5 seconds"):
        take(frames, lambda _: False)
    camera.close()
    assert plug.opened > 3


def test_none_comes_while_nothing_comes() -> None:
    plug = Plug()
    camera = Camera(plug.open, "camera 0", patience=Patience(in_all=60))
    frames = camera.frames()
    take(frames, lambda frame: frame is not None)
    plug.is_in = False
    assert take(frames, lambda frame: frame is None) is None
    camera.close()  # also while it is waited for
    assert "camera camera 0" not in [thread.name for thread in threading.enumerate()]
    assert list(frames) == []


def test_frames_that_are_not_taken_in_time_are_passed_over() -> None:
    plug = Plug(frames_per_second=500)
    camera = Camera(plug.open, "camera 0", patience=QUICK)
    frames = camera.frames()
    take(frames, lambda frame: frame is not None)
    deadline = time.monotonic() + 30
    while plug.given <= 20 and time.monotonic() < deadline:
        time.sleep(0.01)
    plug_now = plug.given
    late = next(frames)
    camera.close()
    assert late is not None
    # What comes is what the camera gave just now, not what it gave when the last one was taken.
    assert late.number >= plug_now - 2
    assert late.number > 10
    assert late.image[0, 0, 0] == (late.number + 1) % 256


def test_a_camera_that_is_not_there_is_an_error_at_once() -> None:
    plug = Plug()
    plug.is_in = False
    with pytest.raises(VideoError, match="camera 3: no such camera"):
        Camera(plug.open, "camera 3")
    assert threading.active_count() < 50
    assert plug.released == 1


def bright(number: int) -> ImageArray:
    image = np.zeros((48, 64, 3), np.uint8)
    image[..., 0] = 220
    return image


def test_a_real_stream_that_breaks_off_comes_back() -> None:
    with streaming(bright, 50) as server:
        said: list[str] = []
        camera = open_source(server.address, patience=Patience(0.05, 0.2, 30), report=said.append)
        assert isinstance(camera, Camera)
        frames = camera.frames()
        first = take(frames, lambda frame: frame is not None)
        assert first is not None
        assert first.image[..., 0].mean() > 180 > 40 > first.image[..., 2].mean()
        server.refuses = True
        server.cut_off()
        take(frames, lambda _: camera.losses == 1)
        connections = server.connections
        server.refuses = False
        again = take(frames, lambda frame: frame is not None and server.connections > connections)
        camera.close()
    assert again is not None and again.number > first.number
    assert said[0] == f"{server.address}: lost; trying again"
    assert "back after" in said[-1]


def test_a_port_where_nobody_listens_is_an_error() -> None:
    with streaming(bright) as server:
        address = server.address.replace("http://", "http://ada:secret@")
    with pytest.raises(VideoError, match=r"http://ada:\*\*\*@127.*does not answer"):
        open_source(address)


@contextmanager
def saying(answer: bytes) -> Iterator[int]:
    """A server that answers everything so; gives its port."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            with suppress(OSError):
                while True:
                    client, _ = listening.accept()
                    with client:
                        client.recv(4096)
                        client.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield listening.getsockname()[1]
        listening.shutdown(socket.SHUT_RDWR)
        thread.join()


@pytest.mark.parametrize(
    ("answer", "path", "said"),
    [
        (b"RTSP/1.0 401 Unauthorized\r\nCSeq: 1\r\n\r\n", "rtsp://{}/1", "asks for name and pass"),
        (b"RTSP/1.0 401 Unauthorized\r\nCSeq: 1\r\n\r\n", "rtsp://a:b@{}/1", "refuses those given"),
        (b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n", "http://a:b@{}/", "(401)"),
        (b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n", "http://{}/", "is refused (403)"),
        (b"RTSP/1.0 404 Not Found\r\nCSeq: 1\r\n\r\n", "rtsp://{}/1", "no stream of this path"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", "http://{}/", "no video in a known"),
        (b"", "https://{}/", "no encrypted connection"),
        (b"?", "rtmp://{}/", "no video in a known"),
    ],
)
def test_a_stream_that_is_not_given_says_why(answer: bytes, path: str, said: str) -> None:
    with (
        saying(answer) as port,
        pytest.raises(VideoError, match=re.escape(said)) as error,
    ):
        open_source(path.format(f"127.0.0.1:{port}"))
    assert "a:b@" not in str(error.value)


def test_a_password_that_is_wrong_after_a_loss_is_told() -> None:
    plug, said = Plug(), list[str]()
    camera = Camera(
        plug.open,
        "front",
        why_not=lambda name: WrongPasswordError(f"{name}: refuses the password (401)"),
        patience=QUICK,
        report=said.append,
    )
    frames = camera.frames()
    take(frames, lambda frame: frame is not None)
    plug.is_in = False
    take(frames, lambda _: isinstance(camera.trouble, WrongPasswordError))
    opened = plug.opened
    # Not again at once: many cameras shut out who does that.
    deadline = time.monotonic() + 0.5
    take(frames, lambda _: time.monotonic() > deadline)
    assert plug.opened == opened
    camera.close()
    assert said == ["front: lost; trying again", "front: refuses the password (401)"]


def test_a_frame_is_taken_when_the_turn_has_come() -> None:
    plug, turn = Plug(frames_per_second=500), threading.Lock()
    camera = Camera(plug.open, "camera 0", patience=QUICK, turn=turn)
    frames = camera.frames()
    take(frames, lambda frame: frame is not None)
    assert turn.locked()
    take(frames, lambda frame: frame is not None)
    frames.close()  # type: ignore[attr-defined]
    assert not turn.locked()
    given = plug.given
    with turn:
        taken: list[Frame | None] = []
        waiting = threading.Thread(target=lambda: taken.extend([next(camera.frames())]))
        waiting.start()
        deadline = time.monotonic() + 30
        while plug.given < given + 50 and time.monotonic() < deadline:
            time.sleep(0.01)
        now = plug.given
    waiting.join()
    camera.close()
    # Not the one that was there when the turn was asked for.
    (frame,) = taken
    assert frame is not None and frame.number >= now - 2


def test_a_camera_that_stands_still_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("face_encode.video.sources.STALL_SECONDS", 0.3)
    plug, said = Plug(), list[str]()
    camera = Camera(plug.open, "camera 0", patience=Patience(in_all=60), report=said.append)
    frames = camera.frames()
    take(frames, lambda frame: frame is not None)
    plug.is_still.set()
    take(frames, lambda _: bool(said))
    plug.is_still.clear()
    take(frames, lambda _: len(said) > 1)
    camera.close()
    assert said == ["camera 0: no picture for 0.3 seconds", "camera 0: gives pictures again"]
