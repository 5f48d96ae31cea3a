"""The way from many photos to embeddings: detection in processes, encoding in batches."""

from __future__ import annotations

import hashlib
import itertools
import os
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from face_encode.detectors.alignment import crop_faces
from face_encode.detectors.base import Detector, detect_in_all
from face_encode.encoders.encoder import BATCH_SIZE, Encoder
from face_encode.errors import ImageError, InputError
from face_encode.gallery.mistakes import sharpness
from face_encode.photos.reading import as_rgb, content_digest, decode_image, read_image
from face_encode.pipeline.workers import in_processes, prefetched, sensible_workers_for
from face_encode.types import CropRecipe, Embeddings, Face, ImageArray, Photo, check_count

NO_FACE = "no face found"

# Photos that are read before faces are looked for in any of them hold so many pixels together, and
# one photo more at the most: of small ones all that a worker is given at once, of large ones one.
_PIXELS_AT_ONCE = 1_000_000


@dataclass(frozen=True, eq=False)
class PhotoCrops:
    """A photo, the faces in it and their crops.

    Attributes:
        photo: Its path, or ``array``.
        faces: All of them, the largest first.
        crops: uint8 ``(N, height, width, 3)``, of the first N faces, as many as were asked for.
        size: Width and height of the photo in pixels, ``(0, 0)`` where it cannot be read.
        error: Why there are no crops, or None.
        digest: Of the file's content, where asked for and readable; else empty.
    """

    photo: str
    faces: tuple[Face, ...]
    crops: ImageArray
    size: tuple[int, int] = (0, 0)
    error: str | None = None
    digest: str = ""


def find_crops(
    photos: Iterable[Photo],
    detector: Detector,
    recipe: CropRecipe,
    *,
    max_faces: int | None = 1,
    workers: int | None = None,
    digests: bool = False,
) -> Iterator[PhotoCrops]:
    """Read many photos, find the faces and cut them out, in their order, with bounded memory.

    Args:
        photos: Paths or arrays; taken as they are needed.
        detector: Finds the faces.
        recipe: How they are cut out.
        max_faces: The largest so many of each photo; None for all.
        workers: As for ``embed_photos``.
        digests: Whether to make the digest of each file's content too.
    """
    if workers is None:
        workers, photos = sensible_workers_for(photos)
    if check_count(workers, "workers") == 1:
        return (
            found
            for photo in photos
            for found in find_in_photos([photo], detector, recipe, max_faces, digests)
        )
    find = partial(
        _find_in_chunk, detector=detector, recipe=recipe, max_faces=max_faces, digests=digests
    )
    return in_processes(find, photos, int(workers))


def _find_in_chunk(
    photos: Sequence[Photo],
    detector: Detector,
    recipe: CropRecipe,
    max_faces: int | None,
    digests: bool,
) -> list[PhotoCrops]:
    """What a worker does."""
    import cv2

    cv2.setNumThreads(1)
    return find_in_photos(photos, detector, recipe, max_faces, digests)


def find_in_photos(
    photos: Iterable[Photo],
    detector: Detector,
    recipe: CropRecipe,
    max_faces: int | None,
    digests: bool = False,
) -> list[PhotoCrops]:
    """Read some photos, find the faces and cut them out, in this process.

    Args:
        photos: Paths or arrays; taken as they are needed.
        detector: Finds the faces.
        recipe: How they are cut out.
        max_faces: The largest so many of each photo; None for all.
        digests: Whether to make the digest of each file's content too.

    Returns:
        One a photo, in their order; whatever is wrong with a photo is its ``error``.
    """
    found: list[PhotoCrops] = []
    read: list[tuple[PhotoCrops, ImageArray | None]] = []
    pixels = 0
    for photo in photos:
        nothing, image = _read(photo, recipe, digests)
        read.append((nothing, image))
        pixels += 0 if image is None else image.shape[0] * image.shape[1]
        if pixels >= _PIXELS_AT_ONCE:
            found += _find_in_read(read, detector, recipe, max_faces)
            read, pixels = [], 0
    return found + _find_in_read(read, detector, recipe, max_faces)


def find_in_content(
    content: bytes,
    name: str,
    detector: Detector,
    recipe: CropRecipe,
    max_faces: int | None,
) -> PhotoCrops:
    """Find the faces in a photo whose file has been read, as ``find_in_photos`` does.

    Args:
        content: The file's content, from wherever the file lies.
        name: What the photo is called.
        detector: Finds the faces.
        recipe: How they are cut out.
        max_faces: The largest so many; None for all.

    Returns:
        With the digest of the content; whatever is wrong with the photo is its ``error``.
    """
    nothing = _nothing_in(name, recipe)
    try:
        if content:
            nothing = replace(nothing, digest=hashlib.sha256(content).hexdigest())
        image = decode_image(content, name, any_format=True)
    except ImageError as error:
        return replace(nothing, error=str(error).removeprefix(f"{name}: "))
    (found,) = _find_in_read([(nothing, image)], detector, recipe, max_faces)
    return found


def _nothing_in(name: str, recipe: CropRecipe) -> PhotoCrops:
    """A photo without a face so far."""
    return PhotoCrops(name, (), np.empty((0, recipe.height, recipe.width, 3), np.uint8))


def _read(photo: Photo, recipe: CropRecipe, digests: bool) -> tuple[PhotoCrops, ImageArray | None]:
    """A photo without a face so far, and its pixels; None where it cannot be read."""
    label = "array" if isinstance(photo, np.ndarray) else os.fspath(photo)
    nothing = _nothing_in(label, recipe)
    try:
        if digests:
            nothing = replace(nothing, digest=content_digest(photo))
        image = as_rgb(photo) if isinstance(photo, np.ndarray) else read_image(photo)
    except (ImageError, InputError) as error:
        # The photo is named beside the reason wherever this is shown.
        reason = str(error).removeprefix(f"{Path(label)}: ")
        return replace(nothing, error=reason), None
    return nothing, image


def _find_in_read(
    read: Sequence[tuple[PhotoCrops, ImageArray | None]],
    detector: Detector,
    recipe: CropRecipe,
    max_faces: int | None,
) -> list[PhotoCrops]:
    """What photos become once they are read; those that could not be stay as they are."""
    found = iter(detect_in_all(detector, [image for _, image in read if image is not None]))
    results = []
    for nothing, image in read:
        if image is None:
            results.append(nothing)
            continue
        size = (image.shape[1], image.shape[0])
        faces = tuple(next(found))
        if not faces:
            results.append(replace(nothing, size=size, error=NO_FACE))
            continue
        crops = crop_faces(image, faces[:max_faces], recipe)
        results.append(replace(nothing, faces=faces, crops=crops, size=size))
    return results


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
