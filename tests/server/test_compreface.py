"""CompreFace's routes, asked as Double Take and CompreFace's own clients ask them."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from face_encode.model import Face_Encode_Model
from face_encode.server.security import tokens_from
from face_encode.server.settings import Limits
from tests.server.conftest import Serve
from tests.server.test_people import ADA, BRUNO, photo
from tests.server.test_routes import ADA as ADA_PHOTO
from tests.server.test_routes import GROUP, STRANGER, blank, blurred, in_base64
from tests.server.test_security import READ, WRITE

ROUTES = "/api/v1/recognition"


def double_take(answer: httpx.Response) -> list[dict[str, Any]]:
    """What Double Take makes of an answer, at its default confidences of 60 and 40 percent."""
    data = answer.json()
    if data.get("code") == 28:
        return []
    found = []
    for face in data["result"]:
        best = face["subjects"][0] if face["subjects"] else None
        confidence = round(best["similarity"] * 100, 2) if best else 0
        box = face["box"]
        found.append(
            {
                "name": best["subject"].lower() if best and confidence >= 40 else "unknown",
                "match": confidence >= 60,
                "area": (box["x_max"] - box["x_min"]) * (box["y_max"] - box["y_min"]),
            }
        )
    return found


def recognize(client: TestClient, content: bytes, **options: Any) -> httpx.Response:
    sent = {"file": ("latest.jpg", content)}
    answer: httpx.Response = client.post(f"{ROUTES}/recognize", params=options, files=sent)
    return answer


def add(client: TestClient, name: str, content: bytes) -> httpx.Response:
    sent = {"file": ("train.jpg", content)}
    answer: httpx.Response = client.post(f"{ROUTES}/faces", params={"subject": name}, files=sent)
    return answer


def refused(answer: httpx.Response) -> tuple[int, int]:
    """Status and code of an error in CompreFace's form."""
    assert set(answer.json()) == {"message", "code"}, answer.text
    assert answer.json()["message"]
    return answer.status_code, answer.json()["code"]


@pytest.fixture
def people(serve: Serve) -> Iterator[TestClient]:
    """A service with two photos of Ada and one of Bruno."""
    with serve(keep_crops=True) as client:
        for name, number in ((ADA, 1), (ADA, 2), (BRUNO, 1)):
            assert add(client, name, photo(name, number)).status_code == 201
        yield client


def test_double_take_is_told_who_is_there_and_who_is_not(client: TestClient) -> None:
    (face,) = double_take(recognize(client, ADA_PHOTO, det_prob_threshold=0.8))
    assert (face["name"], face["match"]) == ("ada_mirova", True)
    assert face["area"] > 10_000
    (face,) = double_take(recognize(client, STRANGER, det_prob_threshold=0.8))
    assert (face["name"], face["match"]) == ("unknown", False)
    answer = recognize(client, blank(), det_prob_threshold=0.8)
    assert double_take(answer) == []
    assert refused(answer) == (400, 28)


def test_faces_are_those_of_a_match(client: TestClient) -> None:
    answer = recognize(client, GROUP, limit=0, prediction_count=3, status=True, face_plugins="age")
    options = {"thorough": False}
    matched = client.post("/v1/match", params=options, files={"photo": GROUP}).json()["faces"]
    found = answer.json()["result"]
    assert len(found) == len(matched) == 5
    for face, other in zip(found, matched, strict=True):
        box = other["bounding_box"]
        assert face["box"] == {
            "probability": 1,
            "x_min": box["x"],
            "y_min": box["y"],
            "x_max": box["x"] + box["width"],
            "y_max": box["y"] + box["height"],
        }
        # Of three candidates none is below the threshold.
        assert [each["subject"] for each in face["subjects"]] == [other["name"]] * other["is_match"]
        for each in face["subjects"]:
            assert each["similarity"] == pytest.approx(other["similarity"], abs=1e-6)
    assert len(recognize(client, GROUP, limit=2).json()["result"]) == 2
    sent = {"file": in_base64(ADA_PHOTO)}
    json = client.post(f"{ROUTES}/recognize", json=sent).json()
    assert json == recognize(client, ADA_PHOTO).json()


