"""Hostile requests, each followed by a good one that the service has to answer.

A test sends one of each kind; ``python -m tests.server.hostile 500`` sends that many to a service
of its own, and prints the answers.
"""

from __future__ import annotations

import base64
import io
import json
import pickle
import random
import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from urllib.parse import quote

import numpy as np
from PIL import Image

from benchmarks.serving import Client, RunningService, multipart
from tests.conftest import EXAMPLES, VERIFY_DATASET

READ, WRITE = "reader-0123456789abcdef", "writer-0123456789abcdef"
TOKENS = {"FACE_ENCODE_TOKEN": READ, "FACE_ENCODE_WRITE_TOKEN": WRITE}
# A service that gives up soon, so that slow requests cost a test little; but not so soon that a
# busy machine is taken for a slow request.
OPTIONS = ("--max-body-seconds", "3", "--max-header-seconds", "3", "--max-body-megabytes", "2")
BODY_BYTES = 2_000_000
PHOTO = (EXAMPLES / "ada_mirova.jpg").read_bytes()
IN_BASE64 = base64.b64encode(PHOTO).decode()
ADA = "/v1/people/Ada_Mirova"
JSON, FORM = "application/json", "multipart/form-data; boundary=x"
REFUSALS = range(400, 500)
TRICKS = (
    "../../etc/passwd",
    "..\\..\\x",
    "a/b",
    "..",
    ".",
    "",
    " ",
    "a\0b",
    "\ud800",
    "\u202eA",
    "x" * 10_000,
    "a\nb",
    "\u2028",
    "/",
    "C:\\x",
    "\x1b[2J",
)
URLS = ("/etc/passwd", "file:///etc/passwd", "http://127.0.0.1:1/a.jpg", "\\\\host\\share")


@dataclass(frozen=True)
class Hostile:
    """A hostile request.

    Attributes:
        kind: A name for its fault.
        parts: Bytes on the wire; between two parts the client waits.
        pause_seconds: The time that it waits.
    """

    kind: str
    parts: tuple[bytes, ...]
    pause_seconds: float = 0.0


@dataclass(frozen=True)
class Outcome:
    """The answers to a hostile request and to the good one after it.

    Attributes:
        kind: The hostile request's kind.
        status: The status; 0 if the connection closed without an answer.
        problem: The problem's short name.
        good_seconds: The time that the next good request took.
        good_status: Its status.
    """

    kind: str
    status: int
    problem: str
    good_seconds: float
    good_status: int


def head(method: str, path: str, token: str | None = WRITE, **headers: str) -> bytes:
    """A request's first line and headers."""
    lines = [f"{method} {path} HTTP/1.1"]
    named = {"Host": "127.0.0.1"} | {key.replace("_", "-"): value for key, value in headers.items()}
    if token is not None:
        named.setdefault("Authorization", f"Bearer {token}")
    lines += [f"{name}: {value}" for name, value in named.items()]
    return "\r\n".join(lines).encode("utf-8", "surrogatepass") + b"\r\n\r\n"


def whole(
    method: str, path: str, body: bytes = b"", token: str | None = WRITE, **headers: str
) -> tuple[bytes, ...]:
    """A request in one piece."""
    headers.setdefault("Content_Length", str(len(body)))
    return (head(method, path, token, **headers) + body,)


def photo(content: bytes, path: str = "/v1/match", field: str = "photo") -> tuple[bytes, ...]:
    """A photo as multipart."""
    content_type, body = multipart([(field, content)], {})
    return whole("POST", path, body, Content_Type=content_type)


def in_json(value: object, path: str = "/v1/match", method: str = "POST") -> tuple[bytes, ...]:
    """Anything as JSON."""
    return whole(method, path, json.dumps(value).encode(), Content_Type="application/json")


@lru_cache(maxsize=1)
def bomb() -> bytes:
    """A photo of few bytes and very many pixels."""
    file = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(file, "PNG")
    return file.getvalue()


def hostile_requests(count: int, seed: int = 0) -> Iterator[Hostile]:
    """Yield this many, of every kind in turn, each a little different."""
    chance = random.Random(seed)
    sources = (photos, bodies, names, framings, accesses)
    for number in range(count):
        kinds = [each for source in sources for each in source(chance)]
        yield kinds[number % len(kinds)]


