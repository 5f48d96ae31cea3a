"""What a gallery in Milvus is kept in, and which kind of it a place stands for."""

from __future__ import annotations

from typing import Any, Protocol

from face_encode.gallery.milvus_client import check_milvus
from face_encode.gallery.milvus_embedded import embedded_store
from face_encode.gallery.milvus_places import MilvusPlace
from face_encode.gallery.milvus_server import ServerStore


class MilvusStore(Protocol):
    """What a gallery is kept in."""

    def exists(self) -> bool:
        """Whether there is a store at all, found out without making one."""

    def client(self) -> Any:
        """A context that gives a ``pymilvus.MilvusClient``, and how often the store was opened.

        By the number whoever prepares something on a client tells that it is another one.

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
    check_milvus(embedded=place.path is not None)
    return ServerStore(place) if place.path is None else embedded_store(place.path)
