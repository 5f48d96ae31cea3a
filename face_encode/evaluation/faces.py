"""One face a photo, chosen by a stated rule, with its embedding: what every measurement needs."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

from face_encode.detectors.alignment import crop_faces
from face_encode.detectors.base import Detector
from face_encode.encoders.encoder import BATCH_SIZE, Encoder
from face_encode.errors import ImageError, InputError
from face_encode.gallery.base import folded_name
from face_encode.gallery.distances import unit_length
from face_encode.photos.folders import list_people
from face_encode.photos.reading import read_image
from face_encode.pipeline.embedding import embed_photos
from face_encode.terminal import with_progress
from face_encode.types import Box, Embeddings, Face

Choice: TypeAlias = Callable[[Sequence[Face], tuple[int, int]], int]
"""From the faces of a photo, and its width and height, to the index of the face that is meant."""

# A face this far from the middle, as a share of the shorter side, counts half its area.
_HALF_WEIGHT_DISTANCE = 0.25


def central_face(faces: Sequence[Face], size: tuple[int, int]) -> int:
    """The largest face nearest the middle: the person whom a portrait shows.

    Its area divided by ``1 + d**2`` is the largest, with d the distance of its middle from the
    photo's, in quarters of the photo's shorter side. In LFW the person named is the one in the
    middle, and now and then a bystander is larger.
    """
    unit = _HALF_WEIGHT_DISTANCE * min(size)

    def weight(face: Face) -> float:
        box = face.box
        across = box.left + box.width / 2 - size[0] / 2
        down = box.top + box.height / 2 - size[1] / 2
        return box.area / (1 + (across**2 + down**2) / unit**2)

    return max(range(len(faces)), key=lambda index: weight(faces[index]))


@dataclass(frozen=True, eq=False)
class EmbeddedFaces:
    """The chosen face of each of many photos.

    Attributes:
        photos: P paths.
        embeddings: float32 ``(P, D)``; a row of NaN where there is no face.
        faces: The chosen face of each photo, or None.
        sharpness: float64 ``(P,)``, see ``face_encode.gallery.mistakes``; NaN where there
            is no face.
        errors: For each photo why there is no face, or None.
        seconds_a_photo: Wall-clock time of reading, detecting and encoding.
        unlisted: Of a folder of people what is no photo of a person, with the reason.
    """

    photos: tuple[str, ...]
    embeddings: Embeddings
    faces: tuple[Face | None, ...]
    sharpness: npt.NDArray[np.float64]
    errors: tuple[str | None, ...]
    seconds_a_photo: float
    unlisted: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        parts = (self.photos, self.embeddings, self.faces, self.sharpness, self.errors)
        lengths = {len(part) for part in parts}
        if len(lengths) != 1:
            raise InputError(f"each photo has one row. Received: lengths {sorted(lengths)}")

    @property
    def found(self) -> npt.NDArray[np.bool_]:
        """Bool ``(P,)``: whether there is a face."""
        return np.array([error is None for error in self.errors], np.bool_)

    @property
    def refused(self) -> npt.NDArray[np.bool_]:
        """Bool ``(P,)``: whether there is a face, but one whose embedding is not to be trusted."""
        return np.array([bool(face and face.refusal) for face in self.faces], np.bool_)

    @property
    def fit(self) -> npt.NDArray[np.bool_]:
        """Bool ``(P,)``: whether there is a face whose embedding is to be trusted."""
        return self.found & ~self.refused

    def qualities(self) -> npt.NDArray[np.float64] | None:
        """The quality of each face, float64 ``(P,)``, NaN where there is none.

        None if the encoder does not judge its embeddings.
        """
        judged = [face.quality if face else None for face in self.faces]
        if not any(judged):
            return None
        return np.array([np.nan if each is None else each.value for each in judged])

    def not_found(self) -> tuple[tuple[str, str], ...]:
        """Every photo without a face, with the reason."""
        rows = zip(self.photos, self.errors, strict=True)
        return tuple((photo, error) for photo, error in rows if error is not None)

    def not_trusted(self) -> tuple[tuple[str, str], ...]:
        """Every photo whose face is refused, with the reason."""
        rows = zip(self.photos, self.faces, strict=True)
        return tuple((photo, face.refusal) for photo, face in rows if face and face.refusal)

    def left_out(self) -> tuple[tuple[str, str], ...]:
        """Every photo that is not ``fit``, and what is no photo of a person, with the reason."""
        return (*self.not_found(), *self.not_trusted(), *self.unlisted)


def embed_faces(
    photos: Iterable[str | os.PathLike[str]],
    detector: Detector,
    encoder: Encoder,
    choose: Choice | None = None,
    *,
    workers: int | None = None,
    progress: bool = True,
    description: str = "Encoding",
) -> EmbeddedFaces:
    """Embed one face of each photo.

    Args:
        photos: Paths.
        detector: Finds all faces.
        encoder: Embeds them.
        choose: Which face counts; None takes the largest, as enrolment and matching do.
        workers: Processes that read and detect; None chooses.
        progress: Whether to show a progress bar.
        description: The words beside the bar.

    Returns:
        A row a photo, in the photos' order. A photo without a face, or that cannot be read, is
        a row with its error.
    """
    paths = [os.fspath(photo) for photo in photos]
    started = time.perf_counter()
    embeddings = np.full((len(paths), encoder.embedding_size), np.nan, np.float32)
    sharpness = np.full(len(paths), np.nan)
    faces: list[Face | None] = [None] * len(paths)
    errors: list[str | None] = [None] * len(paths)
    embedded = embed_photos(
        paths, detector, encoder, max_faces=None if choose else 1, workers=workers
    )
    for row, photo in enumerate(with_progress(embedded, len(paths), description, show=progress)):
        errors[row] = photo.error
        if photo.error is None:
            index = choose(photo.faces, photo.size) if choose else 0
            faces[row] = photo.faces[index]
            embeddings[row] = photo.embeddings[index]
            sharpness[row] = photo.sharpness[index]
    seconds = (time.perf_counter() - started) / max(1, len(paths))
    return EmbeddedFaces(tuple(paths), embeddings, tuple(faces), sharpness, tuple(errors), seconds)


def embed_people(
    folder: str | os.PathLike[str],
    detector: Detector,
    encoder: Encoder,
    *,
    workers: int | None = None,
    progress: bool = True,
    description: str = "Encoding",
) -> tuple[npt.NDArray[np.str_], EmbeddedFaces]:
    """Embed the largest face of every photo in a folder with one sub-folder a person.

    Args:
        folder: As for enrolment.
        detector: Finds all faces.
        encoder: Embeds the largest.
        workers: Processes that read and detect; None chooses.
        progress: Whether to show a progress bar.
        description: The words beside the bar.

    Returns:
        ``(P,)``, the person of each photo, and the faces.

    Raises:
        DatasetError: The folder is missing or holds no people.
    """
    listed = list_people(folder)
    people = listed.people
    faces = embed_faces(
        [photo for photos in people.values() for photo in photos],
        detector,
        encoder,
        workers=workers,
        progress=progress,
        description=description,
    )
    unlisted = tuple((each.photo, each.reason) for each in listed.left_out)
    names = np.repeat(list(people), [len(photos) for photos in people.values()])
    return names, replace(faces, unlisted=unlisted)


def one_spelling(
    names: npt.NDArray[np.str_], called: dict[str, str] | None = None
) -> npt.NDArray[np.str_]:
    """Give all names that a gallery takes for one person's the spelling of the first.

    Args:
        names: The names.
        called: ``folded_name`` -> spelling, of names before these; takes up these, too.
    """
    called = {} if called is None else called
    return np.array(
        [called.setdefault(folded_name(name), name) for name in names.tolist()], np.str_
    )


def checked_units(embeddings: npt.ArrayLike) -> Embeddings:
    """Check embeddings and scale them to length 1, float32 ``(N, D)``.

    Raises:
        InputError: Another shape, not finite, or of length zero.
    """
    vectors = np.asarray(embeddings, np.float32)
    if vectors.ndim != 2 or 0 in vectors.shape or not np.isfinite(vectors).all():
        raise InputError(f"embeddings are finite, shape (N, D). Received: {vectors.shape}")
    if not vectors.any(axis=1).all():
        raise InputError("an embedding of length zero has no direction to compare")
    return unit_length(vectors)


def similarities(
    first: Embeddings, second: Embeddings, metric: str = "cosine"
) -> npt.NDArray[np.float64]:
    """Similarity of each embedding to the other in the same row; higher is nearer.

    Args:
        first: ``(N, D)``.
        second: ``(N, D)``.
        metric: ``"cosine"``, -1..1; or ``"euclidean"``, the distance negated, 0 or less.

    Returns:
        float64 ``(N,)``, NaN where one of the embeddings is.

    Raises:
        InputError: Unequal shapes or another metric.
    """
    a, b = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if a.shape != b.shape or a.ndim != 2:
        raise InputError(f"two arrays of one shape (N, D). Received: {a.shape} and {b.shape}")
    if metric == "euclidean":
        return np.asarray(-np.linalg.norm(a - b, axis=1), np.float64)
    if metric != "cosine":
        raise InputError(f"a metric is one of 'cosine', 'euclidean'. Received: {metric!r}")
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return np.asarray(np.einsum("nd,nd->n", a, b) / lengths, np.float64)


def cut_out(
    photo: str | os.PathLike[str], box: Box | None = None, surroundings: float = 0.5
) -> Image.Image:
    """A photo, or the part around a box.

    Args:
        photo: Its path.
        box: In pixels of the photo; None takes the whole photo.
        surroundings: The margin around the box, as a share of its longer side.

    Raises:
        ImageError: The photo cannot be read.
    """
    image = Image.fromarray(read_image(photo))
    if box is None:
        return image
    margin = round(surroundings * max(box.width, box.height))
    wider = Box(
        box.left - margin, box.top - margin, box.width + 2 * margin, box.height + 2 * margin
    ).clamped(*image.size)
    return image.crop((wider.left, wider.top, wider.left + wider.width, wider.top + wider.height))


_TIMED_PHOTOS = 20
_REPEATS = 5


@dataclass(frozen=True)
class Speeds:
    """Medians of wall-clock times in one process, in milliseconds; NaN where not measured.

    Attributes:
        reading: A photo from its file.
        detection: All faces of a photo, with landmarks.
        encoding_one: One face by itself.
        encoding_batched: One face of a batch of 32.
    """

    reading: float
    detection: float
    encoding_one: float
    encoding_batched: float


def measure_speeds(photos: Sequence[Path], detector: Detector, encoder: Encoder) -> Speeds:
    """Time each part on the first photos, after a warm-up.

    Args:
        photos: Typical photos; at most 20 are used.
        detector: Finds the faces.
        encoder: Embeds them.
    """
    reading, detection, crops = [], [], []
    for photo in photos[:_TIMED_PHOTOS]:
        started = time.perf_counter()
        try:
            image = read_image(photo)
        except ImageError:
            continue
        read = time.perf_counter()
        faces = detector.detect(image)
        reading.append(read - started)
        detection.append(time.perf_counter() - read)
        if faces:
            crops.append(crop_faces(image, faces[:1], encoder.contract.crop))

    def encoding(count: int) -> float:
        """Median time a face in a batch of this size, after one warm-up."""
        batch = np.repeat(crops[0], count, axis=0)
        seconds = []
        for _ in range(_REPEATS + 1):
            started = time.perf_counter()
            encoder.encode(batch)
            seconds.append((time.perf_counter() - started) / count)
        return _median(seconds[1:])

    return Speeds(
        reading=_median(reading),
        # The first photo pays for loading the detector.
        detection=_median(detection[1:]),
        encoding_one=encoding(1) if crops else float("nan"),
        encoding_batched=encoding(BATCH_SIZE) if crops else float("nan"),
    )


def _median(seconds: Sequence[float]) -> float:
    """The median in milliseconds; NaN for an empty list."""
    return 1000 * statistics.median(seconds) if seconds else float("nan")
