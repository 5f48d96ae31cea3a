"""The bounds of connections and requests: number, size and time."""

from __future__ import annotations

import asyncio

import anyio
import h11
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from face_encode.server.problems import Problem, too_busy
from face_encode.server.settings import INTERFACES, Limits

# A client that is still sending does not read: it hears of a refusal only if the service takes in
# what it sends for a while, up to this multiple of the allowed size.
_LINGER_SECONDS = 2
_LINGER_BODIES = 4
# Keys of a request's scope: what takes a place for its client once that is known, whether it is
# known, and whether it has a place.
ADMIT, KNOWN, PLACE = "face_encode.admit", "face_encode.known", "face_encode.place"


# Requests of these methods are answered whether or not a body follows.
_WITHOUT_BODY = frozenset({"GET", "HEAD", "DELETE"})


class RequestLimits:
    """Refuses requests that are too large, too slow or too many, before they cost anything.

    A request takes a place when its client is known and its body has arrived, and gives the place
    back with its answer: nobody can take one by announcing a body, or without a token.

    Attributes:
        in_flight: The number of places taken.
    """

    def __init__(self, app: ASGIApp, limits: Limits) -> None:
        """Wrap an application."""
        self._app = app
        self.limits = limits
        self.in_flight = 0
        # Those whose bodies are on the way, the oldest first.
        self._arriving: dict[_Exchange, None] = {}
        self._bytes = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse the request, or pass it on with its body counted and timed."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = _Exchange(self, scope, receive, send)
        if exchange.is_announced_too_large:
            await exchange.refuse(exchange.too_large())
            return
        scope[ADMIT] = exchange.admit
        try:
            with exchange.clock:
                await self._app(scope, exchange.receive, exchange.send)
        finally:
            exchange.give_back()
            self._arriving.pop(exchange, None)
            self._bytes -= exchange.bytes
        if exchange.clock.cancelled_caught and not exchange.answered:
            await exchange.refuse(exchange.too_late())

    def begin(self, exchange: _Exchange) -> None:
        """Note that a body is on the way."""
        self._arriving[exchange] = None

    def arrived(self, exchange: _Exchange, count: int) -> None:
        """Count bytes of a body; if all bodies together are too much, the oldest one has to go.

        Who is slow on purpose loses by that, and who is quick does not.
        """
        self._bytes += count
        if self._bytes > self.limits.requests_in_flight * self.limits.body_bytes:
            next(iter(self._arriving), exchange).drop()

    def complete(self, exchange: _Exchange) -> None:
        """Take a place for a request.

        Raises:
            Problem: There is none.
        """
        self._arriving.pop(exchange, None)
        if self.in_flight >= self.limits.requests_in_flight:
            most = self.limits.requests_in_flight
            raise too_busy(f"{most} requests are being answered; come back soon.")
        self.in_flight += 1


class _Exchange:
    """A request and its answer on their way.

    Attributes:
        clock: Ends the work when the request's time is over.
        answered: Whether the answer has begun.
        bytes: The bytes of the body that have arrived.
        is_announced_too_large: Whether the headers announce too large a body.
    """

    def __init__(self, requests: RequestLimits, scope: Scope, receive: Receive, send: Send) -> None:
        self._requests, self._limits = requests, requests.limits
        self._scope, self._receive, self._send = scope, receive, send
        headers = Headers(scope=scope)
        announced = headers.get("content-length", "")
        self._arrived = announced == "0" or (not announced and "transfer-encoding" not in headers)
        self.is_announced_too_large = (
            announced.isdecimal() and int(announced[:20]) > self._limits.body_bytes
        )
        self.bytes = 0
        self.answered = False
        self._waits_for_body = self._is_dropped = False
        self.clock = anyio.CancelScope()
        self._allow(self._limits.request_seconds if self._arrived else self._limits.body_seconds)

    def admit(self) -> None:
        """Take a place for a client that is known, now or when its body has arrived.

        Raises:
            Problem: There is no place.
        """
        if KNOWN in self._scope:
            return
        self._scope[KNOWN] = True
        if not self._scope["path"].startswith(INTERFACES):
            return
        if self._arrived or self._scope["method"] in _WITHOUT_BODY:
            self._take()
        else:
            self._waits_for_body = True
            self._requests.begin(self)

    def _take(self) -> None:
        """Take a place."""
        self._requests.complete(self)
        self._scope[PLACE] = True

    def give_back(self) -> None:
        """Give the place back, if there is one."""
        if self._scope.pop(PLACE, False):
            self._requests.in_flight -= 1

    def drop(self) -> None:
        """End the request, whose body has been on the way for longer than all others."""
        self._is_dropped = True
        self.clock.cancel()

    async def receive(self) -> Message:
        """Return the next part of the body.

        Raises:
            Problem: The body is too large, or has arrived and there is no place.
        """
        message = await self._receive()
        count = len(message.get("body", b""))
        self.bytes += count
        self._requests.arrived(self, count)
        if self.bytes > self._limits.body_bytes:
            raise self.too_large()
        if not self._arrived and not message.get("more_body", False):
            self._arrived = True
            self._allow(self._limits.request_seconds)
            if self._waits_for_body and message["type"] == "http.request":
                self._take()
        return message

    async def send(self, message: Message) -> None:
        """Send a part of the answer.

        Where the client is still sending its body, the connection ends with the answer: first the
        answer, then a while of listening, then hanging up, else the client never reads it.
        """
        self.answered = True
        if not message.get("more_body", False) and message["type"] == "http.response.body":
            self.give_back()
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
        """Answer in place of the application."""
        await problem.response()(self._scope, self.receive, self.send)

    def too_large(self) -> Problem:
        """Say that the body has too many bytes."""
        allowed = self._limits.body_bytes
        return Problem(413, "body-too-large", f"A request's body has at most {allowed:,} bytes.")

    def too_late(self) -> Problem:
        """Say that the request's time, or the room for its body, is over."""
        if self._is_dropped:
            return too_busy("The bodies of all requests together are too large; come back soon.")
        if not self._arrived:
            seconds = self._limits.body_seconds
            detail = f"A request's body arrives within {seconds} seconds."
            return Problem(408, "body-too-slow", detail)
        detail = f"The answer was not ready within {self._limits.request_seconds} seconds."
        return Problem(503, "took-too-long", detail, headers={"Retry-After": "5"})

    def _allow(self, seconds: float) -> None:
        """Give the work this much time from now."""
        self.clock.deadline = anyio.current_time() + seconds

    async def _linger(self) -> None:
        """Take in, and throw away, what a refused client still sends, within bounds."""
        left = _LINGER_BODIES * self._limits.body_bytes
        with anyio.move_on_after(_LINGER_SECONDS):
            while not self._arrived and left > 0:
                message = await self._receive()
                left -= len(message.get("body", b""))
                self._arrived = not message.get("more_body", False)


