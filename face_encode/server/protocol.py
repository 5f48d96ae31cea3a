"""Connections: how many there may be, how slowly headers may come, and what nonsense is told."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from face_encode.server.problems import MEDIA_TYPE, Problem, too_busy
from face_encode.server.settings import Limits


def limited_protocol(limits: Limits) -> type[H11Protocol]:
    """Uvicorn's HTTP protocol with bounds that it does not have itself."""

    class LimitedProtocol(H11Protocol):
        """Closes connections whose headers do not come, and those beyond the limit."""

        _timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            if len(self.connections) > limits.connections:
                self._hang_up(
                    too_busy(f"At most {limits.connections} connections are open at once.")
                )
                return
            self._start_timer()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self._is_answering():
                self._stop_timer()
            elif self._timer is None and not self.transport.is_closing():
                self._start_timer()

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop_timer()
            super().connection_lost(exc)

        def send_400_response(self, msg: str) -> None:
            self._hang_up(Problem(400, "not-http", "This is no valid HTTP request."))

        def _is_answering(self) -> bool:
            return self.cycle is not None and not self.cycle.response_complete

        def _start_timer(self) -> None:
            self._timer = self.loop.call_later(limits.header_seconds, self._headers_too_slow)

        def _stop_timer(self) -> None:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

        def _headers_too_slow(self) -> None:
            self._timer = None
            if not self._is_answering():
                seconds = limits.header_seconds
                self._hang_up(
                    Problem(408, "headers-too-slow", f"Headers arrive within {seconds} seconds.")
                )

        def _hang_up(self, problem: Problem) -> None:
            """Tell why, where no answer has begun, and close."""
            self._stop_timer()
            if self.cycle is not None and not self.cycle.response_complete:
                # Whoever works on the answer learns that nobody waits for it.
                self.cycle.disconnected = True
                self.cycle.message_event.set()
            if not self.transport.is_closing():
                if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
                    self.transport.write(_raw(problem))
                self.transport.close()

    return LimitedProtocol


def _raw(problem: Problem) -> bytes:
    """The answer as it goes over the wire, without an application to make it."""
    body = json.dumps(problem.body).encode()
    headers: dict[str, Any] = {
        "Content-Type": MEDIA_TYPE,
        "Content-Length": len(body),
        "Connection": "close",
        **problem.headers,
    }
    lines = [f"HTTP/1.1 {problem.status} {problem.body['title']}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body
