"""Access: bearer tokens that may read or also change, and guards against foreign web pages."""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Literal, TypeAlias, cast, get_args
from urllib.parse import urlsplit

from fastapi import Depends, Request
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from face_encode.errors import InputError
from face_encode.files import open_regular, reason_of
from face_encode.gallery.audit import Author
from face_encode.server.limits import ADMIT
from face_encode.server.problems import Problem
from face_encode.server.settings import INTERFACES, LOOPBACK_HOSTS

Role: TypeAlias = Literal["read", "write"]

READ_VARIABLE = "FACE_ENCODE_TOKEN"
WRITE_VARIABLE = "FACE_ENCODE_WRITE_TOKEN"

# 96 random bits in base64; fewer can be guessed.
_MIN_TOKEN_CHARACTERS = 16


@dataclass(frozen=True)
class Token:
    """A secret that stands for a client.

    Attributes:
        name: The client's name in the audit log.
        role: ``write`` may also read.
        digest: SHA-256 of the secret, which is not stored.
    """

    name: str
    role: Role
    digest: bytes


class Tokens:
    """The tokens of a service; without any, every client may do everything."""

    def __init__(self, tokens: list[Token]) -> None:
        """Take the tokens."""
        self._tokens = tuple(tokens)

    def __bool__(self) -> bool:
        """Whether there are tokens."""
        return bool(self._tokens)

    @property
    def can_write(self) -> bool:
        """Whether any client may change the people."""
        return not self._tokens or any(token.role == "write" for token in self._tokens)

    def may_write(self, name: str) -> bool:
        """Whether the client of this name may change the people."""
        return not self._tokens or any(
            token.name == name and token.role == "write" for token in self._tokens
        )

    def find(self, secret: str) -> Token | None:
        """Return the token of a secret, or None.

        Every token is compared, by digests of one length, so that the time reveals nothing.
        """
        digest = _digest(secret)
        found = [token for token in self._tokens if hmac.compare_digest(token.digest, digest)]
        return found[0] if found else None


def tokens_from(file: str | os.PathLike[str] | None) -> Tokens:
    """Read the tokens of the environment and of a file.

    ``FACE_ENCODE_TOKEN`` may do everything where it is the only one; beside
    ``FACE_ENCODE_WRITE_TOKEN`` or a file it may only read.

    Args:
        file: Lines of a client's name, ``read`` or ``write``, and the token, separated by blanks;
            or None. Empty lines and lines that begin with ``#`` are skipped.

    Raises:
        InputError: The file cannot be read or holds no token, a line has another form, a variable
            is blank, or a token is too short.
    """
    tokens = []
    reading, writing = map(_secret_of_environment, (READ_VARIABLE, WRITE_VARIABLE))
    if reading:
        alone = not writing and file is None
        name, role = ("all", "write") if alone else ("read", "read")
        tokens.append(_token(name, role, reading, f"the token in {READ_VARIABLE}"))
    if writing:
        tokens.append(_token("write", "write", writing, f"the token in {WRITE_VARIABLE}"))
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
            if len(words) != 3 or words[1] not in get_args(Role):
                raise InputError(
                    f"{where}: a line is a client's name, 'read' or 'write', and a token. "
                    f"Received: {len(words)} words"
                )
            tokens.append(_token(words[0], words[1], words[2], where))
        if not tokens:
            # Served without tokens, everybody could do everything.
            raise InputError(f"the token file {file} holds no token, only comments or nothing")
    if len({token.digest for token in tokens}) < len(tokens):
        raise InputError("two clients have the same token; give each its own")
    if len({token.name for token in tokens}) < len(tokens):
        raise InputError(
            "two tokens have the same client's name; the audit log needs different ones"
        )
    return Tokens(tokens)


def _secret_of_environment(variable: str) -> str:
    """The token of a variable, empty where it is not set.

    Raises:
        InputError: The variable is blank: somebody wanted a token, and would get a service without.
    """
    secret = os.environ.get(variable)
    if secret is not None and not secret.strip():
        raise InputError(f"{variable} is set, but blank: give it a token, or unset it")
    return (secret or "").strip()


def _token(name: str, role: str, secret: str, where: str) -> Token:
    """Check that a token is hard enough to guess; an error does not repeat it."""
    if len(secret) < _MIN_TOKEN_CHARACTERS or not secret.isascii() or not secret.isprintable():
        raise InputError(
            f"{where}: a token has at least {_MIN_TOKEN_CHARACTERS} letters, digits or signs; make "
            "one by: python -c 'import secrets; print(secrets.token_urlsafe(32))'. "
            f"Received: {len(secret)} characters"
        )
    return Token(name, cast(Role, role), _digest(secret))


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()


