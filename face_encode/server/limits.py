"""The bounds of a request: its size and time, and how many are answered at once."""

from __future__ import annotations

import anyio
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from face_encode.server.problems import Problem, too_busy
from face_encode.server.settings import Limits

# A client that still sends does not read: it hears of a refusal only if what it sends is taken in
# for a while, up to so many times the allowed size.
_LINGER_SECONDS = 2
_LINGER_BODIES = 4


class RequestLimits:
    """Refuses what is too large, too slow or too much, before it costs anything.

    Attributes:
        in_flight: Requests of the interface that are being answered.
    """

    def __init__(self, app: ASGIApp, limits: Limits) -> None:
        """Wrap an application."""
        self._app = app
        self._limits = limits
        self.in_flight = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or hand on with the body counted and timed."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = _Exchange(scope, receive, send, self._limits)
        if scope["path"].startswith("/v1") and self.in_flight >= self._limits.requests_in_flight:
            refusal = too_busy(
                f"{self._limits.requests_in_flight} requests are being answered; come back soon."
            )
            await exchange.refuse(refusal)
            return
        if exchange.is_announced_too_large:
            await exchange.refuse(exchange.too_large())
            return
        self.in_flight += 1
        try:
            with exchange.clock:
                await self._app(scope, exchange.receive, exchange.send)
        finally:
            self.in_flight -= 1
        if exchange.clock.cancelled_caught and not exchange.answered:
            await exchange.refuse(exchange.too_late())


class _Exchange:
    """A request and its answer on their way.

    Attributes:
        clock: Ends the work when the request's time is over.
        answered: Whether the answer has begun.
        is_announced_too_large: Whether the headers tell of too large a body.
    """

    def __init__(self, scope: Scope, receive: Receive, send: Send, limits: Limits) -> None:
        self._scope, self._receive, self._send, self._limits = scope, receive, send, limits
        headers = Headers(scope=scope)
        announced = headers.get("content-length", "")
        self._arrived = announced == "0" or (not announced and "transfer-encoding" not in headers)
        self.is_announced_too_large = (
            announced.isdecimal() and int(announced[:20]) > limits.body_bytes
        )
        self._bytes = 0
        self.answered = False
        self.clock = anyio.CancelScope()
        self._allow(limits.request_seconds if self._arrived else limits.body_seconds)

    async def receive(self) -> Message:
        """The next part of the body.

        Raises:
            Problem: The body is too large.
        """
        message = await self._receive()
        if message["type"] == "http.request":
            self._bytes += len(message.get("body", b""))
            if self._bytes > self._limits.body_bytes:
                raise self.too_large()
            if not message.get("more_body", False):
                self._has_arrived()
        else:
            self._has_arrived()
        return message

    async def send(self, message: Message) -> None:
        """A part of the answer.

        Where the client still sends its body, the connection ends with the answer: first the
        answer, then a while of listening, then hanging up, else the client never reads it.
        """
        self.answered = True
        if self._arrived:
            await self._send(message)
        elif message["type"] == "http.response.start":
            MutableHeaders(scope=message)["Connection"] = "close"
            await self._send(message)
        elif message.get("more_body", False):
            await self._send(message)
        else:
            await self._send({**message, "more_body": True})
            await self._linger()
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def refuse(self, problem: Problem) -> None:
        """Answer in the place of the application."""
        await problem.response()(self._scope, self.receive, self.send)

    def too_large(self) -> Problem:
        """What a body of too many bytes is told."""
        allowed = self._limits.body_bytes
        return Problem(413, "body-too-large", f"A request's body has at most {allowed:,} bytes.")

    def too_late(self) -> Problem:
        """What a request is told whose time is over."""
        if not self._arrived:
            seconds = self._limits.body_seconds
            detail = f"A request's body arrives within {seconds} seconds."
            return Problem(408, "body-too-slow", detail)
        detail = f"The answer was not ready within {self._limits.request_seconds} seconds."
        return Problem(503, "took-too-long", detail, headers={"Retry-After": "5"})

    def _has_arrived(self) -> None:
        if not self._arrived:
            self._arrived = True
            self._allow(self._limits.request_seconds)

    def _allow(self, seconds: float) -> None:
        """Give the work so much time from now."""
        self.clock.deadline = anyio.current_time() + seconds

    async def _linger(self) -> None:
        """Take in, and throw away, what a refused client still sends; not for ever."""
        left = _LINGER_BODIES * self._limits.body_bytes
        with anyio.move_on_after(_LINGER_SECONDS):
            while not self._arrived and left > 0:
                message = await self._receive()
                left -= len(message.get("body", b""))
                self._arrived = not message.get("more_body", False)
