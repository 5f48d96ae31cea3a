"""The OpenAPI document as a plain page: no script, and nothing from foreign hosts."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

_METHODS = ("get", "post", "patch", "delete")


def page_of(document: Mapping[str, Any]) -> str:
    """Lay an OpenAPI document out as HTML.

    Args:
        document: As FastAPI gives it.
    """
    title = escape(document["info"]["title"])
    parts = [
        '<!doctype html><html lang="en"><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width">',
        '<meta name="color-scheme" content="light dark">',
        f"<title>{title}</title><body><main><h1>{title}</h1>",
        f"<p>{escape(document['info'].get('description', ''))}</p>",
        '<p>For programs: <a href="openapi.json">openapi.json</a>.</p>',
    ]
    for path, operations in document["paths"].items():
        for method in _METHODS:
            if method in operations:
                parts += _operation(path, method, operations[method])
    parts.append("<h2>Schemas</h2>")
    for name, schema in document["components"]["schemas"].items():
        parts.append(f'<h3 id="{escape(name)}">{escape(name)}</h3>{_json(schema)}')
    parts.append("</main></body></html>")
    return "\n".join(parts)


def _operation(path: str, method: str, operation: Mapping[str, Any]) -> Iterator[str]:
    """One operation: what it is for, what it takes, and what it answers."""
    yield f"<h2><code>{method.upper()} {escape(path)}</code></h2>"
    yield f"<p>{escape(operation.get('description', ''))}</p><dl>"
    if "security" in operation:
        yield "<dt>Token</dt><dd>needed where the service was started with one</dd>"
    for each in operation.get("parameters", ()):
        kind = escape(f"{each['name']} (in the {each['in']})")
        description = escape(each.get("description", ""))
        yield f"<dt>{kind}</dt><dd>{description}{_json(each['schema'])}</dd>"
    for media_type, content in operation.get("requestBody", {}).get("content", {}).items():
        yield f"<dt>Body as {escape(media_type)}</dt><dd>{_json(content['schema'])}</dd>"
    for status, answer in operation["responses"].items():
        yield f"<dt>{escape(status)}</dt><dd>{escape(answer['description'])}"
        for media_type, content in answer.get("content", {}).items():
            name = content.get("schema", {}).get("$ref", "").rpartition("/")[2]
            link = f': <a href="#{escape(name)}">{escape(name)}</a>' if name else ""
            yield f" <code>{escape(media_type)}</code>{link}"
        yield "</dd>"
    yield "</dl>"


def _json(value: Any) -> str:
    return f"<pre>{escape(json.dumps(value, indent=1, ensure_ascii=False))}</pre>"
