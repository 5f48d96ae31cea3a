from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from face_encode.errors import InputError
from face_encode.server.security import Tokens, tokens_from
from tests.server.conftest import ADDRESS, Serve

READ, WRITE = "reader-0123456789abcdef", "writer-0123456789abcdef"


@pytest.fixture
def tokens(tmp_path: Path) -> Tokens:
    file = tmp_path / "tokens"
    file.write_text(f"# who may do what\n\nhall read {READ}\nfront-desk  write\t{WRITE}\n")
    return tokens_from(file)


@pytest.fixture
def guarded(serve: Serve, tokens: Tokens) -> Iterator[TestClient]:
    with serve(tokens=tokens) as client:
        yield client


def bearing(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/match"),
        ("POST", "/v1/verify"),
        ("POST", "/v1/embed"),
        ("GET", "/v1/people"),
        ("POST", "/v1/people"),
        ("GET", "/v1/people/A"),
        ("PATCH", "/v1/people/A"),
        ("DELETE", "/v1/people/A"),
        ("GET", "/v1/people/A/thumbnail"),
        ("GET", "/v1/people/A/photos"),
        ("GET", "/v1/people/A/export"),
        ("POST", "/v1/people/A/merge"),
        ("GET", "/v1/photos/1/crop"),
        ("DELETE", "/v1/photos/1"),
        ("POST", "/v1/photos/1/move"),
        ("GET", "/v1/unknown"),
        ("GET", "/v1/unknown/faces/1/crop"),
        ("POST", "/v1/unknown/unknown-1/name"),
        ("POST", "/v1/unknown/unknown-1/merge"),
        ("DELETE", "/v1/unknown/unknown-1"),
        ("GET", "/v1/changes"),
        ("POST", "/v1/undo"),
        ("GET", "/v1/settings"),
        ("GET", "/metrics"),
    ],
)
def test_nobody_gets_in_without_a_token(guarded: TestClient, method: str, path: str) -> None:
    kinds = {
        "": "token-missing",
        "Basic abc": "token-missing",
        "Bearer ": "token-missing",
        f"Bearer {READ}x": "token-unknown",
        f"Bearer {READ[:-1]}": "token-unknown",
        f"bearer {READ.upper()}": "token-unknown",
    }
    for header, kind in kinds.items():
        headers = {"Authorization": header} if header else {}
        answer = guarded.request(method, path, headers=headers)
        assert answer.status_code == 401, header
        assert answer.headers["www-authenticate"].startswith("Bearer")
        assert answer.json()["type"].endswith(kind)


def test_every_operation_asks_for_a_token(guarded: TestClient) -> None:
    """A route that is added without a guard fails here."""
    open_to_all = {"/healthz", "/readyz"}
    for path, operations in guarded.get("/openapi.json").json()["paths"].items():
        for method, operation in operations.items():
            answer = guarded.request(
                method, path.format(name="A", photo=1, face=1, unknown="unknown-1")
            )
            assert answer.status_code == (200 if path in open_to_all else 401), (method, path)
            assert ("security" in operation) == (path not in open_to_all)


def test_a_read_token_reads_and_changes_nothing(guarded: TestClient) -> None:
    assert guarded.get("/v1/people", headers=bearing(READ)).status_code == 200
    assert guarded.get("/metrics", headers=bearing(READ)).status_code == 200
    assert guarded.get("/v1/settings", headers=bearing(READ)).json()["may_write"] is False
    for method, path in [
        ("POST", "/v1/people"),
        ("PATCH", "/v1/people/A"),
        ("DELETE", "/v1/people/A"),
        # Everything of a person, and who changed what, is for those who may change it.
        ("GET", "/v1/people/A/export"),
        ("GET", "/v1/changes"),
        ("POST", "/v1/people/A/merge"),
        ("DELETE", "/v1/photos/1"),
        ("POST", "/v1/photos/1/move"),
        ("POST", "/v1/undo"),
    ]:
        answer = guarded.request(method, path, headers=bearing(READ))
        assert answer.status_code == 403
        assert answer.json()["type"].endswith(":read-only-token")


def test_a_write_token_does_both(guarded: TestClient) -> None:
    assert guarded.get("/v1/settings", headers=bearing(WRITE)).json()["may_write"] is True
    assert guarded.delete("/v1/people/A", headers=bearing(WRITE)).status_code == 404