_bearer = HTTPBearer(auto_error=False, description="FACE_ENCODE_TOKEN, or one of the token file")
_key = APIKeyHeader(
    name="x-api-key", auto_error=False, description="The same, as clients of CompreFace send it"
)


def _sent_secret(
    bearer: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
    key: Annotated[str | None, Depends(_key)],
) -> str | None:
    """The token of a request, or None."""
    return key if bearer is None else bearer.credentials


Secret = Annotated[str | None, Depends(_sent_secret)]


async def may_read(request: Request, secret: Secret) -> Author:
    """Admit a client that may read."""
    return _author(request, secret, "read")


async def may_write(request: Request, secret: Secret) -> Author:
    """Admit a client that may change the people."""
    return _author(request, secret, "write")


def _author(request: Request, secret: str | None, role: Role) -> Author:
    """Return the client of a request.

    Raises:
        Problem: 401 without a known token, 403 where the token may only read.
    """
    tokens: Tokens = request.app.state.tokens
    address = _address(request)
    if not tokens:
        request.scope[ADMIT]()
        return Author("local", address)
    challenge = {"WWW-Authenticate": 'Bearer realm="face-encode"'}
    if secret is None:
        raise Problem(
            401,
            "token-missing",
            "A token is needed: send it in the header 'Authorization: Bearer …' or 'x-api-key: …'.",
            headers=challenge,
        )
    token = tokens.find(secret)
    if token is None:
        raise Problem(401, "token-unknown", "This token is not known here.", headers=challenge)
    if role == "write" and token.role != "write":
        detail = (
            "This token may only read; changing the people takes a write token."
            if tokens.can_write
            else "This service was started without a write token: nobody may change its people."
        )
        raise Problem(403, "read-only-token", detail)
    request.scope[ADMIT]()
    return Author(token.name, address)


def _address(request: Request) -> str:
    """The client's address, empty where there is none.

    A reverse proxy gives it in a header, which may hold anything that the client has put there.
    """
    try:
        host = request.client.host if request.client is not None else ""
        # What follows "%" is the name of an interface, and any text at all.
        return str(ip_address(host.partition("%")[0]))
    except ValueError:
        return ""


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


class SecurityHeaders:
    """Sets the headers that tell a browser what it may do with an answer."""

    def __init__(self, app: ASGIApp) -> None:
        """Wrap an application."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and add the headers to its answer."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
                # Of the page, what has changed is asked for: after an upgrade, a browser would
                # otherwise mix former modules with new ones.
                caching = "no-store" if _is_private(scope) else "no-cache"
                headers.setdefault("Cache-Control", caching)
            await send(message)

        await self._app(scope, receive, send_with_headers)


def _is_private(scope: Scope) -> bool:
    """Whether an address is not the page's."""
    path: str = scope["path"]
    return path.startswith(INTERFACES) or path == "/metrics"


class OriginGuard:
    """Refuses the requests of foreign web pages in a user's browser.

    A service on loopback is open to every program of its machine, browsers included: a foreign page
    may post to it (cross-site request forgery), or point a name of its own at 127.0.0.1 and read
    the answers (DNS rebinding). The first shows in ``Origin`` and ``Sec-Fetch-Site``, the second in
    ``Host``.
    """

    def __init__(self, app: ASGIApp, hosts: Iterable[str] | None) -> None:
        """Wrap an application.

        Args:
            app: The application.
            hosts: Further names of the service beside those of loopback, at any port: a reverse
                proxy listens at another one, and most leave it out of ``Host``. None for any name.
        """
        self._app = app
        self._given = frozenset(host.lower() for host in hosts or ())
        self._hosts = None if hosts is None else LOOPBACK_HOSTS | self._given

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse the request, or pass it on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        problem = self._objection(Headers(scope=scope), _is_private(scope))
        answer = self._app if problem is None else problem.response()
        await answer(scope, receive, send)

    def _objection(self, headers: Headers, private: bool) -> Problem | None:
        """Return the reason for refusing a request, or None."""
        host = headers.get("host", "")
        if self._hosts is not None and _host_and_port(f"//{host}")[0] not in self._hosts:
            return Problem(
                421,
                "unknown-host",
                "The service has no such name; the option --allowed-host gives it another.",
            )
        if not private:
            return None
        origin = headers.get("origin")
        name, place = _host_and_port(origin or "")
        foreign = origin is not None and place != host.lower() and name not in self._given
        if foreign or headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
            return Problem(
                403,
                "foreign-origin",
                "Other web pages may not use this service. If this is its own page behind a proxy, "
                "start it with --allowed-host and the name in the browser's address bar.",
            )
        return None


def _host_and_port(url: str) -> tuple[str, str]:
    """Return the host of a URL without and with its port; both empty if the text is no URL."""
    try:
        parts = urlsplit(url)
        return (parts.hostname or "").lower(), parts.netloc.lower()
    except ValueError:
        return "", ""
