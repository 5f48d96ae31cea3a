"""What a gallery in Milvus is kept in: its address, its store and its rows."""

from __future__ import annotations

import atexit
import hashlib
import logging
import logging.config
import os
import re
import threading
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from face_encode.errors import GalleryError, InputError, MissingExtraError
from face_encode.files import as_path, make_private_folder, reason_of
from face_encode.gallery.distances import Metric
from face_encode.types import Embeddings

_DEFAULT_COLLECTION = "face_encode"
TOKEN_VARIABLE = "FACE_ENCODE_MILVUS_TOKEN"

CONNECT_SECONDS = 10.0
# Of each call, with its repetitions while a server restarts.
CALL_SECONDS = 30.0
# 1,000 rows of 512 numbers are 2 MB; a server refuses messages from 64 MB on.
ROWS_AT_ONCE = 1_000

# Of a row: its key; the person's name and a digest of it; the photo's digest as it was given, and
# a digest of that; the detector that found the face; when it was enrolled, in nanoseconds.
# Filters ask for digests only: no text that a user chose is ever part of a filter.
ROW_ID, NAME, PERSON, DIGEST = "id", "name", "person", "digest"
PHOTO, DETECTOR, ADDED, EMBEDDING = "photo", "detector", "added", "embedding"

# Milvus's names for metrics.
METRIC_TYPES: dict[Metric, str] = {"cosine": "COSINE", "euclidean": "L2"}

_KEY_BYTES = 64
_MAX_TEXT_BYTES = 65_535
_COLLECTION_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,254}")

# Some servers end a connection with more than one ping in five minutes, and pymilvus sends one in
# ten seconds. The time limit of a call notices a missing answer, too.
_KEEPALIVE = {"grpc.keepalive_time_ms": 310_000, "grpc.keepalive_permit_without_calls": 0}


@dataclass(frozen=True)
class MilvusAddress:
    """The address of a gallery in Milvus.

    Attributes:
        label: The gallery's name in messages; without a password.
        collection: The collection that holds the gallery; a store may hold several.
        url: The server's URL, without a password; empty for Milvus Lite.
        token: The user and password or the key for the server; empty for none.
        folder: The folder of Milvus Lite; None for a server.
    """

    label: str
    collection: str
    url: str = ""
    token: str = field(default="", repr=False)
    folder: Path | None = None


def is_milvus(uri: str | os.PathLike[str]) -> bool:
    """Whether a gallery of this name is kept in Milvus.

    Raises:
        GalleryError: A URL of another scheme, which would be taken for a path.
        InputError: Neither a text nor a path.
    """
    path = as_path(uri)
    if isinstance(uri, str) and "://" in uri:
        if not _is_url(uri):
            # The rest may hold a password.
            raise GalleryError(
                "a gallery is at a path, or at an address that begins with http:// or https://. "
                f"Received: one that begins with {uri.partition('://')[0]}://"
            )
        return True
    return path.suffix == ".db"


def milvus_address(
    uri: str | os.PathLike[str], token: str | None = None, collection: str | None = None
) -> MilvusAddress:
    """Read the address of a gallery in Milvus.

    The token and the collection that are given come before those in the URL, and the token in the
    URL before the environment's, ``FACE_ENCODE_MILVUS_TOKEN``. For the rest see ``open_gallery``.

    Raises:
        GalleryError: Not a valid URL, or not a valid name of a collection.
    """
    url, secret, folder = "", "", None
    if _is_url(os.fspath(uri)):
        try:
            parts = urlsplit(os.fspath(uri))
            port = parts.port
        except ValueError as error:
            raise GalleryError(f"a server's address is like http://host:19530: {error}") from error
        if not parts.hostname:
            raise GalleryError(
                "a server's address is like http://host:19530. Received: one without a host"
            )
        host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        network = host if port is None else f"{host}:{port}"
        url = urlunsplit((parts.scheme, network, parts.path, "", ""))
        collection = collection or parts.fragment or None
        shown = (parts.username or "") + (f":{parts.password}" if parts.password else "")
        secret = token or shown or os.environ.get(TOKEN_VARIABLE, "")
    else:
        folder = as_path(uri)
    chosen = _DEFAULT_COLLECTION if collection is None else collection
    if not isinstance(chosen, str) or not _COLLECTION_NAME.fullmatch(chosen):
        raise GalleryError(
            "a collection's name has up to 255 letters, digits and underscores, and no digit "
            f"first. Received: {chosen!r}"
        )
    label = url or str(folder)
    if chosen != _DEFAULT_COLLECTION:
        label = f"{label}#{chosen}"
    return MilvusAddress(label, chosen, url, secret, folder)


def _is_url(text: str) -> bool:
    """Whether a text is a server's URL rather than a path."""
    return text.lower().startswith(("http://", "https://"))


