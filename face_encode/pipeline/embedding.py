"""From many photos to embeddings: faces found in processes, encoded in batches."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from face_encode.detectors.alignment import crop_faces, make_portrait
from face_encode.detectors.base import Detector, detect_in_all
from face_encode.encoders.encoder import BATCH_SIZE, Encoder
from face_encode.errors import ImageError, InputError
from face_encode.gallery.mistakes import sharpness
from face_encode.liveness.judging import LivenessJudge
from face_encode.liveness.minifasnet import LIVENESS_CROP
from face_encode.photos.reading import as_rgb, content_digest, decode_image, read_content
from face_encode.pipeline.quality import judge_faces
from face_encode.pipeline.workers import in_processes, prefetched, workers_for
from face_encode.types import (
    Box,
    CropRecipe,
    Embeddings,
    Face,
    ImageArray,
    Photo,
    Quality,
    check_count,
)

NO_FACE = "no face found"
NO_EMBEDDING = "the encoder gives no usable embedding: not finite, or all zeros"

PhotoSource: TypeAlias = "Photo | tuple[str, bytes]"
"""A photo's path or pixels; or its name and the content of its file, which has been read."""

# Photos are read together until they hold this many pixels, then their faces are looked for: of
# small photos that is all that a worker is given at once, of large ones a single photo.
_PIXELS_AT_ONCE = 1_000_000
# Batches of crops that are put together while the encoder works on one.
_BATCHES_AHEAD = 2
# Photos without faces do not fill a batch: this many close it.
_MAX_WAITING = 256


@dataclass(frozen=True, eq=False)
class PhotoCrops:
    """A photo, the faces in it and their crops.

    Attributes:
        photo: Its path, or ``array``.
        faces: All of them, the largest first.
        crops: uint8 ``(N, height, width, 3)``, of the first N faces: at most as many as were
            asked for.
        size: Width and height of the photo in pixels, ``(0, 0)`` where it cannot be read.
        error: Why there are no crops, or None.
        digest: SHA-256 of the content, where asked for and readable; else empty.
        portrait: The largest face as JPEG, see ``make_portrait``, where asked for; else empty.
        surroundings: uint8 ``(N, 160, 80, 3)``, of the same N faces, by which their liveness is
            judged; None where nobody asked.
        notes: Remarks on the file, as ``decode_image`` makes them.
    """

    photo: str
    faces: tuple[Face, ...]
    crops: ImageArray
    size: tuple[int, int] = (0, 0)
    error: str | None = None
    digest: str = ""
    portrait: bytes = b""
    surroundings: ImageArray | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class EmbeddedPhoto:
    """A photo, the faces in it and their embeddings.

    Attributes:
        photo: Its path, or ``array``.
        faces: All of them, the largest first; those that are embedded have their quality.
        embeddings: float32 ``(N, D)``, of the first N faces: at most as many as were asked for.
        sharpness: How much fine detail each of these crops has; see ``mistakes.sharpness``.
        size: Width and height of the photo in pixels, ``(0, 0)`` where it cannot be read.
        error: Why there are no embeddings, or None. A photo without a face is such an error.
        digest: SHA-256 of the content, where asked for and readable; else empty.
        portrait: The largest face as JPEG, where asked for; else empty.
        notes: Remarks on the file.
    """

    photo: str
    faces: tuple[Face, ...]
    embeddings: Embeddings
    sharpness: tuple[float, ...] = ()
    size: tuple[int, int] = (0, 0)
    error: str | None = None
    digest: str = ""
    portrait: bytes = b""
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if (self.error is None) != (len(self.embeddings) > 0):
            raise InputError("a photo has embedded faces or an error")
        if len(self.embeddings) > len(self.faces):
            raise InputError("each embedding is that of a face")

    @property
    def refusal(self) -> str | None:
        """Why the largest face is not to be enrolled; None where it is, or there is none."""
        quality = self.faces[0].quality if self.error is None else None
        return quality.refusal if quality else None

    @property
    def boxes(self) -> npt.NDArray[np.int32]:
        """Boxes of the embedded faces, int32 ``(N, 4)``: left, top, width, height."""
        return face_numbers(self.faces[: len(self.embeddings)])[:, :4].astype(np.int32)

    @property
    def scores(self) -> npt.NDArray[np.float32]:
        """The detector's confidence in each embedded face, float32 ``(N,)``."""
        return face_numbers(self.faces[: len(self.embeddings)])[:, 4].astype(np.float32)

    @property
    def qualities(self) -> list[Quality]:
        """The quality of each embedded face; NaN for an encoder that does not judge."""
        faces = self.faces[: len(self.embeddings)]
        return [face.quality or Quality(math.nan) for face in faces]


