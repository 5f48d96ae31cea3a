"""The way from many photos to embeddings: detection in processes, encoding in batches."""

from __future__ import annotations

import itertools
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass

import numpy as np

from face_encode.detectors.base import Detector
from face_encode.encoders.encoder import BATCH_SIZE, Encoder
from face_encode.finding import PhotoCrops, find_crops
from face_encode.gallery.mistakes import sharpness
from face_encode.prefetching import prefetched
from face_encode.types import Embeddings, Face, Photo, check_count
from face_encode.workers import sensible_workers_for

# Batches of crops that are put together while the encoder is at work on one.
_BATCHES_AHEAD = 2
# Photos that wait for their faces to fill a batch, at the most.
_MOST_WAITING = 256

NO_EMBEDDING = "the encoder gives no usable embedding: not finite, or all zeros"


@dataclass(frozen=True, eq=False)
class EmbeddedPhoto:
    """A photo, the faces in it and their embeddings.

    Attributes:
        photo: Its path.
        faces: All of them, the largest first.
        embeddings: float32 ``(N, D)``, of the first N faces, as many as were asked for.
        sharpness: How much fine detail each of these crops has; see ``hygiene.sharpness``.
        size: Width and height of the photo in pixels, ``(0, 0)`` where it cannot be read.
        error: Why there are no embeddings, or None. A photo without a face is such an error.
        digest: Of the file's content, where asked for and readable; else empty.
    """

    photo: str
    faces: tuple[Face, ...]
    embeddings: Embeddings
    sharpness: tuple[float, ...] = ()
    size: tuple[int, int] = (0, 0)
    error: str | None = None
    digest: str = ""


def embed_photos(
    photos: Iterable[Photo],
    detector: Detector,
    encoder: Encoder,
    *,
    max_faces: int | None = 1,
    workers: int | None = None,
    batch_size: int | None = None,
) -> Iterator[EmbeddedPhoto]:
    """Embed the faces of many photos, in their order, with bounded memory.

    A photo that cannot be used is an element with its ``error``, never an exception.

    Args:
        photos: Paths or arrays.
        detector: Finds the faces.
        encoder: Embeds them.
        max_faces: The largest so many of each photo; None for all.
        workers: Processes that read and detect; None chooses by the number of photos and cores,
            1 stays in this process.
        batch_size: Faces that go through the encoder together; None for ``BATCH_SIZE``.
    """
    for batch in embed_batches(
        photos, detector, encoder, max_faces=max_faces, workers=workers, batch_size=batch_size
    ):
        yield from batch


def embed_batches(
    photos: Iterable[Photo],
    detector: Detector,
    encoder: Encoder,
    *,
    max_faces: int | None = 1,
    workers: int | None = None,
    digests: bool = False,
    batch_size: int | None = None,
) -> Iterator[list[EmbeddedPhoto]]:
    """Embed the faces of many photos; each list is what went through the encoder together.

    A run that begins behind such a list makes the same lists from there on, and so, to the last
    bit, the same embeddings. With several workers photos are read and faces found, in processes,
    while a batch is in the encoder; no batch enters it before the caller takes the next list, so
    that a caller who writes each down never loses more than one.

    Args:
        photos: Paths or arrays; taken as they are needed.
        detector: Finds the faces.
        encoder: Embeds them.
        max_faces: The largest so many of each photo; None for all.
        workers: As for ``embed_photos``.
        digests: Whether to make the digest of each file's content too.
        batch_size: As for ``embed_photos``.
    """
    size = BATCH_SIZE if batch_size is None else check_count(batch_size, "batch_size")
    if workers is None:
        workers, photos = sensible_workers_for(photos)
    batches = _together(
        find_crops(
            photos,
            detector,
            encoder.contract.crop,
            max_faces=max_faces,
            workers=workers,
            digests=digests,
        ),
        size,
    )
    ready = batches if workers == 1 else prefetched(batches, _BATCHES_AHEAD)
    with closing(ready):
        for batch in ready:
            yield list(encode_together(batch, encoder, size))


def _together(
    found: Iterator[PhotoCrops], batch_size: int
) -> Generator[list[PhotoCrops], None, None]:
    """The photos that go through the encoder together, in lists of as many faces."""
    waiting: list[PhotoCrops] = []
    crops = 0
    for item in found:
        waiting.append(item)
        crops += len(item.crops)
        # Photos without faces must not pile up either.
        if crops >= batch_size or len(waiting) >= max(_MOST_WAITING, batch_size):
            yield waiting
            waiting, crops = [], 0
    if waiting:
        yield waiting


def encode_together(
    items: Sequence[PhotoCrops], encoder: Encoder, batch_size: int = BATCH_SIZE
) -> Iterator[EmbeddedPhoto]:
    """Encode the crops of several photos in one call of the encoder.

    Args:
        items: What ``find_crops`` gave, or ``find_in_photos``.
        encoder: Embeds them.
        batch_size: The most crops that go through the network at once.
    """
    if not items:
        return
    crops = np.concatenate([item.crops for item in items])
    embeddings = encoder.encode(crops, batch_size=batch_size)
    ends = list(itertools.accumulate(len(item.crops) for item in items))
    for item, end in zip(items, ends, strict=True):
        part = embeddings[end - len(item.crops) : end]
        lengths = np.linalg.norm(part, axis=1)
        if not np.isfinite(lengths).all() or not (lengths > 0).all():
            yield EmbeddedPhoto(
                item.photo, item.faces, part[:0], (), item.size, NO_EMBEDDING, item.digest
            )
            continue
        details = tuple(sharpness(crop) for crop in item.crops)
        yield EmbeddedPhoto(
            item.photo, item.faces, part, details, item.size, item.error, item.digest
        )
