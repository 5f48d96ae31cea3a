from __future__ import annotations

import io
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from http.client import HTTPConnection

import anyio
import pytest
import uvicorn
from fastapi.testclient import TestClient
from PIL import Image
from starlette.types import Message, Receive, Scope, Send

from face_encode.errors import InputError
from face_encode.server.limits import ADMIT, PLACE, RequestLimits, limited_protocol
from face_encode.server.problems import Problem
from face_encode.server.settings import Limits
from tests.conftest import EXAMPLES
from tests.server.conftest import Serve

ADA = (EXAMPLES / "ada_mirova.jpg").read_bytes()


class Exchange:
    """A request played to an application, and its answer."""

    def __init__(
        self,
        parts: list[bytes],
        headers: dict[str, str] | None = None,
        *,
        pause: float = 0,
        ends: bool = True,
    ) -> None:
        self._parts, self._pause, self._ends = list(parts), pause, ends
        self.sent: list[Message] = []
        self.scope: Scope = {
            "type": "http",
            "method": "POST",
            "path": "/v1/match",
            "headers": [
                (name.lower().encode(), value.encode())
                for name, value in (headers or {"Transfer-Encoding": "chunked"}).items()
            ],
        }

    async def receive(self) -> Message:
        await anyio.sleep(self._pause)
        if not self._parts and not self._ends:
            await anyio.sleep_forever()
        body = self._parts.pop(0) if self._parts else b""
        return {
            "type": "http.request",
            "body": body,
            "more_body": bool(self._parts) or not self._ends,
        }

    async def send(self, message: Message) -> None:
        self.sent.append(message)

    @property
    def status(self) -> int:
        return int(self.sent[0]["status"])

    @property
    def headers(self) -> dict[str, str]:
        return {name.decode(): value.decode() for name, value in self.sent[0]["headers"]}

    @property
    def is_over(self) -> bool:
        return not self.sent[-1].get("more_body", False)


async def reading(scope: Scope, receive: Receive, send: Send) -> None:
    """An application that reads the body, and answers how long it was."""
    length, more = 0, True
    while more:
        try:
            message = await receive()
        except Problem as problem:
            await problem.response()(scope, receive, send)
            return
        length += len(message["body"])
        more = message["more_body"]
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": str(length).encode()})


async def admitted(scope: Scope, receive: Receive, send: Send) -> None:
    """The same, for clients that are known."""
    try:
        scope[ADMIT]()
    except Problem as problem:
        await problem.response()(scope, receive, send)
        return
    await reading(scope, receive, send)


def play(
    limits: Limits, exchange: Exchange, app: Callable[..., Awaitable[None]] = reading
) -> Exchange:
    guarded = RequestLimits(app, limits)
    anyio.run(guarded, exchange.scope, exchange.receive, exchange.send)
    assert guarded.in_flight == 0
    assert exchange.is_over
    return exchange


def test_a_body_within_the_limits_passes() -> None:
    done = play(Limits(body_bytes=10), Exchange([b"12345", b"67890"]))
    assert (done.status, done.sent[1]["body"]) == (200, b"10")
    assert "connection" not in done.headers


def test_a_body_announced_too_large_is_refused_unread() -> None:
    exchange = Exchange([b"x"] * 5, {"Content-Length": "11"})
    done = play(Limits(body_bytes=10), exchange)
    assert (done.status, done.headers["connection"]) == (413, "close")


def test_a_body_is_counted_where_nothing_was_announced() -> None:
    assert play(Limits(body_bytes=10), Exchange([b"1234"] * 3)).status == 413


def test_a_refused_client_is_listened_to_for_a_while() -> None:
    endless = Exchange([b"x"] * 3, {"Content-Length": "999"}, ends=False)
    start = time.perf_counter()
    assert play(Limits(body_bytes=10), endless).status == 413
    assert 1.5 < time.perf_counter() - start < 10
    # The answer was on its way before the listening began.
    assert endless.sent[1]["body"] and endless.sent[1]["more_body"]


def test_a_slow_body_is_refused() -> None:
    done = play(Limits(body_seconds=1), Exchange([b"x"] * 100, pause=0.1))
    assert (done.status, done.headers["connection"]) == (408, "close")


