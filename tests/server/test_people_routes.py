from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from urllib.parse import quote

import pytest
from fastapi.testclient import TestClient
from PIL import Image

from face_encode.encoders.encoder import Encoder
from face_encode.gallery.opening import load_gallery
from tests.conftest import EXAMPLES, VERIFY_DATASET
from tests.server.conftest import Serve

STRANGER = (EXAMPLES / "stranger.jpg").read_bytes()
ADA = (EXAMPLES / "ada_mirova.jpg").read_bytes()
INVENTED = ["Ada_Mirova", "Bruno_Castell", "Dario_Okonma", "Elin_Sorrel", "Mei_Oshara", "Teo_Varga"]


def names(client: TestClient) -> list[str]:
    return [person["name"] for person in client.get("/v1/people").json()["people"]]


def test_a_person_comes_is_found_renamed_and_goes(
    client: TestClient, service_folder: Path, encoder: Encoder
) -> None:
    def on_disk() -> dict[str, int]:
        return load_gallery(service_folder / "people.npz", encoder).people()

    photos = [("photos", ("a.jpg", STRANGER)), ("photos", ("notes.txt", b"no photo"))]
    answer = client.post("/v1/people", data={"name": "  Zoe\u0308 王 "}, files=photos)
    assert answer.status_code == 200
    assert answer.json() == {
        "name": "Zoë 王",
        "enrolled": 1,
        "reused": 0,
        "left_out": [{"photo": "notes.txt", "reason": "not a photo in a known format"}],
        "notes": [],
    }
    assert on_disk()["Zoë 王"] == 1
    (face,) = client.post("/v1/match", files={"photo": STRANGER}).json()["faces"]
    assert (face["name"], face["is_match"]) == ("Zoë 王", True)

    path = f"/v1/people/{quote('Zoë 王')}"
    assert client.get(path).json() == {"name": "Zoë 王", "photos": 1, "thumbnail": True}
    picture = client.get(f"{path}/thumbnail")
    assert picture.headers["content-type"] == "image/jpeg"
    assert max(Image.open(io.BytesIO(picture.content)).size) == 96

    answer = client.patch(path, json={"name": "Zoë Wang"})
    assert answer.json() == {"name": "Zoë Wang", "photos": 1, "thumbnail": True}
    assert client.get(path).status_code == 404
    assert "Zoë 王" not in on_disk() and on_disk()["Zoë Wang"] == 1

    answer = client.delete("/v1/people/Zo%C3%AB%20Wang")
    assert answer.json() == {"name": "Zoë Wang", "photos": 1}
    assert names(client) == INVENTED
    assert sorted(on_disk()) == INVENTED
    assert list((service_folder / "people.crops").iterdir()) == []

    log = (service_folder / "people.audit.jsonl").read_text().splitlines()
    lines = [json.loads(line) for line in log][-3:]
    assert [line["action"] for line in lines] == ["enrol", "rename", "remove"]
    assert {line["token"] for line in lines} == {"local"}
    assert lines[1]["person"] == "Zoë 王" and lines[1]["new_name"] == "Zoë Wang"
    assert max(map(len, log)) < 300  # no photo, no embedding


def test_enrolling_again_enrols_nothing_twice(client: TestClient) -> None:
    sent = {"name": "Again", "photos": [base64.b64encode(STRANGER).decode()] * 2}
    first, second = (client.post("/v1/people", json=sent).json() for _ in range(2))
    assert (first["enrolled"], first["reused"]) == (2, 1)
    assert (second["enrolled"], second["reused"]) == (2, 2)
    assert second["notes"] == ["photos 0: enrolled already", "photos 1: enrolled already"]
    assert client.delete("/v1/people/Again").json()["photos"] == 1


