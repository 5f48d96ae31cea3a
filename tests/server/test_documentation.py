from __future__ import annotations

from html.parser import HTMLParser

import pytest
from fastapi.testclient import TestClient

from tests.server.conftest import Serve


class Addresses(HTMLParser):
    """What a page would load, and all its text."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.links: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.links += [str(value) for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_tells_every_operation_and_loads_nothing(client: TestClient) -> None:
    answer = client.get("/docs")
    assert answer.headers["content-type"].startswith("text/html")
    page = Addresses()
    page.feed(answer.text)
    for path, operations in client.get("/openapi.json").json()["paths"].items():
        for method in operations:
            assert f"{method.upper()} {path}" in page.text
    assert "script" not in page.tags and "link" not in page.tags
    assert all(link.startswith("#") or link == "openapi.json" for link in page.links)
    anchors = {link[1:] for link in page.links if link.startswith("#")}
    assert "MatchAnswer" in anchors and "ProblemAnswer" in anchors
    assert all(f'id="{anchor}"' in answer.text for anchor in anchors)


def test_requests_do_not_build_the_document(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    # Of several that did so at once, some would fail.
    with serve() as client:
        monkeypatch.setattr("fastapi.applications.get_openapi", None)
        for path in ("/v1/people", "/docs", "/openapi.json"):
            assert client.get(path).status_code == 200


def test_bodies_are_described_in_both_forms(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    body = document["paths"]["/v1/people"]["post"]["requestBody"]["content"]
    assert set(body) == {"multipart/form-data", "application/json"}
    assert body["application/json"]["schema"]["required"] == ["photos", "name"]


def test_a_wrong_method_is_405_and_a_wrong_address_404(client: TestClient) -> None:
    answer = client.put("/v1/people")
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, POST")
    answer = client.get("/v1/match")
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
    answer = client.delete("/v1/people/A/thumbnail")
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET")
    for path in ("/nothing", "/v1/nothing", "/v2/match", "/static/../../setup.cfg", "/%2e%2e/x"):
        answer = client.get(path)
        assert answer.status_code == 404
        assert answer.headers["content-type"] == "application/problem+json"
