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
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from face_encode.model import Face_Encode_Model
from face_encode.photos.reading import read_image
from face_encode.video.output import Recorder
from face_encode.video.session import Outlets, Session
from face_encode.video.sources import Patience, open_source
from face_encode.video.watcher import Watcher, WatchSettings, video_detector
from tests.conftest import VERIFY_DATASET

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
    """FFmpeg as the camera, which shows a video again and again, and the server in front of it."""

    def __init__(self, video: Path) -> None:
        self._video = video
        with (
            socket.create_server(("127.0.0.1", 0)) as one,
            socket.create_server(("127.0.0.1", 0)) as other,
        ):
            self._port, self._inner = one.getsockname()[1], other.getsockname()[1]
        self.address = f"rtsp://127.0.0.1:{self._port}/front"
        self._running: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        import imageio_ffmpeg

        assert _SERVER is not None
        listening = ["--client_listen_address", "127.0.0.1", "--source_listen_address", "127.0.0.1"]
        ports = ["--clientport", str(self._port), "--serverport", str(self._inner)]
        self._running.append(subprocess.Popen([_SERVER, *ports, *listening]))
        wait_until(lambda: is_listening(self._inner) and is_listening(self._port))
        command = [imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", "-re"]
        command += ["-stream_loop", "-1", "-i", str(self._video), "-c", "copy", "-f", "rtsp"]
        address = f"rtsp://127.0.0.1:{self._inner}/front"
        self._running.append(subprocess.Popen([*command, address]))

    def freeze(self) -> None:
        self._running[1].send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self._running[1].send_signal(signal.SIGCONT)

    def close(self) -> None:
        for process in self._running:
            process.kill()
            process.wait()
        self._running.clear()


@pytest.fixture
def camera(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RtspCamera]:
    # The server sends by UDP only; OpenCV asks for TCP unless told otherwise.
    monkeypatch.setenv("OPENCV_FFMPEG_CAPTURE_OPTIONS", "rtsp_transport;udp")
    photo = np.ascontiguousarray(read_image(VERIFY_DATASET / "Ada_Mirova" / "1.jpg")[:, :392])
    with Recorder(tmp_path / "ada.mp4", 10.0) as recorder:
        for number in range(50):
            recorder.write(photo, number / 10)
    with closing(RtspCamera(tmp_path / "ada.mp4")) as camera:
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
