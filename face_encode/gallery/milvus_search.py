"""The nearest people in a Milvus collection, where a person may have many embeddings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from face_encode.gallery.distances import Metric
from face_encode.gallery.milvus_client import CALL_SECONDS
from face_encode.gallery.milvus_rows import EMBEDDING, METRIC_TYPES, NAME, PERSON, any_of
from face_encode.types import Embeddings, Match

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
