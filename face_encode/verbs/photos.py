"""Verify, represent and extract: what is most often wanted, as one call each.

:mod:`face_encode.verbs.finding` has the fourth, ``find``.

Photos come in any form that :func:`face_encode.photos.reading.read_photo` takes; to keep addresses
from being fetched, read them with it. Answers are plain dicts with a ``similarity``, higher is
nearer, and a ``distance``, lower is nearer. An encoder is loaded at its first use and kept, and
any number of threads may call at once.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from face_encode.detectors.alignment import crop_faces, crop_whole
from face_encode.detectors.base import Detector
from face_encode.encoders.encoder import Encoder
from face_encode.errors import ImageError
from face_encode.gallery.distances import (
    Metric,
    check_distance_threshold,
    check_metric,
    distances,
    similarity_of,
    threshold_distance,
)
from face_encode.gallery.quantization import unit_length
from face_encode.model import Face_Encode_Model
from face_encode.photos.reading import PhotoInput, place_of, read_photo
from face_encode.pipeline.embedding import NO_FACE
from face_encode.types import BoundingBox, Embeddings, Face, ImageArray, check_count
from face_encode.verbs.cache import kept_encoder


def verify(
    photo_a: PhotoInput,
    photo_b: PhotoInput,
    *,
    encoder: str | os.PathLike[str] | Encoder | None = None,
    detector: str | Detector | None = None,
    metric: Metric = "cosine",
    distance_threshold: float | None = None,
    detect_faces: bool = True,
) -> dict[str, Any]:
    """Say whether two photos show the same person, by the largest face of each.

    Example:
        >>> from face_encode import verify
        >>> verify("verify_dataset/Ada_Mirova/1.jpg", "examples/ada_mirova.jpg")["is_match"]
        True

    Args:
        photo_a: In any form that ``read_photo`` takes.
        photo_b: The same.
        encoder: A known encoder's name, a ``.keras`` file, an encoder, or None for the default.
        detector: A known detector's name, a detector, or None for the default.
        metric: ``"cosine"``, ``"euclidean"`` or ``"euclidean_l2"``.
        distance_threshold: Largest distance of one person's faces by this metric; None takes
            the encoder's own.
        detect_faces: False where the photos are crops of faces already.

    Returns:
        ``is_match``, bool; ``distance``, ``distance_threshold`` and ``similarity``, floats (for
        cosine within -1..1); ``metric``, ``encoder`` and ``detector``, their names; and
        ``bounding_boxes``, two dicts of ``x``, ``y``, ``width`` and ``height``, or Nones.

    Raises:
        ImageError: A photo cannot be read, or there is no face in it.
        InputError: Not such arguments; or Euclidean distances without a threshold, of an
            encoder for which none was measured.
        ModelFileError: No such encoder.
    """
    check_metric(metric)
    model = Face_Encode_Model(kept_encoder(encoder), detector)
    limit = limit_of(model, metric, distance_threshold)
    embedding_a, box_a = _largest(photo_a, "photo a", model, detect_faces)
    embedding_b, box_b = _largest(photo_b, "photo b", model, detect_faces)
    distance = float(distances(embedding_a, embedding_b, metric)[0, 0])
    return {
        "is_match": distance <= limit,
        "distance": distance,
        "distance_threshold": limit,
        "similarity": similarity_of(distance, metric),
        "metric": metric,
        "encoder": model.encoder.name,
        "detector": model.detector.name,
        "bounding_boxes": [box_a, box_b],
    }


def represent(
    photo: PhotoInput,
    *,
    encoder: str | os.PathLike[str] | Encoder | None = None,
    detector: str | Detector | None = None,
    max_faces: int | None = None,
    detect_faces: bool = True,
    normalize: bool = False,
) -> list[dict[str, Any]]:
    """Embed the faces in a photo.

    Args:
        photo: In any form that ``read_photo`` takes.
        encoder: As for ``verify``.
        detector: As for ``verify``.
        max_faces: The largest so many faces; None for all.
        detect_faces: False where the photo is the crop of a face already.
        normalize: Whether to bring the embeddings to length 1.

    Returns:
        A dict for each face, the largest first: ``embedding``, float32 ``(D,)``;
        ``bounding_box``, ``x``, ``y``, ``width`` and ``height`` in pixels; ``score``, the
        detector's confidence. The last two are None without detection. No face gives an empty
        list.

    Raises:
        ImageError: The photo cannot be read.
        InputError: Not such arguments.
        ModelFileError: No such encoder.
    """
    model = Face_Encode_Model(kept_encoder(encoder), detector)
    embeddings, faces = embed_faces(read_photo(photo), model, max_faces, detect_faces)
    if normalize:
        embeddings = unit_length(embeddings)
    return [
        {
            "embedding": embedding,
            "bounding_box": _box_of(face),
            "score": None if face is None else face.score,
        }
        for embedding, face in zip(embeddings, faces, strict=True)
    ]


def extract_faces(
    photo: PhotoInput,
    *,
    encoder: str | os.PathLike[str] | Encoder | None = None,
    detector: str | Detector | None = None,
    max_faces: int | None = None,
) -> list[dict[str, Any]]:
    """Cut the faces out of a photo, just as an encoder takes them.

    Args:
        photo: In any form that ``read_photo`` takes.
        encoder: Whose crops: size, margin and alignment are its own. As for ``verify``.
        detector: As for ``verify``.
        max_faces: The largest so many faces; None for all.

    Returns:
        A dict for each face, the largest first: ``face``, RGB, uint8 ``(height, width, 3)``;
        ``bounding_box``, ``x``, ``y``, ``width`` and ``height`` in pixels of the photo;
        ``score``, the detector's confidence; ``landmarks``, float32 ``(5, 2)``, or None where
        the detector gives none. No face gives an empty list.

    Raises:
        ImageError: The photo cannot be read.
        InputError: Not such arguments.
        ModelFileError: No such encoder.
    """
    model = Face_Encode_Model(kept_encoder(encoder), detector)
    image = read_photo(photo)
    faces = _detect(image, model, max_faces)
    crops = crop_faces(image, faces, model.encoder.contract.crop)
    return [
        {
            "face": crop,
            "bounding_box": _box_of(face),
            "score": face.score,
            "landmarks": face.landmarks,
        }
        for crop, face in zip(crops, faces, strict=True)
    ]


def _largest(
    photo: PhotoInput, label: str, model: Face_Encode_Model, detect_faces: bool
) -> tuple[Embeddings, BoundingBox | None]:
    """Embedding, ``(1, D)``, and box of the largest face of a photo, which has to have one."""
    embeddings, faces = embed_faces(read_photo(photo), model, 1, detect_faces)
    if not faces:
        raise ImageError(f"{place_of(photo) or label}: {NO_FACE}")
    return embeddings, _box_of(faces[0])


def _detect(image: ImageArray, model: Face_Encode_Model, max_faces: int | None) -> list[Face]:
    """The largest faces of a photo."""
    most = None if max_faces is None else check_count(max_faces, "max_faces")
    return model.detector.detect(image)[:most]


def embed_faces(
    image: ImageArray, model: Face_Encode_Model, max_faces: int | None, detect_faces: bool
) -> tuple[Embeddings, Sequence[Face | None]]:
    """Embed the faces of a photo.

    Args:
        image: RGB, uint8, ``(H, W, 3)``.
        model: Its detector and encoder are used.
        max_faces: The largest so many; None for all.
        detect_faces: False where the photo is the crop of a face already.

    Returns:
        float32 ``(n, D)``, and n faces, the largest first; without detection the one is None.

    Raises:
        InputError: Fewer than one face asked for.
    """
    recipe = model.encoder.contract.crop
    if not detect_faces:
        return model.encoder.encode(crop_whole(image, recipe)[np.newaxis]), [None]
    faces = _detect(image, model, max_faces)
    return model.encoder.encode(crop_faces(image, faces, recipe)), faces


def _box_of(face: Face | None) -> BoundingBox | None:
    """The box as a plain dict."""
    return None if face is None else face.box.as_dict()


def limit_of(model: Face_Encode_Model, metric: Metric, distance_threshold: float | None) -> float:
    """The largest distance of one person's faces: the one given, or the model's.

    Args:
        model: Its threshold minds how many are enrolled, where the gallery was calibrated.
        metric: By which the distance is measured.
        distance_threshold: The one given, if any.

    Raises:
        InputError: Out of range, or none given where none was measured.
    """
    if distance_threshold is not None:
        return check_distance_threshold(distance_threshold)
    contract = model.encoder.contract
    return threshold_distance(metric, model.threshold, contract.euclidean_threshold, contract.name)
