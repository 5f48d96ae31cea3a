"""The parts that a large folder is embedded in: a file each, found again by a later run.

A part's name carries a digest of the settings and of its photos' names, sizes and times of change.
So a file of that name holds what this run would write, whoever wrote it and when.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from face_encode.embedding_files.parts import part_name
from face_encode.embedding_files.table import EmbeddingSettings
from face_encode.photos.folders import PhotoListing


@dataclass(frozen=True)
class Part:
    """Photos that stand in one file.

    Attributes:
        number: Its place among the parts.
        start: Its first photo's place among all.
        stop: The place behind its last photo.
        name: Of its file.
    """

    number: int
    start: int
    stop: int
    name: str

    def __len__(self) -> int:
        """Number of photos."""
        return self.stop - self.start


def divide(listing: PhotoListing, settings: EmbeddingSettings, photos_per_part: int) -> list[Part]:
    """Divide the photos of a folder, in their order, into parts.

    Args:
        listing: The photos.
        settings: What the embeddings are made by.
        photos_per_part: As many in each, and in the last what is left.
    """
    starts = range(0, len(listing.names), photos_per_part)
    parts = []
    # The number 0 is that of what could not be listed.
    for number, start in enumerate(starts, 1):
        stop = min(start + photos_per_part, len(listing.names))
        made_of = [
            settings.to_json(),
            listing.names[start:stop],
            listing.states[start:stop].tolist(),
        ]
        digest = hashlib.sha256(json.dumps(made_of).encode()).hexdigest()
        parts.append(Part(number, start, stop, part_name(number, digest)))
    return parts


def chunks(parts: Sequence[Part], names: Sequence[str], size: int) -> Iterator[Any]:
    """The photos of some parts as pyarrow's tables, each of one part only.

    Args:
        parts: Which.
        names: Of all photos.
        size: Photos in a table, at the most.
    """
    import pyarrow

    for part in parts:
        for start in range(part.start, part.stop, size):
            photos = names[start : min(start + size, part.stop)]
            numbers = pyarrow.array([part.number] * len(photos), pyarrow.int32())
            yield pyarrow.table({"part": numbers, "photo": pyarrow.array(photos, pyarrow.string())})
