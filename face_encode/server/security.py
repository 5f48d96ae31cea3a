"""Who may read and who may change: bearer tokens, compared in constant time."""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, TypeAlias
from urllib.parse import urlsplit

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from face_encode.errors import InputError
from face_encode.files import open_regular, reason_of
from face_encode.server.audit import Author
from face_encode.server.problems import Problem
from face_encode.server.settings import LOOPBACK_HOSTS

Role: TypeAlias = Literal["read", "write"]

READ_VARIABLE = "FACE_ENCODE_TOKEN"
WRITE_VARIABLE = "FACE_ENCODE_WRITE_TOKEN"

# As many as 96 random bits take in base64; fewer can be guessed.
_FEWEST_CHARACTERS = 16
_MAKE_ONE = "python -c 'import secrets; print(secrets.token_urlsafe(32))'"


@dataclass(frozen=True)
class Token:
    """A secret that stands for a client.

    Attributes:
        name: What the audit log calls the client.
        role: ``write`` may also read.
        digest: SHA-256 of the secret; the secret itself is not kept.
    """

    name: str
    role: Role
    digest: bytes


class Tokens:
    """All tokens of a service; with none, whoever reaches it may do everything."""

    def __init__(self, tokens: list[Token]) -> None:
        """Take them."""
        self._tokens = tuple(tokens)

    def __bool__(self) -> bool:
        """Whether there is any."""
        return bool(self._tokens)

    @property
    def can_write(self) -> bool:
        """Whether anybody may change anything."""
        return not self._tokens or any(token.role == "write" for token in self._tokens)

    def may_write(self, name: str) -> bool:
        """Whether the client of this name may change anything."""
        return not self._tokens or any(
            token.name == name and token.role == "write" for token in self._tokens
        )

    def find(self, secret: str) -> Token | None:
        """The token of a secret, or None.

        All are compared, and digests of one length, so that the time tells nothing of them.
        """
        digest = _digest(secret)
        found = None
        for token in self._tokens:
            if hmac.compare_digest(token.digest, digest):
                found = token
        return found


def tokens_from(file: str | os.PathLike[str] | None) -> Tokens:
    """The tokens of the environment and of a file.

    ``FACE_ENCODE_TOKEN`` may do everything where it is the only one; beside a token that may
    write, from ``FACE_ENCODE_WRITE_TOKEN`` or a file, it may only read.

    Args:
        file: Lines of a client's name, ``read`` or ``write``, and the token, separated by blanks;
            or None. Empty lines and those that begin with ``#`` are passed over.

    Raises:
        InputError: The file cannot be read, a line is none of these, or a token is too short.
    """
    tokens = []
    secrets = {name: os.environ.get(name, "").strip() for name in (READ_VARIABLE, WRITE_VARIABLE)}
    if secret := secrets[READ_VARIABLE]:
        alone = not secrets[WRITE_VARIABLE] and file is None
        named = f"the token in {READ_VARIABLE}"
        tokens.append(
            _token("all", "write", secret, named)
            if alone
            else _token("read", "read", secret, named)
        )
    if secret := secrets[WRITE_VARIABLE]:
        tokens.append(_token("write", "write", secret, f"the token in {WRITE_VARIABLE}"))
    if file is not None:
        try:
            with open_regular(file) as opened:
                lines = opened.read().decode().splitlines()
        except OSError as error:
            raise InputError(f"the token file {file} cannot be read: {reason_of(error)}") from error
        except UnicodeDecodeError as error:
            raise InputError(f"the token file {file} is no text") from error
        for number, line in enumerate(lines, 1):
            if not line.strip() or line.lstrip().startswith("#"):
                continue
            words = line.split()
            where = f"{Path(file)}, line {number}"
            if len(words) != 3 or words[1] not in ("read", "write"):
                raise InputError(
                    f"{where}: a line is a client's name, 'read' or 'write', and a token. "
                    f"Received: {len(words)} words"
                )
            tokens.append(
                _token(words[0], "write" if words[1] == "write" else "read", words[2], where)
            )
    if len({token.digest for token in tokens}) < len(tokens):
        raise InputError("two clients have the same token; give each its own")
    if len({token.name for token in tokens}) < len(tokens):
        raise InputError("two tokens have the same client's name; the audit log tells them by it")
    return Tokens(tokens)


def _token(name: str, role: Role, secret: str, where: str) -> Token:
    """A token, if it is hard enough to guess; it is not repeated in an error."""
    if len(secret) < _FEWEST_CHARACTERS or not secret.isascii() or not secret.isprintable():
        raise InputError(
            f"{where}: a token has at least {_FEWEST_CHARACTERS} letters, digits or signs; make "
            f"one by: {_MAKE_ONE}. Received: {len(secret)} characters"
        )
    return Token(name, role, _digest(secret))


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()


_bearer = HTTPBearer(auto_error=False, description="FACE_ENCODE_TOKEN, or one of the token file")
Credentials = Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]


def may_read(request: Request, credentials: Credentials) -> Author:
    """Let in whoever may read."""
    return _author(request, credentials, "read")


def may_write(request: Request, credentials: Credentials) -> Author:
    """Let in whoever may change the people."""
    return _author(request, credentials, "write")


def _author(
    request: Request, credentials: HTTPAuthorizationCredentials | None, role: Role
) -> Author:
    """Who asks.

    Raises:
        Problem: 401 without a token that is known, 403 where it does not reach so far.
    """
    tokens: Tokens = request.app.state.tokens
    address = request.client.host if request.client is not None else ""
    if not tokens:
        return Author("local", address)
    challenge = {"WWW-Authenticate": 'Bearer realm="face-encode"'}
    if credentials is None:
        raise Problem(
            401,
            "token-missing",
            "A token is needed: send it in the header 'Authorization: Bearer …'.",
            headers=challenge,
        )
    token = tokens.find(credentials.credentials)
    if token is None:
        raise Problem(401, "token-unknown", "This token is not known here.", headers=challenge)
    if role == "write" and token.role != "write":
        words = (
            "This token may only read; changing the people takes a write token."
            if tokens.can_write
            else "This service was started without a write token: nobody may change its people."
        )
        raise Problem(403, "read-only-token", words)
    return Author(token.name, address)


Reader = Annotated[Author, Depends(may_read)]
Writer = Annotated[Author, Depends(may_write)]


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