def test_work_that_takes_too_long_is_given_up() -> None:
    async def thinking(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await anyio.sleep_forever()

    done = play(Limits(request_seconds=1), Exchange([b"x"]), thinking)
    assert (done.status, done.headers["retry-after"]) == (503, "5")


class Slow:
    """An application that knows its clients, and answers them when it is let go."""

    def __init__(self, limits: Limits) -> None:
        self.go = anyio.Event()
        self.guarded = RequestLimits(self._answer, limits)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_later(message: Message) -> None:
            await self.go.wait()
            await send(message)

        await admitted(scope, receive, send_later if scope["path"] == "/v1/match" else send)

    async def ask(self, *exchanges: Exchange) -> None:
        for each in exchanges:
            await self.guarded(each.scope, each.receive, each.send)


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await anyio.sleep(0.01)


def test_requests_beyond_the_limit_come_back_later() -> None:
    async def all_four() -> tuple[Exchange, ...]:
        first, second, third, numbers = (Exchange([b"x"]) for _ in range(4))
        slow = Slow(Limits(requests_in_flight=1))
        async with anyio.create_task_group() as group:
            group.start_soon(slow.ask, first)
            await until(lambda: slow.guarded.in_flight == 1)
            second.scope["path"] = third.scope["path"] = "/v1/people"
            numbers.scope["path"] = "/metrics"
            await slow.ask(second, numbers)
            slow.go.set()
            await until(lambda: slow.guarded.in_flight == 0)
            await slow.ask(third)
        return first, second, third, numbers

    first, second, third, numbers = anyio.run(all_four)
    assert (first.status, second.status, third.status) == (200, 429, 200)
    # What it does is told also while it is full.
    assert numbers.status == 200
    assert second.headers["retry-after"] == "1"


@pytest.mark.parametrize(
    "path", ["/v1/match", "/healthz", "/metrics", "/", "/v1/people/Ada/thumbnail"]
)
def test_a_client_that_is_not_known_takes_no_place(path: str) -> None:
    """Not by a body that never comes either, nor while its answer is on the way."""

    async def beside() -> Exchange:
        guarded = RequestLimits(answering, Limits(requests_in_flight=1))
        waiting = [Exchange([], {"Content-Length": "99"}, ends=False) for _ in range(5)]
        honest = Exchange([b"x"])
        async with anyio.create_task_group() as group:
            for each in waiting:
                each.scope["path"] = path
                group.start_soon(guarded, each.scope, each.receive, each.send)
            await until(lambda: all(each.sent for each in waiting))
            assert guarded.in_flight == 0
            await guarded(honest.scope, honest.receive, honest.send)
            # They are still being listened to.
            assert not any(each.is_over for each in waiting)
        return honest

    async def answering(scope: Scope, receive: Receive, send: Send) -> None:
        if dict(scope["headers"]).get(b"content-length"):
            await Problem(401, "token-missing", "A token is needed.").response()(
                scope, receive, send
            )
        else:
            await admitted(scope, receive, send)

    assert anyio.run(beside).status == 200


def test_a_body_on_the_way_takes_no_place_and_has_its_time() -> None:
    async def beside() -> tuple[list[Exchange], Exchange]:
        guarded = RequestLimits(admitted, Limits(requests_in_flight=1, body_seconds=1))
        slow = [Exchange([b"x"], {"Content-Length": "99"}, ends=False) for _ in range(5)]
        honest = Exchange([b"x"])
        async with anyio.create_task_group() as group:
            for each in slow:
                group.start_soon(guarded, each.scope, each.receive, each.send)
            await anyio.sleep(0.1)
            await guarded(honest.scope, honest.receive, honest.send)
        assert guarded.in_flight == 0
        return slow, honest

    slow, honest = anyio.run(beside)
    assert honest.status == 200
    assert [each.status for each in slow] == [408] * 5


def test_bodies_take_bounded_memory_together_and_the_slowest_pays() -> None:
    async def beside() -> list[Exchange]:
        guarded = RequestLimits(admitted, Limits(requests_in_flight=2, body_bytes=10))
        # Together they hold 18 bytes and go no further; the fourth makes them 24.
        slow = [Exchange([b"123456"], {"Content-Length": "9"}, ends=False) for _ in range(3)]
        honest = Exchange([b"123456"])
        async with anyio.create_task_group() as group:
            for each in slow:
                group.start_soon(guarded, each.scope, each.receive, each.send)
                await anyio.sleep(0.05)
            await guarded(honest.scope, honest.receive, honest.send)
            await until(lambda: bool(slow[0].sent))
            group.cancel_scope.cancel()
        return [*slow, honest]

    first, *others, honest = anyio.run(beside)
    assert (honest.status, first.status) == (200, 429)
    assert not any(each.sent for each in others)


def test_the_service_refuses_large_bodies(serve: Serve) -> None:
    with serve(limits=Limits(body_bytes=len(ADA) - 1)) as client:
        answer = client.post("/v1/match", files={"photo": ADA})
        assert answer.status_code == 413
        assert answer.json()["type"].endswith(":body-too-large")
        in_parts = (ADA[start : start + 1000] for start in range(0, len(ADA), 1000))
        headers = {"Content-Type": "multipart/form-data; boundary=x"}
        assert client.post("/v1/match", content=in_parts, headers=headers).status_code == 413


def test_the_service_names_no_more_faces_than_allowed(client: TestClient, serve: Serve) -> None:
    group = (EXAMPLES / "group.jpg").read_bytes()
    with serve(limits=Limits(faces=2)) as limited:
        assert len(limited.post("/v1/match", files={"photo": group}).json()["faces"]) == 2
        assert (
            len(limited.post("/v1/embed?max_faces=9", files={"photo": group}).json()["faces"]) == 2
        )


def test_two_photos_are_compared_by_no_more_faces_than_allowed(serve: Serve) -> None:
    group = (EXAMPLES / "group.jpg").read_bytes()
    with serve() as client:
        *others, last = client.post("/v1/match", files={"photo": group}).json()["faces"]
        photos = {"photo_a": group, "photo_b": cut_out(group, last["bounding_box"])}
        answer = client.post("/v1/verify", files=photos).json()
        assert (answer["faces"], answer["compared"]) == ([len(others) + 1, 1], [len(others), 0])
    with serve(limits=Limits(faces=1)) as limited:
        answer = limited.post("/v1/verify", files=photos).json()
        assert (answer["faces"], answer["compared"]) == ([len(others) + 1, 1], [0, 0])


def cut_out(photo: bytes, box: dict[str, int]) -> bytes:
    """A face of a photo, with what is around it."""
    left, top, side = box["x"], box["y"], box["width"] // 2
    ends = (left - side, top - side, left + 3 * side, top + box["height"] + side)
    content = io.BytesIO()
    Image.open(io.BytesIO(photo)).crop(ends).save(content, "PNG")
    return content.getvalue()


@contextmanager
def listening(limits: Limits, app: Callable[..., Awaitable[None]] = reading) -> Iterator[int]:
    """A port at which uvicorn serves an application over the limited protocol."""
    configuration = uvicorn.Config(
        app, port=0, http=limited_protocol(limits), lifespan="off", log_level="critical"
    )
    server = uvicorn.Server(configuration)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join()


def answer_to(port: int, sent: bytes) -> bytes:
    """Everything that comes back until the connection is closed."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(sent)
        return b"".join(iter(lambda: connection.recv(9_000), b""))


HEAD = b"POST / HTTP/1.1\r\nHost: a\r\n"


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"", 408),
        (HEAD, 408),
        (b"nonsense\r\n\r\n", 400),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
        (HEAD.replace(b"POST", b"HEAD") + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
    ],
)
def test_a_connection_that_brings_no_request_is_closed(sent: bytes, status: int) -> None:
    with listening(Limits(header_seconds=1)) as port:
        last = answer_to(port, sent).rpartition(b"HTTP/1.1 ")[2]
    assert last.startswith(b"%d " % status)
    assert b"connection: close" in last and b'"type":"urn:face-encode:problem:' in last


MATCH = b"POST /v1/match HTTP/1.1\r\nHost: a\r\n"


def test_idle_connections_keep_nobody_out() -> None:
    limits = Limits(connections=3)
    with listening(limits, RequestLimits(admitted, limits)) as port, ExitStack() as stack:
        idle = [
            stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=60))
            for _ in range(3)
        ]
        # Headers, but no body.
        idle[1].sendall(MATCH + b"Content-Length: 9\r\n\r\n")
        for _ in range(2):
            sent = MATCH + b"Content-Length: 2\r\nConnection: close\r\n\r\n12"
            assert answer_to(port, sent).startswith(b"HTTP/1.1 200 ")
        # The oldest one went.
        assert idle[0].recv(9_000).startswith(b"HTTP/1.1 429 ")


def test_connections_of_known_clients_are_the_last_to_be_closed() -> None:
    limits = Limits(connections=2)
    with listening(limits, RequestLimits(admitted, limits)) as port, ExitStack() as stack:
        known = stack.enter_context(closing(HTTPConnection("127.0.0.1", port, timeout=60)))
        for _ in range(3):
            known.request("POST", "/v1/match", b"12")
            answer = known.getresponse()
            assert (answer.status, answer.read()) == (200, b"2")
            for _ in range(3):
                stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=60))


def test_a_known_client_stays_known_until_its_next_request_shows_a_token() -> None:
    begun, go = threading.Event(), threading.Event()

    async def late(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/late":
            begun.set()
            await anyio.to_thread.run_sync(go.wait)
        await admitted(scope, receive, send)

    limits = Limits(connections=2)
    with listening(limits, RequestLimits(late, limits)) as port, ExitStack() as stack:
        stack.callback(go.set)
        known = stack.enter_context(closing(HTTPConnection("127.0.0.1", port, timeout=60)))
        for path in ("/v1/match", "/late"):
            known.request("POST", path, b"12")
            if path == "/late":
                assert begun.wait(60)
                others = [
                    stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=60))
                    for _ in range(2)
                ]
                assert others[0].recv(9_000).startswith(b"HTTP/1.1 429 ")
                go.set()
            answer = known.getresponse()
            assert (answer.status, answer.read()) == (200, b"2")


def test_connections_with_a_place_are_not_closed_for_others() -> None:
    begun, go = threading.Event(), threading.Event()

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        scope[PLACE] = True
        begun.set()
        await anyio.to_thread.run_sync(go.wait)
        await reading(scope, receive, send)

    with (
        listening(Limits(connections=1), slow) as port,
        socket.create_connection(("127.0.0.1", port)) as first,
    ):
        first.sendall(HEAD + b"Content-Length: 2\r\n\r\n12")
        assert begun.wait(60)
        assert answer_to(port, b"").startswith(b"HTTP/1.1 429 ")
        go.set()
        assert first.recv(9_000).startswith(b"HTTP/1.1 200 ")


def test_a_limit_of_nothing_is_none() -> None:
    with pytest.raises(InputError, match="'faces' is at least 1"):
        Limits(faces=0)
