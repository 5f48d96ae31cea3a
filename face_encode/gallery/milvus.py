"""The gallery in Milvus: on a server or cluster that programs share, or in a folder of one."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from face_encode.errors import FaceEncodeError, GalleryError, NotEnrolledError
from face_encode.files import text_array
from face_encode.gallery.base import (
    GALLERY_METRICS,
    EncoderIdentity,
    GalleryRows,
    Mark,
    PhotoDetails,
    Ranking,
    Replaces,
    check_encoder,
    check_name,
    check_new,
)
from face_encode.gallery.distances import Metric, check_metric
from face_encode.gallery.memory import MemoryGallery
from face_encode.gallery.milvus_store import (
    ADDED,
    CALL_SECONDS,
    DETECTOR,
    DIGEST,
    EMBEDDING,
    METRIC_TYPES,
    NAME,
    PERSON,
    PHOTO,
    ROW_ID,
    ROWS_AT_ONCE,
    any_of,
    batches,
    milvus_address,
    of_people,
    of_photos,
    open_store,
    person_key,
    renamed_id,
    rows_of,
    schema_of,
)
from face_encode.gallery.search import check_search
from face_encode.gallery.thresholds import Calibration
from face_encode.types import Embeddings, Match

# The properties of a collection that describe its gallery.
_VERSION, _ENCODER_NAME, _FINGERPRINT, _METRIC, _CALIBRATION = (
    f"face_encode.{name}"
    for name in ("format_version", "encoder_name", "encoder_fingerprint", "metric", "calibration")
)
_NEWEST_VERSION = 1

# Milvus gives at most this many rows for a probe.
_MAX_ROWS = 16_384
# Enough to hold all equally near people, except crowds of twins.
_MIN_ROWS = 32
_PROBES_AT_ONCE = 256


class MilvusGallery:
    """The enrolled people in a Milvus collection; enrolling the first of them makes it.

    What any program enrols is found at once. The same photo of the same person, by its digest, is
    held once. In a ``.db`` folder, the galleries of one program share the folder's store.

    Attributes:
        is_shared: True: other programs, or other galleries of this one, may change it at any time.
        precision: ``"float32"``, always.
        metric: ``"cosine"``, or ``"euclidean"``, where a similarity is minus the distance.
    """

    is_shared = True
    precision: Literal["float32", "int8"] = "float32"

    def __init__(
        self,
        uri: str | os.PathLike[str],
        encoder: EncoderIdentity,
        *,
        token: str | None = None,
        collection: str | None = None,
        metric: Metric | None = "cosine",
        index: str = "FLAT",
        create: bool = True,
    ) -> None:
        address = milvus_address(uri, token, collection)
        self.encoder_name = encoder.name
        self.encoder_fingerprint = encoder.fingerprint
        self.metric = check_metric("cosine" if metric is None else metric, GALLERY_METRICS)
        self._calibration: Calibration | None = None
        self._encoder = encoder
        self._asked_metric = metric
        self._index = index
        self._label = address.label
        self._collection = address.collection
        self._store = open_store(address)
        self._is_made = False
        self._rows_in_log = 0
        # The client by which the collection was loaded; a new one may find it unloaded.
        self._loaded_by: Any = None
        try:
            with self._client():
                pass
            if not create and not self._is_made:
                raise GalleryError(f"there is no gallery {address.label}")
        except FaceEncodeError:
            self.close()
            raise

    def __repr__(self) -> str:
        return f"MilvusGallery({self._label!r})"

    def __len__(self) -> int:
        with self._client() as client:
            if client is None:
                return 0
            (row,) = client.query(
                self._collection, filter="", output_fields=["count(*)"], timeout=CALL_SECONDS
            )
            return int(row["count(*)"])

    @property
    def embeddings(self) -> Embeddings:
        """float32 ``(n, D)``, in the order of enrolment; each access reads all of them."""
        return self.rows().embeddings

    @property
    def names(self) -> npt.NDArray[np.str_]:
        """The person of each embedding; ``rows`` gives names and embeddings of one moment."""
        return self.rows().names

    @property
    def detector_name(self) -> str:
        """The detector that found all the faces, empty if unknown or if there were several."""
        return _only_detector(self._rows([""], DETECTOR))

    @property
    def thresholds(self) -> Mapping[str, float]:
        """None: a gallery in Milvus keeps no thresholds of people."""
        return {}

    def set_threshold(self, name: str, threshold: float | None) -> None:
        """Refuse: see ``Gallery.set_threshold``."""
        raise GalleryError(
            "a gallery in Milvus keeps no thresholds of people; a database, people.sqlite, does"
        )

    @property
    def calibration(self) -> Calibration | None:
        """The gallery's calibration, as it was when the gallery was opened."""
        return self._calibration

    @calibration.setter
    def calibration(self, learnt: Calibration | None) -> None:
        text = "" if learnt is None else learnt.to_json()
        with self._client(make=True) as client:
            client.alter_collection_properties(
                self._collection, properties={_CALIBRATION: text}, timeout=CALL_SECONDS
            )
        self._calibration = learnt

    def people(self) -> dict[str, int]:
        """Count each person's embeddings, in the order of enrolment; reads all names."""
        rows = sorted(self._rows([""], NAME, ADDED), key=lambda row: int(row[ADDED]))
        return dict(Counter(str(row[NAME]) for row in rows))

    def find_name(self, name: str) -> str | None:
        """The name itself where it is enrolled; see ``Gallery.find_name``."""
        return name if self.mark([name]) else None

    def rows(self) -> GalleryRows:
        """Read the whole gallery into memory; see ``Gallery.rows``."""
        rows = self._rows([""], ROW_ID, NAME, DIGEST, DETECTOR, ADDED, EMBEDDING)
        rows.sort(key=lambda row: (row[ADDED], row[ROW_ID]))
        embeddings = np.empty((len(rows), self._encoder.embedding_size), np.float32)
        for place, row in enumerate(rows):
            embeddings[place] = row[EMBEDDING]
        return GalleryRows(
            text_array([row[NAME] for row in rows]),
            embeddings,
            text_array([row[DIGEST] for row in rows]),
            _only_detector(rows),
            self.metric,
            self.calibration,
        )

    def known_photos(
        self, detector_name: str, digests: Collection[str] | None = None
    ) -> Mapping[str, npt.NDArray[np.float32]]:
        """Content digest -> embedding; see ``Gallery.known_photos``."""
        filters = [""] if digests is None else of_photos(digests)
        return {
            row[DIGEST]: row[EMBEDDING]
            for row in self._rows(filters, DIGEST, DETECTOR, EMBEDDING)
            if row[DIGEST] and row[DETECTOR] == detector_name
        }

    def search(
        self, embeddings: Embeddings, k: int = 1, ranking: Ranking = "best"
    ) -> list[list[Match]]:
        """Find the nearest people; see ``Gallery.search``.

        ``"best"`` is Milvus's search; ``"mean"`` reads every embedding.
        """
        probes, k, ranking = check_search(embeddings, self._encoder.embedding_size, k, ranking)
        if ranking == "mean":
            gallery = MemoryGallery.from_rows(self.rows(), self._encoder)
            return gallery.search(probes, k, ranking)
        with self._client() as client:
            if client is None:
                return [[] for _ in probes]
            return self._nearest_people(client, probes, k)

    def add(
        self,
        names: Sequence[str],
        embeddings: Embeddings,
        digests: Sequence[str] | None = None,
        details: Sequence[PhotoDetails] | None = None,
    ) -> None:
        """Enrol embeddings; see ``Gallery.add``. A name too long for Milvus is an InputError."""
        self._put(self._new_rows(names, embeddings, digests, ""))

    def mark(self, names: Collection[str] | None = None) -> frozenset[str]:
        """The keys of the rows enrolled at this moment, of these people or of all."""
        filters = [""] if names is None else of_people(names)
        return frozenset(row[ROW_ID] for row in self._rows(filters, ROW_ID))

    def replace(
        self,
        names: Sequence[str],
        embeddings: Embeddings,
        digests: Sequence[str],
        replaces: Replaces = "all",
        *,
        detector_name: str = "",
        mark: Mark = None,
        details: Sequence[PhotoDetails] | None = None,
    ) -> None:
        """Enrol embeddings in the place of others; see ``Gallery.replace``.

        The new rows come before the former ones go: if this is interrupted, nobody is lost, and
        the same call once more completes it.
        """
        rows = self._new_rows(names, embeddings, digests, detector_name)
        former: frozenset[str] = frozenset()
        if replaces != "nothing":
            # People who were marked and are not among the names now, because none of their
            # photos could be used, stay.
            former = self.mark(None if replaces == "all" else set(names))
            former = former & mark if isinstance(mark, frozenset) else former
        self._put(rows)
        self._delete(former - {row[ROW_ID] for row in rows})

    def remove(self, name: str) -> int:
        """Remove a person; gives the number of embeddings removed; see ``Gallery.remove``."""
        ids = self.mark([name])
        if not ids:
            raise NotEnrolledError(f"nobody named {name!r} is enrolled")
        self._delete(ids)
        return len(ids)

    def rename(self, name: str, new_name: str) -> int:
        """Rename a person; gives the number of embeddings renamed; see ``Gallery.rename``.

        If this is interrupted, the person has both names, and the same call once more completes
        it.
        """
        check_name(new_name)
        fields = (ROW_ID, NAME, PERSON, DIGEST, PHOTO, DETECTOR, ADDED, EMBEDDING)
        rows = self._rows(of_people([name]), *fields)
        if not rows:
            raise NotEnrolledError(f"nobody named {name!r} is enrolled")
        if new_name == name:
            return len(rows)
        renamed = [
            row | {ROW_ID: renamed_id(row, new_name), NAME: new_name, PERSON: person_key(new_name)}
            for row in rows
        ]
        if self.mark([new_name]) - {row[ROW_ID] for row in renamed}:
            raise GalleryError(f"somebody named {new_name!r} is enrolled already")
        self._put(renamed)
        self._delete([row[ROW_ID] for row in rows])
        return len(rows)

    def close(self) -> None:
        """Close the store, so that another program can open its folder; nothing is left to save."""
        self._store.close()

    def _new_rows(
        self, names: Sequence[str], embeddings: Any, digests: Sequence[str] | None, detector: str
    ) -> list[dict[str, Any]]:
        """Check new embeddings and make their rows."""
        size = self._encoder.embedding_size
        return rows_of(names, *check_new(names, embeddings, digests, size), detector)

    def _nearest_people(self, client: Any, probes: Embeddings, k: int) -> list[list[Match]]:
        """The k nearest people of each probe, nearest first, each by the nearest embedding.

        Milvus gives the nearest embeddings, and those may all be one person's. The search then
        goes on without the people found so far, so that the answer is that of the gallery in
        memory, however many embeddings a person has. (Milvus's own grouping looks at a limited
        number of embeddings, and may end before k people are found.)
        """
        limit = min(_MAX_ROWS, max(_MIN_ROWS, 4 * k))
        search = partial(
            client.search,
            self._collection,
            anns_field=EMBEDDING,
            limit=limit,
            output_fields=[NAME, PERSON],
            search_params={"metric_type": METRIC_TYPES[self.metric]},
            timeout=CALL_SECONDS,
            consistency_level="Strong",
        )
        found: list[list[Match]] = []
        for start in range(0, len(probes), _PROBES_AT_ONCE):
            block = list(probes[start : start + _PROBES_AT_ONCE])
            for probe, hits in zip(block, search(data=block), strict=True):
                similarities: dict[str, float] = {}
                persons: set[str] = set()
                while True:
                    # A person's first hit is the nearest.
                    for hit in hits:
                        persons.add(hit["entity"][PERSON])
                        similarity = self._similarity(float(hit["distance"]))
                        similarities.setdefault(hit["entity"][NAME], similarity)
                    if len(hits) < limit or len(similarities) >= k:
                        break
                    others = any_of(PERSON, sorted(persons), other=True)
                    (hits,) = search(data=[probe], filter=others)
                nearest = sorted(similarities.items(), key=lambda item: (-item[1], item[0]))
                found.append([Match(name, similarity) for name, similarity in nearest[:k]])
        return found

    def _similarity(self, distance: float) -> float:
        """Milvus's number, a cosine or a squared distance, as a similarity."""
        if self.metric == "cosine":
            return min(1.0, max(-1.0, distance))
        return -float(np.sqrt(max(0.0, distance)))

    def _rows(self, filters: Iterable[str], *fields: str) -> list[dict[str, Any]]:
        """Read these fields of all rows that any of the filters leaves, in any order."""
        found: list[dict[str, Any]] = []
        for filter in filters:
            with self._client() as client:
                if client is None:
                    return []
                rows = client.query_iterator(
                    self._collection,
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

    def _put(self, rows: Sequence[dict[str, Any]]) -> None:
        """Write rows, in the place of rows with the same key; other writes may come in between."""
        for batch in batches(rows):
            with self._client(make=True) as client:
                client.upsert(self._collection, batch, timeout=CALL_SECONDS)
        self._rows_in_log += len(rows)
        if self._rows_in_log >= ROWS_AT_ONCE and self._store.is_lite:
            # Milvus Lite reads its files ten times faster than its log.
            with self._client() as client:
                client.flush(self._collection, timeout=CALL_SECONDS)
            self._rows_in_log = 0

    def _delete(self, ids: Collection[str]) -> None:
        """Delete rows by their keys."""
        for batch in batches(ids):
            with self._client() as client:
                if client is not None:
                    filter = any_of(ROW_ID, batch)
                    client.delete(self._collection, filter=filter, timeout=CALL_SECONDS)

    @contextmanager
    def _client(self, *, make: bool = False) -> Iterator[Any]:
        """Lend a client with the collection loaded; None if the collection does not exist.

        With ``make`` it is made. Each use comes through here, since the store may have been closed
        in between; what Milvus refuses or fails at within it is a ``GalleryError``.
        """
        if not make and not self._store.exists():
            yield None
            return
        with self._store.client() as client:
            if not self._is_made:
                self._is_made = self._find(client, make)
            if self._is_made and self._loaded_by is not client:
                client.load_collection(self._collection, timeout=CALL_SECONDS)
                self._loaded_by = client
            yield client if self._is_made else None

    def _find(self, client: Any, make: bool) -> bool:
        """Whether the collection exists, checked; made where that is wanted."""
        if not client.has_collection(self._collection, timeout=CALL_SECONDS):
            if not make:
                return False
            self._make(client)
        found = client.describe_collection(self._collection, timeout=CALL_SECONDS)
        properties = {key: str(value) for key, value in (found.get("properties") or {}).items()}
        sizes = [
            int(field["params"]["dim"]) for field in found["fields"] if field["name"] == EMBEDDING
        ]
        version = properties.get(_VERSION, "")
        if not version.isdecimal() or not sizes:
            raise GalleryError(f"{self._label} holds a collection, but no gallery of face_encode")
        if int(version) > _NEWEST_VERSION:
            raise GalleryError(
                f"the gallery {self._label} was made by a later release of face_encode "
                f"(format {version})"
            )
        check_encoder(
            f"the gallery {self._label}",
            properties.get(_ENCODER_NAME, ""),
            properties.get(_FINGERPRINT, ""),
            self._encoder,
        )
        if sizes != [self._encoder.embedding_size]:
            raise GalleryError(
                f"the gallery {self._label} is damaged: its embeddings have {sizes[0]} numbers, "
                f"those of its encoder {self._encoder.embedding_size}"
            )
        kept = check_metric(properties.get(_METRIC, ""), GALLERY_METRICS)
        if self._asked_metric not in (None, kept):
            raise GalleryError(
                f"the gallery {self._label} is searched by the metric {kept!r}, here it is "
                f"{self._asked_metric!r}"
            )
        self.metric = kept
        if text := properties.get(_CALIBRATION, ""):
            self._calibration = Calibration.from_json(text)
        self._make_indexes(client)
        return True

    def _make(self, client: Any) -> None:
        """Make the collection, unless another program just did."""
        from pymilvus.exceptions import MilvusException

        try:
            client.create_collection(
                self._collection,
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
            if not client.has_collection(self._collection, timeout=CALL_SECONDS):
                raise

    def _make_indexes(self, client: Any) -> None:
        """Make the indexes of embeddings and keys that are missing, each named like its field.

        The program that made the collection may not have come to them yet.
        """
        from pymilvus.exceptions import MilvusException

        made = client.list_indexes(self._collection, timeout=CALL_SECONDS)
        kinds: dict[str, dict[str, str]] = {
            EMBEDDING: {"index_type": self._index, "metric_type": METRIC_TYPES[self.metric]},
            PERSON: {"index_type": "INVERTED"},
            PHOTO: {"index_type": "INVERTED"},
        }
        for key, kind in kinds.items():
            if key in made:
                continue
            indexes = client.prepare_index_params(field_name=key, index_name=key, **kind)
            try:
                # Not waiting until it is built: it is still empty, and loading waits.
                client.create_index(self._collection, indexes, timeout=CALL_SECONDS, sync=False)
            except MilvusException:
                if key not in client.list_indexes(self._collection, timeout=CALL_SECONDS):
                    raise


def _only_detector(rows: Sequence[Mapping[str, Any]]) -> str:
    """The detector of all rows; empty if there are several."""
    detectors = {str(row[DETECTOR]) for row in rows}
    return detectors.pop() if len(detectors) == 1 else ""
