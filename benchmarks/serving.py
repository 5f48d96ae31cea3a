"""A service in a process of its own, and a client that speaks to it: for measurements and tests."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parent.parent


class RunningService:
    """``face-encode serve`` on a free port of loopback.

    Attributes:
        port: Where it listens.
        lines: What it has printed.
    """

    def __init__(self, *options: str, environment: Mapping[str, str] | None = None) -> None:
        """Start it, and wait until it answers.

        Raises:
            RuntimeError: It ended instead.
        """
        variables = {
            name: value
            for name, value in os.environ.items()
            if name not in ("FACE_ENCODE_TOKEN", "FACE_ENCODE_WRITE_TOKEN")
        }
        variables["PYTHONPATH"] = str(REPOSITORY)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "face_encode.cli", "serve", "--port", "0", *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**variables, **(environment or {})},
            text=True,
        )
        assert self._process.stdout is not None
        self.lines: list[str] = []
        self.port = 0
        for line in self._process.stdout:
            self.lines.append(line.rstrip())
            if found := re.search(r"^serving .* at http://.*:(\d+)$", self.lines[-1]):
                self.port = int(found[1])
                break
        else:
            self._process.wait()
            raise RuntimeError("\n".join(self.lines))
        # A pipe that nobody reads fills up, and the service would block on it.
        self._reader = threading.Thread(target=self._read_on, daemon=True)
        self._reader.start()

    @property
    def process_id(self) -> int:
        """The service's process."""
        return self._process.pid

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        """End it; gives the exit code."""
        if self._process.poll() is None:
            self._process.send_signal(how)
        code = self._process.wait(timeout=90)
        self._reader.join(timeout=10)
        return code

    def __enter__(self) -> RunningService:
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def _read_on(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout:
            for line in self._process.stdout:
                self.lines.append(line.rstrip())


@dataclass(frozen=True)
class Reply:
    """An answer.

    Attributes:
        status: The HTTP status.
        headers: Its headers, in lower case.
        content: Its body.
    """

    status: int
    headers: Mapping[str, str]
    content: bytes

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.content)


class Client:
    """Speaks to a service over one connection that is kept open."""

    def __init__(self, port: int, token: str | None = None, timeout: float = 90) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
        self._token = token

    def close(self) -> None:
        """Hang up."""
        self._connection.close()

    def request(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """Ask once.

        Raises:
            OSError: The connection broke.
            http.client.HTTPException: What came back is no answer.
        """
        sent = dict(headers or {})
        if self._token is not None:
            sent.setdefault("Authorization", f"Bearer {self._token}")
        try:
            self._connection.request(method, path, body, sent)
            answer = self._connection.getresponse()
            content = answer.read()
        except (OSError, http.client.HTTPException):
            self._connection.close()
            raise
        named = {name.lower(): value for name, value in answer.getheaders()}
        return Reply(answer.status, named, content)

    def post(
        self,
        path: str,
        photos: Sequence[tuple[str, bytes]],
        fields: Mapping[str, str] | None = None,
    ) -> Reply:
        """Send photos, each with its field's name, and texts, as multipart."""
        content_type, body = multipart(photos, fields or {})
        return self.request("POST", path, body, {"Content-Type": content_type})


def multipart(photos: Sequence[tuple[str, bytes]], fields: Mapping[str, str]) -> tuple[str, bytes]:
    """A multipart body: its content type, and its bytes."""
    boundary = uuid.uuid4().hex
    parts = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{text}\r\n'.encode()
        for name, text in fields.items()
    ]
    for place, (name, content) in enumerate(photos):
        head = (
            f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"; '
            f'filename="{place}.jpg"\r\nContent-Type: image/jpeg\r\n\r\n'
        )
        parts.append(head.encode() + content + b"\r\n")
    parts.append(f"--{boundary}--\r\n".encode())
    return f"multipart/form-data; boundary={boundary}", b"".join(parts)
