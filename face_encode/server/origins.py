"""Keeping other web pages out: host names, origins, and the headers that browsers go by."""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from face_encode.server.problems import Problem
from face_encode.server.settings import LOOPBACK_HOSTS

_HEADERS = {
    # Everything that the page needs comes from this service.
    "Content-Security-Policy": (
        "default-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; "
        "object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class OriginGuard:
    """Refuses what a foreign web page in a user's browser sends, and sets the headers.

    A service on loopback is open to every program of its machine, and a browser is one: a foreign
    page may post to it (cross-site request forgery), or point a name of its own at 127.0.0.1 and
    read the answers (DNS rebinding). The first shows in ``Origin`` and ``Sec-Fetch-Site``, the
    second in ``Host``.
    """

    def __init__(self, app: ASGIApp, hosts: Iterable[str] | None) -> None:
        """Wrap an application.

        Args:
            app: The application.
            hosts: Names under which it may be reached beside those of loopback; None for any.
        """
        self._app = app
        self._hosts = None if hosts is None else LOOPBACK_HOSTS | {host.lower() for host in hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or hand on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path: str = scope["path"]
        private = path.startswith("/v1") or path == "/metrics"

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
                if private:
                    headers.setdefault("Cache-Control", "no-store")
            await send(message)

        problem = self._objection(Headers(scope=scope), private)
        if problem is not None:
            await problem.response()(scope, receive, send_with_headers)
            return
        await self._app(scope, receive, send_with_headers)

    def _objection(self, headers: Headers, private: bool) -> Problem | None:
        """Why a request is refused, or None."""
        host = headers.get("host", "")
        if self._hosts is not None and _name_of(f"//{host}") not in self._hosts:
            return Problem(
                421,
                "unknown-host",
                "The service is not reached under this name; --allowed-host tells it of another.",
            )
        if not private:
            return None
        origin = headers.get("origin")
        foreign = origin is not None and _place_of(origin) != host.lower()
        if foreign or headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
            return Problem(403, "foreign-origin", "Other web pages may not use this service.")
        return None


def _name_of(url: str) -> str:
    """The host name in a URL, without the port; empty where it is none."""
    try:
        return (urlsplit(url).hostname or "").lower()
    except ValueError:
        return ""


def _place_of(url: str) -> str:
    """Host and port in a URL; empty where it is none."""
    try:
        return urlsplit(url).netloc.lower()
    except ValueError:
        return ""
