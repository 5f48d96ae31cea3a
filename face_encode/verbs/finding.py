"""Find: the enrolled photos that show the people in a photo, as a table."""

from __future__ import annotations

import importlib.util
import os
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from face_encode.detectors.base import Detector
from face_encode.encoders.encoder import Encoder
from face_encode.errors import MissingExtraError
from face_encode.gallery.base import Gallery
from face_encode.gallery.distances import Metric, check_metric, distances, similarity_of
from face_encode.model import Face_Encode_Model
from face_encode.photos.reading import PhotoInput, read_photo
from face_encode.types import Box, check_count
from face_encode.verbs.cache import Searched, searched_people
from face_encode.verbs.photos import embed_faces, limit_of

if TYPE_CHECKING:
    import pandas

# What ``find`` tells of a face and an enrolled photo that is near it.
FIND_COLUMNS = (
    "face",
    "name",
    "photo",
    "similarity",
    "distance",
    "distance_threshold",
    "x",
    "y",
    "width",
    "height",
)


def find(
    photo: PhotoInput,
    people: str | os.PathLike[str] | Gallery | Face_Encode_Model,
    *,
    encoder: str | os.PathLike[str] | Encoder | None = None,
    detector: str | Detector | None = None,
    metric: Metric = "cosine",
    distance_threshold: float | None = None,
    max_faces: int | None = None,
    k: int | None = None,
    detect_faces: bool = True,
    as_frame: bool | None = None,
) -> pandas.DataFrame | list[dict[str, Any]]:
    """Find the enrolled photos that show the people in a photo.

    Args:
        photo: In any form that ``read_photo`` takes.
        people: A folder with one sub-folder a person, enrolled at the first call, and again
            only when something in it has changed; the name of a gallery, an ``.npz`` file or one
            in Milvus (all of which is read for each call); a gallery; or a model with people
            enrolled.
        encoder: As for ``verify``; with a model the model's own.
        detector: The same.
        metric: As for ``verify``.
        distance_threshold: As for ``verify``; None takes the gallery's, where that was
            calibrated, else the encoder's own.
        max_faces: The largest so many faces of the photo; None for all.
        k: The nearest so many enrolled photos for each face; None for all that are near enough.
        detect_faces: False where the photo is the crop of a face already.
        as_frame: True for a pandas DataFrame, False for a list of dicts; None for a DataFrame
            where pandas is installed.

    Returns:
        A row for each face and each enrolled photo within the threshold, by face, the largest
        first, then the nearest first. ``face`` counts the photo's faces from 0; ``name`` is the
        person, ``photo`` the enrolled photo's path, or None where it is not known;
        ``similarity``, ``distance`` and ``distance_threshold`` are those of ``verify``; ``x``,
        ``y``, ``width`` and ``height`` are the face's box in the photo, in pixels. A face that
        nobody is near to has no row.

    Raises:
        ImageError: The photo cannot be read. One without a face gives no row.
        InputError: Not such arguments.
        DatasetError: The folder holds no people, or none of its photos can be enrolled. A photo
            that cannot be used among others that can is told by a warning.
        GalleryError: The gallery cannot be read, or is empty.
        WrongEncoderError: Another encoder filled it.
        MissingExtraError: A DataFrame was asked for, and pandas is not installed.
    """
    check_metric(metric)
    most = None if k is None else check_count(k, "k")
    framed = _frame_wanted(as_frame)
    model, enrolled = searched_people(people, encoder, detector)
    limit = limit_of(model, metric, distance_threshold)
    image = read_photo(photo)
    embeddings, faces = embed_faces(image, model, max_faces, detect_faces)
    whole = Box(0, 0, image.shape[1], image.shape[0])
    rows: list[dict[str, Any]] = []
    apart = distances(embeddings, enrolled.embeddings, metric)
    for number, (row, face) in enumerate(zip(apart, faces, strict=True)):
        box = whole if face is None else face.box
        for index in _nearest(row, limit, most):
            rows.append(_found(number, enrolled, index, float(row[index]), limit, metric, box))
    if not framed:
        return rows
    import pandas

    return pandas.DataFrame(rows, columns=list(FIND_COLUMNS))


def _nearest(row: npt.NDArray[np.float64], limit: float, most: int | None) -> list[int]:
    """Which enrolled photos are near enough, the nearest first."""
    near = np.flatnonzero(row <= limit)
    order = near[np.argsort(row[near], kind="stable")]
    return [int(index) for index in order[:most]]


def _found(
    number: int,
    enrolled: Searched,
    index: int,
    distance: float,
    limit: float,
    metric: Metric,
    box: Box,
) -> dict[str, Any]:
    """A row of what ``find`` gives, in the order of ``FIND_COLUMNS``."""
    return {
        "face": number,
        "name": enrolled.names[index],
        "photo": enrolled.photos[index],
        "similarity": similarity_of(distance, metric),
        "distance": distance,
        "distance_threshold": limit,
        **box.as_dict(),
    }


def _frame_wanted(as_frame: bool | None) -> bool:
    """Whether to give a DataFrame.

    Raises:
        MissingExtraError: One was asked for, and pandas is not installed.
    """
    installed = importlib.util.find_spec("pandas") is not None
    if as_frame and not installed:
        raise MissingExtraError(
            'a DataFrame takes pandas, which is not installed: pip install "face_encode[pandas]"'
        )
    return installed if as_frame is None else as_frame
