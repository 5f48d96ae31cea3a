"""The Milvus collection that holds a gallery: made, checked, read and written."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from face_encode.errors import GalleryError
from face_encode.gallery.base import GALLERY_METRICS, EncoderIdentity, check_encoder
from face_encode.gallery.distances import Metric, check_metric
from face_encode.gallery.milvus_client import CALL_SECONDS
from face_encode.gallery.milvus_places import MilvusPlace
from face_encode.gallery.milvus_rows import (
    EMBEDDING,
    ROW_ID,
    any_of,
    batches,
    indexes_of,
    schema_of,
)
from face_encode.gallery.milvus_stores import store_of
from face_encode.gallery.thresholds import Calibration

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
