"""Downloads over http and https, bounded in size and time: into memory, or into a checked file."""

from __future__ import annotations

import hashlib
import ipaddress
import json
import os
import queue
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit

from face_encode.errors import FaceEncodeError
from face_encode.files import reason_of, settle
from face_encode.terminal import counted_bytes
from face_encode.version import __version__

if TYPE_CHECKING:
    import requests

PRIVATE_VARIABLE = "FACE_ENCODE_PRIVATE_ADDRESSES"

MAX_REDIRECTS = 3
ATTEMPTS = 4

# Small, because what has come of a block is lost when the connection breaks.
_BLOCK_BYTES = 16 * 1024
_MAX_WAIT_SECONDS = 8.0
_TRY_AGAIN = (408, 425, 429)
# Compressed, a small answer could become a large one, and no part of a file could be asked for.
_HEADERS = {"Accept-Encoding": "identity", "User-Agent": f"face_encode/{__version__}"}


class DownloadError(FaceEncodeError):
    """An address cannot be downloaded; the message gives the reason, not the address.

    Callers turn this error into one of their own, which names the photo or the weights.
    """


class _TransientError(Exception):
    """The server failed for now, or the connection broke: another attempt may succeed."""


def download_bytes(url: str, *, max_bytes: int, seconds: float) -> bytes:
    """Download an address of the internet into memory.

    Addresses of this machine and of private networks are refused, the first as well as those that
    it redirects to: whoever names an address must not reach by it what only this machine reaches.
    The environment variable ``FACE_ENCODE_PRIVATE_ADDRESSES``, set to 1, allows them.

    Args:
        url: An ``http://`` or ``https://`` address; redirections are followed, but never from
            https to http.
        max_bytes: A larger answer is refused.
        seconds: The time that the whole download may take.

    Raises:
        DownloadError: No such address, a private one (also one of several that a name has), an
            answer other than 200, too large or too slow.
    """
    outcomes: queue.SimpleQueue[bytes | Exception] = queue.SimpleQueue()
    too_slow = DownloadError(f"not there within {seconds} seconds")
    deadline = time.monotonic() + seconds
    opened: list[requests.Response] = []

    def work() -> None:
        import requests

        try:
            content = bytearray()
            with _public_session() as session, _answer(session, url, {}, seconds) as answer:
                opened.append(answer)
                if time.monotonic() > deadline:
                    raise too_slow
                _check_status(answer)
                if answer.status_code == 206:
                    raise DownloadError("the server sends a part that nobody asked for")
                for block in answer.iter_content(_BLOCK_BYTES):
                    content += block
                    _check_size(len(content), max_bytes)
                    if time.monotonic() > deadline:
                        raise too_slow
            outcomes.put(bytes(content))
        except requests.Timeout:
            outcomes.put(too_slow)
        except (DownloadError, _TransientError) as error:
            outcomes.put(DownloadError(str(error)))
        except Exception as error:
            # Among others InvalidURL and UnicodeError, which are no RequestException.
            outcomes.put(DownloadError(f"cannot be fetched ({type(error).__name__})"))

    # A server that sends a byte now and then keeps any single read waiting, so the work has a
    # thread of its own, which is abandoned at the deadline; ended, where the body has begun.
    threading.Thread(target=work, daemon=True, name="face_encode download").start()
    try:
        outcome = outcomes.get(timeout=seconds)
    except queue.Empty:
        outcome = too_slow
        # urllib3 has this from release 2.3 on.
        with suppress(Exception):
            opened[0].raw.shutdown()
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


def download_file(
    url: str,
    path: Path,
    *,
    sha256: str | None = None,
    max_bytes: int = 1024**3,
    timeout_seconds: float = 30.0,
    wait_seconds: float = 1.0,
    show_progress: bool = True,
) -> None:
    """Download a file, resuming where an earlier attempt stopped.

    One process downloads a file; others wait for it.

    Args:
        url: As for ``download_bytes``.
        path: Where to; folders above it are made. A file that is there already is left alone.
        sha256: The SHA-256 that the file must have, where it is known.
        max_bytes: A larger file is refused, before or while it comes.
        timeout_seconds: The longest silence of the server.
        wait_seconds: Wait before the second attempt; twice as long before each further one.
        show_progress: Whether to draw a progress bar on standard error.

    Raises:
        DownloadError: The address cannot be reached or answers with an error, ``ATTEMPTS`` times
            in a row without a byte coming; the file is too large or another one; or it cannot be
            written.
    """
    from filelock import FileLock

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_name(f"{path.name}.lock")):
            if path.is_file():
                return
            partial = _PartialFile(path, url, max_bytes, show_progress)
            _receive_all(partial, timeout_seconds, wait_seconds)
            partial.finish(sha256)
    except OSError as error:
        raise DownloadError(f"{path} cannot be written: {reason_of(error)}") from error
    except ValueError as error:  # of urllib and urllib3
        raise DownloadError(f"cannot be fetched: {error!s:.200}") from error