def test_a_lone_token_does_everything(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FACE_ENCODE_TOKEN", READ)
    with serve(tokens=tokens_from(None)) as client:
        assert client.get("/v1/people", headers=bearing(READ)).status_code == 200
        assert client.delete("/v1/people/A", headers=bearing(READ)).status_code == 404
        assert client.delete("/v1/people/A", headers=bearing(WRITE)).status_code == 401


def test_without_a_write_token_nobody_changes_anything(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "tokens").write_text(f"hall read {READ}")
    tokens = tokens_from(tmp_path / "tokens")
    assert not tokens.can_write
    with serve(tokens=tokens) as client:
        answer = client.delete("/v1/people/A", headers=bearing(READ))
        assert "without a write token" in answer.json()["detail"]


def test_the_environment_holds_both(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not tokens_from(None)
    monkeypatch.setenv("FACE_ENCODE_TOKEN", READ)
    monkeypatch.setenv("FACE_ENCODE_WRITE_TOKEN", WRITE)
    tokens = tokens_from(None)
    reader, writer = tokens.find(READ), tokens.find(WRITE)
    assert reader is not None and (reader.name, reader.role) == ("read", "read")
    assert writer is not None and (writer.name, writer.role) == ("write", "write")
    assert tokens.find("") is None


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("hall read short", "at least 16"),
        ("hall read", "a line is"),
        (f"hall admin {READ}", "a line is"),
        (f"a read {READ}\nb write {READ}", "the same token"),
        (f"a read {READ}\na write {WRITE}", "the same client's name"),
        ("hall read ääääääääääääääääääää", "at least 16 letters"),
    ],
)
def test_a_wrong_token_file_is_reported_without_the_token(
    content: str, words: str, tmp_path: Path
) -> None:
    file = tmp_path / "tokens"
    file.write_text(content)
    with pytest.raises(InputError, match=words) as error:
        tokens_from(file)
    assert READ not in str(error.value) and "short" not in str(error.value)


def test_a_missing_token_file_is_reported(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        tokens_from(tmp_path / "none")
    (tmp_path / "photo").write_bytes(b"\xff\xd8")
    with pytest.raises(InputError, match="no text"):
        tokens_from(tmp_path / "photo")


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


def test_a_proxys_name_is_let_in_where_it_was_given(serve: Serve) -> None:
    with serve(allowed_hosts=("Face.example",)) as client:
        # Most proxies leave the port out of the host.
        for origin in ("https://face.example", "https://face.example:8443"):
            for host in ("face.example", "face.example:8443"):
                headers = {"Host": host, "Origin": origin, "Sec-Fetch-Site": "same-origin"}
                assert client.get("/v1/people", headers=headers).status_code == 200
        for origin in ("https://other.example", "http://127.0.0.1:9000", "http://localhost:8443"):
            headers = {"Host": "face.example", "Origin": origin}
            answer = client.get("/v1/people", headers=headers)
            assert answer.status_code == 403
            assert "--allowed-host" in answer.json()["detail"]
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


def test_browsers_ask_for_what_has_changed_of_the_page(client: TestClient) -> None:
    for path in ("/", "/app.js", "/style.css"):
        answer = client.get(path)
        assert answer.headers["cache-control"] == "no-cache"
        known = {"If-None-Match": answer.headers["etag"]}
        assert client.get(path, headers=known).status_code == 304


@pytest.mark.parametrize("content", ["", "\n\n", "# nobody yet\n", "  # hall read secret\n\t\n"])
def test_a_token_file_without_a_token_does_not_serve_everybody(
    content: str, tmp_path: Path
) -> None:
    (tmp_path / "tokens").write_text(content)
    with pytest.raises(InputError, match="holds no token"):
        tokens_from(tmp_path / "tokens")


@pytest.mark.parametrize("variable", ["FACE_ENCODE_TOKEN", "FACE_ENCODE_WRITE_TOKEN"])
@pytest.mark.parametrize("text", ["", "   ", "\t\n"])
def test_a_blank_token_does_not_serve_everybody(
    variable: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FACE_ENCODE_TOKEN", READ)
    monkeypatch.setenv(variable, text)
    with pytest.raises(InputError, match=f"{variable} is set, but blank"):
        tokens_from(None)


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:DB8::7", "2001:db8::7"),
        ("<script>alert(1)</script>", ""),
        ("a" * 5_000, ""),
        ("192.0.2.7; DROP TABLE change", ""),
        ("fe80::1%<b>eth0</b>", "fe80::1"),
    ],
)
def test_what_a_proxy_gives_is_an_address_or_nothing(
    given: str, kept: str, client: TestClient
) -> None:
    # As ``face-encode serve`` runs the application behind a proxy on this machine.
    behind = TestClient(
        ProxyHeadersMiddleware(client.app, trusted_hosts="*"),  # type: ignore[arg-type]
        base_url=ADDRESS,
    )
    for note in ("met in the hall", ""):
        headers = {"X-Forwarded-For": given.encode()}
        answer = behind.patch("/v1/people/Ada_Mirova", json={"note": note}, headers=headers)
        assert answer.status_code == 200
    last = client.get("/v1/changes?count=10000").json()["changes"][-1]
    assert (last["action"], last["address"]) == ("note", kept)
