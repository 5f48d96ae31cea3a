from __future__ import annotations

import base64
import io
import json
import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image, ImageFilter

from face_encode.cli import main
from face_encode.encoders.encoder import Encoder
from face_encode.gallery.database import DatabaseGallery
from face_encode.model import Face_Encode_Model
from face_encode.version import __version__
from tests.conftest import EXAMPLES, VERIFY_DATASET
from tests.server.conftest import Serve

GROUP = (EXAMPLES / "group.jpg").read_bytes()
ADA = (EXAMPLES / "ada_mirova.jpg").read_bytes()
STRANGER = (EXAMPLES / "stranger.jpg").read_bytes()


def in_base64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def blank(width: int = 200, height: int = 200) -> bytes:
    """A photo without a face."""
    file = io.BytesIO()
    Image.new("RGB", (width, height), "white").save(file, "PNG")
    return file.getvalue()


def test_a_match_answers_the_faces_of_the_command(
    client: TestClient, capsys: pytest.CaptureFixture[str]
) -> None:
    answer = client.post("/v1/match", files={"photo": GROUP})
    assert answer.status_code == 200
    assert main(["match", str(VERIFY_DATASET), str(EXAMPLES / "group.jpg"), "--json"]) == 0
    (command,) = json.loads(capsys.readouterr().out)
    faces = answer.json()["faces"]
    assert len(faces) == 5
    for face, other in zip(faces, command["faces"], strict=True):
        # Other faces in a batch change the last digits of float32.
        assert face.pop("similarity") == pytest.approx(other.pop("similarity"), abs=1e-6)
        assert face == other


def test_json_with_base64_answers_the_same_as_multipart(client: TestClient) -> None:
    one = client.post("/v1/match", files={"photo": ADA}).json()
    two = client.post("/v1/match", json={"photo": in_base64(ADA)}).json()
    assert one == two
    assert one["faces"][0]["name"] == "Ada_Mirova"
    assert one["faces"][0]["is_match"] is True


def test_a_stranger_is_no_match(client: TestClient) -> None:
    (face,) = client.post("/v1/match", files={"photo": STRANGER}).json()["faces"]
    assert face["is_match"] is False


def test_a_photo_without_a_face_has_an_empty_list(client: TestClient) -> None:
    answer = client.post("/v1/match", files={"photo": blank()}, params={"thorough": False})
    assert (answer.status_code, answer.json()) == (200, {"faces": [], "notes": []})


def test_only_the_largest_faces(client: TestClient) -> None:
    faces = client.post("/v1/match?max_faces=2", files={"photo": GROUP}).json()["faces"]
    areas = [face["bounding_box"]["width"] * face["bounding_box"]["height"] for face in faces]
    assert len(areas) == 2 and areas == sorted(areas, reverse=True)


def test_where_nobody_is_enrolled_every_face_is_nobodys(serve: Serve) -> None:
    with serve() as client:
        (face,) = client.post("/v1/match", files={"photo": ADA}).json()["faces"]
    assert (face["name"], face["similarity"], face["is_match"]) == (None, None, False)
    assert face["bounding_box"]["width"] > 100
    assert 0.8 <= face["quality"] <= 1
    assert face["quality_reason"] is None


def blurred(content: bytes) -> bytes:
    with Image.open(io.BytesIO(content)) as picture, io.BytesIO() as file:
        picture.filter(ImageFilter.GaussianBlur(9)).save(file, "PNG")
        return file.getvalue()


def test_a_face_that_cannot_be_trusted_matches_nobody(client: TestClient) -> None:
    unsharp = blurred(ADA)
    (face,) = client.post("/v1/match", files={"photo": unsharp}).json()["faces"]
    assert (face["is_match"], face["quality_reason"]) == (False, "blurred")
    answer = client.post("/v1/verify", files={"photo_a": unsharp, "photo_b": unsharp}).json()
    assert answer["similarity"] == pytest.approx(1, abs=1e-5)
    assert (answer["is_match"], answer["quality_reasons"]) == (False, ["blurred", "blurred"])
    (embedded,) = client.post("/v1/embed", files={"photo": unsharp}).json()["faces"]
    assert (embedded["quality"], embedded["quality_reason"]) == (face["quality"], "blurred")