def test_likely_mistakes_are_noted(client: TestClient) -> None:
    answer = client.post("/v1/people", data={"name": "Ada again"}, files={"photos": ADA}).json()
    client.delete("/v1/people/Ada%20again")
    assert "looks like Ada_Mirova" in answer["notes"][0]
    same = (VERIFY_DATASET / "Teo_Varga" / "1.jpg").read_bytes()
    answer = client.post("/v1/people", data={"name": "Somebody"}, files={"photos": same}).json()
    client.delete("/v1/people/Somebody")
    assert any("the same photo is enrolled as Teo_Varga" in note for note in answer["notes"])


def test_no_usable_photo_changes_nothing(client: TestClient) -> None:
    photos = [("photos", ("a.txt", b"no")), ("photos", ("b.jpg", ADA[:999]))]
    answer = client.post("/v1/people", data={"name": "Nobody"}, files=photos)
    assert answer.status_code == 422
    assert [row["photo"] for row in answer.json()["left_out"]] == ["a.txt", "b.jpg"]
    assert names(client) == INVENTED


@pytest.mark.parametrize(
    "name", ["", "  ", "a/b", "..", ".hidden", "a\\b", "x" * 201, "a\nb", "\u202eevil"]
)
def test_what_is_no_name_is_told(client: TestClient, name: str) -> None:
    photo = base64.b64encode(STRANGER).decode()
    answer = client.post("/v1/people", json={"name": name, "photos": [photo]})
    assert answer.status_code == 422
    assert answer.json()["type"].endswith(":not-a-name")
    assert client.patch("/v1/people/Teo_Varga", json={"name": name}).status_code == 422
    assert names(client) == INVENTED


@pytest.mark.parametrize("name", [None, 3, ["a"], {"a": 1}, "\ud800"])
def test_a_name_is_text(client: TestClient, name: object) -> None:
    content = json.dumps({"name": name})
    headers = {"Content-Type": "application/json"}
    answer = client.patch("/v1/people/Teo_Varga", content=content, headers=headers)
    assert answer.status_code == 422


def test_nobody_of_that_name(client: TestClient) -> None:
    for method in ("GET", "DELETE"):
        answer = client.request(method, "/v1/people/Nobody")
        assert answer.status_code == 404
        assert answer.json()["type"].endswith(":nobody-of-that-name")
    assert client.patch("/v1/people/Nobody", json={"name": "A"}).status_code == 404
    assert client.get("/v1/people/Nobody/thumbnail").status_code == 404


def test_nobody_takes_anothers_name(client: TestClient) -> None:
    answer = client.patch("/v1/people/Teo_Varga", json={"name": "Mei_Oshara"})
    assert answer.status_code == 409
    assert names(client) == INVENTED


def test_pictures_are_kept_only_where_asked_for(serve: Serve, tmp_path: Path) -> None:
    with serve() as client:
        answer = client.post("/v1/people", data={"name": "A"}, files={"photos": STRANGER})
        assert answer.json()["enrolled"] == 1
        assert client.get("/v1/people/A").json()["thumbnail"] is False
        answer = client.get("/v1/people/A/thumbnail")
        assert answer.json()["type"].endswith(":no-thumbnail")
    assert not (tmp_path / "people.crops").exists()


def test_a_change_that_cannot_be_saved_is_none(serve: Serve, tmp_path: Path) -> None:
    with serve() as client:
        client.post("/v1/people", data={"name": "A"}, files={"photos": STRANGER})
        (tmp_path / "people.npz").rename(tmp_path / "kept.npz")
        # A folder stands in the file's place: every write fails, also for the superuser.
        (tmp_path / "people.npz").mkdir()
        answer = client.patch("/v1/people/A", json={"name": "B"})
        assert answer.status_code == 503
        assert answer.json()["type"].endswith(":not-saved")
        assert names(client) == ["A"]
        assert client.get("/readyz").status_code == 503
        (tmp_path / "people.npz").rmdir()
        assert client.patch("/v1/people/A", json={"name": "B"}).status_code == 200
        assert client.get("/readyz").status_code == 200
    lines = (tmp_path / "people.audit.jsonl").read_text().splitlines()
    assert [json.loads(line).get("failed", False) for line in lines] == [False, False, True, False]