def limited_protocol(limits: Limits) -> type[H11Protocol]:
    """Bound uvicorn's HTTP protocol, which has no limit of connections and waits for headers."""

    class LimitedProtocol(H11Protocol):
        """Closes connections beyond the limit, and those whose headers do not arrive in time."""

        _timer: asyncio.TimerHandle | None = None
        _since = 0.0
        _was_known = False

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._since = self.loop.time()
            self._watch()
            others = [
                each
                for each in self.connections
                if isinstance(each, LimitedProtocol) and each is not self and each.is_open
            ]
            if len(others) >= limits.connections:
                # One that waits for its client has to go, first of those who have not shown a
                # token, then the oldest: who opens many keeps nobody out.
                waiting = [each for each in others if not each.has(PLACE)]
                goes = min(waiting, key=lambda each: (each.is_known, each._since), default=self)
                goes._refuse(
                    too_busy(f"At most {limits.connections} connections are open at once.")
                )

        @property
        def is_open(self) -> bool:
            """Whether the connection is not being closed."""
            return not self.transport.is_closing()

        @property
        def is_known(self) -> bool:
            """Whether a request of the connection has shown a token."""
            return self._was_known or self.has(KNOWN)

        def has(self, key: str) -> bool:
            """Whether the last request has this in its scope."""
            return self.scope is not None and key in self.scope

        def data_received(self, data: bytes) -> None:
            former = self.cycle
            # The next request begins without what was found out about the last one.
            self._was_known = self.is_known
            super().data_received(data)
            if self.cycle is not former:
                self._since = self.loop.time()
            self._watch()

        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            self._watch()

        def send_400_response(self, msg: str) -> None:
            self._refuse(Problem(400, "not-http", "This is no valid HTTP request."))

        def _watch(self) -> None:
            """Run the timer exactly while the client owes the headers of a request."""
            is_answering = self.cycle is not None and not self.cycle.response_complete
            if is_answering or self.transport.is_closing():
                if self._timer is not None:
                    self._timer.cancel()
                    self._timer = None
            elif self._timer is None:
                detail = f"Headers arrive within {limits.header_seconds} seconds."
                problem = Problem(408, "headers-too-slow", detail)
                self._timer = self.loop.call_later(limits.header_seconds, self._refuse, problem)

        def _refuse(self, problem: Problem) -> None:
            """Say why, unless an answer has begun, and close the connection."""
            if self.cycle is not None and not self.cycle.response_complete:
                # The application learns that nobody waits for its answer.
                self.cycle.disconnected = True
                self.cycle.message_event.set()
            if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
                self.transport.write(_framed(problem))
            self.transport.close()
            self._watch()

    return LimitedProtocol


def _framed(problem: Problem) -> bytes:
    """Return an answer as it goes over the wire, without an application to make it."""
    answer = problem.response()
    events = (
        h11.Response(
            status_code=problem.status,
            reason=str(problem.body["title"]),
            headers=[*answer.raw_headers, (b"connection", b"close")],
        ),
        h11.Data(data=bytes(answer.body)),
        h11.EndOfMessage(),
    )
    framing = h11.Connection(h11.SERVER)
    return b"".join(framing.send(event) or b"" for event in events)