def test_the_smallest_face_is_an_option(client: TestClient) -> None:
    with Image.open(io.BytesIO(ADA)) as picture, io.BytesIO() as file:
        picture.resize([side // 6 for side in picture.size]).save(file, "PNG")
        small = file.getvalue()
    for route in ("match", "embed"):
        for least, count in ((20, 1), (100, 0)):
            query = f"thorough=false&min_face={least}"
            answer = client.post(f"/v1/{route}?{query}", files={"photo": small})
            assert (answer.status_code, len(answer.json()["faces"])) == (200, count)


def test_what_was_not_looked_for_is_told(client: TestClient) -> None:
    large = ("large.png", blank(4_000, 3_000))
    note = "faces of less than 29 pixels are not looked for: a photo of 4000x3000"
    query = "thorough=false&min_face=20"
    for route in ("match", "embed"):
        (told,) = client.post(f"/v1/{route}?{query}", files={"photo": large}).json()["notes"]
        assert told.startswith(note)


def test_a_photo_that_lacks_its_end_is_read_with_a_note(client: TestClient) -> None:
    cut = ADA[:-2]
    note = "the end of the file is missing; almost all of the photo is there"
    for route in ("match", "embed", "people/Ada_Mirova/verify"):
        assert client.post(f"/v1/{route}", files={"photo": cut}).json()["notes"] == [note]
    answer = client.post("/v1/verify", files={"photo_a": ADA, "photo_b": ("b.jpg", cut)}).json()
    assert answer["notes"] == [f"b.jpg: {note}"]


def test_the_nearest_people_and_their_nearest_photos(client: TestClient) -> None:
    (face,) = client.post("/v1/match?candidates=3", files={"photo": ADA}).json()["faces"]
    first, second, third = face["candidates"]
    assert (first["name"], first["similarity"]) == (face["name"], face["similarity"])
    assert len({each["name"] for each in (first, second, third)}) == 3
    assert first["similarity"] > second["similarity"] >= third["similarity"]
    photos = client.get("/v1/people/Ada_Mirova/photos").json()["photos"]
    assert first["photo"] in [photo["id"] for photo in photos]
    told = next(photo for photo in photos if photo["id"] == first["photo"])
    assert first["has_crop"] == told["has_crop"]
    (plain,) = client.post("/v1/match", files={"photo": ADA}).json()["faces"]
    assert "candidates" not in plain


def test_threshold_and_quality_of_a_request(client: TestClient) -> None:
    def matched(query: str) -> tuple[bool, str | None]:
        (face,) = client.post(f"/v1/match?{query}", files={"photo": ADA}).json()["faces"]
        return face["is_match"], face["quality_reason"]

    assert matched("") == (True, None)
    assert matched("threshold=0.9999") == (False, None)
    assert matched("min_quality=1") == (False, "lower quality than 1, which was asked for")
    (face,) = client.post("/v1/match?threshold=-1", files={"photo": STRANGER}).json()["faces"]
    assert face["is_match"] is True
    # A lower bound than the encoder's changes nothing.
    (face,) = client.post("/v1/match?min_quality=0", files={"photo": blurred(ADA)}).json()["faces"]
    assert (face["is_match"], face["quality_reason"]) == (False, "blurred")
    two = {"photo_a": ADA, "photo_b": STRANGER}
    answer = client.post("/v1/verify?threshold=-1", files=two).json()
    assert (answer["is_match"], answer["threshold"]) == (True, -1)
    answer = client.post("/v1/verify?threshold=-1&min_quality=1", files=two).json()
    assert answer["is_match"] is False
    assert all("which was asked for" in reason for reason in answer["quality_reasons"])


def test_a_photo_is_compared_with_one_person(client: TestClient) -> None:
    answer = client.post("/v1/people/ada_mirova/verify", files={"photo": ADA}).json()
    assert (answer["name"], answer["is_match"]) == ("Ada_Mirova", True)
    (face,) = client.post("/v1/match?candidates=1", files={"photo": ADA}).json()["faces"]
    assert answer["photo"] == face["candidates"][0]["photo"]
    assert answer["similarity"] == pytest.approx(face["similarity"], abs=1e-5)
    assert answer["bounding_box"] == face["bounding_box"]
    other = client.post("/v1/people/Mei_Oshara/verify", files={"photo": ADA}).json()
    assert other["is_match"] is False
    assert other["similarity"] < other["threshold"]
    unsharp = client.post("/v1/people/Ada_Mirova/verify", files={"photo": blurred(ADA)}).json()
    assert (unsharp["is_match"], unsharp["quality_reason"]) == (False, "blurred")
    missing = client.post("/v1/people/Nobody/verify", files={"photo": ADA})
    assert missing.status_code == 404
    faceless = client.post("/v1/people/Ada_Mirova/verify", files={"photo": blank()})
    assert faceless.status_code == 422
    assert faceless.json()["type"].endswith(":no-face")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/match?max_face=2"),
        ("POST", "/v1/verify?treshold=0.5"),
        ("POST", "/v1/people/Ada_Mirova/verify?candidates=2"),
        ("GET", "/v1/people?limit=5"),
        ("GET", "/v1/people/Ada_Mirova?full=1"),
        ("DELETE", "/v1/people/Ada_Mirova?dry_run=1"),
        ("GET", "/v1/changes?since=0&until=9"),
    ],
)
def test_a_misspelt_option_is_refused(client: TestClient, method: str, path: str) -> None:
    files = {"photo": ADA} if method == "POST" else None
    answer = client.request(method, path, files=files)
    assert answer.status_code == 422
    assert client.get("/v1/people/Ada_Mirova").status_code == 200