def test_a_face_that_cannot_be_trusted_is_nobodys(client: TestClient) -> None:
    unsharp = blurred(photo(ADA, 1))
    (face,) = recognize(client, unsharp).json()["result"]
    assert face["subjects"] == []
    answer = add(client, "Blurred", unsharp)
    assert refused(answer) == (400, 26)
    assert answer.json()["message"].startswith("train.jpg: not to be trusted: blurred")


def test_photos_are_added_listed_shown_and_removed(people: TestClient) -> None:
    again = add(people, "ada_mirova", photo(ADA, 2))
    assert again.json()["subject"] == ADA
    listed = people.get(f"{ROUTES}/faces", params={"subject": ADA}).json()
    assert again.json() == listed["faces"][1]
    assert listed["total_elements"] == 2
    page = people.get(f"{ROUTES}/faces", params={"page": 1, "size": 2}).json()
    assert [face["subject"] for face in page.pop("faces")] == [BRUNO]
    assert page == {"page_number": 1, "page_size": 2, "total_pages": 2, "total_elements": 3}
    nobody = people.get(f"{ROUTES}/faces", params={"subject": "Nobody"}).json()
    assert (nobody["faces"], nobody["total_pages"]) == ([], 0)
    # What is no name is nobody's, and above all not everybody's.
    for name in ("", "\0"):
        asked = {"subject": name}
        assert people.get(f"{ROUTES}/faces", params=asked).json()["faces"] == []
        assert people.delete(f"{ROUTES}/faces", params=asked).json() == {"deleted": 0}

    number = listed["faces"][0]["image_id"]
    image = people.get(f"{ROUTES}/faces/{number}/img")
    assert image.headers["content-type"] == "image/jpeg"
    assert Image.open(io.BytesIO(image.content)).size[0] > 96
    removed = people.delete(f"{ROUTES}/faces/{number}")
    assert removed.json() == {"image_id": number, "subject": ADA}
    for answer in (people.delete(f"{ROUTES}/faces/{number}"), verify(people, number, ADA_PHOTO)):
        assert refused(answer) == (404, 44)
    assert refused(people.get(f"{ROUTES}/faces/{number}/img")) == (404, 11)

    deleted = people.delete(f"{ROUTES}/faces", params={"subject": "nobody"})
    assert deleted.json() == {"deleted": 0}
    deleted = people.delete(f"{ROUTES}/faces", params={"subject": BRUNO.lower()})
    assert deleted.json() == {"deleted": 1}
    assert people.get(f"{ROUTES}/subjects/").json() == {"subjects": [ADA]}
    assert people.delete(f"{ROUTES}/faces").json() == {"deleted": 1}
    assert people.delete(f"{ROUTES}/faces").json() == {"deleted": 0}
    # Each is one change, which can be undone.
    people.post("/v1/undo")
    assert people.get(f"{ROUTES}/subjects").json() == {"subjects": [ADA]}


def verify(client: TestClient, number: str, content: bytes) -> httpx.Response:
    answer: httpx.Response = client.post(f"{ROUTES}/faces/{number}/verify", files={"file": content})
    return answer


def test_a_photo_is_compared_with_an_enrolled_one(
    people: TestClient, fitted_model: Face_Encode_Model
) -> None:
    number = people.get(f"{ROUTES}/faces").json()["faces"][0]["image_id"]
    (same,) = verify(people, number, ADA_PHOTO).json()["result"]
    assert fitted_model.verification_threshold <= same["similarity"] <= 1
    # Above 0.8 among strangers too, which programs that expect CompreFace would take for a match.
    for other in (STRANGER, blurred(photo(ADA, 1))):
        (face,) = verify(people, number, other).json()["result"]
        assert face["similarity"] == 0
    assert refused(verify(people, number, blank())) == (400, 28)


