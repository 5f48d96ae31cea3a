"""Where events go: a file of JSON lines, standard output, a webhook."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import os
import sqlite3
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import platformdirs
import requests
from filelock import FileLock, Timeout
from urllib3.exceptions import HTTPError

from face_encode.errors import InputError, VideoError
from face_encode.files import (
    as_path,
    check_writable,
    for_owner,
    make_private_folder,
    reason_of,
)

# Signs the webhook's messages, so that the receiver knows who sent them.
SECRET_VARIABLE = "FACE_ENCODE_WEBHOOK_SECRET"

_SECRET_PREFIX = "whsec_"
# Seconds until a message that did not arrive is sent again; each further wait is twice as long.
_FIRST_WAIT, _LONGEST_WAIT = 1.0, 300.0
_ANSWER_SECONDS = 10.0
# Answers of a receiver that may take the same message later; others of 400 to 499 will not.
_LATER = (408, 425, 429)
# Messages kept for a receiver that stays away; then the oldest go.
_MAX_QUEUED = 10_000
# The queue is looked into this often for what other programs put there.
_POLL_SECONDS = 5.0
# How long the end waits for messages to arrive; the rest waits on disk for the next run.
_CLOSE_SECONDS, _LOOK_SECONDS = 5.0, 0.05


class EventSink(Protocol):
    """Something that takes events."""

    def write(self, event: Mapping[str, Any]) -> None:
        """Take an event: a dict of plain JSON values.

        Raises:
            VideoError: It cannot be written; the next one may be again.
        """

    def close(self) -> None:
        """Finish what was begun."""


def as_json(event: Mapping[str, Any]) -> str:
    """An event as JSON in one line; bytes of a file's name that are no text are escaped."""
    return json.dumps(event, ensure_ascii=False).encode(errors="backslashreplace").decode()


def open_sinks(
    file: str | None, webhook: str | None, *, report: Callable[[str], None] | None = None
) -> Iterator[EventSink]:
    """Open what takes the events of any number of sources, one after the other.

    Args:
        file: Path of a file of events, ``-`` for standard output, or None.
        webhook: Address of a webhook, or None; ``FACE_ENCODE_WEBHOOK_SECRET`` in the environment
            signs its messages.
        report: Called with a line of text about the webhook; from another thread.

    Raises:
        InputError: No such address, or a secret that is no base64.
        VideoError: The file, or the webhook's queue, cannot be written.
    """
    if file is not None:
        yield PrintedEvents() if file == "-" else EventFile(file)
    if webhook is not None:
        secret = os.environ.get(SECRET_VARIABLE) or None
        yield Webhook(webhook, secret=secret, report=report)


class EventFile:
    """Appends lines of JSON to a file, each in one call to the operating system.

    A kill between two calls leaves only whole lines. A kill within one may cut its line off at a
    page of memory, as a full disk may; what is written next begins a new line then.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Open the file, to append to it; folders above it are made.

        Raises:
            VideoError: The file cannot be written.
        """
        self._path: Path = as_path(path)
        self._is_cut = False
        self._lock = threading.Lock()
        check_writable(self._path, VideoError)
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0)
        with self._refusals():
            make_private_folder(self._path.parent)
            self._handle = for_owner(self._path, flags)
            if os.fstat(self._handle).st_size > 0:
                os.lseek(self._handle, -1, os.SEEK_END)
                self._is_cut = os.read(self._handle, 1) != b"\n"

    def write(self, event: Mapping[str, Any]) -> None:
        """Append an event.

        Raises:
            VideoError: The file cannot be written.
        """
        content = as_json(event).encode() + b"\n"
        # The cameras of a service share the file.
        with self._lock, self._refusals():
            line = b"\n" * self._is_cut + content
            written = os.write(self._handle, line)
            self._is_cut = line[written - 1 : written] != b"\n"
            if written < len(line):
                raise OSError(None, "the disk is full")

    def close(self) -> None:
        """Close the file."""
        os.close(self._handle)

    @contextmanager
    def _refusals(self) -> Iterator[None]:
        """Raise the operating system's refusals as a ``VideoError``."""
        try:
            yield
        except OSError as error:
            raise VideoError(f"cannot write {self._path}: {reason_of(error)}") from error