def photos(chance: random.Random) -> Iterator[Hostile]:
    """Files that are no photos, or too large when decoded."""
    noise = chance.randbytes(chance.randrange(1, 5_000))
    screen = b"GIF89a\xff\xff\xff\xff\x80\x00\x00" + bytes(6)
    yield Hostile("cut photo", photo(PHOTO[: chance.randrange(1, len(PHOTO) - 2_000)]))
    yield Hostile("noise", photo(noise))
    yield Hostile("noise behind a beginning", photo(PHOTO[:200] + noise))
    yield Hostile("pixel bomb", photo(bomb()))
    yield Hostile("huge screen", photo(screen))
    yield Hostile("pickle", photo(pickle.dumps(np.zeros(chance.randrange(1, 99)))))
    option = chance.choice(["-1", "0", "x", "1e9", "9" * 40])
    yield Hostile("no such option", photo(PHOTO, f"/v1/match?max_faces={option}"))


def bodies(chance: random.Random) -> Iterator[Hostile]:
    """Bodies of another form than they claim, or with paths and URLs."""
    noise = chance.randbytes(chance.randrange(1, 5_000))
    url = chance.choice(URLS)
    value: object = chance.choice([1, None, [], {}, True, 1e308])
    yield Hostile("no body", whole("POST", "/v1/match"))
    yield Hostile("another type", whole("POST", "/v1/match", PHOTO, Content_Type="image/jpeg"))
    yield Hostile("broken JSON", whole("POST", "/v1/match", noise, Content_Type=JSON))
    yield Hostile("deep JSON", whole("POST", "/v1/match", b"[" * 50_000, Content_Type=JSON))
    yield Hostile("wrong types", in_json({"photo": value}))
    yield Hostile("path or URL", in_json({"photo": url}))
    yield Hostile("path in a further field", in_json({"photo": IN_BASE64, "path": url}))
    many = {"name": "A", "photos": ["YQ=="] * 500}
    yield Hostile("too many photos", in_json(many, "/v1/people"))
    endless = whole("POST", "/v1/match", b"--x\r\n" + noise, Content_Type=FORM)
    yield Hostile("multipart without end", endless)


def names(chance: random.Random) -> Iterator[Hostile]:
    """Names and addresses that try to climb out of a folder."""
    trick = chance.choice(TRICKS)
    climb = chance.randrange(1, 9)
    address = f"/v1/people/{quote(trick.encode('utf-8', 'surrogatepass'), safe='')}"
    enrolment = {"name": trick, "photos": [IN_BASE64]}
    yield Hostile("trick in a name", in_json(enrolment, "/v1/people"))
    yield Hostile("trick in a new name", in_json({"name": trick}, ADA, "PATCH"))
    yield Hostile("trick in a path", whole("DELETE", address))
    yield Hostile("climbing path", whole("GET", "/v1" + "/.." * climb + "/etc/passwd"))
    yield Hostile("encoded climbing", whole("GET", "/static/" + "..%2f" * climb + "etc/passwd"))


def framings(chance: random.Random) -> Iterator[Hostile]:
    """Requests that are no HTTP, too large, or too slow."""
    noise = chance.randbytes(chance.randrange(1, 5_000)).replace(b"\n", b" ")
    announced = str(chance.randrange(BODY_BYTES + 1, 10**15))
    chunk = b"fa00\r\n" + chance.randbytes(64_000) + b"\r\n"
    chunked = head("POST", "/v1/match", Transfer_Encoding="chunked", Content_Type=JSON)
    slow = head("POST", "/v1/match", Content_Length="900", Content_Type=JSON)
    begun = b"POST /v1/match HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    yield Hostile("announced too large", (head("POST", "/v1/match", Content_Length=announced),))
    yield Hostile("too large unannounced", (chunked, *[chunk] * 40))
    yield Hostile("slow body", (slow, b"{", b'"'), 1.7)
    yield Hostile("slow headers", (begun, b"X-A: 1\r\n", b"X-B: 2\r\n"), 1.7)
    yield Hostile("no HTTP", (noise + b"\r\n\r\n",))
    yield Hostile("huge headers", (begun + b"X: " + b"a" * 200_000 + b"\r\n\r\n",))
    yield Hostile("negative length", (head("POST", "/v1/match", Content_Length="-5"),))
    yield Hostile("two lengths", (head("POST", "/v1/match", Content_Length="5, 6") + b"hello!",))
    yield Hostile("broken chunks", (chunked + b"zz\r\nhello\r\n",))


