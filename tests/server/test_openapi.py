"""docs/openapi.json is what the service says of itself, and goes on serving the clients it has."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient

from tests.conftest import REPOSITORY

DOCUMENT = REPOSITORY / "docs" / "openapi.json"
WRITE = "FACE_ENCODE_WRITE_OPENAPI=1 python -m pytest -n 0 tests/server/test_openapi.py"
"""Writes the document anew, unless a client that goes by the old one would break: to break clients
after all, remove the old one first, and say so in CHANGELOG.md."""


def breaks(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """What of a service's description its clients rely on, and a new one no longer promises.

    Gone are an address, a method, a status, a media type or a property of a good answer, an
    option or a field of a body; or something has to be sent that had not to be, or a value has
    another type.
    """
    return list(_broken_operations(_inlined(old["paths"], old), _inlined(new["paths"], new)))


def _inlined(part: Any, document: dict[str, Any]) -> Any:
    """A part of a document with schemas in the place of references to them."""
    if isinstance(part, list):
        return [_inlined(each, document) for each in part]
    if not isinstance(part, dict):
        return part
    if "$ref" in part:
        name = part["$ref"].rpartition("/")[2]
        return _inlined(document["components"]["schemas"][name], document)
    return {key: _inlined(each, document) for key, each in part.items()}


def _broken_operations(old: Any, new: Any) -> Iterator[str]:
    for path, operations in old.items():
        for method, operation in operations.items():
            where, other = f"{method.upper()} {path}", new.get(path, {}).get(method)
            if other is None:
                yield f"{where} is gone"
                continue
            yield from _broken_options(where, _options(operation), _options(other))
            sent = operation.get("requestBody", {}), other.get("requestBody", {})
            yield from _broken_contents(where, *sent, is_sent=True)
            for status, answer in operation["responses"].items():
                if status not in other["responses"]:
                    yield f"{where}: the status {status} is gone"
                elif status.startswith("2"):
                    answers = answer, other["responses"][status]
                    yield from _broken_contents(f"{where} {status}", *answers, is_sent=False)


def _options(operation: Any) -> dict[str, Any]:
    return {f"{each['in']} {each['name']}": each for each in operation.get("parameters", [])}


def _broken_options(where: str, old: dict[str, Any], new: dict[str, Any]) -> Iterator[str]:
    for name, option in old.items():
        if name not in new:
            yield f"{where}: {name} is gone"
        else:
            schemas = option["schema"], new[name]["schema"]
            yield from _broken_values(f"{where}: {name}", *schemas, is_sent=True)
    for name, option in new.items():
        if option.get("required", False) and not old.get(name, {}).get("required", False):
            yield f"{where}: {name} has to be sent"


def _broken_contents(where: str, old: Any, new: Any, *, is_sent: bool) -> Iterator[str]:
    contents = new.get("content", {})
    for media_type, content in old.get("content", {}).items():
        if media_type not in contents:
            yield f"{where}: the media type {media_type} is gone"
        else:
            schemas = content.get("schema", {}), contents[media_type].get("schema", {})
            yield from _broken_values(where, *schemas, is_sent=is_sent)


def _broken_values(where: str, old: Any, new: Any, *, is_sent: bool) -> Iterator[str]:
    # What is sent may be of more types than before, what is answered of fewer.
    few, many = (old, new) if is_sent else (new, old)
    if not _types(few) <= _types(many):
        yield f"{where}: the type changes from {sorted(_types(old))} to {sorted(_types(new))}"
    for name in sorted(set(new.get("required", ())) - set(old.get("required", ()))):
        if is_sent:
            yield f"{where}: {name} has to be sent"
    inner, others = old.get("properties", {}), new.get("properties", {})
    for name in inner:
        if name not in others:
            yield f"{where}: {name} is gone"
        else:
            schemas = inner[name], others[name]
            yield from _broken_values(f"{where}: {name}", *schemas, is_sent=is_sent)
    if "items" in old and "items" in new:
        yield from _broken_values(f"{where}[]", old["items"], new["items"], is_sent=is_sent)
    for one, other in zip(_choices(old), _choices(new), strict=False):
        yield from _broken_values(where, one, other, is_sent=is_sent)


def _choices(schema: Any) -> list[Any]:
    return list(schema.get("anyOf") or schema.get("oneOf") or ())


def _types(schema: Any) -> set[str]:
    inner = {name for each in _choices(schema) for name in _types(each)}
    return inner | ({schema["type"]} if "type" in schema else set())


def test_the_document_is_what_the_service_says(client: TestClient) -> None:
    now = client.get("/openapi.json").json()
    if DOCUMENT.exists():
        assert breaks(json.loads(DOCUMENT.read_text(encoding="utf-8")), now) == []
    if os.environ.get("FACE_ENCODE_WRITE_OPENAPI") == "1":
        text = json.dumps(now, indent=1, ensure_ascii=False)
        DOCUMENT.write_text(f"{text}\n", encoding="utf-8")
    assert json.loads(DOCUMENT.read_text(encoding="utf-8")) == now, f"write it anew: {WRITE}"


Change = Callable[[dict[str, Any]], Any]


def matched(document: dict[str, Any]) -> Any:
    return document["components"]["schemas"]["MatchedFace"]


def match(document: dict[str, Any]) -> Any:
    return document["paths"]["/v1/match"]["post"]


def enrolment(document: dict[str, Any]) -> Any:
    content = document["paths"]["/v1/people"]["post"]["requestBody"]["content"]
    return content["application/json"]["schema"]


OPTION = {"in": "query", "name": "new", "schema": {"type": "string"}}

BREAKING: list[tuple[Change, str]] = [
    (lambda new: new["paths"].pop("/v1/match"), "POST /v1/match is gone"),
    (lambda new: new["paths"]["/v1/people/{name}"].pop("patch"), "PATCH /v1/people/{name} is gone"),
    (lambda new: match(new)["responses"].pop("200"), "the status 200 is gone"),
    (
        lambda new: match(new)["requestBody"]["content"].pop("application/json"),
        "POST /v1/match: the media type application/json is gone",
    ),
    (lambda new: matched(new)["properties"].pop("is_match"), "faces[]: is_match is gone"),
    (
        lambda new: matched(new)["properties"]["similarity"]["anyOf"].append({"type": "string"}),
        "the type changes from ['null', 'number'] to ['null', 'number', 'string']",
    ),
    (lambda new: match(new)["parameters"].clear(), "POST /v1/match: query max_faces is gone"),
    (
        lambda new: match(new)["parameters"].append({**OPTION, "required": True}),
        "POST /v1/match: query new has to be sent",
    ),
    (lambda new: enrolment(new)["required"].append("note"), "POST /v1/people: note has to be sent"),
    (lambda new: enrolment(new)["properties"].pop("name"), "POST /v1/people: name is gone"),
    (
        lambda new: enrolment(new)["properties"]["name"].update(type="integer"),
        "name: the type changes from ['string'] to ['integer']",
    ),
]


@pytest.mark.parametrize(("change", "told"), BREAKING, ids=[told for _, told in BREAKING])
def test_what_breaks_clients_is_told(change: Change, told: str) -> None:
    old = json.loads(DOCUMENT.read_text(encoding="utf-8"))
    new = copy.deepcopy(old)
    change(new)
    assert any(told in each for each in breaks(old, new)), breaks(old, new)


def test_what_is_added_breaks_nobody() -> None:
    old = json.loads(DOCUMENT.read_text(encoding="utf-8"))
    new = copy.deepcopy(old)
    new["paths"]["/v1/new"] = {"get": {"responses": {}}}
    match(new)["parameters"].append(OPTION)
    matched(new)["properties"]["new"] = {"type": "string"}
    matched(new)["required"].append("new")
    enrolment(new)["properties"]["note"] = {"type": "string"}
    match(new)["responses"]["200"]["content"]["text/plain"] = {}
    assert breaks(old, new) == []
    assert breaks(old, old) == []
    assert breaks(new, old) != []
