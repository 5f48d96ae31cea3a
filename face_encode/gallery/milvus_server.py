"""A gallery's store on a Milvus server or cluster."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from face_encode.errors import GalleryError
from face_encode.gallery.milvus_client import open_client, telling
from face_encode.gallery.milvus_places import MilvusPlace


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
        with self._lock, telling(f"{self._place.label} cannot be reached", self._place.token):
            client = self._client
            if client is None:
                client = self._client = open_client(self._place.address, self._place.token)
                self._opened += 1
            opened = self._opened
        try:
            with telling(self._place.label, self._place.token):
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
