"""Downloads of large files: resumable, limited in size, checked, and put in place at once.

What has come lies beside the file in ``NAME.part`` until it is whole, with ``NAME.part.json``
saying of which version on the server it is a part, so that a download that was cut off goes on
where it stopped, in this run or in a later one, and never joins two versions.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from face_encode.errors import WeightsError
from face_encode.files import reason_of, settle
from face_encode.terminal import counted_bytes
from face_encode.version import __version__

if TYPE_CHECKING:
    import requests

MOST_BYTES = 1024**3
TIMEOUT_SECONDS = 30.0
ATTEMPTS = 4

# What has come of a block when the connection breaks is lost, so blocks are small.
_BLOCK_BYTES = 16 * 1024
_LONGEST_WAIT_SECONDS = 8.0
_TRY_AGAIN = (408, 425, 429)


class _Interrupted(Exception):
    """The server failed for now, or the connection broke."""


def download(
    url: str,
    path: Path,
    *,
    sha256: str | None = None,
    most_bytes: int = MOST_BYTES,
    timeout_seconds: float = TIMEOUT_SECONDS,
    wait_seconds: float = 1.0,
    show_progress: bool = True,
) -> None:
    """Download a file, going on where an earlier attempt stopped.

    Only one process downloads a file; others wait for it.

    Args:
        url: Where from; an address that begins with ``https`` is not followed to one without.
        path: Where to; folders above it are made. A file that is there already is left alone.
        sha256: What the file has to be, where that is known.
        most_bytes: A larger file is refused, before or while it comes.
        timeout_seconds: The longest silence of the server.
        wait_seconds: Wait before the second attempt; before each further one twice as long.
        show_progress: Whether to draw a progress bar on standard error.

    Raises:
        WeightsError: The address cannot be reached or answers with an error, ``ATTEMPTS`` times in
            a row without a byte coming; the file is too large or another one; or it cannot be
            written. What is told names the reason, not the address.
    """
    from filelock import FileLock

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_name(f"{path.name}.lock")):
            if path.is_file():
                return
            partial = _Partial(path, url, most_bytes, timeout_seconds, show_progress)
            _receive_all(partial, wait_seconds)
            partial.finish(sha256)
    except OSError as error:
        raise WeightsError(f"{path} cannot be written: {reason_of(error)}") from error


def _receive_all(partial: _Partial, wait_seconds: float) -> None:
    """Try until the file is whole; give up after attempts in a row that brought nothing."""
    import requests

    failures = 0
    with requests.Session() as session:
        while True:
            before = partial.size()
            try:
                partial.receive(session)
                return
            # A RequestException is an OSError too, so it has to be told apart here.
            except (_Interrupted, requests.RequestException) as error:
                failures = 1 if partial.size() > before else failures + 1
                if failures >= ATTEMPTS:
                    raise WeightsError(_reason(error)) from error
            time.sleep(min(wait_seconds * 2 ** (failures - 1), _LONGEST_WAIT_SECONDS))


class _Partial:
    """A download under way."""

    def __init__(
        self, path: Path, url: str, most_bytes: int, timeout_seconds: float, show_progress: bool
    ) -> None:
        self.path = path
        self.url = url
        self.most_bytes = most_bytes
        self.timeout_seconds = timeout_seconds
        self.show_progress = show_progress
        self.content = path.with_name(f"{path.name}.part")
        self.note = path.with_name(f"{path.name}.part.json")

    def size(self) -> int:
        """Bytes that are there."""
        return self.content.stat().st_size if self.content.is_file() else 0

    def version(self) -> str | None:
        """What the server called the version of which a part is there; None to begin anew."""
        try:
            note = json.loads(self.note.read_text(encoding="utf-8"))
            same = isinstance(note, dict) and note.get("url") == self.url
            version = note.get("version") if same else None
        except (OSError, ValueError):
            return None
        return version if isinstance(version, str) and self.size() else None

    def discard(self) -> None:
        """Begin anew."""
        self.content.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)

    def receive(self, session: requests.Session) -> None:
        """One attempt: ask for the rest, and write down what comes."""
        # Compressed, the bytes on the way would not be those of the file.
        headers = {"Accept-Encoding": "identity", "User-Agent": f"face_encode/{__version__}"}
        version = self.version()
        start = self.size() if version else 0
        if version:
            # Another version is sent whole.
            headers |= {"Range": f"bytes={start}-", "If-Range": version}
        with session.get(
            self.url, headers=headers, stream=True, timeout=self.timeout_seconds
        ) as answer:
            self._check_address(answer)
            if answer.status_code == 416:
                total = re.fullmatch(r"bytes \*/(\d+)", answer.headers.get("Content-Range", ""))
                if total and int(total[1]) == start:
                    return
                self.discard()
                raise _Interrupted("the server has another file than the one that was begun")
            _check_status(answer)
            if answer.status_code == 200:
                start = 0
            elif not answer.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
                self.discard()
                raise _Interrupted("the server sends another part than it was asked for")
            self._write(answer, start)

    def _check_address(self, answer: requests.Response) -> None:
        """Refuse to be led from a safe address to an unsafe one."""
        if self.url.startswith("https:") and not answer.url.startswith("https:"):
            raise WeightsError("the server leads to an address without encryption")

    def _write(self, answer: requests.Response, start: int) -> None:
        """Append the body, or begin with it."""
        length = answer.headers.get("Content-Length", "")
        total = start + int(length) if length.isdecimal() else None
        self._check_size(total or 0)
        if start == 0:
            self._note_version(answer)
        received = start
        with (
            open(self.content, "ab" if start else "wb") as file,
            counted_bytes(total, start, self.path.name, show=self.show_progress) as count,
        ):
            for block in answer.iter_content(_BLOCK_BYTES):
                received += len(block)
                self._check_size(received)
                file.write(block)
                count(len(block))
        if total is not None and received != total:
            raise _Interrupted(f"the connection broke after {received:,} of {total:,} bytes")

    def _note_version(self, answer: requests.Response) -> None:
        """Keep what the server calls this version; without that, a part is of no use later."""
        tag = answer.headers.get("ETag", "")
        # A weak tag says that two versions mean the same, not that their bytes are the same.
        version = tag if tag and not tag.startswith("W/") else answer.headers.get("Last-Modified")
        self.note.write_text(json.dumps({"url": self.url, "version": version}), encoding="utf-8")

    def _check_size(self, size: int) -> None:
        """Refuse what is too large."""
        if size > self.most_bytes:
            self.discard()
            raise WeightsError(
                f"the file is at most {self.most_bytes:,} bytes large. Received: {size:,} or more"
            )

    def finish(self, sha256: str | None) -> None:
        """Check the whole file and put it in its place."""
        if sha256 is not None:
            received = file_digest(self.content)
            if received != sha256:
                self.discard()
                raise WeightsError(
                    f"the file is not the known one: expected SHA-256 {sha256}. "
                    f"Received: {received}"
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


def _check_status(answer: requests.Response) -> None:
    """Sort the answers into good, bad for now, and bad."""
    code = answer.status_code
    if code in (200, 206):
        return
    message = f"the server answers {code} {answer.reason or ''}".rstrip()
    if code in _TRY_AGAIN or code >= 500:
        raise _Interrupted(message)
    raise WeightsError(message)


def _reason(error: Exception) -> str:
    """Why it failed, in a few words; requests wraps causes into pages."""
    import requests

    if isinstance(error, _Interrupted):
        return str(error)
    text = str(error)
    if isinstance(error, requests.Timeout) or "Read timed out" in text:
        return "the server falls silent"
    if isinstance(error, requests.exceptions.SSLError):
        return "the server's certificate is not trusted"
    if isinstance(error, requests.exceptions.ChunkedEncodingError) or "IncompleteRead" in text:
        return "the connection breaks again and again"
    if isinstance(error, requests.ConnectionError):
        return "the server cannot be reached (is this machine online?)"
    return f"{type(error).__name__}: {text}"
