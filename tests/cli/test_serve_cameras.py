"""``face-encode serve --camera``: a service that watches, in processes of its own."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.machine import family
from benchmarks.serving import Client, RunningService
from benchmarks.streaming import StreamServer, streaming
from face_encode import client
from face_encode.cli import main
from face_encode.errors import ServiceError
from face_encode.photos.reading import read_image
from tests.conftest import VERIFY_DATASET
from tests.server import hostile

pytestmark = pytest.mark.skipif(os.name != "posix", reason="speaks of processes the POSIX way")

SECRET = "geheim"


def wait_until(holds: Callable[[], object], seconds: float = 180) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


@pytest.fixture(scope="module")
def stream() -> Iterator[StreamServer]:
    ada = np.ascontiguousarray(read_image(VERIFY_DATASET / "Ada_Mirova" / "1.jpg")[:, :392])
    with streaming(lambda _: ada, 10) as server:
        yield server


class Served:
    """A service with a camera, on people of its own."""

    def __init__(self, folder: Path, stream: StreamServer, *options: str) -> None:
        shutil.copytree(VERIFY_DATASET / "Mei_Oshara", folder / "people" / "Mei_Oshara")
        self.events = folder / "events.jsonl"
        # With name and password in the address, for which the stream does not ask.
        self._address = stream.address.replace("://", f"://ada:{SECRET}@")
        given = ("--people", str(folder / "people"), "--detector", "dlib_hog", "--workers", "1")
        self.service = RunningService(
            *given,
            *("--events", str(self.events), *options),
            environment={**hostile.TOKENS, "FACE_ENCODE_CAMERAS": f"front={self._address}"},
        )
        self.client = Client(self.service.port, hostile.WRITE)

    def camera(self, name: str = "front") -> dict[str, Any]:
        reply = self.client.request("GET", "/v1/cameras")
        cameras = reply.json["cameras"] if reply.status == 200 else []
        return next((each for each in cameras if each["name"] == name), {"state": "", "people": []})

    def names(self) -> list[str | None]:
        return [person["name"] for person in self.camera()["people"]]

    def written(self) -> list[tuple[str, str | None]]:
        lines = map(json.loads, self.events.read_text().splitlines())
        return [(line["event"], line.get("name")) for line in lines]

    def watching_process(self) -> int:
        """The process of the cameras: the only child that is not told to take a photo's core."""
        (found,) = (
            each
            for each in family(self.service.process_id)
            if b"cameras" in Path(f"/proc/{each}/cmdline").read_bytes()
        )
        return found


def test_who_is_enrolled_meanwhile_is_named_and_the_end_is_clean(
    tmp_path: Path, stream: StreamServer
) -> None:
    served = Served(tmp_path, stream, "--camera", "yard=rtsp://127.0.0.1:1/yard")
    try:
        wait_until(lambda: served.names() == [None])
        photos = sorted((VERIFY_DATASET / "Ada_Mirova").glob("*.jpg"))[1:]
        sent = [("photos", photo.read_bytes()) for photo in photos]
        assert served.client.post("/v1/people", sent, {"name": "Ada"}).status == 200
        wait_until(lambda: served.names() == ["Ada"])
        assert served.camera("yard")["state"] == "lost"
        reader = Client(served.service.port, hostile.READ)
        picture = reader.request("GET", "/v1/cameras/front/frame.jpg?width=300")
        assert picture.status == 200 and picture.content.startswith(b"\xff\xd8")
        assert picture.headers["content-type"] == "image/jpeg"
        with client.Client(f"http://127.0.0.1:{served.service.port}", hostile.READ) as typed:
            # Those of the options first.
            assert [camera["name"] for camera in typed.cameras()] == ["yard", "front"]
            wait_until(
                lambda: [person["name"] for person in typed.cameras()[1]["people"]] == ["Ada"]
            )
            plain = typed.camera_frame("front", width=300, annotated=False)
            assert plain.startswith(b"\xff\xd8")
            with pytest.raises(ServiceError) as refusal:
                typed.camera_frame("yard")
            assert (refusal.value.status, refusal.value.kind) == (404, "no-picture")
            numbered = typed.camera_events()
            assert numbered[0]["event"] == "started"
            assert typed.camera_events(numbered[-1]["number"]) == []
        stranger = Client(served.service.port)
        assert stranger.request("GET", "/v1/cameras").status == 401
        numbers = reader.request("GET", "/metrics").content.decode()
        live = 'face_encode_camera_state{camera="front",face_encode_camera_state="live"} 1.0'
        assert live in numbers
        assert 'face_encode_camera_people{camera="front"} 1.0' in numbers
        told = [
            numbers,
            *(
                reader.request("GET", path).content.decode()
                for path in ("/v1/cameras", "/v1/cameras/events", "/v1/settings")
            ),
            *(
                Path(f"/proc/{each}/cmdline").read_text()
                for each in family(served.service.process_id)
            ),
        ]
        processes = family(served.service.process_id)
        for each in (reader, stranger, served.client):
            each.close()
    finally:
        code = served.service.stop()
    assert code == -signal.SIGTERM
    told += [*served.service.lines, served.events.read_text()]
    assert not [text for text in told if SECRET in text]
    kinds = [each for each in served.written() if each[0] != "started"]
    assert kinds[0] == ("arrived", None)
    # Renamed, if this machine was not so busy that somebody seemed to leave in between.
    assert {("renamed", "Ada"), ("arrived", "Ada")} & set(kinds)
    assert kinds[-2:] == [("left", "Ada"), ("stopped", None)]
    wait_until(lambda: not any(Path(f"/proc/{each}").exists() for each in processes))
    assert not [line for line in served.service.lines if "Traceback" in line]