class MilvusStore:
    """A Milvus server, or a folder of Milvus Lite, whose server runs in threads of this program.

    A folder is open in one program from the first use to ``close`` or the end of the program.
    """

    def __init__(self, address: MilvusAddress) -> None:
        self.is_lite = address.folder is not None
        self._address = address
        self._lock = threading.Lock()
        self._client: Any = None
        self._lite: Any = None
        # Milvus Lite takes one writer at a time, a server any number of programs and threads.
        self._turn: AbstractContextManager[Any] = nullcontext()
        if self.is_lite:
            self._turn = threading.Lock()
            atexit.register(self.close)

    def exists(self) -> bool:
        """Whether the folder exists; of a server, the first use finds out."""
        return self._address.folder is None or os.path.isdir(self._address.folder)

    @contextmanager
    def client(self) -> Iterator[Any]:
        """Lend a ``pymilvus.MilvusClient``.

        Raises:
            GalleryError: From within, too, for what Milvus refuses or fails at.
        """
        label, token = self._address.label, self._address.token
        with self._turn:
            with self._lock, _errors_of_ours(f"{label} cannot be reached", token):
                if self._client is None:
                    self._client = self._connect()
                client = self._client
            try:
                with _errors_of_ours(label, token):
                    yield client
            except GalleryError:
                # The server may have restarted and forgotten which collections it had loaded: the
                # next use connects again and loads. Other threads may still use this client.
                with self._lock:
                    if self._client is client:
                        self._client = None
                raise

    def close(self) -> None:
        """Close the connection, and the folder; the next use opens them again."""
        with self._turn, self._lock:
            if self._client is not None:
                self._client.close()
            if self._lite is not None:
                server, database, _ = self._lite
                server.stop(None)
                database.close()
            self._client = self._lite = None

    def _connect(self) -> Any:
        """Open a client with a connection of its own, and the folder before it."""
        from pymilvus import MilvusClient

        url, options = self._address.url, dict(_KEEPALIVE)
        if self._address.folder is not None:
            if self._lite is None:
                self._lite = _start_lite(self._address.folder)
            url = f"http://127.0.0.1:{self._lite[2]}"
            # A proxy for the web has no part in what stays within this program.
            options["grpc.enable_http_proxy"] = 0
        return MilvusClient(
            url,
            token=self._address.token,
            timeout=CONNECT_SECONDS,
            dedicated=True,
            grpc_options=options,
        )


def _start_lite(folder: Path) -> Any:
    """Start Milvus Lite on a folder that no other program has open: server, database and port."""
    from milvus_lite import DataDirLockedError
    from milvus_lite.adapter.grpc.server import start_server_in_thread

    try:
        make_private_folder(folder)
        # Not by pymilvus, which only logs why a folder cannot be opened.
        return start_server_in_thread(str(folder))
    except DataDirLockedError as error:
        raise GalleryError(
            f"the gallery {folder} is open in another program. One program at a time can open a "
            ".db folder; several programs share a Milvus server, http://host:19530"
        ) from error
    except Exception as error:
        reason = reason_of(error) if isinstance(error, OSError) else error
        raise GalleryError(f"the gallery {folder} cannot be opened: {reason}") from error


# The stores in folders: a second one in a folder would be locked out by the first.
_lite_stores: dict[Path, MilvusStore] = {}
_opening = threading.Lock()


def open_store(address: MilvusAddress) -> MilvusStore:
    """Give the store at an address; all galleries of this program in one folder share one.

    Raises:
        MissingExtraError: ``pymilvus``, or ``milvus-lite``, is not installed.
        GalleryError: The folder cannot exist there.
    """
    with _opening:
        _import_pymilvus(lite=address.folder is not None)
        if address.folder is None:
            return MilvusStore(address)
        folder = Path(os.path.realpath(address.folder))
        if not os.path.isdir(folder.parent):
            raise GalleryError(
                f"the gallery {address.folder} cannot be made: its folder does not exist"
            )
        if os.path.exists(folder) and not os.path.isdir(folder):
            raise GalleryError(
                f"the gallery {address.folder} is a file; Milvus Lite keeps a folder from its "
                "version 3 on"
            )
        if folder not in _lite_stores:
            _lite_stores[folder] = MilvusStore(MilvusAddress(str(folder), "", folder=folder))
        return _lite_stores[folder]


