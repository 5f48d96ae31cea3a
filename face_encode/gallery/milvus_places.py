"""Where a Milvus gallery is kept: a server's address, or the folder of an embedded store."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from face_encode.errors import GalleryError
from face_encode.files import as_path

EMBEDDED_SUFFIX = ".db"
DEFAULT_COLLECTION = "face_encode"
TOKEN_VARIABLE = "FACE_ENCODE_MILVUS_TOKEN"

_SCHEMES = ("http", "https")
_COLLECTION = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,254}")


@dataclass(frozen=True)
class MilvusPlace:
    """A gallery's place.

    Attributes:
        label: What it is called in messages; without a password.
        collection: The collection that holds it; one store may hold several galleries.
        address: The server's, without a password; empty for an embedded store.
        token: What the server is to be shown; empty for none.
        path: The folder of an embedded store, or None.
    """

    label: str
    collection: str
    address: str = ""
    token: str = field(default="", repr=False)
    path: Path | None = None


def is_milvus(uri: str | os.PathLike[str]) -> bool:
    """Whether a gallery of this name is kept in Milvus.

    Raises:
        GalleryError: An address of another kind, which would be taken for a path.
        InputError: It is no text or path.
    """
    path = as_path(uri)
    if isinstance(uri, str) and "://" in uri:
        if not _is_address(uri):
            # What comes behind may hold a password.
            kind = uri.partition("://")[0]
            raise GalleryError(
                "a gallery is at a path, or at an address that begins with http:// or https://. "
                f"Received: one that begins with {kind}://"
            )
        return True
    return path.suffix == EMBEDDED_SUFFIX


def milvus_place(
    uri: str | os.PathLike[str], token: str | None = None, collection: str | None = None
) -> MilvusPlace:
    """The place that a name stands for.

    Args:
        uri: ``http://host:19530``, with ``/database`` and ``#collection`` behind it where they are
            others than the server's own and ``face_encode``; or a path that ends in ``.db``.
        token: What the server asks for, ``user:password`` or an API key; None takes the one in
            the address, or else that of the environment, ``FACE_ENCODE_MILVUS_TOKEN``.
        collection: The collection; None takes the address's.

    Raises:
        GalleryError: Not such an address, or not such a name of a collection.
    """
    text = os.fspath(uri)
    if not _is_address(text):
        chosen = _checked(DEFAULT_COLLECTION if collection is None else collection)
        path = as_path(uri)
        label = str(path) if chosen == DEFAULT_COLLECTION else f"{path}#{chosen}"
        return MilvusPlace(label, chosen, path=path)
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise GalleryError(f"a server's address is like http://host:19530: {error}") from error
    if not parts.hostname:
        raise GalleryError(
            "a server's address is like http://host:19530. Received: one without a host"
        )
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    place = host if port is None else f"{host}:{port}"
    address = urlunsplit((parts.scheme, place, parts.path, "", ""))
    chosen = _checked(collection or parts.fragment or DEFAULT_COLLECTION)
    shown = parts.username or ""
    if parts.password:
        shown = f"{shown}:{parts.password}"
    return MilvusPlace(
        address if chosen == DEFAULT_COLLECTION else f"{address}#{chosen}",
        chosen,
        address,
        token or shown or os.environ.get(TOKEN_VARIABLE, ""),
    )


def _is_address(text: str) -> bool:
    """Whether a text is an address rather than a path."""
    return text.lower().startswith(tuple(f"{scheme}://" for scheme in _SCHEMES))


def _checked(collection: str) -> str:
    """A collection's name, as Milvus allows it."""
    if not isinstance(collection, str) or not _COLLECTION.fullmatch(collection):
        raise GalleryError(
            "a collection's name has up to 255 letters, digits and underscores, and no digit "
            f"first. Received: {collection!r}"
        )
    return collection