def test_a_misspelt_option_is_named(client: TestClient) -> None:
    answer = client.delete("/v1/people/Ada_Mirova?dry_run=1").json()
    assert answer["detail"] == "No such option: dry_run; it takes forget."
    answer = client.get("/v1/people/Ada_Mirova?full=1").json()
    assert answer["detail"] == "No such option: full; it takes none."


def test_faces_are_analyzed_as_the_command_does(
    client: TestClient, capsys: pytest.CaptureFixture[str]
) -> None:
    answer = client.post("/v1/analyze", files={"photo": GROUP}, params={"max_faces": 2})
    assert answer.status_code == 200
    photo = str(EXAMPLES / "group.jpg")
    assert main(["analyze", photo, "--max-faces", "2", "--json"]) == 0
    (command,) = json.loads(capsys.readouterr().out)
    assert len(command["faces"]) == 2
    for face, other in zip(answer.json()["faces"], command["faces"], strict=True):
        assert face["bounding_box"] == other["bounding_box"]
        assert face["age"] == pytest.approx(other["age"], abs=0.11)
        assert face["expression"] == other["expression"]
        assert face["quality"] == pytest.approx(other["quality"], abs=1e-3)


def test_a_photo_that_cannot_be_read_cannot_be_analyzed(client: TestClient) -> None:
    assert client.post("/v1/analyze", files={"photo": blank()}).json()["faces"] == []
    answer = client.post("/v1/analyze", files={"photo": ("a.jpg", b"no photo")})
    assert answer.status_code == 422
    assert answer.json()["type"].endswith(":photo-unreadable")


def test_two_photos_are_compared(client: TestClient, fitted_model: Face_Encode_Model) -> None:
    other = (VERIFY_DATASET / "Ada_Mirova" / "1.jpg").read_bytes()
    answer = client.post("/v1/verify", files={"photo_a": ADA, "photo_b": other}).json()
    assert answer["is_match"] is True
    assert answer["threshold"] == fitted_model.verification_threshold
    assert answer["similarity"] >= answer["threshold"]
    assert answer["bounding_box_a"]["width"] > 100
    sent = {"photo_a": in_base64(ADA), "photo_b": in_base64(STRANGER)}
    assert client.post("/v1/verify", json=sent).json()["is_match"] is False


def test_a_comparison_says_which_photo_has_no_face(client: TestClient) -> None:
    photos = {"photo_a": ("a.jpg", ADA), "photo_b": ("wall.png", blank())}
    answer = client.post("/v1/verify", files=photos)
    assert answer.status_code == 422
    assert answer.json()["type"].endswith(":no-face")
    assert answer.json()["detail"] == "wall.png: no face found."


