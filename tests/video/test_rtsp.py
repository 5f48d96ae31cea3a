"""A real RTSP server and camera on loopback, which are stopped, frozen and started again."""

from __future__ import annotations

import importlib.util
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import numpy as np
import pytest

from benchmarks.serving import Client, RunningService
from face_encode.model import Face_Encode_Model
from face_encode.photos.reading import read_image
from face_encode.video.output import Recorder
from face_encode.video.session import Outlets, Session
from face_encode.video.sources import Patience, open_source
from face_encode.video.watcher import Watcher, WatchSettings, video_detector
from tests.conftest import VERIFY_DATASET
from tests.video.test_sources import saying

_SERVER = shutil.which("rtsp-server-perl")
_HAS_CAMERA = importlib.util.find_spec("imageio_ffmpeg") is not None

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(_SERVER is None, reason="rtsp-server-perl is not installed"),
    pytest.mark.skipif(not _HAS_CAMERA, reason="imageio-ffmpeg is not installed"),
]


def wait_until(holds: Callable[[], object], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def is_listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


class RtspCamera:
    """FFmpeg as the camera, which shows a video again and again, and the server in front of it.

    A server has room for several cameras, and a machine for one such server.
    """

    def __init__(self, video: Path, path: str = "front", server: RtspCamera | None = None) -> None:
        self._video, self._path, self._has_server = video, path, server is None
        if server is None:
            with (
                socket.create_server(("127.0.0.1", 0)) as one,
                socket.create_server(("127.0.0.1", 0)) as other,
            ):
                self._port, self._inner = one.getsockname()[1], other.getsockname()[1]
        else:
            self._port, self._inner = server._port, server._inner
        self.address = f"rtsp://127.0.0.1:{self._port}/{path}"
        self._running: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        import imageio_ffmpeg

        assert _SERVER is not None
        listening = ["--client_listen_address", "127.0.0.1", "--source_listen_address", "127.0.0.1"]
        ports = ["--clientport", str(self._port), "--serverport", str(self._inner)]
        if self._has_server:
            self._running.append(subprocess.Popen([_SERVER, *ports, *listening]))
        wait_until(lambda: is_listening(self._inner) and is_listening(self._port))
        command = [imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", "-re"]
        command += ["-stream_loop", "-1", "-i", str(self._video), "-c", "copy", "-f", "rtsp"]
        address = f"rtsp://127.0.0.1:{self._inner}/{self._path}"
        self._running.append(subprocess.Popen([*command, address]))

    def freeze(self) -> None:
        self._running[-1].send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self._running[-1].send_signal(signal.SIGCONT)

    def close(self) -> None:
        for process in reversed(self._running):
            # A camera that is killed does not tell the server, which then takes no other of its
            # name.
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(10)
            process.kill()
            process.wait()
        self._running.clear()


def film_of(person: str, folder: Path) -> Path:
    """A video in which somebody stands there."""
    photo = np.ascontiguousarray(read_image(VERIFY_DATASET / person / "1.jpg")[:, :392])
    with Recorder(folder / f"{person}.mp4", 10.0) as recorder:
        for number in range(50):
            recorder.write(photo, number / 10)
    return folder / f"{person}.mp4"


@pytest.fixture
def camera(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RtspCamera]:
    # The server sends by UDP only; OpenCV asks for TCP unless told otherwise.
    monkeypatch.setenv("OPENCV_FFMPEG_CAPTURE_OPTIONS", "rtsp_transport;udp")
    with closing(RtspCamera(film_of("Ada_Mirova", tmp_path))) as camera:
        camera.start()
        yield camera


def test_presence_over_a_stream_that_is_frozen_stopped_and_started_again(
    camera: RtspCamera, fitted_model: Face_Encode_Model
) -> None:
    said: list[str] = []
    heard: list[tuple[str, str | None, str]] = []

    def is_there() -> bool:
        return bool(heard) and heard[-1][:2] == ("arrived", "Ada_Mirova")

    patience = Patience(0.2, 1.0, in_all=120)
    deadline, source = time.monotonic() + 120, None
    while source is None:
        try:
            source = open_source(camera.address, patience=patience, report=said.append)
        except Exception:
            # FFmpeg has not announced its stream to the server yet.
            assert time.monotonic() < deadline
            time.sleep(0.2)
    watcher = Watcher(fitted_model, video_detector("dlib_hog"), WatchSettings(detect_every=2))
    outlets = Outlets(
        on_event=lambda event: heard.append(
            (event.kind, event.appearance.name, event.appearance.id)
        )
    )
    is_over = threading.Event()
    session = Session(source, watcher, outlets)
    thread = threading.Thread(target=session.run, args=(is_over.is_set,))
    thread.start()
    try:
        wait_until(is_there)
        camera.freeze()
        frozen_at = time.monotonic()
        wait_until(lambda: heard[-1][0] == "left")
        wait_until(lambda: any("no picture for 2 seconds" in line for line in said))
        # Long before OpenCV's own five seconds would be a loss, on a machine that is not busy.
        told_after = time.monotonic() - frozen_at
        camera.go_on()
        wait_until(is_there)
        camera.close()
        wait_until(lambda: heard[-1][0] == "left")
        wait_until(lambda: any("lost; trying again" in line for line in said))
        camera.start()
        wait_until(is_there)
    finally:
        is_over.set()
        thread.join(60)
        source.close()
    assert told_after < 60
    assert any("gives pictures again" in line for line in said)
    assert any("back after" in line for line in said)
    assert [kind for kind, *_ in heard] == ["arrived", "left"] * 3
    assert len({name for *_, name in heard}) == 3


def test_a_service_watches_one_camera_while_the_other_is_frozen_stopped_and_started_again(
    camera: RtspCamera, tmp_path: Path
) -> None:
    (tmp_path / "people").symlink_to(VERIFY_DATASET)
    refusal = b"RTSP/1.0 401 Unauthorized\r\nCSeq: 1\r\n\r\n"
    front = RtspCamera(film_of("Mei_Oshara", tmp_path), "side", camera)
    with saying(refusal) as port, closing(front):
        front.start()
        sources = {
            "front": front.address,
            "yard": camera.address,
            "gate": f"rtsp://ada:wrong@127.0.0.1:{port}/1",
        }
        given = ["--people", str(tmp_path / "people"), "--detector", "dlib_hog", "--workers", "1"]
        for name, address in sources.items():
            given += ["--camera", f"{name}={address}"]
        with RunningService(*given) as service, closing(Client(service.port)) as client:

            def is_so(name: str, state: str, *people: str) -> bool:
                cameras = client.request("GET", "/v1/cameras").json["cameras"]
                (found,) = (each for each in cameras if each["name"] == name)
                there = tuple(person["name"] for person in found["people"])
                return bool(found["state"] == state and there == people)

            wait_until(lambda: is_so("front", "live", "Mei_Oshara"))
            wait_until(lambda: is_so("yard", "live", "Ada_Mirova"))
            wait_until(lambda: is_so("gate", "wrong-password"))
            front.freeze()
            wait_until(lambda: is_so("front", "stalled"))
            wait_until(lambda: is_so("yard", "live", "Ada_Mirova"))
            front.go_on()
            wait_until(lambda: is_so("front", "live", "Mei_Oshara"))
            front.close()
            wait_until(lambda: is_so("front", "lost"))
            wait_until(lambda: is_so("yard", "live", "Ada_Mirova"))
            front.start()
            wait_until(lambda: is_so("front", "live", "Mei_Oshara"))
            events = client.request("GET", "/v1/cameras/events").json["events"]
            told = "\n".join(service.lines)
    seen = [event["event"] for event in events if event["source"] == "front"]
    # At least: a machine that is busy looks too seldom, and somebody may seem to leave once more.
    assert seen[0] == "started" and seen.count("arrived") >= 3 and seen.count("left") >= 2
    assert "front: no picture for 2 seconds" in told
    assert "front: lost; trying again" in told
    assert "gate: the server asks for name and password (401), and refuses those given" in told
    assert "wrong@" not in told
