from __future__ import annotations

import base64
import time

import pytest
from fastapi.testclient import TestClient

from face_encode.errors import InputError
from face_encode.server.bodies import person_name
from tests.conftest import EXAMPLES

ADA = (EXAMPLES / "ada_mirova.jpg").read_bytes()
BASE64 = base64.b64encode(ADA).decode()
FORM = "multipart/form-data; boundary=x"


@pytest.mark.parametrize(
    ("content_type", "content", "status", "kind"),
    [
        (None, ADA, 415, "media-type"),
        ("image/jpeg", ADA, 415, "media-type"),
        ("application/x-www-form-urlencoded", b"photo=abc", 415, "media-type"),
        ("text/json", b"{}", 415, "media-type"),
        ("application/json", b"", 422, "not-json"),
        ("application/json", b"{", 422, "not-json"),
        ("application/json", b"[]", 422, "not-json"),
        ("application/json", b"\xff\xfe\x00", 422, "not-json"),
        ("application/json", b"[" * 100_000, 422, "not-json"),
        ("application/json", b"{}", 422, "photo-missing"),
        ("application/json", b'{"photo": null}', 422, "not-base64"),
        ("application/json", b'{"photo": 7}', 422, "not-base64"),
        ("application/json", b'{"photo": ["YQ=="]}', 422, "not-base64"),
        ("application/json", b'{"photo": "a!b"}', 422, "not-base64"),
        ("application/json", b'{"photo": "/etc/passwd"}', 422, "not-base64"),
        ("application/json", b'{"photo": "file:///etc/passwd"}', 422, "not-base64"),
        ("application/json", b'{"photo": "https://a.example/b.jpg"}', 422, "not-base64"),
        ("application/json", b'{"photo": "data:image/png;base64,YQ=="}', 422, "not-base64"),
        ("application/json", b'{"photo": "YQ==", "path": "/x"}', 422, "unknown-field"),
        ("application/json", b'{"url": "http://a.example"}', 422, "unknown-field"),
        ("application/json", '{"photo": "ä"}'.encode(), 422, "not-base64"),
        ("multipart/form-data", b"", 422, "not-multipart"),
        (FORM, b"", 422, "photo-missing"),
        (FORM, b"nonsense", 422, "not-multipart"),
        (FORM, b"--x\r\n\r\nno name\r\n--x--\r\n", 422, "not-multipart"),
        (
            FORM,
            b'--x\r\nContent-Disposition: form-data; name="photo"\r\n\r\n/etc/passwd\r\n--x--\r\n',
            422,
            "unknown-field",
        ),
        (
            FORM,
            b'--x\r\nContent-Disposition: form-data; name="a"; filename="a"\r\n\r\na\r\n--x--\r\n',
            422,
            "unknown-field",
        ),
    ],
)
def test_a_body_that_is_none_is_reported(
    client: TestClient, content_type: str | None, content: bytes, status: int, kind: str
) -> None:
    headers = {} if content_type is None else {"Content-Type": content_type}
    answer = client.post("/v1/match", content=content, headers=headers)
    assert (answer.status_code, answer.json()["type"]) == (
        status,
        f"urn:face-encode:problem:{kind}",
    )
    assert answer.headers["content-type"] == "application/problem+json"


LABORIOUS = {
    "lists": lambda: b'{"name":[' + b"[]," * 5_000_000 + b"[]]}",
    "nested objects": lambda: b'{"name":' * 2_000_000,
    "fields": lambda: b"{" + b'"a":1,' * 3_000_000 + b'"b":1}',
    "fraction": lambda: b'{"name":1.' + b"1" * 15_000_000 + b"}",
    "whole number": lambda: b'{"name":1' + b"1" * 15_000_000 + b"}",
    "lists of another encoding": lambda: ('{"name":[' + "[]," * 2_000_000 + "[]]}").encode(
        "utf-16"
    ),
}


@pytest.mark.parametrize("kind", LABORIOUS)
def test_json_that_is_laborious_to_parse_is_refused_at_once(client: TestClient, kind: str) -> None:
    content = LABORIOUS[kind]()
    headers = {"Content-Type": "application/json"}
    begun = time.process_time()
    answer = client.post("/v1/match", content=content, headers=headers)
    assert answer.status_code == 422
    assert answer.json()["type"].endswith((":not-json", ":unknown-field"))
    # Five million lists took some seconds, in which nobody else was answered.
    assert time.process_time() - begun < 1


def test_a_text_may_hold_any_signs(client: TestClient) -> None:
    for note in ("[{,:" * 500, ""):
        assert client.patch("/v1/people/Ada_Mirova", json={"note": note}).status_code == 200


def test_two_photos_where_one_is_asked_for(client: TestClient) -> None:
    answer = client.post("/v1/match", files=[("photo", ADA), ("photo", ADA)])
    assert answer.json()["detail"] == "The field 'photo' holds one photo. Received: 2."


def test_too_many_photos(client: TestClient) -> None:
    for sent in (
        {"files": [("photos", b"a")] * 21, "data": {"name": "A"}},
        {"files": [("photos", b"a")] * 100, "data": {"name": "A"}},
        {"json": {"name": "A", "photos": ["YQ=="] * 21}},
    ):
        answer = client.post("/v1/people", **sent)
        assert answer.status_code == 422
        assert "20 photos" in answer.json()["detail"] or "files" in answer.json()["detail"]


def test_a_file_may_be_called_anything(client: TestClient) -> None:
    """A file's name is a label: it is shown, cut short, and never opened."""
    path = "../../etc/passwd\x1b[31m" + "x" * 500
    answer = client.post("/v1/match", files={"photo": (path, b"no photo")})
    assert answer.status_code == 422
    assert len(answer.json()["detail"]) < 200
    assert "\x1b" not in answer.json()["detail"]


def test_a_photo_may_be_sent_in_json_or_under_another_type(client: TestClient) -> None:
    for sent in ({"json": {"photo": BASE64}}, {"files": {"photo": ("a", ADA, "text/plain")}}):
        answer = client.post("/v1/match", **sent)
        assert len(answer.json()["faces"]) == 1


@pytest.mark.parametrize(
    ("sent", "name"),
    [
        ("Ada", "Ada"),
        ("  Ada Lovelace\u00a0", "Ada Lovelace"),
        ("Zoe\u0308", "Zoë"),
        ("王小明", "王小明"),
        ("نیلوفر\u200cها", "نیلوفر\u200cها"),
        ("O'Brien-Smith, Jr.", "O'Brien-Smith, Jr."),
        ("x" * 200, "x" * 200),
        ("100 %? #1 & <b>", "100 %? #1 & <b>"),
    ],
)
def test_names_of_any_script(sent: str, name: str) -> None:
    assert person_name(sent) == name


NONE = ["", " ", "\u00a0", "a/b", "a\\b", ".", "..", ".a", "a\0", "a\nb", "a\x7f", "a\u2028b"]
NONE += ["\u202ea", "a\u2066", "\ud800", "x" * 201, "x" * 10**6, "\ue000", "\uffff"]


@pytest.mark.parametrize("sent", [*NONE, None, 1, b"a", ["a"], {}])
def test_what_is_no_name(sent: object) -> None:
    with pytest.raises(InputError, match="a person's name") as error:
        person_name(sent)
    assert len(str(error.value)) < 400
