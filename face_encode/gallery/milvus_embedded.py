"""A gallery's store within this program: Milvus Lite's folder, which processes take turns at."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

from filelock import FileLock, Timeout

from face_encode.errors import GalleryError
from face_encode.files import reason_of
from face_encode.gallery.milvus_client import open_client, telling

# How long another process's turn is waited for.
TURN_SECONDS = 60.0
# How long a store stays open after its last use: opening it again reads its files.
LINGER_SECONDS = 0.25

_POLL_SECONDS = 0.02
_QUEUE_FILE = "face_encode.lock"

# The stores of this process, by their folders.
_stores: WeakValueDictionary[str, EmbeddedStore] = WeakValueDictionary()
_stores_lock = threading.Lock()


def embedded_store(path: Path) -> EmbeddedStore:
    """The one store of this process in a folder, which need not be there yet.

    Raises:
        GalleryError: The folder cannot be made there.
    """
    folder = os.path.realpath(path)
    if not os.path.isdir(os.path.dirname(folder)):
        raise GalleryError(f"the gallery {path} cannot be made: its folder does not exist")
    if os.path.exists(folder) and not os.path.isdir(folder):
        raise GalleryError(
            f"the gallery {path} is a file; a store of Milvus Lite is a folder from its "
            "version 3 on"
        )
    with _stores_lock:
        # Two of them would keep each other out.
        return _stores.setdefault(folder, EmbeddedStore(Path(folder)))


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
        with self._lock, telling(str(self._folder)):
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
            self._client = open_client(
                str(self._folder),
                # It talks to this process; a proxy set for the web has no part in that.
                options={"grpc.enable_http_proxy": 0},
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
