from __future__ import annotations

import pytest
from fastapi.testclient import TestClient

from face_encode.server.security import Tokens
from tests.server.conftest import Serve


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.0.0.1:8000", "localhost:1", "LOCALHOST", "[::1]:8000"]
)
def test_loopback_goes_by_its_own_names(client: TestClient, host: str) -> None:
    assert client.get("/v1/people", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "127.0.0.1.evil.example", "evil.example:8000", "", "[", "a@localhost:x@b"],
)
def test_a_foreign_name_for_this_machine_is_refused(client: TestClient, host: str) -> None:
    """DNS rebinding: a page of evil.example points that name at 127.0.0.1."""
    answer = client.get("/v1/people", headers={"Host": host})
    assert answer.status_code == 421
    assert answer.headers["content-type"] == "application/problem+json"
    assert client.get("/", headers={"Host": host}).status_code == 421


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:9000"},
        {"Origin": "http://["},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_other_pages_are_refused(client: TestClient, headers: dict[str, str]) -> None:
    for method, path in [
        ("DELETE", "/v1/people/Ada_Mirova"),
        ("GET", "/v1/people"),
        ("GET", "/metrics"),
    ]:
        answer = client.request(method, path, headers=headers)
        assert answer.status_code == 403
        assert answer.json()["type"].endswith(":foreign-origin")
    assert len(client.get("/v1/people").json()["people"]) == 6


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://127.0.0.1:8000", "Sec-Fetch-Site": "same-origin"},
        {"Sec-Fetch-Site": "none"},
    ],
)
def test_the_own_page_is_let_in(client: TestClient, headers: dict[str, str]) -> None:
    assert client.get("/v1/people", headers=headers).status_code == 200


def test_a_proxys_name_is_let_in_where_it_was_told(serve: Serve) -> None:
    with serve(allowed_hosts=("Face.example",)) as client:
        headers = {"Host": "face.example", "Origin": "https://face.example"}
        assert client.get("/v1/people", headers=headers).status_code == 200
        assert client.get("/v1/people", headers={"Host": "other.example"}).status_code == 421


def test_with_tokens_on_all_addresses_any_name_will_do(serve: Serve) -> None:
    with serve(host="0.0.0.0", tokens=Tokens([])) as client:
        assert client.get("/v1/people", headers={"Host": "hall.local"}).status_code == 200


def test_answers_tell_browsers_to_be_careful(client: TestClient) -> None:
    for path in ("/v1/people", "/healthz", "/nothing"):
        headers = client.get(path).headers
        assert "default-src 'self'" in headers["content-security-policy"]
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert "server" not in headers
    assert client.get("/v1/people").headers["cache-control"] == "no-store"
