"""A gallery's store in Milvus: its address, its connection, its rows and its collection."""

from __future__ import annotations

import hashlib
import logging
import logging.config
import os
import re
import threading
import time
import uuid
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit, urlunsplit
from weakref import WeakValueDictionary

import numpy as np
from filelock import FileLock, Timeout

from face_encode.calibration import Calibration
from face_encode.distances import Metric, check_metric
from face_encode.errors import GalleryError, InputError, MissingExtraError
from face_encode.files import as_path, reason_of
from face_encode.gallery.gallery import GALLERY_METRICS, EncoderIdentity, check_encoder
from face_encode.types import Embeddings

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


CONNECT_SECONDS = 10.0
# Of each call, with what is tried again within it while a server is being restarted.
CALL_SECONDS = 30.0

# Some servers end a connection on which there are more pings than one in five minutes, and
# pymilvus sends one in ten seconds. That an answer fails to come, its time limit tells.
_KEEPALIVE = {"grpc.keepalive_time_ms": 310_000, "grpc.keepalive_permit_without_calls": 0}


def check_milvus(*, embedded: bool) -> None:
    """Refuse a gallery in Milvus where what it takes is not installed.

    Args:
        embedded: Whether it is kept by Milvus Lite.

    Raises:
        MissingExtraError: ``pymilvus``, or ``milvus-lite``, is not installed.
    """
    _import_pymilvus()
    if embedded:
        try:
            import milvus_lite  # noqa: F401
        except ImportError as error:
            raise _missing() from error


def open_client(place: str, token: str = "", options: Mapping[str, int] | None = None) -> Any:
    """Open a ``pymilvus.MilvusClient`` with a connection of its own.

    Args:
        place: A server's address, or the folder of an embedded store.
        token: What the server is to be shown; empty for none.
        options: Of gRPC, beside those that every connection has.

    Raises:
        MissingExtraError: ``pymilvus`` is not installed.
        Exception: Whatever Milvus raises; see ``telling``.
    """
    return _import_pymilvus().MilvusClient(
        place,
        token=token,
        timeout=CONNECT_SECONDS,
        dedicated=True,
        grpc_options={**_KEEPALIVE, **(options or {})},
    )


