"""The gallery in Milvus: on a server or cluster, or embedded, for several programs at once."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from face_encode.calibration import Calibration
from face_encode.distances import Metric
from face_encode.errors import GalleryError
from face_encode.gallery.checking import check_embeddings, check_labels, check_probes
from face_encode.gallery.gallery import EncoderIdentity, Mark, Ranking, Replaces, check_ranking
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
    MilvusCollection,
    any_of,
    batches,
    milvus_place,
    person_key,
    photo_key,
    renamed_id,
    rows_of,
)
from face_encode.gallery.names import check_name
from face_encode.types import Embeddings, Match, check_count


class MilvusGallery:
    """The enrolled people in a Milvus collection, which other programs may change meanwhile.

    A collection is made when the first people are enrolled. What was enrolled, by whomever, is
    found at once. The same photo of the same person, told by its digest, is held once.

    Attributes:
        is_shared: True: other programs may change it at the same time.
        precision: ``"float32"``, always.
        encoder_name: The name of the encoder whose embeddings it holds.
        encoder_fingerprint: Its fingerprint.
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
        """Open a gallery.

        Args:
            uri: See ``milvus_place``.
            encoder: Whose embeddings it holds or is to hold.
            token: See ``milvus_place``.
            collection: See ``milvus_place``.
            metric: What a search compares by, one of ``GALLERY_METRICS``; None takes the one
                of a gallery that exists, and ``"cosine"`` for a new one.
            index: Milvus's index for a new gallery: ``"FLAT"`` compares with every embedding,
                as the gallery in memory does; on a server ``"AUTOINDEX"`` and others are faster
                for very many, and may miss a near one.
            create: Whether it may be a new one.

        Raises:
            MissingExtraError: ``pymilvus`` is not installed.
            GalleryError: The store cannot be reached or opened, holds something else under this
                name, or holds a gallery of another metric, or none where none may be made.
            WrongEncoderError: Another encoder filled it.
            InputError: No such metric.
        """
        self.encoder_name = encoder.name
        self.encoder_fingerprint = encoder.fingerprint
        self._encoder = encoder
        place = milvus_place(uri, token, collection)
        self._collection = MilvusCollection(place, encoder, metric, index)
        if not create and not self._collection.is_made:
            raise GalleryError(f"there is no gallery {place.label}")

    def __repr__(self) -> str:
        """The place; asking how many are enrolled would take a call."""
        return f"MilvusGallery({self._collection.label!r})"

    @property
    def metric(self) -> Metric:
        """``"cosine"``, or ``"euclidean"``, where a similarity is minus the distance."""
        return self._collection.metric

    def __len__(self) -> int:
        """Number of embeddings enrolled."""
        return self._collection.count()

    def copy(self) -> MemoryGallery:
        """All that is enrolled, read once, in memory; see ``Gallery.copy``."""
        rows = self._collection.rows("", ROW_ID, NAME, DIGEST, DETECTOR, ADDED, EMBEDDING)
        rows.sort(key=lambda row: (row[ADDED], row[ROW_ID]))
        gallery = MemoryGallery(self._encoder, metric=self.metric)
        if rows:
            gallery.add(
                [row[NAME] for row in rows],
                np.stack([row[EMBEDDING] for row in rows]),
                [row[DIGEST] for row in rows],
            )
        detectors = {row[DETECTOR] for row in rows}
        gallery.detector_name = detectors.pop() if len(detectors) == 1 else ""
        gallery.calibration = self.calibration
        return gallery

    @property
    def embeddings(self) -> Embeddings:
        """float32 ``(n, D)``, in the order of enrolment; each access reads all of them."""
        return self.copy().embeddings

    @property
    def names(self) -> npt.NDArray[np.str_]:
        """The person of each embedding; for both at one moment see ``copy``."""
        return self.copy().names

    @property
    def detector_name(self) -> str:
        """The detector that found all the faces, empty where unknown or where it was several."""
        detectors = {row[DETECTOR] for row in self._collection.rows("", DETECTOR)}
        return str(detectors.pop()) if len(detectors) == 1 else ""

    @property
    def calibration(self) -> Calibration | None:
        """What ``face-encode calibrate`` learnt, as it was when this gallery was opened."""
        return self._collection.calibration

    @calibration.setter
    def calibration(self, learnt: Calibration | None) -> None:
        self._collection.keep_calibration(learnt)

    def people(self) -> dict[str, int]:
        """How many embeddings each person has, in the order of enrolment; reads all names."""
        rows = sorted(self._collection.rows("", NAME, ADDED), key=lambda row: int(row[ADDED]))
        return dict(Counter(str(row[NAME]) for row in rows))

    def known_photos(
        self, detector_name: str, digests: Collection[str] | None = None
    ) -> Mapping[str, npt.NDArray[np.float32]]:
        """Content digest -> embedding; see ``Gallery.known_photos``."""
        fields = (DIGEST, DETECTOR, EMBEDDING)
        if digests is None:
            rows = self._collection.rows("", *fields)
        else:
            rows = [
                row
                for batch in batches(digests, ROWS_AT_ONCE)
                for row in self._collection.rows(any_of(PHOTO, map(photo_key, batch)), *fields)
            ]
        return {
            row[DIGEST]: row[EMBEDDING]
            for row in rows
            if row[DIGEST] and row[DETECTOR] == detector_name
        }

    def search(
        self, embeddings: Embeddings, k: int = 1, ranking: Ranking = "best"
    ) -> list[list[Match]]:
        """Find the nearest people; see ``Gallery.search``.

        By ``"mean"`` every embedding counts, and is read for that; by ``"best"`` Milvus searches.

        Raises:
            InputError: Another length of embedding, one that is not finite, k below 1, or no such
                ranking.
        """
        probes = check_probes(embeddings, self._encoder.embedding_size)
        k, ranking = check_count(k, "k"), check_ranking(ranking)
        if ranking == "mean":
            return self.copy().search(probes, k, ranking)
        with self._collection.client() as client:
            if client is None:
                return [[] for _ in probes]
            return nearest_people(client, self._collection.name, probes, k, self.metric)

    def add(
        self,
        names: Sequence[str],
        embeddings: Embeddings,
        digests: Sequence[str] | None = None,
    ) -> None:
        """Enrol embeddings; see ``Gallery.add``.

        Raises:
            InputError: As for ``Gallery.add``, or a name too long for Milvus.
        """
        self._collection.put(self._new_rows(names, embeddings, digests, ""))

    def _new_rows(
        self, names: Sequence[str], embeddings: Any, digests: Sequence[str] | None, detector: str
    ) -> list[dict[str, Any]]:
        """Rows to be enrolled, checked."""
        added = check_embeddings(embeddings, names, self._encoder.embedding_size)
        return rows_of(names, added, check_labels(names, digests), detector)

    def mark(self, names: Collection[str] | None = None) -> Mark:
        """The keys of what is enrolled at this moment, of these people or of all."""
        return self._ids(names)

    def _ids(self, names: Collection[str] | None) -> frozenset[str]:
        """The keys of these people's rows, or of all."""
        if names is None:
            return frozenset(row[ROW_ID] for row in self._collection.rows("", ROW_ID))
        return frozenset(
            row[ROW_ID]
            for batch in batches(names, ROWS_AT_ONCE)
            for row in self._collection.rows(any_of(PERSON, map(person_key, batch)), ROW_ID)
        )

    def replace(
        self,
        names: Sequence[str],
        embeddings: Embeddings,
        digests: Sequence[str],
        replaces: Replaces = "all",
        *,
        detector_name: str = "",
        mark: Mark = None,
    ) -> None:
        """Enrol embeddings in the place of others; see ``Gallery.replace``.

        First the new ones come, then the former ones go: cut off in between, nobody is lost, and
        the same done once more ends it.

        Raises:
            InputError: As for ``add``; then nothing has changed.
        """
        rows = self._new_rows(names, embeddings, digests, detector_name)
        former: frozenset[str] = frozenset()
        if replaces != "nothing":
            # Whoever was marked and is not among the names now, such as somebody none of whose
            # photos could be used, stays.
            former = self._ids(None if replaces == "all" else set(names))
            former = former if mark is None else former & mark
        self._collection.put(rows)
        self._collection.delete(former - {row[ROW_ID] for row in rows})

    def remove(self, name: str) -> int:
        """Take a person out without touching the others.

        Raises:
            GalleryError: No such person.
        """
        ids = self._ids([name])
        if not ids:
            raise GalleryError(f"nobody named {name!r} is enrolled")
        self._collection.delete(ids)
        return len(ids)

    def rename(self, name: str, new_name: str) -> int:
        """Call a person otherwise; returns how many embeddings that were.

        Cut off in between, the person has both names, and the same done once more ends it.

        Raises:
            InputError: The new name is none.
            GalleryError: No such person, or the new name is another person's.
        """
        check_name(new_name)
        fields = (ROW_ID, NAME, PERSON, DIGEST, PHOTO, DETECTOR, ADDED, EMBEDDING)
        rows = self._collection.rows(any_of(PERSON, [person_key(name)]), *fields)
        if not rows:
            raise GalleryError(f"nobody named {name!r} is enrolled")
        if new_name == name:
            return len(rows)
        renamed = [
            row | {ROW_ID: renamed_id(row, new_name), NAME: new_name, PERSON: person_key(new_name)}
            for row in rows
        ]
        if self._ids([new_name]) - {row[ROW_ID] for row in renamed}:
            raise GalleryError(f"somebody named {new_name!r} is enrolled already")
        self._collection.put(renamed)
        self._collection.delete([row[ROW_ID] for row in rows])
        return len(rows)

    def close(self) -> None:
        """Let go of the store; everything is kept already."""
        self._collection.close()


