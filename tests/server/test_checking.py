"""The look before an enrolment, and the choice of a face among several."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient
from PIL import Image, ImageFilter

from tests.conftest import EXAMPLES, VERIFY_DATASET
from tests.server.conftest import Serve

GROUP = (EXAMPLES / "group.jpg").read_bytes()
ADA, BRUNO, ELIN = ("Ada_Mirova", "Bruno_Castell", "Elin_Sorrel")


def photo(name: str, number: int) -> bytes:
    return (VERIFY_DATASET / name / f"{number}.jpg").read_bytes()


@pytest.fixture
def client(serve: Serve) -> Iterator[TestClient]:
    """A service that knows two photos of Ada and one of Bruno."""
    with serve(keep_crops=True) as client:
        enrol(client, ADA, photo(ADA, 1), photo(ADA, 2))
        enrol(client, BRUNO, photo(BRUNO, 1))
        yield client


def sent(photos: tuple[bytes, ...]) -> list[tuple[str, tuple[str, bytes]]]:
    return [("photos", (f"{number}.jpg", each)) for number, each in enumerate(photos)]


def check(client: TestClient, name: str, *photos: bytes) -> list[dict[str, Any]]:
    answer = client.post("/v1/people/check", data={"name": name}, files=sent(photos))
    assert answer.status_code == 200, answer.text
    checked: list[dict[str, Any]] = answer.json()["photos"]
    return checked


def enrol(client: TestClient, name: str, *photos: bytes, faces: str | None = None) -> Any:
    data = {"name": name} if faces is None else {"name": name, "faces": faces}
    answer = client.post("/v1/people", data=data, files=sent(photos))
    assert answer.status_code == 200, answer.text
    return answer.json()


def kinds(face: dict[str, Any]) -> list[str]:
    return [doubt["kind"] for doubt in face["doubts"]]


def people(client: TestClient) -> dict[str, int]:
    return {each["name"]: each["photos"] for each in client.get("/v1/people").json()["people"]}


def test_likely_mistakes_are_told_and_nothing_is_changed(client: TestClient) -> None:
    before = people(client)
    good, wrong, nothing = check(client, "ada_mirova", photo(ADA, 3), photo(BRUNO, 2), b"no photo")
    assert [each["photo"] for each in (good, wrong, nothing)] == ["0.jpg", "1.jpg", "2.jpg"]
    assert kinds(good["faces"][0]) == []
    assert good["faces"][0]["likeness"] > 0.9
    assert good["faces"][0]["bounding_box"]["width"] > 50
    # It is Bruno, and like none of Ada's photos.
    (face,) = wrong["faces"]
    assert kinds(face) == ["looks like another", "unlike the others"]
    assert face["doubts"][0]["person"] == BRUNO
    assert f"looks like {BRUNO} (similarity 0.9" in face["doubts"][0]["text"]
    assert f"unlike every other photo of {ADA}" in face["doubts"][1]["text"]
    assert nothing["faces"] == [] and nothing["face"] is None
    assert "not a photo" in nothing["error"]
    assert people(client) == before
    assert client.get("/v1/changes").json()["changes"][-1]["action"] == "enrol"
    assert len(client.get("/v1/changes").json()["changes"]) == 2


def test_photos_of_somebody_new_are_compared_with_each_other(client: TestClient) -> None:
    assert check(client, "New", photo(ELIN, 1))[0]["faces"][0]["likeness"] is None
    one, other = check(client, "New", photo(ELIN, 1), photo(ELIN, 2))
    assert kinds(one["faces"][0]) == kinds(other["faces"][0]) == []
    stranger = (EXAMPLES / "stranger.jpg").read_bytes()
    told = check(client, "New", photo(ELIN, 1), photo(ELIN, 2), stranger)
    assert [kinds(each["faces"][0]) for each in told] == [[], [], ["unlike the others"]]


def test_blurred_and_small_faces_are_doubted(client: TestClient) -> None:
    with Image.open(io.BytesIO(photo(ELIN, 1))) as image, io.BytesIO() as blurred:
        image.filter(ImageFilter.GaussianBlur(6)).save(blurred, "PNG")
        (told,) = check(client, "New", blurred.getvalue())
    assert [kinds(face) for face in told["faces"]] == [["blurred face"]]
    assert told["faces"][0]["doubts"][0]["text"] == "too blurred to trust"


def test_the_face_that_is_meant_is_found_and_chosen(client: TestClient) -> None:
    (told,) = check(client, ADA, GROUP)
    assert len(told["faces"]) == 5
    # Not the largest, but the one that is like Ada's other photos.
    meant = told["face"]
    assert [face["likeness"] > 0.9 for face in told["faces"]] == [n == meant for n in range(5)]
    assert kinds(told["faces"][meant]) == []
    bruno = next(n for n in range(5) if "looks like another" in kinds(told["faces"][n]))
    assert bruno != meant
    # Of somebody who is new nobody can say.
    assert check(client, "New", GROUP)[0]["face"] == 0
    other = next(n for n in range(5) if n not in (0, meant, bruno))
    report = enrol(client, "New", GROUP, photo(ELIN, 1), faces=f"{other},0")
    assert report["enrolled"] == 2
    assert not any("faces" in note or "same photo" in note for note in report["notes"])
    (shown, _) = client.get("/v1/people/New/photos").json()["photos"]
    assert shown["box"] == told["faces"][other]["bounding_box"]
    # The crop that is kept is of that face.
    crop = client.get(f"/v1/photos/{shown['id']}/crop").content
    (found,) = client.post("/v1/match", files={"photo": crop}).json()["faces"]
    assert found["name"] == "New" and found["is_match"]
    # The same photo is one of others, too.
    report = enrol(client, ADA, GROUP, faces=str(meant))
    assert not any("same photo" in note for note in report["notes"])


def test_a_face_that_is_not_there_is_left_out(client: TestClient) -> None:
    report = enrol(client, "New", photo(ELIN, 1), photo(ELIN, 2), faces="0,1")
    assert report["enrolled"] == 1
    assert report["left_out"] == [
        {"photo": "1.jpg", "reason": "no face found of number 1, counted from 0, the largest"}
    ]


@pytest.mark.parametrize("faces", ["", "0", "0,0,0", "0,x", "0,-1", "0,1000", "0, 1", "0,1.0"])
def test_other_than_a_number_for_each_photo_is_refused(client: TestClient, faces: str) -> None:
    data, files = {"name": "New", "faces": faces}, sent((photo(ELIN, 1), photo(ELIN, 2)))
    answer = client.post("/v1/people", data=data, files=files)
    assert answer.status_code == 422
    assert answer.json()["type"] == "urn:face-encode:problem:not-faces"
    assert "for each photo, from 0, the largest, to 999. Received:" in answer.json()["detail"]


def test_faces_in_json_are_whole_numbers(client: TestClient) -> None:
    import base64

    body = {"name": "New", "photos": [base64.b64encode(photo(ELIN, 1)).decode()]}
    for faces in ([True], ["0"], [0.0], [[0]], {"0": 0}, 0):
        assert client.post("/v1/people", json={**body, "faces": faces}).status_code == 422
    assert client.post("/v1/people", json={**body, "faces": [0]}).json()["enrolled"] == 1
    assert client.post("/v1/people/check", json=body).json()["name"] == "New"


def test_a_look_takes_a_name_and_photos(client: TestClient) -> None:
    for data, files in (({"name": "a/b"}, sent((GROUP,))), ({"name": "New"}, None)):
        assert client.post("/v1/people/check", data=data, files=files).status_code in (415, 422)
    answer = client.post("/v1/people/check?refuse_mistakes=true", data={"name": "New"})
    assert answer.json()["type"] == "urn:face-encode:problem:unknown-option"
    # Somebody may be called so.
    enrol(client, "check", photo(ELIN, 1))
    assert client.get("/v1/people/check").json()["photos"] == 1