@contextmanager
def telling(what: str, token: str = "") -> Iterator[None]:
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
        with _logging_left_alone():
            import pymilvus
    except ImportError as error:
        raise _missing() from error
    for name in ("pymilvus", "pymilvus.milvus_client"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    return pymilvus


@contextmanager
def _logging_left_alone() -> Iterator[None]:
    """Keep pymilvus, while it is imported, from setting logging up.

    That would close all handlers of the program: what it logs to memory or to a file of its own
    is cut off, and absl's handler, which TensorFlow brings, takes a redirected ``sys.stderr`` with
    it.
    """
    configure = logging.config.dictConfig

    def configure_others(config: Any) -> None:
        if "pymilvus" not in config.get("loggers", {}):
            configure(config)

    logging.config.dictConfig = configure_others
    try:
        yield
    finally:
        logging.config.dictConfig = configure


def _missing() -> MissingExtraError:
    return MissingExtraError(
        'a gallery in Milvus takes pymilvus and milvus-lite: pip install "face_encode[milvus]"'
    )


# Of a row: its key; the person's name and a digest of it; the photo's digest as it was given, and
# a digest of that; the detector that found the face; when it was enrolled, in nanoseconds.
ROW_ID, NAME, PERSON, DIGEST, PHOTO, DETECTOR, ADDED, EMBEDDING = (
    "id",
    "name",
    "person",
    "digest",
    "photo",
    "detector",
    "added",
    "embedding",
)

# Milvus's names for metrics.
METRIC_TYPES: dict[Metric, str] = {"cosine": "COSINE", "euclidean": "L2"}

_KEY_BYTES = 64
_MOST_TEXT_BYTES = 65_535


def person_key(name: str) -> str:
    """What a person's rows are found by."""
    return _key("person", name)


def photo_key(digest: str) -> str:
    """What the rows of a photo are found by."""
    return _key("photo", digest)


def row_id(name: str, digest: str) -> str:
    """A row's key: the same photo of the same person is enrolled once, however often it is sent.

    Without a digest it is unlike every other.
    """
    return _key("row", name, digest) if digest else uuid.uuid4().hex


def renamed_id(row: Mapping[str, Any], new_name: str) -> str:
    """The key of a row under another name; the same, if the renaming is done once more."""
    if row[DIGEST]:
        return row_id(new_name, row[DIGEST])
    return _key("renamed", new_name, row[ROW_ID])


def _key(*parts: str) -> str:
    """64 hexadecimal digits, unlike those of any other parts."""
    whole = hashlib.sha256()
    for part in parts:
        # Names may be broken in a way that no encoding takes, and are refused elsewhere.
        content = part.encode("utf-8", "surrogatepass")
        whole.update(len(content).to_bytes(8, "big") + content)
    return whole.hexdigest()


def rows_of(
    names: Sequence[str], embeddings: Embeddings, digests: Sequence[str], detector_name: str
) -> list[dict[str, Any]]:
    """Rows to be enrolled, each key once.

    Args:
        names: n names.
        embeddings: float32 ``(n, D)``.
        digests: n digests, empty where unknown.
        detector_name: Found the faces.

    Raises:
        InputError: A text is longer than Milvus takes.
    """
    now = time.time_ns()
    rows: dict[str, dict[str, Any]] = {}
    for index, (name, digest) in enumerate(zip(names, digests, strict=True)):
        row = {
            ROW_ID: row_id(name, digest),
            NAME: name,
            PERSON: person_key(name),
            DIGEST: digest,
            PHOTO: photo_key(digest),
            DETECTOR: detector_name,
            ADDED: now + index,
            EMBEDDING: embeddings[index],
        }
        for text in (name, digest, detector_name):
            if len(text.encode()) > _MOST_TEXT_BYTES:
                raise InputError(
                    f"Milvus takes texts of at most {_MOST_TEXT_BYTES:,} bytes. Received: one of "
                    f"{len(text.encode()):,}"
                )
        rows[row[ROW_ID]] = row
    return list(rows.values())


def any_of(field: str, keys: Iterable[str], *, other: bool = False) -> str:
    """A filter for the rows with one of these keys in a field; or for all the others."""
    listed = ",".join(f'"{key}"' for key in keys)
    return f"{field} {'not in' if other else 'in'} [{listed}]"


def batches(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    """So many at a time."""
    batch: list[Any] = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def schema_of(client: Any, embedding_size: int) -> Any:
    """The fields of a collection that holds a gallery."""
    from pymilvus import DataType

    schema = client.create_schema(auto_id=False, enable_dynamic_field=False)
    schema.add_field(ROW_ID, DataType.VARCHAR, is_primary=True, max_length=_KEY_BYTES)
    for name in (NAME, DIGEST, DETECTOR):
        schema.add_field(name, DataType.VARCHAR, max_length=_MOST_TEXT_BYTES)
    for name in (PERSON, PHOTO):
        schema.add_field(name, DataType.VARCHAR, max_length=_KEY_BYTES)
    schema.add_field(ADDED, DataType.INT64)
    schema.add_field(EMBEDDING, DataType.FLOAT_VECTOR, dim=embedding_size)
    return schema


def indexes_of(client: Any, index: str, metric: Metric) -> list[Any]:
    """The indexes of such a collection, each called like its field.

    They are of the embeddings, and of what its filters ask for.
    """
    kinds: dict[str, dict[str, str]] = {
        EMBEDDING: {"index_type": index, "metric_type": METRIC_TYPES[metric]},
        PERSON: {"index_type": "INVERTED"},
        PHOTO: {"index_type": "INVERTED"},
    }
    return [
        client.prepare_index_params(field_name=field, index_name=field, **kind)
        for field, kind in kinds.items()
    ]


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


# 1,000 rows of 512 numbers are 2 MB; a server refuses messages from 64 MB on.
ROWS_AT_ONCE = 1_000

# What a collection remembers of its gallery, among its properties.
_VERSION, _ENCODER_NAME, _FINGERPRINT, _METRIC, _CALIBRATION = (
    f"face_encode.{name}"
    for name in ("format_version", "encoder_name", "encoder_fingerprint", "metric", "calibration")
)
_NEWEST_VERSION = 1


class MilvusCollection:
    """A collection; made when it is first written to.

    Attributes:
        label: What it is called in messages.
        name: The collection's name.
        metric: What it is searched by.
        calibration: As it was when the collection was first looked at, or last set here.
    """

    def __init__(
        self, place: MilvusPlace, encoder: EncoderIdentity, metric: Metric | None, index: str
    ) -> None:
        """Look at the collection, where there is one.

        Args:
            place: Where it is.
            encoder: Whose embeddings it holds or is to hold.
            metric: The one that it has to be searched by; None takes the collection's.
            index: Milvus's index of a new one's embeddings.

        Raises:
            See ``MilvusGallery``.
        """
        self.label = place.label
        self.name = place.collection
        self.metric = check_metric("cosine" if metric is None else metric, GALLERY_METRICS)
        self.calibration: Calibration | None = None
        self._asked_metric = metric
        self._encoder = encoder
        self._index = index
        self._store = store_of(place)
        self._loaded = 0
        self._is_made = False
        with self.client():
            pass

    @property
    def is_made(self) -> bool:
        """Whether it has been seen to exist."""
        return self._is_made

    @contextmanager
    def client(self, *, make: bool = False) -> Iterator[Any]:
        """A context that gives a client with the collection ready.

        The store may have been closed since it was last used, so each use goes through here.

        Args:
            make: Whether to make the collection where it does not exist; it gives None otherwise.

        Raises:
            GalleryError: From within, too, for whatever Milvus refuses or fails at.
        """
        if not make and not self._store.exists():
            yield None
            return
        with self._store.client() as (client, opened):
            if not self._is_made:
                self._is_made = self._find(client, make)
            if self._is_made and self._loaded != opened:
                client.load_collection(self.name, timeout=CALL_SECONDS)
                self._loaded = opened
            yield client if self._is_made else None

    def rows(self, filter: str, *fields: str) -> list[dict[str, Any]]:
        """All rows that a filter leaves, with these fields, in no order."""
        found: list[dict[str, Any]] = []
        with self.client() as client:
            if client is None:
                return []
            rows = client.query_iterator(
                self.name,
                batch_size=ROWS_AT_ONCE,
                filter=filter,
                output_fields=list(fields),
                timeout=CALL_SECONDS,
            )
            try:
                while batch := rows.next():
                    # As lists the numbers would take eight times the memory.
                    if EMBEDDING in fields:
                        for row in batch:
                            row[EMBEDDING] = np.array(row[EMBEDDING], np.float32)
                    found += batch
            finally:
                rows.close()
        return found

    def count(self) -> int:
        """Number of rows."""
        with self.client() as client:
            if client is None:
                return 0
            (row,) = client.query(
                self.name, filter="", output_fields=["count(*)"], timeout=CALL_SECONDS
            )
            return int(row["count(*)"])

    def put(self, rows: Sequence[dict[str, Any]]) -> None:
        """Write rows, those of the same key anew; others may come in between the batches."""
        for batch in batches(rows, ROWS_AT_ONCE):
            with self.client(make=True) as client:
                client.upsert(self.name, batch, timeout=CALL_SECONDS)
        if len(rows) >= ROWS_AT_ONCE:
            self._store.settle()

    def delete(self, ids: Collection[str]) -> None:
        """Take rows out, by their keys."""
        for batch in batches(ids, ROWS_AT_ONCE):
            with self.client() as client:
                if client is not None:
                    client.delete(self.name, filter=any_of(ROW_ID, batch), timeout=CALL_SECONDS)

    def keep_calibration(self, learnt: Calibration | None) -> None:
        """Remember a calibration."""
        text = "" if learnt is None else learnt.to_json()
        with self.client(make=True) as client:
            client.alter_collection_properties(
                self.name, properties={_CALIBRATION: text}, timeout=CALL_SECONDS
            )
        self.calibration = learnt

    def close(self) -> None:
        """Let go of the store."""
        self._store.close()

    def _find(self, client: Any, make: bool) -> bool:
        """Whether the collection is there, checked; it is made where that is wanted."""
        if not client.has_collection(self.name, timeout=CALL_SECONDS):
            if not make:
                return False
            self._make(client)
        found = client.describe_collection(self.name, timeout=CALL_SECONDS)
        properties = found.get("properties") or {}
        sizes = [
            int(field["params"]["dim"]) for field in found["fields"] if field["name"] == EMBEDDING
        ]
        version = str(properties.get(_VERSION, ""))
        if not version.isdecimal() or not sizes:
            raise GalleryError(f"{self.label} holds a collection, but no gallery of face_encode")
        if int(version) > _NEWEST_VERSION:
            raise GalleryError(
                f"the gallery {self.label} was made by a later release of face_encode "
                f"(format {version})"
            )
        encoder_name, fingerprint = (
            str(properties.get(key, "")) for key in (_ENCODER_NAME, _FINGERPRINT)
        )
        check_encoder(f"the gallery {self.label}", encoder_name, fingerprint, self._encoder)
        if sizes != [self._encoder.embedding_size]:
            raise GalleryError(
                f"the gallery {self.label} is damaged: its embeddings have {sizes[0]} numbers, "
                f"those of its encoder {self._encoder.embedding_size}"
            )
        kept = check_metric(str(properties.get(_METRIC, "")), GALLERY_METRICS)
        if self._asked_metric not in (None, kept):
            raise GalleryError(
                f"the gallery {self.label} is searched by the metric {kept!r}, here it is "
                f"{self._asked_metric!r}"
            )
        self.metric = kept
        if text := str(properties.get(_CALIBRATION, "")):
            self.calibration = Calibration.from_json(text)
        self._make_indexes(client)
        return True

    def _make(self, client: Any) -> None:
        """Make the collection, unless another program just did."""
        from pymilvus.exceptions import MilvusException

        try:
            client.create_collection(
                self.name,
                schema=schema_of(client, self._encoder.embedding_size),
                consistency_level="Strong",
                properties={
                    _VERSION: str(_NEWEST_VERSION),
                    _ENCODER_NAME: self._encoder.name,
                    _FINGERPRINT: self._encoder.fingerprint,
                    _METRIC: self.metric,
                },
                timeout=CALL_SECONDS,
            )
        except MilvusException:
            if not client.has_collection(self.name, timeout=CALL_SECONDS):
                raise

    def _make_indexes(self, client: Any) -> None:
        """Make the indexes that whoever made the collection has not got to yet, if any."""
        from pymilvus.exceptions import MilvusException

        made = client.list_indexes(self.name, timeout=CALL_SECONDS)
        for indexes in indexes_of(client, self._index, self.metric):
            (field,) = {index.field_name for index in indexes}
            if field in made:
                continue
            try:
                # Not waiting for it to be built: it is empty still, and loading waits.
                client.create_index(self.name, indexes, timeout=CALL_SECONDS, sync=False)
            except MilvusException:
                if field not in client.list_indexes(self.name, timeout=CALL_SECONDS):
                    raise
