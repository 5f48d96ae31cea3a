"""How long one photo takes, by its parts."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from face_encode.detectors.alignment import crop_faces
from face_encode.detectors.base import Detector
from face_encode.encoders.encoder import BATCH_SIZE, Encoder
from face_encode.errors import ImageError
from face_encode.photos.reading import read_image

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
