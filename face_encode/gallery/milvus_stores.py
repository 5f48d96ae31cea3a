"""Connections to Milvus: to a server, and to an embedded store that processes take turns at."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol
from weakref import WeakValueDictionary

from filelock import FileLock, Timeout

from face_encode.errors import GalleryError, MissingExtraError
from face_encode.files import reason_of
from face_encode.gallery.milvus_places import MilvusPlace

CONNECT_SECONDS = 10.0
# Of each call, with what is tried again within it while a server is being restarted.
CALL_SECONDS = 30.0
# How long another process's turn at an embedded store is waited for.
TURN_SECONDS = 60.0
# How long an embedded store stays open after its last use: opening it again reads its files.
LINGER_SECONDS = 0.25

# Some servers end a connection on which there are more pings than one in five minutes, and
# pymilvus sends one in ten seconds. That an answer fails to come, its time limit tells.
_KEEPALIVE = {"grpc.keepalive_time_ms": 310_000, "grpc.keepalive_permit_without_calls": 0}

_POLL_SECONDS = 0.02
_QUEUE_FILE = "face_encode.lock"


class MilvusStore(Protocol):
    """What a gallery is kept in."""

    def exists(self) -> bool:
        """Whether there is a store at all, found out without making one."""

    def client(self) -> Any:
        """A context that gives a ``pymilvus.MilvusClient``, and how often it was opened.

        Raises:
            GalleryError: From within, for whatever Milvus refuses or fails at.
        """

    def settle(self) -> None:
        """Bring what was written into the form that is fast to read."""

    def close(self) -> None:
        """Let go of it; the next use opens it again."""


def store_of(place: MilvusPlace) -> MilvusStore:
    """The store at a place.

    Raises:
        MissingExtraError: ``pymilvus``, or ``milvus-lite``, is not installed.
        GalleryError: The place cannot be one.
    """
    _import_pymilvus()
    if place.path is None:
        return ServerStore(place)
    try:
        import milvus_lite  # noqa: F401
    except ImportError as error:
        raise _missing() from error
    folder = os.path.realpath(place.path)
    if not os.path.isdir(os.path.dirname(folder)):
        raise GalleryError(f"the gallery {place.path} cannot be made: its folder does not exist")
    if os.path.exists(folder) and not os.path.isdir(folder):
        raise GalleryError(
            f"the gallery {place.path} is a file; a store of Milvus Lite is a folder from its "
            "version 3 on"
        )
    with _embedded_lock:
        # One a process: two would keep each other out.
        return _embedded.setdefault(folder, EmbeddedStore(Path(folder)))


class ServerStore:
    """A server or cluster, which any number of programs may use at once."""

    def __init__(self, place: MilvusPlace) -> None:
        """Take a place; nothing is opened before the first use."""
        self._place = place
        self._lock = threading.Lock()
        self._client: Any = None
        self._opened = 0

    def exists(self) -> bool:
        """True: that it is there shows at the first use."""
        return True

    @contextmanager
    def client(self) -> Iterator[tuple[Any, int]]:
        """See ``MilvusStore.client``; may be used from several threads at once."""
        with self._lock, _told(f"{self._place.label} cannot be reached", self._place.token):
            client = self._client
            if client is None:
                client = self._client = _import_pymilvus().MilvusClient(
                    self._place.address,
                    token=self._place.token,
                    timeout=CONNECT_SECONDS,
                    dedicated=True,
                    grpc_options=_KEEPALIVE,
                )
                self._opened += 1
            opened = self._opened
        try:
            with _told(self._place.label, self._place.token):
                yield client, opened
        except GalleryError:
            # The server may have been started anew, which a connection does not tell; the next
            # use finds out what is there. Other threads may still be at the former client.
            with self._lock:
                if self._client is client:
                    self._client = None
            raise

    def settle(self) -> None:
        """Nothing: a server sees to that by itself."""

    def close(self) -> None:
        """Let go of the connection."""
        with self._lock:
            if self._client is not None:
                self._client.close()
                self._client = None


class EmbeddedStore:
    """A folder of Milvus Lite, which one process at a time can have open.

    It stays open for a moment after each use, or until another process waits: that one holds the
    queue's lock, and the next in turn is who holds that.
    """

    def __init__(self, folder: Path) -> None:
        """Take a folder, which is made at the first use."""
        self._folder = folder
        self._queue = FileLock(folder / _QUEUE_FILE)
        # Around every use, too: Milvus Lite is made for one writer.
        self._lock = threading.RLock()
        self._client: Any = None
        self._opened = 0
        self._uses = 0
        self._used_at = 0.0
        self._timer: threading.Timer | None = None

    def exists(self) -> bool:
        """Whether the folder is there."""
        return self._folder.is_dir()

    @contextmanager
    def client(self) -> Iterator[tuple[Any, int]]:
        """See ``MilvusStore.client``; waits for other threads and processes."""
        with self._lock, _told(str(self._folder)):
            if self._client is None:
                self._open()
            self._uses += 1
            try:
                yield self._client, self._opened
            finally:
                self._uses -= 1
                self._used_at = time.monotonic()
                if not self._uses:
                    self._let_others_in()

    def settle(self) -> None:
        """Let go of the folder: Milvus Lite writes its files then.

        It reads them ten times faster than what it holds until then.
        """
        self.close()

    def close(self) -> None:
        """Let go of the folder."""
        with self._lock:
            if self._client is not None and not self._uses:
                self._release()

    def _open(self) -> None:
        """Open the folder, in turn.

        Raises:
            GalleryError: It is damaged, cannot be written to, or another process keeps it.
        """
        end = time.monotonic() + TURN_SECONDS
        try:
            self._folder.mkdir(exist_ok=True)
            with self._queue.acquire(timeout=TURN_SECONDS, poll_interval=_POLL_SECONDS):
                while not self._opens():
                    if time.monotonic() > end:
                        raise Timeout(str(self._folder))
                    time.sleep(_POLL_SECONDS)
        except Timeout as error:
            raise GalleryError(
                f"the gallery {self._folder} is kept open by another program, for more than "
                f"{TURN_SECONDS:.0f} seconds"
            ) from error
        except OSError as error:
            raise GalleryError(
                f"the gallery {self._folder} cannot be opened: {reason_of(error)}"
            ) from error
        self._opened += 1

    def _opens(self) -> bool:
        """Open the folder; whether no other process has it open."""
        from milvus_lite.exceptions import DataDirLockedError

        causes: list[BaseException] = []

        def keep(record: logging.LogRecord) -> bool:
            """Milvus Lite tells why it cannot open a store in its log only."""
            if record.exc_info and record.exc_info[1] is not None:
                causes.append(record.exc_info[1])
            return False

        log = logging.getLogger("milvus_lite.server_manager")
        log.addFilter(keep)
        try:
            self._client = _import_pymilvus().MilvusClient(
                str(self._folder),
                timeout=CONNECT_SECONDS,
                dedicated=True,
                # It talks to this process; a proxy set for the web has no part in that.
                grpc_options={**_KEEPALIVE, "grpc.enable_http_proxy": 0},
            )
        except Exception as error:
            cause = causes[-1] if causes else error
            if isinstance(cause, DataDirLockedError):
                return False
            raise GalleryError(f"the gallery {self._folder} cannot be opened: {cause}") from error
        finally:
            log.removeFilter(keep)
        return True

    def _let_others_in(self) -> None:
        """Release the folder where somebody waits for it, and otherwise in a moment."""
        try:
            self._queue.acquire(blocking=False)
        except Timeout:
            self._release()
            return
        self._queue.release()
        if self._timer is None:
            self._start_timer(LINGER_SECONDS)

    def _start_timer(self, seconds: float) -> None:
        self._timer = threading.Timer(seconds, self._release_if_idle)
        self._timer.daemon = True
        self._timer.start()

    def _release_if_idle(self) -> None:
        """Release the folder, where it has not been used for a moment."""
        with self._lock:
            self._timer = None
            if self._client is None or self._uses:
                return
            remaining = self._used_at + LINGER_SECONDS - time.monotonic()
            if remaining > 0:
                self._start_timer(remaining)
            else:
                self._release()

    def _release(self) -> None:
        from milvus_lite.server_manager import server_manager_instance

        self._client.close()
        self._client = None
        server_manager_instance.release_server(str(self._folder))


_embedded: WeakValueDictionary[str, EmbeddedStore] = WeakValueDictionary()
_embedded_lock = threading.Lock()


@contextmanager
def _told(what: str, token: str = "") -> Iterator[None]:
    """Tell of what Milvus refuses or fails at as an error of ours.

    Raises:
        GalleryError: With the store and the reason in it, never with the token.
    """
    import grpc
    from pymilvus.exceptions import MilvusException

    try:
        yield
    except (MilvusException, grpc.RpcError) as error:
        reason = getattr(error, "message", "") or str(error)
        # Of a token that is refused the message says nothing; the cause does.
        cause = error.__cause__ or error.__context__
        if isinstance(cause, grpc.RpcError) and (details := getattr(cause, "details", None)):
            reason = f"{details()}: {reason}"
        for secret in (token, *token.split(":", 1)[1:]):
            reason = reason.replace(secret, "…") if secret else reason
        # Its messages go on with a stack, line by line.
        raise GalleryError(f"the gallery {what}: {reason.strip().splitlines()[0]}") from error


def _import_pymilvus() -> Any:
    """``pymilvus``, silent: it logs the errors that it raises, with their tracebacks.

    Raises:
        MissingExtraError: It is not installed.
    """
    try:
        import pymilvus
    except ImportError as error:
        raise _missing() from error
    for name in ("pymilvus", "pymilvus.milvus_client"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    return pymilvus


def _missing() -> MissingExtraError:
    return MissingExtraError(
        'a gallery in Milvus takes pymilvus and milvus-lite: pip install "face_encode[milvus]"'
    )