def test_an_embedding_is_the_encoders(
    client: TestClient, encoder: Encoder, fitted_model: Face_Encode_Model
) -> None:
    answer = client.post("/v1/embed", files={"photo": ADA}).json()
    assert answer["encoder"] == encoder.name
    assert answer["fingerprint"] == encoder.fingerprint
    (face,) = answer["faces"]
    pixels = np.asarray(Image.open(io.BytesIO(ADA)))
    embeddings, _ = fitted_model.compute_embeddings_image(pixels)
    assert np.asarray(face["embedding"]) == pytest.approx(embeddings[0], abs=1e-5)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "an empty file"),
        (ADA[:2_000], "damaged or cut off"),
        (b"<svg/>", "not a photo in a known format"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not a photo in a known format"),
    ],
)
def test_what_is_no_photo_is_reported(client: TestClient, content: bytes, reason: str) -> None:
    answer = client.post("/v1/match", files={"photo": ("x.jpg", content)})
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert f"x.jpg: {reason}" in answer.json()["detail"]


def test_too_many_pixels_are_reported(client: TestClient) -> None:
    bomb = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(bomb, "PNG")
    answer = client.post("/v1/match", files={"photo": bomb.getvalue()})
    assert answer.status_code == 422
    assert "at most 25,000,000 pixels" in answer.json()["detail"]


@pytest.mark.parametrize(
    "query", ["max_faces=0", "max_faces=x", "thorough=perhaps", "maxfaces=2", "min_face=19"]
)
def test_what_is_no_option_is_reported(client: TestClient, query: str) -> None:
    answer = client.post(f"/v1/match?{query}", files={"photo": ADA})
    assert answer.status_code == 422
    assert query.split("=")[0] in answer.json()["detail"]


INVENTED = ["Ada_Mirova", "Bruno_Castell", "Dario_Okonma", "Elin_Sorrel", "Mei_Oshara", "Teo_Varga"]


def names(client: TestClient) -> list[str]:
    return [person["name"] for person in client.get("/v1/people").json()["people"]]


def test_a_person_comes_is_found_renamed_and_goes(
    client: TestClient, service_folder: Path, encoder: Encoder
) -> None:
    path = service_folder / "people.sqlite"

    def on_disk() -> dict[str, int]:
        with closing(DatabaseGallery(path, encoder)) as gallery:
            return gallery.people()

    photos = [("photos", ("a.jpg", STRANGER)), ("photos", ("notes.txt", b"no photo"))]
    answer = client.post("/v1/people", data={"name": "  Zoe\u0308 王 "}, files=photos)
    assert answer.status_code == 200
    change = answer.json().pop("change")
    assert answer.json() == {
        "name": "Zoë 王",
        "enrolled": 1,
        "reused": 0,
        "left_out": [{"photo": "notes.txt", "reason": "not a photo in a known format"}],
        "notes": [],
        "change": change,
    }
    assert on_disk()["Zoë 王"] == 1
    (face,) = client.post("/v1/match", files={"photo": STRANGER}).json()["faces"]
    assert (face["name"], face["is_match"]) == ("Zoë 王", True)

    address = f"/v1/people/{quote('Zoë 王')}"
    person = {"name": "Zoë 王", "photos": 1, "note": ""}
    described = {**person, "threshold": None, "thumbnail": True}
    assert client.get(address).json() == described
    picture = client.get(f"{address}/thumbnail")
    assert picture.headers["content-type"] == "image/jpeg"
    assert max(Image.open(io.BytesIO(picture.content)).size) == 96

    answer = client.patch(address, json={"name": "Zoë Wang"})
    assert answer.json() == {**described, "name": "Zoë Wang", "change": change + 1}
    assert client.get(address).status_code == 404
    assert "Zoë 王" not in on_disk() and on_disk()["Zoë Wang"] == 1

    answer = client.delete("/v1/people/Zo%C3%AB%20Wang")
    assert answer.json() == {"name": "Zoë Wang", "photos": 1, "change": change + 2}
    assert names(client) == INVENTED
    assert sorted(on_disk()) == INVENTED

    told = client.get("/v1/changes", params={"since": change - 1}).json()["changes"]
    assert [each["action"] for each in told] == ["enrol", "rename", "remove"]
    assert {each["author"] for each in told} == {"local"}
    assert told[1]["renamed"] == ["Zoë 王", "Zoë Wang"]
    with closing(DatabaseGallery(path, encoder)) as gallery:
        assert [each.id for each in gallery.changes(change - 1)] == [each["id"] for each in told]


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
def test_what_is_no_name_is_reported(client: TestClient, name: str) -> None:
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
    assert answer.json()["type"].endswith(":name-taken")
    assert "merge the two" in answer.json()["detail"]
    assert names(client) == INVENTED


