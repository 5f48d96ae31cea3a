"""A server on this machine that serves one file, and fails in the ways that servers fail."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Served:
    """What is served and how; may be changed between requests.

    Attributes:
        content: The file.
        tag: Its ETag; None sends none.
        ranges: Whether parts can be asked for.
        cut_after: Bytes of the file after which the connection breaks, once for each entry.
        statuses: Answers before the file itself is served.
        silent_after: Bytes after which nothing comes any more, once for each entry.
        pause_seconds: Wait before each tenth of the file.
        most_a_part: Bytes of a part at most, whatever was asked for.
        with_length: Whether the length is told.
        asked: The Range header of each request.
    """

    content: bytes
    tag: str | None = '"one"'
    ranges: bool = True
    cut_after: list[int] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    silent_after: list[int] = field(default_factory=list)
    pause_seconds: float = 0.0
    most_a_part: int | None = None
    with_length: bool = True
    asked: list[str | None] = field(default_factory=list)
    url: str = ""


@contextmanager
def serving(served: Served) -> Iterator[Served]:
    """Serve it under ``served.url`` while the block runs."""
    ended = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *arguments: object) -> None:
            """Keep the tests' output clean."""

        def do_GET(self) -> None:
            asked = self.headers.get("Range")
            served.asked.append(asked)
            if served.statuses:
                self.send_response(served.statuses.pop(0))
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            start, end = 0, len(served.content)
            size = end
            same = served.tag is not None and self.headers.get("If-Range") == served.tag
            if asked and served.ranges and same:
                start = int(asked.removeprefix("bytes=").rstrip("-"))
                if start >= size:
                    self.send_response(416)
                    self.send_header("Content-Range", f"bytes */{size}")
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                end = min(size, start + (served.most_a_part or size))
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {start}-{end - 1}/{size}")
            else:
                self.send_response(200)
            if served.tag:
                self.send_header("ETag", served.tag)
            if served.with_length:
                self.send_header("Content-Length", str(end - start))
            self.end_headers()
            if served.cut_after:
                end = served.cut_after.pop(0)
            silent = bool(served.silent_after)
            if silent:
                end = served.silent_after.pop(0)
            step = max(1, size // 10)
            for place in range(start, end, step):
                time.sleep(served.pause_seconds)
                self.wfile.write(served.content[place : min(place + step, end)])
                self.wfile.flush()
            if silent:
                ended.wait(20)
            self.close_connection = True

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    served.url = f"http://127.0.0.1:{server.server_port}/file.bin"
    try:
        yield served
    finally:
        ended.set()
        server.shutdown()
        server.server_close()