def _public_session() -> requests.Session:
    """A session that talks to public addresses only, unless the environment allows others."""
    import requests
    from requests.adapters import HTTPAdapter
    from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

    session = requests.Session()
    if os.environ.get(PRIVATE_VARIABLE) == "1":
        return session

    def checking(pool: Any) -> Any:
        class CheckedConnection(pool.ConnectionCls):  # type: ignore[misc]
            def _new_conn(self) -> Any:
                # A refused address is not even connected to, which would tell its open ports.
                with suppress(OSError, UnicodeError):
                    for found in socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM):
                        _check_public(str(found[4][0]))
                # The address that is connected to, whatever the name led to before or will later.
                opened = super()._new_conn()
                try:
                    _check_public(opened.getpeername()[0])
                except BaseException:
                    opened.close()
                    raise
                return opened

        return type(f"Checked{pool.__name__}", (pool,), {"ConnectionCls": CheckedConnection})

    class PublicAdapter(HTTPAdapter):  # type: ignore[misc]
        def init_poolmanager(self, *arguments: Any, **settings: Any) -> None:
            super().init_poolmanager(*arguments, **settings)
            self.poolmanager.pool_classes_by_scheme = {
                "http": checking(HTTPConnectionPool),
                "https": checking(HTTPSConnectionPool),
            }

        def send(self, request: Any, *arguments: Any, **settings: Any) -> Any:
            # Through a proxy, which looks names up itself, the numbers in an address at least.
            with suppress(ValueError):
                _check_public(urlsplit(request.url).hostname or "")
            return super().send(request, *arguments, **settings)

    session.mount("http://", PublicAdapter())
    session.mount("https://", PublicAdapter())
    return session


def _check_public(number: str) -> None:
    """Refuse an address that is none of the public internet.

    Raises:
        DownloadError: It is this machine's, a private network's, or of another special use.
        ValueError: It is no number.
    """
    address = ipaddress.ip_address(number.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        # Addresses that stand for one of IPv4: mapped, 6to4, and by a translator (RFC 6052).
        translated = ipaddress.ip_address(int(address) & 0xFFFFFFFF)
        is_translated = address in ipaddress.ip_network("64:ff9b::/96")
        address = address.ipv4_mapped or address.sixtofour or address
        address = translated if is_translated else address
    if not address.is_global or address.is_multicast:
        raise DownloadError(
            f"{number} is an address of this machine or of a private network; to allow these, set "
            f"the environment variable {PRIVATE_VARIABLE}=1"
        )


def _receive_all(partial: _PartialFile, timeout_seconds: float, wait_seconds: float) -> None:
    """Try until the file is whole; give up after attempts in a row that brought nothing."""
    import requests

    failures = 0
    with requests.Session() as session:
        while True:
            before = partial.size()
            try:
                return partial.receive(session, timeout_seconds)
            # A RequestException is an OSError too, and is caught here, not as one.
            except (_TransientError, requests.RequestException) as error:
                failures = 1 if partial.size() > before else failures + 1
                if failures >= ATTEMPTS:
                    raise DownloadError(_reason(error)) from error
            time.sleep(min(wait_seconds * 2 ** (failures - 1), _MAX_WAIT_SECONDS))


class _PartialFile:
    """A file whose download is under way: its first bytes, and the version they belong to."""

    def __init__(self, path: Path, url: str, max_bytes: int, show_progress: bool) -> None:
        self.path, self.url = path, url
        self.max_bytes, self.show_progress = max_bytes, show_progress
        self.content = path.with_name(f"{path.name}.part")
        self.note = path.with_name(f"{path.name}.part.json")

    def size(self) -> int:
        """Bytes received so far."""
        return self.content.stat().st_size if self.content.is_file() else 0

    def version(self) -> str | None:
        """The server's tag of the version received so far; None where a new start is needed."""
        try:
            note = json.loads(self.note.read_text(encoding="utf-8"))
            version = note["version"] if note["url"] == self.url else None
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return version if isinstance(version, str) and self.size() else None

    def discard(self) -> None:
        """Remove the bytes received so far."""
        self.content.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)

    def receive(self, session: requests.Session, timeout_seconds: float) -> None:
        """Ask once for the bytes that are missing, and append those that come."""
        version = self.version()
        start = self.size() if version else 0
        # A server that has another version now sends all of it.
        headers = {"Range": f"bytes={start}-", "If-Range": version} if version else {}
        with _answer(session, self.url, headers, timeout_seconds) as answer:
            parts = answer.headers.get("Content-Range", "")
            if answer.status_code == 416:
                total = re.fullmatch(r"bytes \*/(\d+)", parts)
                if total and int(total[1]) == start:
                    return
                self.discard()
                raise _TransientError("the server has another file than the one that was begun")
            _check_status(answer)
            if answer.status_code == 200:
                start = 0
            elif not parts.startswith(f"bytes {start}-"):
                self.discard()
                raise _TransientError("the server sends another part than it was asked for")
            self._write(answer, start)

    def _write(self, answer: requests.Response, start: int) -> None:
        """Append the body, or begin with it."""
        length = answer.headers.get("Content-Length", "")
        total = start + int(length) if length.isdecimal() else None
        # A server may send less than was asked for, and says how long the whole is.
        whole = answer.headers.get("Content-Range", "").rpartition("/")[2]
        if start and whole.isdecimal():
            total = int(whole)
        received = start
        if start == 0:
            tag = answer.headers.get("ETag", "")
            # A weak tag says that two versions mean the same, not that their bytes are equal.
            if not tag or tag.startswith("W/"):
                tag = answer.headers.get("Last-Modified", "")
            note = {"url": self.url, "version": tag or None}
            # Before the note: bytes of another version would count as of this one.
            self.content.unlink(missing_ok=True)
            self.note.write_text(json.dumps(note), encoding="utf-8")
        try:
            _check_size(total or 0, self.max_bytes)
            with (
                open(self.content, "ab" if start else "wb") as file,
                counted_bytes(total, start, self.path.name, show=self.show_progress) as count,
            ):
                for block in answer.iter_content(_BLOCK_BYTES):
                    received += len(block)
                    _check_size(received, self.max_bytes)
                    file.write(block)
                    count(len(block))
        except DownloadError:
            self.discard()
            raise
        if total is not None and received != total:
            raise _TransientError(f"the connection broke after {received:,} of {total:,} bytes")

    def finish(self, sha256: str | None) -> None:
        """Check the whole file and move it to its path."""
        if sha256 is not None and (received := file_digest(self.content)) != sha256:
            self.discard()
            raise DownloadError(
                f"the file is not the known one: expected SHA-256 {sha256}. Received: {received}"
            )
        settle(self.content, self.path)
        with suppress(OSError):
            self.note.unlink(missing_ok=True)