def test_pictures_are_kept_only_where_asked_for(
    serve: Serve, tmp_path: Path, encoder: Encoder
) -> None:
    with serve() as client:
        answer = client.post("/v1/people", data={"name": "A"}, files={"photos": STRANGER})
        assert answer.json()["enrolled"] == 1
        assert client.get("/v1/people/A").json()["thumbnail"] is False
        answer = client.get("/v1/people/A/thumbnail")
        assert answer.json()["type"].endswith(":no-thumbnail")
        (photo,) = client.get("/v1/people/A/photos").json()["photos"]
        assert photo["has_crop"] is False
        answer = client.get(f"/v1/photos/{photo['id']}/crop")
        assert (answer.status_code, answer.json()["type"][-8:]) == (404, ":no-crop")
    with closing(DatabaseGallery(tmp_path / "people.sqlite", encoder)) as gallery:
        assert gallery.crop(photo["id"]) is None


def test_a_change_that_cannot_be_saved_is_none(serve: Serve, tmp_path: Path) -> None:
    with serve() as client:
        client.post("/v1/people", data={"name": "A"}, files={"photos": STRANGER})
        # Another program is in the middle of a change, and does not end it.
        with closing(sqlite3.connect(tmp_path / "people.sqlite")) as other:
            other.execute("BEGIN IMMEDIATE")
            answer = client.patch("/v1/people/A", json={"name": "B"})
            assert answer.status_code == 503
            assert answer.json()["type"].endswith(":not-saved")
            # Readers do not wait.
            assert names(client) == ["A"]
            assert client.get("/readyz").status_code == 503
        assert client.patch("/v1/people/A", json={"name": "B"}).status_code == 200
        assert client.get("/readyz").status_code == 200
        told = client.get("/v1/changes").json()["changes"]
        assert [each["action"] for each in told] == ["enrol", "rename"]
        assert "face_encode_changes_total 2.0" in client.get("/metrics").text


def test_health_needs_no_token(client: TestClient) -> None:
    for path in ("/healthz", "/readyz"):
        answer = client.get(path)
        assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


def test_settings_are_those_of_the_model(
    client: TestClient, fitted_model: Face_Encode_Model
) -> None:
    client.post("/v1/match", files={"photo": ADA})
    settings = client.get("/v1/settings").json()
    assert settings["version"] == __version__
    assert settings["encoder"] == fitted_model.encoder.name
    assert settings["detector"] == fitted_model.detector.name
    assert (settings["people"], settings["photos"]) == (6, len(fitted_model.gallery))
    assert settings["threshold"] == fitted_model.threshold
    assert settings["threshold_from"] == "encoder"
    assert settings["calibration"] is None
    assert settings["limits"]["photos"] == 20
    assert (settings["needs_token"], settings["may_write"]) == (False, True)
    latency = settings["latency"]["POST /v1/match"]
    assert 0 < latency["p50_milliseconds"] <= latency["p99_milliseconds"]


def test_numbers_are_counted_by_pattern_and_never_by_name(client: TestClient) -> None:
    client.get("/v1/people/Ada_Mirova")
    client.get("/v1/people/Nobody")
    client.request("BREW", "/v1/people/Nobody")
    client.get("/nobody/knows/this")
    text = client.get("/metrics").text
    lines = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    person = 'face_encode_requests_total{{method="GET",route="/v1/people/{{name}}",status="{}"}}'
    assert float(lines[person.format(200)]) >= 1
    assert float(lines[person.format(404)]) >= 1
    assert float(lines["face_encode_people"]) == 6
    assert float(lines["process_resident_memory_bytes"]) > 1e8
    assert "Ada_Mirova" not in text and "Nobody" not in text and "nobody" not in text
    assert "BREW" not in text
