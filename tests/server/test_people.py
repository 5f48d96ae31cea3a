"""The people over HTTP: their photos, moves, merges, undo; and other programs on the same file."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image, ImageFilter

from face_encode.detectors.registry import load_detector
from face_encode.encoders.encoder import Encoder
from face_encode.errors import InputError
from face_encode.gallery.audit import Author, replayed
from face_encode.gallery.database import DatabaseGallery
from face_encode.model import Face_Encode_Model
from face_encode.pipeline.reembedding import reembed
from face_encode.server.application import make_application
from face_encode.server.security import Tokens
from face_encode.server.settings import ServerSettings
from tests.conftest import EXAMPLES, VERIFY_DATASET
from tests.server.conftest import Serve, served

STRANGER = (EXAMPLES / "stranger.jpg").read_bytes()
ADA, BRUNO = ("Ada_Mirova", "Bruno_Castell")


def photo(name: str, number: int) -> bytes:
    return (VERIFY_DATASET / name / f"{number}.jpg").read_bytes()


@pytest.fixture
def client(serve: Serve) -> Iterator[TestClient]:
    """A service with three photos of Ada, one of Bruno among them, and one more of Bruno."""
    with serve(keep_crops=True) as client:
        enrol(client, BRUNO, ("1.jpg", photo(BRUNO, 1)))
        enrol(client, ADA, ("1.jpg", photo(ADA, 1)), ("2.jpg", photo(ADA, 2)))
        enrol(client, ADA, ("wrong.jpg", photo(BRUNO, 2)))
        yield client


def enrol(client: TestClient, name: str, *photos: tuple[str, bytes], query: str = "") -> Any:
    files = [("photos", each) for each in photos]
    answer = client.post(f"/v1/people{query}", data={"name": name}, files=files)
    assert answer.status_code == 200, answer.text
    return answer.json()


def photos_of(client: TestClient, name: str) -> list[dict[str, Any]]:
    photos: list[dict[str, Any]] = client.get(f"/v1/people/{quote(name)}/photos").json()["photos"]
    return photos


def counts(client: TestClient) -> dict[str, int]:
    people = client.get("/v1/people").json()["people"]
    return {person["name"]: person["photos"] for person in people}


def named(client: TestClient, content: bytes) -> str:
    (face,) = client.post("/v1/match", files={"photo": content}).json()["faces"]
    return str(face["name"])


def test_a_wrong_photo_is_found_and_taken_out(client: TestClient) -> None:
    # The story: a photo of Bruno under Ada's name makes Ada of him.
    others = [photo(BRUNO, 3), photo(BRUNO, 4)]
    told = photos_of(client, ADA)
    assert [each["source"] for each in told] == ["1.jpg", "2.jpg", "wrong.jpg"]
    assert {each["enrolled_by"] for each in told} == {"local"}
    assert all(each["enrolled_at"].endswith("+00:00") and each["has_crop"] for each in told)
    assert all(0 <= each["quality"] <= 1 and each["box"]["width"] > 50 for each in told)
    wrong = told[2]["id"]
    crop = client.get(f"/v1/photos/{wrong}/crop")
    assert crop.headers["content-type"] == "image/jpeg"
    assert 96 < max(Image.open(io.BytesIO(crop.content)).size) <= 320
    # The kept crop is good enough to be recognised by.
    assert named(client, crop.content) == ADA

    answer = client.delete(f"/v1/photos/{wrong}").json()
    assert (answer["name"], answer["photos"]) == (ADA, 1)
    assert counts(client) == {ADA: 2, BRUNO: 1}
    assert [named(client, other) for other in others] == [BRUNO, BRUNO]
    assert client.get(f"/v1/photos/{wrong}/crop").status_code == 404
    gone = client.delete(f"/v1/photos/{wrong}")
    assert (gone.status_code, gone.json()["type"][-14:]) == (404, ":no-such-photo")

    undone = client.post("/v1/undo", params={"change": answer["change"]}).json()
    assert undone["undone"]["id"] == answer["change"]
    assert photos_of(client, ADA)[2] == told[2]
    assert client.get(f"/v1/photos/{wrong}/crop").content == crop.content


def test_a_photo_is_moved_to_another_person_and_to_a_new_one(client: TestClient) -> None:
    wrong = photos_of(client, ADA)[2]["id"]
    address = f"/v1/photos/{wrong}/move"
    moved = client.post(address, json={"to": "bruno_castell"}).json()
    assert moved["name"] == BRUNO
    assert counts(client) == {ADA: 2, BRUNO: 2}
    # Where it is already, nothing changes.
    assert client.post(address, json={"to": BRUNO}).json()["change"] is None
    assert client.post(address, json={"to": "New"}).json()["name"] == "New"
    assert counts(client) == {ADA: 2, BRUNO: 1, "New": 1}
    client.post("/v1/undo")
    client.post("/v1/undo", params={"change": moved["change"]})
    assert counts(client) == {ADA: 3, BRUNO: 1}
    assert client.post("/v1/photos/999/move", json={"to": ADA}).status_code == 404
    assert client.post(address, json={"to": "a/b"}).status_code == 422
    assert client.post(address, json={"into": ADA}).status_code == 422


def test_a_photo_is_shown_as_the_persons_picture(client: TestClient) -> None:
    first, second, *_ = (photo["id"] for photo in photos_of(client, ADA))
    before = client.get(f"/v1/people/{ADA}/thumbnail").content
    chosen = client.post(f"/v1/photos/{second}/picture").json()
    assert chosen["name"] == ADA and chosen["change"] is not None
    assert client.get(f"/v1/people/{ADA}/thumbnail").content != before
    client.post(f"/v1/photos/{first}/picture")
    assert client.get(f"/v1/people/{ADA}/thumbnail").content == before
    assert client.post("/v1/photos/999/picture").status_code == 404


def test_a_persons_last_photo_removes_the_person(client: TestClient) -> None:
    (only,) = photos_of(client, BRUNO)
    client.delete(f"/v1/photos/{only['id']}")
    assert counts(client) == {ADA: 3}
    client.post("/v1/undo")
    assert counts(client) == {ADA: 3, BRUNO: 1}


def test_two_names_of_one_person_are_merged(client: TestClient) -> None:
    enrol(client, "Bruno C.", ("4.jpg", photo(BRUNO, 4)))
    client.patch("/v1/people/Bruno C.", json={"note": "from the summer party"})
    taken = client.patch("/v1/people/Bruno C.", json={"name": BRUNO})
    assert taken.status_code == 409 and "merge" in taken.json()["detail"]
    merged = client.post("/v1/people/bruno c./merge", json={"into": BRUNO}).json()
    assert (merged["name"], merged["photos"]) == (BRUNO, 2)
    assert client.get(f"/v1/people/{BRUNO}").json()["note"] == "from the summer party"
    assert counts(client) == {ADA: 3, BRUNO: 2}
    assert client.get("/v1/people/Bruno C.").status_code == 404
    own = client.post(f"/v1/people/{BRUNO}/merge", json={"into": "bruno_castell"})
    assert (own.status_code, own.json()["type"][-19:]) == (409, ":one-person-already")
    assert client.post(f"/v1/people/{BRUNO}/merge", json={"into": "X"}).status_code == 404
    client.post("/v1/undo", params={"change": merged["change"]})
    assert counts(client) == {ADA: 3, BRUNO: 1, "Bruno C.": 1}


def test_spellings_of_one_name_are_one_person(client: TestClient) -> None:
    nfc, nfd = "Jos\u00e9", "Jose\u0301"
    enrol(client, nfc, ("3.jpg", photo(ADA, 3)))
    report = enrol(client, nfd, ("s.jpg", STRANGER))
    # The service itself writes names in NFC.
    assert (report["name"], report["notes"]) == (nfc, [])
    loud = "JOS\u00c9"
    report = enrol(client, f"  {loud} ", ("4.jpg", photo(ADA, 4)))
    assert report["name"] == nfc
    assert report["notes"][0] == f"{loud!r} and {nfc!r} are one person, {nfc!r}"
    assert counts(client)[nfc] == 3
    assert client.delete(f"/v1/people/{quote(nfd)}").json() == {
        "name": nfc,
        "photos": 3,
        "change": report["change"] + 1,
    }
    assert nfc not in counts(client)
    # A person's own name may be spelt anew.
    assert client.patch(f"/v1/people/{ADA}", json={"name": "ADA mirova"}).status_code == 200
    assert client.patch("/v1/people/ada MIROVA", json={"name": "Ada"}).status_code == 200


def test_people_are_found_by_part_of_a_name_in_pages(client: TestClient) -> None:
    enrol(client, "Jos\u00e9 Castellano", ("s.jpg", STRANGER))

    def listed(**query: object) -> tuple[list[str], int]:
        answer = client.get("/v1/people", params=query).json()
        return [person["name"] for person in answer["people"]], answer["total"]

    assert listed() == ([ADA, BRUNO, "Jos\u00e9 Castellano"], 3)
    assert listed(search="CASTELL") == ([BRUNO, "Jos\u00e9 Castellano"], 2)
    assert listed(search="jose\u0301  c") == (["Jos\u00e9 Castellano"], 1)
    assert listed(search="nobody") == ([], 0)
    assert listed(start=1, count=1) == ([BRUNO], 3)
    assert listed(search="castell", start=1) == (["Jos\u00e9 Castellano"], 2)
    assert listed(start=9) == ([], 3)
    for query in ("count=0", "start=-1", "count=x", "limit=3", f"start={2**70}"):
        assert client.get(f"/v1/people?{query}").status_code == 422


def test_mistakes_are_refused_where_asked_for(client: TestClient) -> None:
    query = "?refuse_mistakes=true"
    client.delete(f"/v1/photos/{photos_of(client, ADA)[2]['id']}")
    photos = (("own.jpg", photo(BRUNO, 3)), ("other.jpg", photo(ADA, 3)), ("new.jpg", STRANGER))
    report = enrol(client, BRUNO, *photos, query=query)
    assert report["enrolled"] == 2
    (left_out,) = report["left_out"]
    assert left_out["photo"] == "other.jpg"
    assert left_out["reason"].startswith(f"looks like {ADA} (similarity 0.")
    assert counts(client) == {ADA: 2, BRUNO: 3}
    # Where nothing is left to enrol, nothing changes.
    files = {"photos": ("other.jpg", photo(ADA, 3))}
    answer = client.post(f"/v1/people{query}", data={"name": "Carla"}, files=files)
    assert answer.status_code == 422
    assert answer.json()["left_out"] == [left_out]
    # Without the option the photo is enrolled, and noted.
    report = enrol(client, "Carla", ("other.jpg", photo(ADA, 3)))
    assert report["enrolled"] == 1
    assert report["notes"][0].startswith(f"other.jpg: looks like {ADA}, who is enrolled too")


def test_photos_that_are_not_to_be_trusted_are_left_out(client: TestClient) -> None:
    with Image.open(io.BytesIO(photo(ADA, 1))) as picture, io.BytesIO() as file:
        picture.filter(ImageFilter.GaussianBlur(9)).save(file, "PNG")
        blurred = ("blurred.png", file.getvalue())
    report = enrol(client, "Carla", blurred, ("s.jpg", STRANGER))
    (left_out,) = report["left_out"]
    assert left_out["photo"] == "blurred.png"
    assert left_out["reason"].startswith("not to be trusted: blurred (quality 0.")
    # Alone it is nobody's.
    answer = client.post("/v1/people", data={"name": "Dora"}, files={"photos": blurred})
    assert (answer.status_code, answer.json()["left_out"]) == (422, [left_out])


def test_an_enrolment_is_undone(client: TestClient) -> None:
    before = counts(client)
    report = enrol(client, "Carla", ("s.jpg", STRANGER))
    again = enrol(client, "Carla", ("s.jpg", STRANGER))
    assert (again["change"], again["reused"]) == (None, 1)
    client.post("/v1/undo", params={"change": report["change"]})
    assert counts(client) == before


@pytest.mark.parametrize(
    ("change", "status", "kind"),
    [
        (99, 404, "no-such-change"),
        (1, 409, "cannot-be-undone"),
        (0, 422, "not-valid"),
        (2**64, 422, "not-valid"),
    ],
)
def test_what_cannot_be_undone_is_reported(
    client: TestClient, change: int, status: int, kind: str
) -> None:
    client.patch(f"/v1/people/{BRUNO}", json={"note": "x"})
    # The photo that change 1 enrolled has been moved since.
    client.post(f"/v1/photos/{photos_of(client, BRUNO)[0]['id']}/move", json={"to": ADA})
    answer = client.post("/v1/undo", params={"change": change})
    assert (answer.status_code, answer.json()["type"].rpartition(":")[2]) == (status, kind)


def test_notes_are_kept_and_taken_away(client: TestClient) -> None:
    address = f"/v1/people/{ADA}"
    assert client.patch(address, json={"note": "left in May"}).json()["note"] == "left in May"
    assert client.get(address).json()["note"] == "left in May"
    assert client.get("/v1/people").json()["people"][0]["note"] == "left in May"
    assert client.patch(address, json={"note": ""}).json()["note"] == ""
    for body in ({}, {"name": "A", "note": "b"}, {"note": 3}, {"note": "x" * 2_001}):
        assert client.patch(address, json=body).status_code == 422
    # Half of a character, which JSON can hold and a file cannot.
    answer = client.patch(
        address, content=b'{"note": "\\ud800"}', headers={"Content-Type": "application/json"}
    )
    assert (answer.status_code, answer.json()["type"].rpartition(":")[2]) == (422, "not-a-note")
    assert client.patch(address, json={"note": "\U0001f600"}).json()["note"] == "\U0001f600"
    assert client.patch("/v1/people/Nobody", json={"note": "x"}).status_code == 404


def test_a_persons_whole_data_is_exported(client: TestClient) -> None:
    answer = client.get("/v1/people/ada_mirova/export")
    assert answer.headers["content-type"] == "application/zip"
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        told = json.loads(archive.read("person.json"))
        crops = [name for name in archive.namelist() if name.startswith("crops/")]
    assert told["name"] == ADA and len(crops) == 3
    assert [each["source"] for each in told["photos"]] == ["1.jpg", "2.jpg", "wrong.jpg"]
    assert BRUNO not in answer.text
    assert client.get("/v1/people/Nobody/export").status_code == 404


def test_a_person_is_forgotten(client: TestClient, tmp_path: Path, encoder: Encoder) -> None:
    client.patch(f"/v1/people/{ADA}", json={"name": "Adelaide Known"})
    answer = client.delete("/v1/people/Adelaide Known", params={"forget": True}).json()
    assert answer == {"name": "Adelaide Known", "photos": 3, "change": None, "unknown": []}
    assert counts(client) == {BRUNO: 1}
    assert client.post("/v1/undo", params={"change": 2}).status_code == 409
    told = client.get("/v1/changes").text
    assert "Adelaide" not in told and ADA not in told and "(forgotten)" in told
    for path in tmp_path.iterdir():
        content = path.read_bytes()
        assert b"Adelaide" not in content and ADA.encode() not in content


def test_a_removal_is_remembered_by_the_service_alone(serve: Serve) -> None:
    with serve() as client:
        enrol(client, ADA, ("1.jpg", photo(ADA, 1)))
        change = client.delete(f"/v1/people/{ADA}").json()["change"]
    with serve() as client:
        answer = client.post("/v1/undo", params={"change": change})
        assert answer.status_code == 409
        assert "only the program that removed them keeps them" in answer.json()["detail"]


def test_others_changes_are_seen_at_the_next_request(
    client: TestClient, tmp_path: Path, encoder: Encoder
) -> None:
    path = tmp_path / "people.sqlite"
    with closing(DatabaseGallery(path, encoder, author=Author("command line"))) as other:
        assert other.people() == {BRUNO: 1, ADA: 3}
        other.remove(ADA)
        assert counts(client) == {BRUNO: 1}
        assert named(client, photo(ADA, 3)) == BRUNO
        other.undo()
        assert counts(client) == {ADA: 3, BRUNO: 1}
        enrol(client, "Carla", ("s.jpg", STRANGER))
        assert other.people()["Carla"] == 1
        told = client.get("/v1/changes", params={"since": 3}).json()["changes"]
        assert [(each["action"], each["author"]) for each in told] == [
            ("remove", "command line"),
            ("undo", "command line"),
            ("enrol", "local"),
        ]


def test_people_enrolled_over_http_are_embedded_by_another_encoder(
    serve: Serve, tmp_path: Path, encoder: Encoder, tiny: Encoder
) -> None:
    with serve(keep_crops=True) as client:
        enrol(client, ADA, ("1.jpg", photo(ADA, 1)), ("2.jpg", photo(ADA, 2)))
    former = DatabaseGallery(tmp_path / "people.sqlite", encoder)
    gallery, report = reembed(former, load_detector("dlib_hog"), tiny, progress=False)
    with closing(gallery):
        assert gallery.people() == {ADA: 2}
        assert gallery.encoder_fingerprint == tiny.fingerprint
    assert report.left_out == ()
    model = Face_Encode_Model(tiny, "dlib_hog")
    with served(model, tmp_path) as client:
        answer = client.post("/v1/match", files={"photo": photo(ADA, 1)}).json()
        assert answer["faces"][0]["name"] == ADA


def test_where_others_embed_the_photos_anew_nobody_is_named_wrongly(
    client: TestClient, tmp_path: Path, encoder: Encoder
) -> None:
    @dataclass
    class Another:
        name: str = "another"
        fingerprint: str = "0" * 16
        embedding_size: int = encoder.embedding_size

    path = tmp_path / "people.sqlite"
    other = DatabaseGallery(path, encoder)
    new = {each.id: np.ones(encoder.embedding_size, np.float32) for each in other.photos()}
    other.reembed(Another(), new).close()
    # Their embeddings cannot be compared with those of this service's encoder.
    answers = [
        client.post("/v1/match", files={"photo": STRANGER}),
        client.get("/v1/people"),
        client.get("/readyz"),
        client.post("/v1/people", data={"name": "Carla"}, files={"photos": STRANGER}),
        client.delete(f"/v1/people/{ADA}"),
    ]
    kinds = [answer.json()["type"].rpartition(":")[2] for answer in answers]
    assert [answer.status_code for answer in answers] == [503] * 5
    assert kinds == ["gallery-unusable"] * 3 + ["not-saved"] * 2
    with closing(DatabaseGallery(path, Another())) as gallery:
        assert gallery.people() == {BRUNO: 1, ADA: 3}


def test_many_changes_at_once_are_all_made(
    client: TestClient, tmp_path: Path, encoder: Encoder
) -> None:
    statuses: list[int] = []

    def rename_on(first: str, second: str) -> None:
        for former, new in [(first, second), (second, first)] * 5:
            statuses.append(client.patch(f"/v1/people/{former}", json={"name": new}).status_code)

    threads = [Thread(target=rename_on, args=each) for each in ((ADA, "A"), (BRUNO, "B"))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == [200] * 20
    with closing(DatabaseGallery(tmp_path / "people.sqlite", encoder)) as gallery:
        photos = {name: {each.id for each in gallery.photos(name)} for name in (ADA, BRUNO)}
        assert replayed(gallery.changes()) == photos


def test_people_elsewhere_than_in_a_database_are_refused(empty_model: Face_Encode_Model) -> None:
    with pytest.raises(InputError, match=r"in a gallery database.*Received: MemoryGallery"):
        make_application(empty_model, ServerSettings(), Tokens([]))


def test_a_person_has_a_threshold_of_the_own(client: TestClient) -> None:
    content = photo(BRUNO, 3)
    before = client.post("/v1/match", files={"photo": content}).json()["faces"][0]
    assert before["is_match"] and "threshold" not in before
    answer = client.patch("/v1/people/bruno_castell", json={"threshold": 0.999}).json()
    assert (answer["name"], answer["threshold"]) == (BRUNO, 0.999)
    listed = client.get("/v1/people").json()["people"]
    assert {each["name"]: each["threshold"] for each in listed} == {ADA: None, BRUNO: 0.999}
    assert client.get(f"/v1/people/{BRUNO}").json()["threshold"] == 0.999
    # The nearest photo of him is in Ada's name.
    client.post("/v1/undo", params={"change": client.get("/v1/changes").json()["changes"][2]["id"]})
    (face,) = client.post("/v1/match", files={"photo": content}).json()["faces"]
    assert (face["name"], face["is_match"], face["threshold"]) == (BRUNO, False, 0.999)
    address = f"/v1/people/{BRUNO}/verify"
    told = client.post(address, files={"photo": content}).json()
    assert (told["is_match"], told["threshold"]) == (False, 0.999)
    # A request goes before the person, and the person before the service.
    query = {"threshold": 0.5}
    (face,) = client.post("/v1/match", files={"photo": content}, params=query).json()["faces"]
    assert face["is_match"] and "threshold" not in face
    assert client.post(address, files={"photo": content}, params=query).json()["is_match"]
    frigate = client.post("/api/v1/recognition/recognize", files={"file": content}).json()
    assert frigate["result"][0]["subjects"] == []
    told = client.get("/v1/changes").json()["changes"]
    changed = next(each for each in told if each["id"] == answer["change"])
    assert changed["threshold"] == {"name": BRUNO, "former": None, "new": 0.999}
    client.post("/v1/undo", params={"change": answer["change"]})
    (face,) = client.post("/v1/match", files={"photo": content}).json()["faces"]
    assert face["is_match"] and "threshold" not in face
    assert client.patch(f"/v1/people/{BRUNO}", json={"threshold": None}).json()["change"] is None


@pytest.mark.parametrize("value", [1.1, -2, "0.9", True, [0.9], {"name": 0.9}])
def test_no_threshold_is_refused(client: TestClient, value: object) -> None:
    answer = client.patch(f"/v1/people/{ADA}", json={"threshold": value})
    assert (answer.status_code, answer.json()["type"][-16:]) == (422, ":not-a-threshold")
    assert client.get(f"/v1/people/{ADA}").json()["threshold"] is None
    assert client.patch("/v1/people/Nobody", json={"threshold": 0.9}).status_code == 404
    both = {"threshold": 0.9, "note": "both"}
    assert client.patch(f"/v1/people/{ADA}", json=both).status_code == 422