def test_subjects_are_renamed_merged_and_removed(people: TestClient) -> None:
    subjects = f"{ROUTES}/subjects"
    assert people.post(subjects, json={"subject": "  New "}).json() == {"subject": "New"}
    assert refused(people.post(subjects, json={"subject": ADA.lower()})) == (400, 43)
    assert refused(people.post(subjects, json={"subject": "a/b"})) == (400, 26)
    assert people.get(subjects).json() == {"subjects": [ADA, BRUNO]}

    assert people.put(f"{subjects}/{ADA}", json={"subject": "Ada"}).json() == {"updated": True}
    assert people.put(f"{subjects}/Ada", json={"subject": "ADA"}).json() == {"updated": True}
    assert people.put(f"{subjects}/{BRUNO}", json={"subject": "ada"}).json() == {"updated": True}
    assert people.get(f"{ROUTES}/faces?subject=ada").json()["total_elements"] == 3
    actions = [change["action"] for change in people.get("/v1/changes").json()["changes"]]
    assert actions[3:] == ["rename", "rename", "merge"]
    assert refused(people.put(f"{subjects}/{BRUNO}", json={"subject": "x"})) == (404, 42)

    assert people.delete(f"{subjects}/ada").json() == {"subject": "ADA"}
    assert refused(people.delete(f"{subjects}/ada")) == (404, 42)
    people.post("/v1/undo")
    assert people.delete(subjects).json() == {"deleted": 1}
    assert people.get(subjects).json() == {"subjects": []}


def test_errors_have_the_numbers_of_compreface(client: TestClient) -> None:
    assert refused(recognize(client, b"no photo")) == (400, 21)
    assert refused(add(client, "Several", GROUP)) == (400, 31)
    assert refused(client.post(f"{ROUTES}/recognize", json={})) == (400, 34)
    for answer in (
        client.post(f"{ROUTES}/recognize", json={"file": "?"}),
        client.post(f"{ROUTES}/recognize", json={"photo": ""}),
        client.post(f"{ROUTES}/faces", files={"file": STRANGER}),
        recognize(client, STRANGER, limit=-1),
        recognize(client, STRANGER, det_prob_threshold=2),
        recognize(client, STRANGER, unknown_option=1),
        add(client, "..", STRANGER),
        client.delete(f"{ROUTES}/faces/6b135f5b-a365-4522-b1f1-4c9ac2dd0728"),
    ):
        assert refused(answer) == (400, 26)
    assert refused(client.post(f"{ROUTES}/recognize", content=b"")) == (415, 0)


def test_a_token_is_an_api_key(serve: Serve, tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    file.write_text(f"double-take write {WRITE}\ncamera read {READ}\n")
    with serve(tokens=tokens_from(file)) as client:
        assert refused(client.get(f"{ROUTES}/subjects")) == (401, 20)
        wrong = client.get(f"{ROUTES}/subjects", headers={"x-api-key": READ[1:]})
        assert refused(wrong) == (401, 10)
        client.headers["x-api-key"] = READ
        assert client.get(f"{ROUTES}/subjects").json() == {"subjects": []}
        assert client.get("/v1/people").json()["total"] == 0
        assert refused(add(client, "Ada", STRANGER)) == (403, 32)
        assert refused(client.delete(f"{ROUTES}/subjects")) == (403, 32)
        client.headers["x-api-key"] = WRITE
        assert add(client, "Ada", STRANGER).status_code == 201
        (change,) = client.get("/v1/changes").json()["changes"]
        assert (change["action"], change["author"]) == ("enrol", "double-take")


def test_limits_and_guards_hold(serve: Serve) -> None:
    with serve(limits=Limits(body_bytes=1_000)) as client:
        assert recognize(client, STRANGER).status_code == 413
        foreign = client.get(f"{ROUTES}/subjects", headers={"Origin": "http://elsewhere.example"})
        assert foreign.status_code == 403
        answer = client.get(f"{ROUTES}/subjects")
        assert answer.headers["cache-control"] == "no-store"
