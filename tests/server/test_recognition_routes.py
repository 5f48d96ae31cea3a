from __future__ import annotations

import base64
import io
import json

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from face_encode.cli import main
from face_encode.encoders.encoder import Encoder
from face_encode.model import Face_Encode_Model
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
    assert (answer.status_code, answer.json()) == (200, {"faces": []})


def test_only_the_largest_faces(client: TestClient) -> None:
    faces = client.post("/v1/match?max_faces=2", files={"photo": GROUP}).json()["faces"]
    areas = [face["bounding_box"]["width"] * face["bounding_box"]["height"] for face in faces]
    assert len(areas) == 2 and areas == sorted(areas, reverse=True)


def test_where_nobody_is_enrolled_every_face_is_nobodys(serve: Serve) -> None:
    with serve() as client:
        (face,) = client.post("/v1/match", files={"photo": ADA}).json()["faces"]
    assert (face["name"], face["similarity"], face["is_match"]) == (None, None, False)
    assert face["bounding_box"]["width"] > 100


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
def test_what_is_no_photo_is_told(client: TestClient, content: bytes, reason: str) -> None:
    answer = client.post("/v1/match", files={"photo": ("x.jpg", content)})
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert f"x.jpg: {reason}" in answer.json()["detail"]


def test_too_many_pixels_are_told(client: TestClient) -> None:
    bomb = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(bomb, "PNG")
    answer = client.post("/v1/match", files={"photo": bomb.getvalue()})
    assert answer.status_code == 422
    assert "at most 25,000,000 pixels" in answer.json()["detail"]


@pytest.mark.parametrize("query", ["max_faces=0", "max_faces=x", "thorough=perhaps", "maxfaces=2"])
def test_what_is_no_option_is_told(client: TestClient, query: str) -> None:
    answer = client.post(f"/v1/match?{query}", files={"photo": ADA})
    assert answer.status_code == 422
    assert query.split("=")[0] in answer.json()["detail"]
