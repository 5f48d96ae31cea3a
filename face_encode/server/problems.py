"""Errors as ``application/problem+json`` (RFC 9457), in our own words."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import compile_path

MEDIA_TYPE = "application/problem+json"

_WORDS = {
    404: "There is nothing at this address.",
    405: "This address does not know this method.",
}


class Problem(Exception):
    """Ends a request with an error that the client is told."""

    def __init__(
        self,
        status: int,
        kind: str,
        detail: str,
        *,
        headers: Mapping[str, str] | None = None,
        **members: Any,
    ) -> None:
        """Say what is wrong.

        Args:
            status: The HTTP status.
            kind: A short name that programs go by, such as ``body-too-large``.
            detail: What is wrong and what is allowed, for people.
            headers: Headers that belong to the status, such as ``Retry-After``.
            **members: Further members of the answer.
        """
        super().__init__(detail)
        self.status = status
        self.headers = dict(headers or {})
        self.body = {
            "type": f"urn:face-encode:problem:{kind}",
            "title": HTTPStatus(status).phrase,
            "status": status,
            "detail": detail,
            **members,
        }

    def response(self) -> JSONResponse:
        """The answer."""
        return JSONResponse(self.body, self.status, self.headers, media_type=MEDIA_TYPE)


def too_busy(detail: str, seconds: int = 1) -> Problem:
    """The service has no room at present; the client is told when to come back."""
    return Problem(429, "too-busy", detail, headers={"Retry-After": str(seconds)})


def allowed_methods(application: FastAPI, path: str) -> list[str]:
    """The methods that operations at an address know; none where there is no operation."""
    return sorted(
        method.upper()
        for template, operations in application.openapi()["paths"].items()
        if compile_path(template)[0].match(path)
        for method in operations
    )


def add_handlers(application: FastAPI) -> None:
    """Answer every error of the application as a problem."""

    @application.exception_handler(Problem)
    async def told(request: Request, error: Problem) -> JSONResponse:
        return error.response()

    @application.exception_handler(HTTPException)
    async def known_to_http(request: Request, error: HTTPException) -> JSONResponse:
        status = HTTPStatus(error.status_code)
        kind = status.phrase.lower().replace(" ", "-")
        detail = _WORDS.get(error.status_code, f"{status.description or status.phrase}.")
        headers = dict(error.headers or {})
        if error.status_code == 405:
            headers["Allow"] = ", ".join(allowed_methods(application, request.url.path)) or "GET"
        return Problem(error.status_code, kind, detail, headers=headers).response()

    @application.exception_handler(RequestValidationError)
    async def not_valid(request: Request, error: RequestValidationError) -> JSONResponse:
        # Not the whole of pydantic's report: it repeats what the client sent.
        wrong = [
            {"where": ".".join(map(str, each["loc"])), "reason": str(each["msg"])}
            for each in error.errors()
        ]
        listed = "; ".join(f"{each['where']}: {each['reason']}" for each in wrong)
        return Problem(422, "not-valid", f"The request is not valid: {listed}.").response()

    @application.exception_handler(ClientDisconnect)
    async def hung_up(request: Request, error: ClientDisconnect) -> JSONResponse:
        # Nobody reads it, and nothing went wrong that the log should tell of.
        return Problem(400, "hung-up", "The client hung up before its body had arrived.").response()

    @application.exception_handler(Exception)
    async def unexpected(request: Request, error: Exception) -> JSONResponse:
        # The log has the details; who asks from outside does not need them.
        return Problem(
            500, "internal-error", "Something went wrong inside the service; its log says what."
        ).response()