class PrintedEvents:
    """Prints events as lines of JSON on standard output, each at once."""

    def write(self, event: Mapping[str, Any]) -> None:
        """Print an event.

        Raises:
            VideoError: Nobody reads standard output any more.
        """
        shows_all = "utf" in (sys.stdout.encoding or "").lower()
        try:
            sys.stdout.write((as_json(event) if shows_all else json.dumps(event)) + "\n")
            sys.stdout.flush()
        except OSError as error:
            raise VideoError(f"cannot write to standard output: {reason_of(error)}") from error

    def close(self) -> None:
        """Nothing to finish."""


class Webhook:
    """Posts events to an address, as Standard Webhooks (standardwebhooks.com) has it.

    Every message is on disk before it is sent, and stays there until the receiver has answered with
    200 to 299: a receiver that is away, a kill and a new start lose nothing. A message may arrive
    twice, with the same ``webhook-id``. Messages arrive in their order.

    Headers: ``webhook-id``, ``webhook-timestamp`` (Unix seconds) and, with a secret,
    ``webhook-signature``: ``v1,`` and the base64 of HMAC-SHA256 of ``id.timestamp.body``.
    """

    def __init__(
        self,
        url: str,
        *,
        queue: str | os.PathLike[str] | None = None,
        secret: str | None = None,
        report: Callable[[str], None] | None = None,
    ) -> None:
        """Open the queue, and begin to send what waits in it.

        Args:
            url: ``http://`` or ``https://``.
            queue: The file of the messages that wait; None for one in the user's folder for
                programs' state, another one for each address.
            secret: Signs the messages; ``whsec_`` and base64 as the standard writes it, or any
                text.
            report: Called with a line of text when messages do not arrive, when they do again, and
                when one is given up; from another thread.

        Raises:
            InputError: No such address, or a secret that is no base64.
            VideoError: The queue cannot be written.
        """
        try:
            scheme, host = urlsplit(url).scheme, urlsplit(url).hostname
        except ValueError:
            scheme, host = "", None
        if scheme not in ("http", "https") or not host:
            # The path may hold a key, so the address is not repeated.
            raise InputError("a webhook's address begins with http:// or https:// and a host")
        self._url = url
        self._name = f"webhook {host}"
        self._key = None if secret is None else _key_of(secret)
        self._report = (lambda text: None) if report is None else report
        self._path = _queue_path(url) if queue is None else as_path(queue)
        with self._refusals():
            make_private_folder(self._path.parent)
            os.close(for_owner(self._path, os.O_CREAT | os.O_RDWR))
            with closing(self._connect()) as database, database:
                database.execute("PRAGMA journal_mode=WAL")
                database.execute(
                    "CREATE TABLE IF NOT EXISTS messages"
                    "(number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT, body BLOB)"
                )
        self._news, self._stopping = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._send_all, name=self._name, daemon=True)
        self._thread.start()

    def write(self, event: Mapping[str, Any]) -> None:
        """Put an event into the queue; it is on disk when this returns.

        Raises:
            VideoError: The queue cannot be written.
        """
        body = as_json(event).encode()
        with self._refusals(), closing(self._connect()) as database, database:
            database.execute(
                "INSERT INTO messages(id, body) VALUES (?, ?)", (f"msg_{uuid.uuid4().hex}", body)
            )
            dropped = database.execute(
                "DELETE FROM messages WHERE number <= (SELECT max(number) FROM messages) - ?",
                (_MAX_QUEUED,),
            ).rowcount
        if dropped > 0:
            self._report(f"{self._name}: {_MAX_QUEUED} messages wait; the oldest was given up")
        self._news.set()

    def close(self) -> None:
        """Wait some seconds until everything has arrived; the rest waits for the next run."""
        deadline = time.monotonic() + _CLOSE_SECONDS
        while self._is_waiting() and time.monotonic() < deadline:
            time.sleep(_LOOK_SECONDS)
        self._stopping.set()
        self._news.set()
        self._thread.join(_ANSWER_SECONDS + 1)

    def _is_waiting(self) -> bool:
        """Whether a message is in the queue."""
        with suppress(sqlite3.Error), closing(self._connect()) as database:
            return database.execute("SELECT 1 FROM messages LIMIT 1").fetchone() is not None
        return False

    def _send_all(self) -> None:
        """Send the messages as they come; what the thread runs."""
        wait, is_away = _FIRST_WAIT, False
        while not self._stopping.is_set():
            self._news.clear()
            try:
                # Of several programs with this queue one sends, so that each message goes once.
                with FileLock(f"{self._path}.lock", timeout=0, mode=0o600):
                    problem = self._send_waiting()
            except Timeout:
                problem = None
            # The second where the file system knows no locks.
            except (OSError, NotImplementedError) as error:
                problem = f"the queue {self._path} cannot be locked: {error}"
            if problem is None:
                if is_away:
                    self._report(f"{self._name}: messages arrive again")
                wait, is_away = _FIRST_WAIT, False
                self._news.wait(_POLL_SECONDS)
                continue
            if not is_away:
                self._report(f"{self._name}: {problem}; messages wait, and are sent again")
            is_away = True
            self._stopping.wait(wait)
            wait = min(2 * wait, _LONGEST_WAIT)

    def _send_waiting(self) -> str | None:
        """Send what waits, the oldest first; returns why the next one did not arrive, or None."""
        try:
            with closing(self._connect()) as database, requests.Session() as session:
                while not self._stopping.is_set():
                    row = database.execute(
                        "SELECT number, id, body FROM messages ORDER BY number LIMIT 1"
                    ).fetchone()
                    if row is None:
                        return None
                    number, name, body = row
                    problem = self._post(session, name, body)
                    if problem is not None:
                        return problem
                    with database:
                        database.execute("DELETE FROM messages WHERE number = ?", (number,))
        except sqlite3.Error as error:
            return f"the queue {self._path} cannot be read: {error}"
        return None

    def _post(self, session: requests.Session, name: str, body: bytes) -> str | None:
        """Post one message; returns why it has to be sent again, or None."""
        seconds = str(int(time.time()))
        headers = {
            "content-type": "application/json",
            "webhook-id": name,
            "webhook-timestamp": seconds,
        }
        if self._key is not None:
            headers["webhook-signature"] = _signature(self._key, name, seconds, body)
        try:
            answer = session.post(
                self._url, body, headers=headers, timeout=_ANSWER_SECONDS, allow_redirects=False
            )
        # requests lets some of urllib3's pass, and what a host's name trips over.
        except (requests.RequestException, HTTPError, ValueError) as error:
            # The message of the error would repeat the address.
            return f"no answer ({type(error).__name__})"
        if answer.ok and answer.status_code < 300:
            return None
        if 400 <= answer.status_code < 500 and answer.status_code not in _LATER:
            self._report(f"{self._name}: refused a message with {answer.status_code}; given up")
            return None
        return f"answered with {answer.status_code}"

    def _connect(self) -> sqlite3.Connection:
        """Open the queue; each thread has a connection of its own."""
        return sqlite3.connect(self._path, timeout=10)

    @contextmanager
    def _refusals(self) -> Iterator[None]:
        """Raise what keeps the queue from being written as a ``VideoError``."""
        try:
            yield
        except (OSError, sqlite3.Error) as error:
            reason = reason_of(error) if isinstance(error, OSError) else error
            raise VideoError(f"cannot write the webhook's queue {self._path}: {reason}") from error