def _import_pymilvus(*, lite: bool) -> None:
    """Import pymilvus, and Milvus Lite if asked for, without letting it set up logging.

    Its call of ``dictConfig`` would close every handler of the program: files would miss what is
    logged from then on, and absl's handler, which TensorFlow brings, would close a redirected
    ``sys.stderr`` (which ends a run of pytest).
    """
    configure = logging.config.dictConfig

    def configure_others(config: Any) -> None:
        if "pymilvus" not in config.get("loggers", {}):
            configure(config)

    logging.config.dictConfig = configure_others
    try:
        import pymilvus  # noqa: F401

        if lite:
            import milvus_lite  # noqa: F401
    except ImportError as error:
        raise MissingExtraError(
            'a gallery in Milvus takes pymilvus and milvus-lite: pip install "face_encode[milvus]"'
        ) from error
    finally:
        logging.config.dictConfig = configure
    # pymilvus logs the errors that it raises, with tracebacks.
    for name in ("pymilvus", "pymilvus.milvus_client"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


@contextmanager
def _errors_of_ours(what: str, token: str = "") -> Iterator[None]:
    """Turn Milvus's errors into ours.

    Raises:
        GalleryError: With the store and the reason in it, never with the token.
    """
    import grpc
    from pymilvus.exceptions import MilvusException

    try:
        yield
    except (MilvusException, grpc.RpcError) as error:
        reason = getattr(error, "message", "") or str(error)
        # The message says nothing about a refused token; the cause does.
        cause = error.__cause__ or error.__context__
        if isinstance(cause, grpc.RpcError) and (details := getattr(cause, "details", None)):
            reason = f"{details()}: {reason}"
        for secret in (token, *token.split(":", 1)[1:]):
            reason = reason.replace(secret, "…") if secret else reason
        # Its messages go on with a stack, line by line.
        raise GalleryError(f"the gallery {what}: {reason.strip().splitlines()[0]}") from error


def of_people(names: Iterable[str]) -> list[str]:
    """Filters for the rows of these people."""
    return [any_of(PERSON, batch) for batch in batches(map(person_key, names))]


def of_photos(digests: Iterable[str]) -> list[str]:
    """Filters for the rows of these photos."""
    return [any_of(PHOTO, batch) for batch in batches(map(_photo_key, digests))]


def any_of(field: str, keys: Iterable[str], *, other: bool = False) -> str:
    """A filter for the rows with one of these keys in a field; or for all other rows."""
    listed = ",".join(f'"{key}"' for key in keys)
    return f"{field} {'not in' if other else 'in'} [{listed}]"


def batches(items: Iterable[Any]) -> Iterator[list[Any]]:
    """``ROWS_AT_ONCE`` items at a time."""
    iterator = iter(items)
    while batch := list(islice(iterator, ROWS_AT_ONCE)):
        yield batch


def person_key(name: str) -> str:
    """The key that a person's rows are found by."""
    return _key("person", name)


def _photo_key(digest: str) -> str:
    return _key("photo", digest)


def renamed_id(row: Mapping[str, Any], new_name: str) -> str:
    """The key of a row under another name; renaming twice gives the same."""
    if row[DIGEST]:
        return _key("row", new_name, row[DIGEST])
    return _key("renamed", new_name, row[ROW_ID])


def _key(*parts: str) -> str:
    """64 hexadecimal digits, different for any other parts."""
    whole = hashlib.sha256()
    for part in parts:
        # A search for a name with lone surrogates in it finds nobody, and does not fail.
        content = part.encode("utf-8", "surrogatepass")
        whole.update(len(content).to_bytes(8, "big") + content)
    return whole.hexdigest()


def rows_of(
    names: Sequence[str], embeddings: Embeddings, digests: Sequence[str], detector_name: str
) -> list[dict[str, Any]]:
    """Make the rows of new embeddings; the same photo of the same person gives one row.

    A photo without a digest is not the same as any other.

    Raises:
        InputError: A text is longer than Milvus takes.
    """
    now = time.time_ns()
    rows: dict[str, dict[str, Any]] = {}
    for index, (name, digest) in enumerate(zip(names, digests, strict=True)):
        for text in (name, digest, detector_name):
            if len(text.encode()) > _MAX_TEXT_BYTES:
                raise InputError(
                    f"Milvus takes texts of at most {_MAX_TEXT_BYTES:,} bytes. Received: one of "
                    f"{len(text.encode()):,}"
                )
        key = _key("row", name, digest) if digest else uuid.uuid4().hex
        rows[key] = {
            ROW_ID: key,
            NAME: name,
            PERSON: person_key(name),
            DIGEST: digest,
            PHOTO: _photo_key(digest),
            DETECTOR: detector_name,
            ADDED: now + index,
            EMBEDDING: embeddings[index],
        }
    return list(rows.values())


def schema_of(client: Any, embedding_size: int) -> Any:
    """The fields of a collection that holds a gallery."""
    from pymilvus import DataType

    schema = client.create_schema(auto_id=False, enable_dynamic_field=False)
    schema.add_field(ROW_ID, DataType.VARCHAR, is_primary=True, max_length=_KEY_BYTES)
    for text in (NAME, DIGEST, DETECTOR):
        schema.add_field(text, DataType.VARCHAR, max_length=_MAX_TEXT_BYTES)
    for key in (PERSON, PHOTO):
        schema.add_field(key, DataType.VARCHAR, max_length=_KEY_BYTES)
    schema.add_field(ADDED, DataType.INT64)
    schema.add_field(EMBEDDING, DataType.FLOAT_VECTOR, dim=embedding_size)
    return schema
