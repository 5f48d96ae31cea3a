"""The routes of a service with cameras, and of one without."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from face_encode.errors import InputError, VideoError
from face_encode.gallery.database import DatabaseGallery
from face_encode.model import Face_Encode_Model
from face_encode.video.camera_process import CameraProcess, CameraSettings
from tests.server.conftest import served
from tests.video.test_cameras import wait_until


@pytest.fixture(scope="module")
def watching(
    fitted_model: Face_Encode_Model, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[TestClient]:
    """A service whose two cameras are away."""
    folder = tmp_path_factory.mktemp("watching")
    fitted_model.save_gallery(folder / "people.sqlite")
    sources = {"front": "rtsp://ada:geheim@127.0.0.1:1/1", "Hof – 前": "rtsp://127.0.0.1:1/2"}
    cameras = CameraProcess(CameraSettings(sources, folder / "people.sqlite"))
    cameras.start()
    with closing(cameras), served(fitted_model, folder, cameras=cameras) as client:
        yield client


def test_a_service_without_cameras(client: TestClient) -> None:
    assert client.get("/v1/cameras").json() == {"cameras": []}
    assert client.get("/v1/cameras/events").json() == {"events": []}
    answer = client.get("/v1/cameras/front/frame.jpg")
    assert answer.status_code == 404
    assert answer.json()["type"] == "urn:face-encode:problem:no-such-camera"
    assert "face_encode_camera" not in client.get("/metrics").text


def test_cameras_that_are_away(watching: TestClient) -> None:
    def states() -> list[str]:
        return [each["state"] for each in watching.get("/v1/cameras").json()["cameras"]]

    wait_until(lambda: states() == ["lost", "lost"])
    first, second = watching.get("/v1/cameras").json()["cameras"]
    assert first == {
        "name": "front",
        "state": "lost",
        "since": first["since"],
        "detail": first["detail"],
        "frames_per_second": 0.0,
        "people": [],
        "lost_events": 0,
        "width": None,
        "height": None,
        "faces": [],
    }
    assert first["detail"].startswith("127.0.0.1:1 does not answer")
    assert second["name"] == "Hof – 前"
    for name in ("front", "FRONT", "Hof – 前"):
        answer = watching.get(f"/v1/cameras/{name}/frame.jpg")
        assert answer.status_code == 404
        assert answer.json()["type"] == "urn:face-encode:problem:no-picture"
    assert watching.get("/v1/cameras/back/frame.jpg").json()["type"].endswith("no-such-camera")
    assert watching.get("/v1/cameras/events").json() == {"events": []}
    lost = 'face_encode_camera_state{camera="front",face_encode_camera_state="lost"} 1.0'
    numbers = watching.get("/metrics").text
    assert lost in numbers
    assert 'face_encode_camera_lost_events_total{camera="front"} 0.0' in numbers


@pytest.mark.parametrize(
    "path",
    [
        "cameras?name=front",
        "cameras/events?since=-1",
        "cameras/events?count=501",
        "cameras/front/frame.jpg?width=10",
        "cameras/front/frame.jpg?size=10",
        "cameras/front/frame.jpg?annotated=perhaps",
    ],
)
def test_options_out_of_range_are_refused(watching: TestClient, path: str) -> None:
    assert watching.get(f"/v1/{path}").status_code == 422


def test_what_cannot_be_watched_is_an_error_at_the_start(
    fitted_model: Face_Encode_Model, tmp_path: Path
) -> None:
    people = tmp_path / "people.sqlite"
    with pytest.raises(InputError, match="the camera 'front' is a webcam's number"):
        CameraProcess(CameraSettings({"front": "film.mp4"}, people))
    settings = CameraSettings({"front": "0"}, people, webhook="no address")
    assert "no address" not in repr(settings)
    with (
        closing(CameraProcess(settings)) as cameras,
        pytest.raises(InputError, match="a webhook's address begins with"),
    ):
        cameras.start()
    assert not people.exists()
    DatabaseGallery(people, fitted_model.encoder).close()


def test_a_closed_process_answers_no_more(fitted_model: Face_Encode_Model, tmp_path: Path) -> None:
    fitted_model.save_gallery(tmp_path / "people.sqlite")
    cameras = CameraProcess(
        CameraSettings({"front": "rtsp://127.0.0.1:1/1"}, tmp_path / "people.sqlite")
    )
    with pytest.raises(VideoError, match="does not answer"):
        cameras.states().result(60)
    cameras.start()
    assert cameras.names == ("front",)
    assert [each["name"] for each in cameras.states().result(60)] == ["front"]
    cameras.close()
    cameras.close()
