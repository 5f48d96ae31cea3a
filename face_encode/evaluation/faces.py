"""One face a photo, chosen by a stated rule, with its embedding: what every measurement needs."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from face_encode.detectors.alignment import crop_faces
from face_encode.detectors.base import Detector
from face_encode.encoders.encoder import BATCH_SIZE, Encoder
from face_encode.errors import ImageError, InputError
from face_encode.gallery.mistakes import sharpness
from face_encode.photos.reading import read_image
from face_encode.pipeline.embedding import find_crops
from face_encode.terminal import tracked
from face_encode.types import Embeddings, Face, ImageArray

Choice: TypeAlias = Callable[[Sequence[Face], tuple[int, int]], int]
"""From the faces of a photo, and its width and height, to the place of the one that is meant."""

# In a quarter of the shorter side from the middle, a face counts half its area.
_CENTRAL_UNIT = 0.25


def largest_face(faces: Sequence[Face], size: tuple[int, int]) -> int:
    """The largest face, as enrolment and matching choose it; faces come largest first."""
    return 0


def central_face(faces: Sequence[Face], size: tuple[int, int]) -> int:
    """The largest face nearest the middle: whom a portrait photo is of.

    Its area divided by ``1 + d**2`` is the largest, with d the distance of its middle from the
    photo's, in quarters of the photo's shorter side. In LFW the person named is the one in the
    middle, and now and then a bystander is larger.
    """
    unit = _CENTRAL_UNIT * min(size)

    def weight(face: Face) -> float:
        box = face.box
        across = box.left + box.width / 2 - size[0] / 2
        down = box.top + box.height / 2 - size[1] / 2
        return box.area / (1 + (across**2 + down**2) / unit**2)

    return max(range(len(faces)), key=lambda place: weight(faces[place]))


@dataclass(frozen=True, eq=False)
class EmbeddedFaces:
    """The chosen face of each of many photos.

    Attributes:
        photos: P paths.
        embeddings: float32 ``(P, D)``; a row of NaN where there is no face.
        faces: The chosen face of each photo, or None.
        sharpness: float64 ``(P,)``, see :mod:`face_encode.gallery.mistakes`; NaN where there
            is no face.
        errors: For each photo why there is no face, or None.
        seconds_a_photo: Wall-clock time, reading, detecting and encoding.
    """

    photos: tuple[str, ...]
    embeddings: Embeddings
    faces: tuple[Face | None, ...]
    sharpness: npt.NDArray[np.float64]
    errors: tuple[str | None, ...]
    seconds_a_photo: float

    def __post_init__(self) -> None:
        """Check that everything has one length."""
        lengths = {
            len(part)
            for part in (self.photos, self.embeddings, self.faces, self.sharpness, self.errors)
        }
        if len(lengths) != 1:
            raise InputError(f"each photo has one row. Received: lengths {sorted(lengths)}")

    @property
    def found(self) -> npt.NDArray[np.bool_]:
        """Bool ``(P,)``: whether there is a face."""
        return np.array([error is None for error in self.errors], np.bool_)

    def not_found(self) -> tuple[tuple[str, str], ...]:
        """Every photo without a face, with the reason."""
        rows = zip(self.photos, self.errors, strict=True)
        return tuple((photo, error) for photo, error in rows if error is not None)


def embed_faces(
    photos: Iterable[str | os.PathLike[str]],
    detector: Detector,
    encoder: Encoder,
    choose: Choice = largest_face,
    *,
    workers: int | None = None,
    progress: bool = True,
    description: str = "Encoding",
) -> EmbeddedFaces:
    """Embed one face of each photo.

    Args:
        photos: Paths.
        detector: Finds all faces.
        encoder: Embeds the chosen one.
        choose: Which one.
        workers: Processes that read and detect; None chooses.
        progress: Whether to show a progress bar.
        description: What it says.

    Returns:
        A row a photo, in the photos' order. A photo without a face, or that cannot be read, is
        a row with its error.
    """
    paths = [os.fspath(photo) for photo in photos]
    started = time.perf_counter()
    recipe = encoder.contract.crop
    embeddings = np.full((len(paths), encoder.embedding_size), np.nan, np.float32)
    blur = np.full(len(paths), np.nan)
    chosen: list[Face | None] = [None] * len(paths)
    errors: list[str | None] = [None] * len(paths)
    rows: list[int] = []
    crops: list[ImageArray] = []
    found = find_crops(paths, detector, recipe, max_faces=None, workers=workers)
    for row, photo in enumerate(tracked(found, len(paths), description, show=progress)):
        errors[row] = photo.error
        if photo.error is None:
            place = choose(photo.faces, photo.size)
            chosen[row] = photo.faces[place]
            blur[row] = sharpness(photo.crops[place])
            rows.append(row)
            crops.append(photo.crops[place])
        if crops and (len(crops) == BATCH_SIZE or row == len(paths) - 1):
            embeddings[rows] = encoder.encode(np.stack(crops))
            rows, crops = [], []
    seconds = (time.perf_counter() - started) / max(1, len(paths))
    return EmbeddedFaces(tuple(paths), embeddings, tuple(chosen), blur, tuple(errors), seconds)


def similarities(
    first: Embeddings, second: Embeddings, metric: str = "cosine"
) -> npt.NDArray[np.float64]:
    """Similarity of each embedding to the other in the same row; higher is nearer.

    Args:
        first: ``(N, D)``.
        second: ``(N, D)``.
        metric: ``"cosine"``, -1..1; or ``"euclidean"``, the distance negated, 0 or less.

    Returns:
        float64 ``(N,)``, NaN where one of them is.

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


_PHOTOS = 20
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
        photos: Of the kind that is meant to be fast; at most 20 are used.
        detector: Finds the faces.
        encoder: Embeds them.
    """
    reading, detection, crops = [], [], []
    recipe = encoder.contract.crop
    for photo in photos[:_PHOTOS]:
        try:
            started = time.perf_counter()
            image = read_image(photo)
        except ImageError:
            continue
        reading.append(time.perf_counter() - started)
        started = time.perf_counter()
        faces = detector.detect(image)
        detection.append(time.perf_counter() - started)
        crops.append(crop_faces(image, faces[:1], recipe))
    # The first photo pays for loading the detector.
    found = [crop for crop in crops if len(crop)]
    if not found:
        return Speeds(_median(reading), _median(detection[1:]), float("nan"), float("nan"))
    one = found[0]
    batch = np.repeat(one, BATCH_SIZE, axis=0)
    return Speeds(
        reading=_median(reading),
        detection=_median(detection[1:]),
        encoding_one=_timed(lambda: encoder.encode(one)),
        encoding_batched=_timed(lambda: encoder.encode(batch)) / BATCH_SIZE,
    )


def _timed(work: Callable[[], object]) -> float:
    """The median of repeated runs after one warm-up, in milliseconds."""
    work()
    seconds = []
    for _ in range(_REPEATS):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return _median(seconds)


def _median(seconds: Sequence[float]) -> float:
    """The median in milliseconds; NaN of nothing."""
    return 1000 * statistics.median(seconds) if seconds else float("nan")