def test_a_killed_process_is_started_again_and_the_service_goes_on(
    tmp_path: Path, stream: StreamServer
) -> None:
    served = Served(tmp_path, stream)
    try:
        wait_until(lambda: served.camera()["state"] == "live")
        events = served.client.request("GET", "/v1/cameras/events").json["events"]
        killed = served.watching_process()
        os.kill(killed, signal.SIGKILL)
        # First, for it does not stay away for long.
        wait_until(lambda: served.client.request("GET", "/v1/cameras").status == 503)
        problem = served.client.request("GET", "/v1/cameras/front/frame.jpg")
        assert problem.json["type"].endswith("cameras-away")
        photo = (VERIFY_DATASET / "Mei_Oshara" / "1.jpg").read_bytes()
        assert served.client.post("/v1/match", [("photo", photo)]).status == 200
        assert served.client.request("GET", "/readyz").status == 200
        wait_until(lambda: served.camera()["state"] == "live")
        assert served.watching_process() != killed
        last = events[-1]["number"]
        later = served.client.request("GET", f"/v1/cameras/events?since={last}").json["events"]
        assert [event["event"] for event in later][:1] == ["started"]
    finally:
        served.client.close()
        served.service.stop()
    assert "the process of the cameras ended with code -9" in "".join(served.service.lines)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--camera", "rtsp://ada:geheim@host/1"], "a camera is NAME=SOURCE"),
        (["--camera", "rtsp://ada:geheim@host/1?a=b"], "a camera is NAME=SOURCE"),
        (["--camera", "front="], "a camera is NAME=SOURCE"),
        (["--camera", "front=film-geheim.mp4"], "the camera 'front' is a webcam's number"),
        (["--camera", "front=0", "--camera", "Front=1"], "two cameras have one name"),
        (["--events", "seen.jsonl"], "--events is about cameras, and there is no --camera"),
        (["--event-crops"], "--event-crops is about cameras"),
        (["--camera", "a b=0", "--camera", "a-b=1", "--mqtt", "mqtt://127.0.0.1:1"], "differ in"),
        (["--camera", "front=0", "--webhook", "ftp://geheim"], "a webhook's address begins with"),
        (["--camera", "front=0", "--events", "{}/people.txt"], "is no event file"),
    ],
)
def test_what_cannot_be_watched_is_told_at_the_start(
    options: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "people.txt").write_text("my list\n")
    given = [each.format(tmp_path) for each in options]
    people = str(tmp_path / "people.sqlite")
    assert main(["serve", "--port", "0", "--people", people, *given]) == 1
    output = capsys.readouterr()
    assert said in output.err
    assert "geheim" not in output.err + output.out
    assert not re.search("Traceback", output.err)


def test_a_stranger_before_a_camera_is_named_over_http(
    tmp_path: Path, stream: StreamServer
) -> None:
    served = Served(tmp_path, stream)
    try:
        wait_until(lambda: served.camera()["people"])
        (there,) = served.camera()["people"]
        assert (there["name"], there["unknown"]) == (None, "unknown-1")
        (person,) = served.client.request("GET", "/v1/unknown").json["people"]
        (face,) = person["faces"]
        assert (person["id"], face["source"]) == ("unknown-1", "front")
        crop = served.client.request("GET", f"/v1/unknown/faces/{face['id']}/crop")
        assert crop.content.startswith(b"\xff\xd8")
        body = json.dumps({"name": "Ada"}).encode()
        headers = {"Content-Type": "application/json"}
        answer = served.client.request("POST", "/v1/unknown/unknown-1/name", body, headers)
        assert answer.status == 200, answer.content
        wait_until(lambda: served.names() == ["Ada"])
        (there,) = served.camera()["people"]
        assert there["unknown"] is None
        photo = (VERIFY_DATASET / "Ada_Mirova" / "2.jpg").read_bytes()
        (found,) = served.client.post("/v1/match", [("photo", photo)], {}).json["faces"]
        assert (found["name"], found["is_match"]) == ("Ada", True)
        # Without the service its cameras' process ends, too, and tells who has left.
        os.kill(served.service.process_id, signal.SIGKILL)
        wait_until(lambda: served.written()[-2:] == [("left", "Ada"), ("stopped", None)])
    finally:
        served.client.close()
        served.service.stop()
    assert ("renamed", "Ada") in served.written()