def face_numbers(faces: Sequence[Face]) -> npt.NDArray[np.float64]:
    """Boxes and scores of faces, float64 ``(N, 5)``: left, top, width, height, score."""
    boxes = [(each.box.left, each.box.top, each.box.width, each.box.height) for each in faces]
    scores = [each.score for each in faces]
    return np.column_stack([np.reshape(boxes, (len(faces), 4)), scores]).astype(np.float64)


def faces_of_numbers(numbers: bytes) -> tuple[Face, ...]:
    """The faces that ``face_numbers`` stands for, without their landmarks, from its bytes."""
    rows = np.frombuffer(numbers, np.float64).reshape(-1, 5).tolist()
    return tuple(Face(Box(*map(int, box)), score) for *box, score in rows)


def without_embeddings(photo: str, error: str) -> EmbeddedPhoto:
    """A photo that was never opened, and why."""
    return EmbeddedPhoto(photo, (), np.empty((0, 0), np.float32), error=error)


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
        photos: Paths or arrays.
        detector: Finds the faces.
        recipe: How they are cut out.
        max_faces: At most this many faces of each photo, largest first; None for all.
        workers: As for ``embed_photos``.
        digests: Whether to give the digest of each photo's content too.
    """
    workers, photos = workers_for(workers, photos)
    return _find(photos, workers, detector, recipe, max_faces, digests)


def _find(
    photos: Iterable[Photo],
    workers: int,
    detector: Detector,
    recipe: CropRecipe,
    max_faces: int | None,
    digests: bool,
    portraits: bool = False,
    surroundings: bool = False,
) -> Iterator[PhotoCrops]:
    """Find the crops of photos, which are taken as they are needed."""
    find = partial(
        find_in_photos,
        detector=detector,
        recipe=recipe,
        max_faces=max_faces,
        digests=digests,
        portraits=portraits,
        surroundings=surroundings,
    )
    if workers == 1:
        # One at a time: the next photo is opened when this one is done.
        return (crops for photo in photos for crops in find([photo]))
    return in_processes(partial(_on_one_core, find), photos, workers)


def _on_one_core(find: partial[list[PhotoCrops]], photos: Sequence[Photo]) -> list[PhotoCrops]:
    """Find the crops of photos in a worker."""
    import cv2

    cv2.setNumThreads(1)
    return find(photos)


def find_in_photos(
    photos: Iterable[PhotoSource],
    detector: Detector,
    recipe: CropRecipe,
    max_faces: int | None,
    digests: bool = False,
    portraits: bool = False,
    surroundings: bool = False,
) -> list[PhotoCrops]:
    """Read some photos, find the faces and cut them out, in this process; see ``find_crops``.

    Photos are taken as they are needed; what is wrong with one is its ``error``.
    """
    found: list[PhotoCrops] = []
    read: list[tuple[PhotoCrops, ImageArray | None]] = []
    pixels = 0
    for photo in photos:
        nothing, image = _read(photo, recipe, digests)
        read.append((nothing, image))
        pixels += 0 if image is None else image.shape[0] * image.shape[1]
        if pixels >= _PIXELS_AT_ONCE:
            found += _cut_out(read, detector, recipe, max_faces, portraits, surroundings)
            read, pixels = [], 0
    return found + _cut_out(read, detector, recipe, max_faces, portraits, surroundings)


def _read(
    photo: PhotoSource, recipe: CropRecipe, digests: bool
) -> tuple[PhotoCrops, ImageArray | None]:
    """A photo without a face so far, and its pixels; None where it cannot be read."""
    content, digest, image, reason = None, "", None, None
    notes: list[str] = []
    if isinstance(photo, tuple):
        name, content = photo
    else:
        name = "array" if isinstance(photo, np.ndarray) else os.fspath(photo)
    try:
        if isinstance(photo, np.ndarray):
            digest = content_digest(photo) if digests else ""
            image = as_rgb(photo)
        else:
            # Read once: the digest and the pixels are of the same bytes.
            content = read_content(name) if content is None else content
            digest = hashlib.sha256(content).hexdigest() if digests and content else ""
            image = decode_image(content, str(Path(name)), any_format=True, notes=notes)
    except (ImageError, InputError) as error:
        # The photo is named beside the reason wherever this is shown.
        reason = str(error).removeprefix(f"{Path(name)}: ")
    crops = np.empty((0, recipe.height, recipe.width, 3), np.uint8)
    empty = PhotoCrops(name, (), crops, error=reason, digest=digest, notes=tuple(notes))
    return empty, image


def _cut_out(
    read: Sequence[tuple[PhotoCrops, ImageArray | None]],
    detector: Detector,
    recipe: CropRecipe,
    max_faces: int | None,
    portraits: bool,
    surroundings: bool,
) -> list[PhotoCrops]:
    """The crops of photos that have been read; those that could not be stay as they are."""
    detected = iter(detect_in_all(detector, [image for _, image in read if image is not None]))
    results = []
    for nothing, image in read:
        if image is None:
            results.append(nothing)
            continue
        faces = tuple(next(detected))
        crops = crop_faces(image, faces[:max_faces], recipe)
        size = (image.shape[1], image.shape[0])
        error = None if faces else NO_FACE
        portrait = make_portrait(image, faces[0]) if portraits and faces else b""
        around = crop_faces(image, faces[:max_faces], LIVENESS_CROP) if surroundings else None
        results.append(
            replace(
                nothing,
                faces=faces,
                crops=crops,
                size=size,
                error=error,
                portrait=portrait,
                surroundings=around,
            )
        )
    return results


def embed_photos(
    photos: Iterable[Photo],
    detector: Detector,
    encoder: Encoder,
    *,
    max_faces: int | None = 1,
    workers: int | None = None,
    batch_size: int | None = None,
    digests: bool = False,
    judge: LivenessJudge | None = None,
) -> Iterator[EmbeddedPhoto]:
    """Embed the faces of many photos, in their order, with bounded memory.

    A photo that cannot be used is an element with its ``error``, never an exception.

    Args:
        photos: Paths or arrays.
        detector: Finds the faces.
        encoder: Embeds them.
        max_faces: At most this many faces of each photo, largest first; None for all.
        workers: Processes that read and detect; None chooses by the number of photos and cores,
            1 stays in this process.
        batch_size: Faces that go through the encoder together; None for ``BATCH_SIZE``.
        digests: Whether to give the digest of each photo's content, too.
        judge: Gives the faces their liveness, too; None leaves that out.
    """
    workers, photos = workers_for(workers, photos)
    for batch in embed_batches(
        photos,
        detector,
        encoder,
        max_faces=max_faces,
        workers=workers,
        digests=digests,
        batch_size=batch_size,
        judge=judge,
    ):
        yield from batch


def embed_batches(
    photos: Iterable[Photo],
    detector: Detector,
    encoder: Encoder,
    *,
    workers: int,
    max_faces: int | None = 1,
    digests: bool = False,
    portraits: bool = False,
    batch_size: int | None = None,
    judge: LivenessJudge | None = None,
) -> Iterator[list[EmbeddedPhoto]]:
    """Embed the faces of many photos; each list is what went through the encoder together.

    A run that begins behind such a list makes the same lists from there on, and so, to the last
    bit, the same embeddings. With several workers photos are read and faces found, in processes,
    while a batch is in the encoder; the next batch enters it when the caller takes the next list,
    so that a caller who keeps each list loses one batch at a kill, and no more.

    Photos are taken as they are needed. The arguments are those of ``embed_photos``, and
    ``digests`` and ``portraits``: whether to give the digest of each photo's content, and a
    portrait of its largest face, too.
    """
    size = BATCH_SIZE if batch_size is None else check_count(batch_size, "batch_size")
    recipe = encoder.contract.crop
    found = _find(
        photos, workers, detector, recipe, max_faces, digests, portraits, judge is not None
    )
    batches = _batched(found, size)
    with closing(batches if workers == 1 else prefetched(batches, _BATCHES_AHEAD)) as ready:
        for batch in ready:
            yield encode_together(batch, encoder, size, judge)


def _batched(
    found: Iterator[PhotoCrops], batch_size: int
) -> Generator[list[PhotoCrops], None, None]:
    """The photos that go through the encoder together, in lists of as many faces."""
    waiting: list[PhotoCrops] = []
    crops = 0
    for item in found:
        waiting.append(item)
        crops += len(item.crops)
        if crops >= batch_size or len(waiting) >= max(_MAX_WAITING, batch_size):
            yield waiting
            waiting, crops = [], 0
    if waiting:
        yield waiting


def encode_together(
    items: Sequence[PhotoCrops],
    encoder: Encoder,
    batch_size: int = BATCH_SIZE,
    judge: LivenessJudge | None = None,
) -> list[EmbeddedPhoto]:
    """Encode the crops of several photos in one call of the encoder.

    Faces whose surroundings were cut out, too, get their liveness from the judge.
    """
    if not items:
        return []
    if judge is not None:
        items = _with_liveness(items, judge)
    crops = np.concatenate([item.crops for item in items])
    embeddings, qualities = encoder.embed(crops, batch_size=batch_size)
    recipe = encoder.contract.crop
    results = []
    start = 0
    for item in items:
        end = start + len(item.crops)
        part, values = embeddings[start:end], None if qualities is None else qualities[start:end]
        embedded = item.faces[: end - start]
        start = end
        seen = recipe.first_of(item.crops) if recipe.parts else item.crops
        details = tuple(map(sharpness, seen))
        error = item.error
        lengths = np.linalg.norm(part, axis=1)
        if not np.isfinite(lengths).all() or not (lengths > 0).all():
            part, details, error = part[:0], (), NO_EMBEDDING
        judged = judge_faces(embedded, values, item.crops, encoder.contract)
        results.append(
            EmbeddedPhoto(
                item.photo,
                (*judged, *item.faces[len(judged) :]),
                part,
                details,
                item.size,
                error,
                item.digest,
                item.portrait,
                item.notes,
            )
        )
    return results


def _with_liveness(items: Sequence[PhotoCrops], judge: LivenessJudge) -> list[PhotoCrops]:
    """Judge the liveness of the faces of several photos in one call."""
    asked = [item for item in items if item.surroundings is not None]
    faces = [face for item in asked for face in item.faces[: len(item.crops)]]
    cut = [item.surroundings for item in asked if item.surroundings is not None]
    judged = iter(judge.judge(faces, np.concatenate(cut)) if faces else ())
    return [
        item
        if item.surroundings is None
        else replace(
            item,
            faces=(*islice(judged, len(item.crops)), *item.faces[len(item.crops) :]),
        )
        for item in items
    ]