def file_digest(path: Path) -> str:
    """SHA-256 of a file, as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


@contextmanager
def _answer(
    session: requests.Session, url: str, headers: dict[str, str], timeout_seconds: float
) -> Iterator[requests.Response]:
    """The answer of an address, after redirections, its body not yet read.

    Redirections are followed here, because requests reads the whole body of each.
    """
    for _ in range(MAX_REDIRECTS + 1):
        with session.get(
            url,
            headers=_HEADERS | headers,
            stream=True,
            timeout=timeout_seconds,
            allow_redirects=False,
        ) as answer:
            target = session.get_redirect_target(answer)
            if target is None:
                yield answer
                return
            source, url = url, urljoin(url, target)
        if source.startswith("https:") and not url.startswith("https:"):
            raise DownloadError("the server leads to an address without encryption")
    raise DownloadError(f"more than {MAX_REDIRECTS} redirections")


def _check_size(size: int, max_bytes: int) -> None:
    """Refuse an answer that is too large."""
    if size > max_bytes:
        raise DownloadError(f"larger than {max_bytes:,} bytes, which is the most")


def _check_status(answer: requests.Response) -> None:
    """Sort the answers into good ones, bad for now, and bad."""
    code = answer.status_code
    if code in (200, 206):
        return
    message = f"the server answers {code} {answer.reason or ''}".rstrip()
    if code in _TRY_AGAIN or code >= 500:
        raise _TransientError(message)
    raise DownloadError(message)


def _reason(error: Exception) -> str:
    """Why the last attempt failed, in a few words; requests wraps causes into pages."""
    import requests

    text = str(error)
    if isinstance(error, _TransientError):
        return text
    if isinstance(error, requests.Timeout) or "Read timed out" in text:
        return "the server falls silent"
    if isinstance(error, requests.exceptions.SSLError):
        return "the server's certificate is not trusted"
    if isinstance(error, requests.exceptions.ChunkedEncodingError) or "IncompleteRead" in text:
        return "the connection breaks again and again"
    if isinstance(error, requests.ConnectionError):
        return "the server cannot be reached (is this machine online?)"
    return f"{type(error).__name__}: {text}"