# Milvus gives at most so many rows for a probe.
_MOST_ROWS = 16_384
# Enough that equally near people are all among them, but for crowds of twins.
_LEAST_ROWS = 32
_PROBES_AT_ONCE = 256


def nearest_people(
    client: Any, collection: str, probes: Embeddings, k: int, metric: Metric
) -> list[list[Match]]:
    """The k nearest people of each probe, best first, each by the nearest embedding.

    Milvus gives the nearest embeddings, and those may all be of one person. Whoever is found is
    then left out, and the search goes on among the others: the answer is that of the gallery in
    memory, however many embeddings a person has. (Milvus's own grouping looks at a limited number
    of embeddings, and may end before k people are found.)

    Args:
        client: A ``pymilvus.MilvusClient``.
        collection: Holds the rows.
        probes: float32 ``(m, D)``.
        k: How many people, at the most.
        metric: The collection's.
    """
    limit = min(_MOST_ROWS, max(_LEAST_ROWS, 4 * k))

    def search(rows: Embeddings, filter: str = "") -> Any:
        return client.search(
            collection,
            data=list(rows),
            anns_field=EMBEDDING,
            filter=filter,
            limit=limit,
            output_fields=[NAME, PERSON],
            search_params={"metric_type": METRIC_TYPES[metric]},
            timeout=CALL_SECONDS,
            consistency_level="Strong",
        )

    found: list[list[Match]] = []
    for start in range(0, len(probes), _PROBES_AT_ONCE):
        block = probes[start : start + _PROBES_AT_ONCE]
        for probe, hits in zip(block, search(block), strict=True):
            similarities: dict[str, float] = {}
            persons: set[str] = set()
            _take(hits, metric, similarities, persons)
            while len(hits) == limit and len(similarities) < k:
                (hits,) = search(probe[np.newaxis], any_of(PERSON, sorted(persons), other=True))
                _take(hits, metric, similarities, persons)
            nearest = sorted(similarities.items(), key=lambda item: (-item[1], item[0]))
            found.append([Match(name, similarity) for name, similarity in nearest[:k]])
    return found


def _take(
    hits: Iterable[Mapping[str, Any]],
    metric: Metric,
    similarities: dict[str, float],
    persons: set[str],
) -> None:
    """Take people from hits, which come nearest first."""
    for hit in hits:
        entity = hit["entity"]
        persons.add(entity[PERSON])
        similarities.setdefault(entity[NAME], _similarity(float(hit["distance"]), metric))


def _similarity(distance: float, metric: Metric) -> float:
    """The similarity that Milvus's number stands for: a cosine, or a squared distance."""
    if metric == "cosine":
        return min(1.0, max(-1.0, distance))
    return -float(np.sqrt(max(0.0, distance)))