def accesses(chance: random.Random) -> Iterator[Hostile]:
    """Clients without the right to do what they ask."""
    digit = chance.randrange(10)
    method = chance.choice(["PUT", "TRACE", "OPTIONS", "BREW"])
    evil = "http://evil.example"
    yield Hostile("no token", whole("GET", "/v1/people", token=None))
    yield Hostile("wrong token", whole("DELETE", ADA, token=f"{WRITE[:-1]}{digit}x"))
    yield Hostile("read token for a change", whole("DELETE", ADA, token=READ))
    yield Hostile("token of any bytes", whole("GET", "/v1/people", token="\xff" * 30))
    yield Hostile("another method", whole(method, "/v1/people"))
    yield Hostile("foreign page", whole("DELETE", ADA, Origin=evil))
    yield Hostile("foreign name", whole("GET", "/v1/people", Host="evil.example"))


def send_raw(port: int, request: Hostile) -> tuple[int, str]:
    """Send raw bytes; returns the status, 0 for no answer, and the problem's name."""
    received = b""
    with socket.create_connection(("127.0.0.1", port), timeout=120) as connection:
        try:
            for place, part in enumerate(request.parts):
                if place:
                    time.sleep(request.pause_seconds)
                connection.sendall(part)
        except (BrokenPipeError, ConnectionResetError):
            pass  # the service has hung up; its answer may have arrived all the same
        try:
            while b"\r\n\r\n" not in received or len(received) < _length(received):
                more = connection.recv(65_536)
                if not more:
                    break
                received += more
        except ConnectionResetError:
            pass
    if not received.startswith(b"HTTP/1.1 "):
        return 0, ""
    try:
        problem = json.loads(received.partition(b"\r\n\r\n")[2])["type"]
    except ValueError:
        problem = ""
    return int(received[9:12]), str(problem).rpartition(":")[2]


def _length(received: bytes) -> int:
    """Return the whole length of an answer that has begun to arrive."""
    headers, _, _ = received.partition(b"\r\n\r\n")
    for line in headers.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return len(headers) + 4 + int(line.partition(b":")[2])
    return len(received)


def play(port: int, count: int, seed: int = 0) -> Iterator[Outcome]:
    """Send hostile requests, and after each a good one."""
    for request in hostile_requests(count, seed):
        status, problem = send_raw(port, request)
        client = Client(port, READ)
        start = time.perf_counter()
        good = client.post("/v1/match", [("photo", PHOTO)])
        took = time.perf_counter() - start
        client.close()
        yield Outcome(request.kind, status, problem, took, good.status)


def main() -> None:
    """Send them to a service of its own, and print the answers."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 500
    with tempfile.TemporaryDirectory() as folder:
        people = Path(folder) / "people"
        people.symlink_to(VERIFY_DATASET)
        with RunningService("--people", str(people), *OPTIONS, environment=TOKENS) as service:
            outcomes = list(play(service.port, count))
            names = Client(service.port, READ).request("GET", "/v1/people").json["people"]
            lines = service.lines
    answers = Counter((each.kind, each.status, each.problem) for each in outcomes)
    for (kind, status, problem), number in sorted(answers.items()):
        print(f"{number:4d}  {kind:28s} {status} {problem}")
    slowest = sorted(each.good_seconds for each in outcomes)
    not_refused = [each for each in outcomes if each.status not in REFUSALS]
    print(f"{len(outcomes)} requests, {len(not_refused)} not answered by a status of 400 to 499")
    middle, most = slowest[len(slowest) // 2], slowest[-1]
    print(f"next good request: {middle:.2f} s in the middle, {most:.2f} s at most")
    print(f"good requests that failed: {sum(each.good_status != 200 for each in outcomes)}")
    print(f"people afterwards: {len(names)}; lines in the log: {len(lines)}")
    print("\n".join(lines[-20:]))


if __name__ == "__main__":
    main()
