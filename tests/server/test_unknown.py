"""People without a name over HTTP: listed with their faces, named, merged, dismissed, purged."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from face_encode.encoders.encoder import Encoder
from face_encode.gallery.base import PhotoDetails
from face_encode.gallery.database import DatabaseGallery
from face_encode.gallery.unknown import Sight
from face_encode.model import Face_Encode_Model
from face_encode.photos.reading import read_image
from face_encode.server import application
from face_encode.server.security import tokens_from
from tests.conftest import EXAMPLES, VERIFY_DATASET
from tests.server.conftest import Serve

ADA = VERIFY_DATASET / "Ada_Mirova"
STRANGER = EXAMPLES / "stranger.jpg"
TOKEN = "reader-0123456789abcdef"


def see(folder: Path, model: Face_Encode_Model, *photos: Path) -> None:
    """See the faces of photos, as a camera does, in another program on the same file."""
    with closing(DatabaseGallery(folder / "people.sqlite", model.encoder)) as gallery:
        for photo in photos:
            ((embedding,), _) = model.compute_embeddings_image(read_image(photo))
            details = PhotoDetails("front door", quality=0.75, crop=photo.read_bytes())
            gallery.unknown.see(Sight(embedding, details, detector="dlib_hog"), model.threshold)


def test_forgetting_tells_who_without_a_name_may_be_the_same(
    serve: Serve, empty_model: Face_Encode_Model, tmp_path: Path
) -> None:
    with serve() as client:
        see(tmp_path, empty_model, ADA / "1.jpg", STRANGER)
        client.post("/v1/unknown/unknown-1/name", json={"name": "Ada"})
        see(tmp_path, empty_model, ADA / "1.jpg")
        removed = client.delete("/v1/people/Ada").json()
        assert removed == {"name": "Ada", "photos": 1, "change": removed["change"]}
        client.post(f"/v1/undo?change={removed['change']}")
        answer = client.delete("/v1/people/Ada?forget=true").json()
        assert (answer["name"], answer["photos"], answer["change"]) == ("Ada", 1, None)
        near, far = answer["unknown"]
        assert (near["id"], far["id"]) == ("unknown-3", "unknown-2")
        assert near["similarity"] == pytest.approx(1) and far["similarity"] < 0.999
        assert set(listed(client)) == {"unknown-2", "unknown-3"}


def listed(client: TestClient) -> dict[str, Any]:
    answer = client.get("/v1/unknown")
    assert answer.status_code == 200, answer.text
    return {each["id"]: each for each in answer.json()["people"]}


def test_a_stranger_is_listed_named_and_recognised(
    serve: Serve, empty_model: Face_Encode_Model, tmp_path: Path
) -> None:
    with serve() as client:
        see(tmp_path, empty_model, ADA / "1.jpg", ADA / "2.jpg", STRANGER)
        people = listed(client)
        assert {each: person["seen"] for each, person in people.items()} == {
            "unknown-1": 2,
            "unknown-2": 1,
        }
        assert [len(person["faces"]) for person in people.values()] == [1, 2]
        face = people["unknown-1"]["faces"][0]
        assert (face["source"], face["quality"]) == ("front door", 0.75)
        crop = client.get(f"/v1/unknown/faces/{face['id']}/crop")
        assert crop.headers["content-type"] == "image/jpeg"
        assert crop.content == (ADA / "1.jpg").read_bytes()
        page = client.get("/v1/unknown?start=1&count=1").json()
        assert ([each["id"] for each in page["people"]], page["total"]) == (["unknown-1"], 2)

        named = client.post("/v1/unknown/unknown-1/name", json={"name": " Ada "})
        assert named.status_code == 200
        answer = named.json()
        assert (answer["name"], answer["photos"]) == ("Ada", 2)
        photo = {"photo": (ADA / "3.jpg").read_bytes()}
        (found,) = client.post("/v1/match", files=photo).json()["faces"]
        assert (found["name"], found["is_match"]) == ("Ada", True)
        assert set(listed(client)) == {"unknown-2"}
        assert client.get("/v1/people/Ada/thumbnail").status_code == 200

        client.post(f"/v1/undo?change={answer['change']}")
        assert set(listed(client)) == {"unknown-1", "unknown-2"}
        merged = client.post("/v1/unknown/unknown-2/merge", json={"into": "unknown-1"})
        assert merged.json()["id"] == "unknown-1"
        assert listed(client)["unknown-1"]["seen"] == 3
        assert client.delete("/v1/unknown/unknown-1").json()["id"] == "unknown-1"
        assert listed(client) == {}
        changes = client.get("/v1/changes").json()["changes"]
        assert [(each["action"], each["author"], each["unknown"]) for each in changes] == [
            ("name", "local", ["unknown-1"]),
            ("undo", "local", ["unknown-1"]),
            ("merge", "local", ["unknown-2", "unknown-1"]),
            ("dismiss", "local", ["unknown-1"]),
        ]


def test_what_cannot_be_done_is_told(
    serve: Serve, empty_model: Face_Encode_Model, tmp_path: Path
) -> None:
    with serve() as client:
        see(tmp_path, empty_model, STRANGER)
        own = "/v1/unknown/unknown-1"
        for method, path, body, status, kind in (
            ("POST", "/v1/unknown/unknown-9/name", {"name": "Ada"}, 404, "nobody-unknown"),
            ("POST", "/v1/unknown/Ada/name", {"name": "Ada"}, 404, "nobody-unknown"),
            ("POST", f"{own}/name", {"name": "a/b"}, 422, "not-a-name"),
            ("POST", f"{own}/name", {"into": "Ada"}, 422, "unknown-field"),
            ("POST", f"{own}/merge", {"into": "unknown-9"}, 404, "nobody-unknown"),
            ("POST", f"{own}/merge", {"into": "unknown-1"}, 409, "one-person-already"),
            ("POST", f"{own}/merge", {"into": 7}, 404, "nobody-unknown"),
            ("DELETE", "/v1/unknown/unknown-9", None, 404, "nobody-unknown"),
            ("GET", "/v1/unknown/faces/99/crop", None, 404, "no-crop"),
            ("GET", "/v1/unknown/faces/x/crop", None, 422, ""),
            ("GET", "/v1/unknown?count=0", None, 422, ""),
            ("GET", "/v1/unknown?search=Ada", None, 422, ""),
        ):
            answer = client.request(method, path, json=body)
            assert answer.status_code == status, (path, answer.text)
            assert kind in answer.json()["type"]
        assert set(listed(client)) == {"unknown-1"}


def test_a_token_that_reads_sees_and_changes_nothing(
    serve: Serve, empty_model: Face_Encode_Model, tmp_path: Path
) -> None:
    (tmp_path / "tokens").write_text(f"door read {TOKEN}")
    with serve(tokens=tokens_from(tmp_path / "tokens")) as client:
        see(tmp_path, empty_model, STRANGER)
        assert client.get("/v1/unknown").status_code == 401
        client.headers["authorization"] = f"Bearer {TOKEN}"
        ((face,),) = (each["faces"] for each in listed(client).values())
        assert client.get(f"/v1/unknown/faces/{face['id']}/crop").status_code == 200
        for method, path, body in (
            ("POST", "name", {"name": "Ada"}),
            ("POST", "merge", {"into": "unknown-2"}),
            ("DELETE", "", None),
        ):
            address = f"/v1/unknown/unknown-1/{path}".rstrip("/")
            assert client.request(method, address, json=body).status_code == 403
        assert set(listed(client)) == {"unknown-1"}


def test_a_service_that_nobody_asks_deletes_whose_time_is_over(
    serve: Serve, encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(application, "_PURGE_SECONDS", 0.05)
    path = tmp_path / "people.sqlite"
    with serve():
        with closing(DatabaseGallery(path, encoder)) as gallery:
            face = np.ones(encoder.embedding_size, np.float32)
            second = 0.3 / 86_400
            gallery.unknown.see(Sight(face, PhotoDetails(crop=b"jpeg")), 0.9, keep_days=second)
        deadline = time.monotonic() + 60
        with closing(sqlite3.connect(path)) as file:
            while file.execute("SELECT COUNT(*) FROM unknown").fetchone() != (0,):
                assert time.monotonic() < deadline
                time.sleep(0.02)
