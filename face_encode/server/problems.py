"""Errors as ``application/problem+json`` (RFC 9457)."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import compile_path

from face_encode.errors import GalleryError, NotEnrolledError

_LOG = logging.getLogger(__name__)
_DETAILS = {
    404: "There is nothing at this address.",
    405: "This address does not know this method.",
}


class Problem(Exception):
    """An error that ends a request and is the client's answer."""

    def __init__(
        self,
        status: int,
        kind: str,
        detail: str,
        *,
        headers: Mapping[str, str] | None = None,
        **members: Any,
    ) -> None:
        """Take the members of the answer.

        Args:
            status: The HTTP status.
            kind: A short name for programs, such as ``body-too-large``.
            detail: The fault and what is allowed, for people.
            headers: Headers that belong to the status, such as ``Retry-After``.
            **members: Further members.
        """
        super().__init__(detail)
        self.status, self.kind = status, kind
        self.headers = dict(headers or {})
        self.body = {
            "type": f"urn:face-encode:problem:{kind}",
            "title": HTTPStatus(status).phrase,
            "status": status,
            "detail": detail,
            **members,
        }

    def response(self) -> JSONResponse:
        """Make the answer."""
        return JSONResponse(
            self.body, self.status, self.headers, media_type="application/problem+json"
        )


def too_busy(detail: str, seconds: int = 1) -> Problem:
    """Say that there is no room at present, and when to come back."""
    return Problem(429, "too-busy", detail, headers={"Retry-After": str(seconds)})


def allowed_methods(application: FastAPI, path: str) -> list[str]:
    """Return the methods of the operations at an address; none if there is no operation."""
    return sorted(
        method.upper()
        for template, operations in application.openapi()["paths"].items()
        if compile_path(template)[0].match(path)
        for method in operations
    )


def refuse_unknown_options(request: Request) -> None:
    """Refuse a request with an option that it does not take: a misspelt one is not ignored.

    Raises:
        Problem: It has one.
    """
    operations = request.app.openapi()["paths"].get(request.scope["route"].path, {})
    parameters = operations.get(request.method.lower(), {}).get("parameters", [])
    known = sorted(each["name"] for each in parameters if each["in"] == "query")
    unknown = sorted(set(request.query_params) - set(known))
    if unknown:
        taken = f"it takes {', '.join(known)}" if known else "it takes none"
        raise Problem(422, "unknown-option", f"No such option: {', '.join(unknown)}; {taken}.")


def validation_problem(error: RequestValidationError) -> Problem:
    """Say which parts of a request are not as they are described."""
    # Not the whole of pydantic's report: it repeats what the client sent.
    listed = "; ".join(
        f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors()
    )
    return Problem(422, "not-valid", f"The request is not valid: {listed}.")


def gallery_problem(error: GalleryError) -> Problem:
    """Say that somebody has gone between two questions to the gallery, or it cannot be read."""
    if isinstance(error, NotEnrolledError):
        return Problem(404, "nobody-of-that-name", f"{error}.")
    _LOG.error("%s", error)
    detail = "The people cannot be read at present; the service's log says why."
    return Problem(503, "gallery-unusable", detail, headers={"Retry-After": "30"})


def add_handlers(application: FastAPI) -> None:
    """Answer every error of the application as a problem."""

    @application.exception_handler(Problem)
    async def problem(request: Request, error: Problem) -> JSONResponse:
        return error.response()

    @application.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> JSONResponse:
        status = HTTPStatus(error.status_code)
        kind = status.phrase.lower().replace(" ", "-")
        detail = _DETAILS.get(error.status_code, f"{status.description or status.phrase}.")
        headers = dict(error.headers or {})
        if error.status_code == 405:
            headers["Allow"] = ", ".join(allowed_methods(application, request.url.path)) or "GET"
        return Problem(error.status_code, kind, detail, headers=headers).response()

    @application.exception_handler(RequestValidationError)
    async def not_valid(request: Request, error: RequestValidationError) -> JSONResponse:
        return validation_problem(error).response()

    @application.exception_handler(GalleryError)
    async def no_gallery(request: Request, error: GalleryError) -> JSONResponse:
        return gallery_problem(error).response()

    @application.exception_handler(ClientDisconnect)
    async def hung_up(request: Request, error: ClientDisconnect) -> JSONResponse:
        # Nobody reads the answer, and nothing went wrong that belongs in the log.
        return Problem(400, "hung-up", "The client hung up before its body had arrived.").response()

    @application.exception_handler(Exception)
    async def unexpected(request: Request, error: Exception) -> JSONResponse:
        # The details are in the log; a client from outside does not need them.
        return Problem(
            500, "internal-error", "Something went wrong inside the service; its log says what."
        ).response()