def signature_is_right(secret: str, headers: Mapping[str, str], body: bytes) -> bool:
    """Check the signature of a message from ``Webhook``, for the receiver.

    Args:
        secret: The sender's.
        headers: Of the request, with names in lower case.
        body: Of the request, as it came.
    """
    name, seconds = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    expected = _signature(_key_of(secret), name, seconds, body)
    return any(
        hmac.compare_digest(expected.encode(), each.encode())
        for each in headers.get("webhook-signature", "").split()
    )


def _signature(key: bytes, name: str, seconds: str, body: bytes) -> str:
    """The signature of a message."""
    digest = hmac.digest(key, f"{name}.{seconds}.".encode() + body, hashlib.sha256)
    return "v1," + base64.b64encode(digest).decode()


def _key_of(secret: str) -> bytes:
    """The bytes that sign: of base64 after ``whsec_``, or of the text."""
    if not secret.startswith(_SECRET_PREFIX):
        return secret.encode()
    try:
        return base64.b64decode(secret.removeprefix(_SECRET_PREFIX), validate=True)
    except binascii.Error:
        raise InputError(f"a secret that begins with {_SECRET_PREFIX} goes on in base64") from None


def _queue_path(url: str) -> Path:
    """The file of the messages that wait for an address."""
    folder = platformdirs.user_state_path("face_encode", appauthor=False)
    return folder / f"webhook-{hashlib.sha256(url.encode()).hexdigest()[:16]}.sqlite"
