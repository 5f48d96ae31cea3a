"""Verify, represent and extract: what is most often wanted, as one call each.

:mod:`face_encode.functions` has the fourth, ``find``.

Photos come in any form that :func:`face_encode.photos.reading.read_photo` takes; to keep addresses
from being fetched, read them with it. Answers are plain dicts with a ``similarity``, higher is
nearer, and a ``distance``, lower is nearer. An encoder is loaded at its first use and kept, and
any number of threads may call at once.
"""

from __future__ import annotations

import importlib.util
import os
import threading
import warnings
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from face_encode.detectors.alignment import crop_faces, crop_whole
from face_encode.detectors.base import Detector
from face_encode.encoders.encoder import Encoder
from face_encode.encoders.registry import DEFAULT_ENCODER, encoder_names, load_encoder
from face_encode.errors import GalleryError, ImageError, InputError, MissingExtraError
from face_encode.files import as_path
from face_encode.gallery.base import Gallery, check_encoder
from face_encode.gallery.distances import (
    Metric,
    check_distance_threshold,
    check_metric,
    distances,
    similarity_of,
    threshold_distance,
)
from face_encode.gallery.memory import MemoryGallery
from face_encode.gallery.milvus import MilvusGallery
from face_encode.gallery.opening import names_gallery, open_gallery
from face_encode.gallery.quantization import unit_length
from face_encode.model import Face_Encode_Model
from face_encode.photos.folders import people_in
from face_encode.photos.reading import PhotoInput, content_digest, place_of, read_photo
from face_encode.pipeline.embedding import NO_FACE
from face_encode.pipeline.enrolment import enrol_people
from face_encode.types import (
    BoundingBox,
    Box,
    Embeddings,
    EnrolmentReport,
    Face,
    ImageArray,
    check_count,
)

if TYPE_CHECKING:
    import pandas

# An encoder may take half a gigabyte: the ones used last are enough.
_MOST_ENCODERS = 4
_MOST_FOLDERS = 4

_Signature: TypeAlias = "tuple[int, int] | None"


@dataclass(frozen=True, eq=False)
class Searched:
    """The people that are searched, as they are at this moment.

    Attributes:
        names: n names.
        embeddings: float32 ``(n, D)``.
        photos: n paths, None where a photo's is not known.
    """

    names: Sequence[str]
    embeddings: Embeddings
    photos: Sequence[str | None]


class _Folder:
    """A folder of people and the gallery that holds it."""

    def __init__(self, encoder: Encoder) -> None:
        self.lock = threading.Lock()
        self.gallery = MemoryGallery(encoder)
        self.seen: object = None
        self.searched = Searched([], self.gallery.embeddings, [])


_encoders: OrderedDict[str, tuple[_Signature, Encoder]] = OrderedDict()
_encoders_lock = threading.Lock()
_folders: OrderedDict[tuple[str, str, str], _Folder] = OrderedDict()
_folders_lock = threading.Lock()


def kept_encoder(encoder: str | os.PathLike[str] | Encoder | None) -> Encoder:
    """An encoder, loaded where it is not loaded yet, or where its file has changed since.

    Raises:
        ModelFileError: No such encoder.
        WeightsError: Its weights are missing or damaged.
    """
    if isinstance(encoder, Encoder):
        return encoder
    chosen = DEFAULT_ENCODER if encoder is None else encoder
    # What is neither is refused by load_encoder, with the words for it.
    name = chosen if isinstance(chosen, str) else os.fspath(as_path(chosen))
    signature = None
    if name not in encoder_names():
        name = os.path.realpath(name)
        signature = _signature(name)
    with _encoders_lock:
        former, known = _encoders.get(name, (None, None))
        if known is None or former != signature:
            known = load_encoder(chosen)
            _encoders[name] = (signature, known)
        _encoders.move_to_end(name)
        while len(_encoders) > _MOST_ENCODERS:
            _encoders.popitem(last=False)
        return known


def searched_people(
    people: str | os.PathLike[str] | Gallery | Face_Encode_Model,
    encoder: str | os.PathLike[str] | Encoder | None,
    detector: str | Detector | None,
) -> tuple[Face_Encode_Model, Searched]:
    """A model and the people that it is to find, wherever they are.

    Args:
        people: A folder, the name of a gallery that is kept somewhere, a gallery or a model.
        encoder: As for ``kept_encoder``.
        detector: As for ``Face_Encode_Model``.

    Raises:
        InputError: None of these, or a model together with an encoder or detector.
        DatasetError: The folder holds no people, or none of its photos can be enrolled.
        GalleryError: The gallery cannot be read, or is empty.
        WrongEncoderError: Another encoder filled it.
    """
    if isinstance(people, Face_Encode_Model):
        if encoder is not None or detector is not None:
            raise InputError("a model brings its own encoder and detector: give it alone")
        return people, _contents(people.gallery)
    model = Face_Encode_Model(kept_encoder(encoder), detector)
    if isinstance(people, (MemoryGallery, MilvusGallery)):
        name, fingerprint = people.encoder_name, people.encoder_fingerprint
        check_encoder("the gallery", name, fingerprint, model.encoder)
        model.gallery = people
        return model, _contents(people)
    # What is neither is refused by as_path, with the words for it.
    place: Any = people
    path = as_path(place)
    if names_gallery(place):
        model.gallery = open_gallery(place, encoder=model.encoder, metric=None, create=False)
        # What is searched is read once: another program may then open a .db folder.
        with closing(model.gallery):
            return model, _contents(model.gallery)
    return model, _folder_people(path, model)


def _contents(gallery: Gallery) -> Searched:
    """What a gallery holds; it knows of no paths."""
    held = gallery.copy()
    if not len(held):
        raise GalleryError("nobody is enrolled in this gallery")
    names = held.names.tolist()
    return Searched(names, held.embeddings, [None] * len(names))


def _folder_people(path: Path, model: Face_Encode_Model) -> Searched:
    """The people of a folder, enrolled as far as something has changed."""
    people = people_in(path)
    key = (os.path.realpath(path), model.encoder.fingerprint, model.detector.name)
    with _folders_lock:
        folder = _folders.setdefault(key, _Folder(model.encoder))
        _folders.move_to_end(key)
        while len(_folders) > _MOST_FOLDERS:
            _folders.popitem(last=False)
    with folder.lock:
        seen = {str(photo): _signature(photo) for photos in people.values() for photo in photos}
        if seen != folder.seen:
            report = enrol_people(
                people, folder.gallery, model.detector, model.encoder, progress=False
            )
            _warn(report, path)
            folder.searched = _with_paths(folder.gallery, people)
            folder.seen = seen
        return folder.searched


def _with_paths(gallery: MemoryGallery, people: Mapping[str, Sequence[Path]]) -> Searched:
    """What a gallery holds, with the paths of the photos that it was filled from."""
    path_of: dict[tuple[str, str], str] = {}
    for name, photos in people.items():
        for photo in photos:
            try:
                path_of.setdefault((name, content_digest(photo)), str(photo))
            except ImageError:
                continue  # it is not enrolled either
    names = gallery.names.tolist()
    keys = zip(names, gallery.digests.tolist(), strict=True)
    return Searched(names, gallery.embeddings, [path_of.get(key) for key in keys])


def _warn(report: EnrolmentReport, path: Path) -> None:
    """Tell of photos that were left out."""
    if report.left_out:
        first = report.left_out[0]
        warnings.warn(
            f"{len(report.left_out)} photos in {path} cannot be enrolled; the first: "
            f"{first.photo}: {first.reason}",
            stacklevel=5,
        )


def _signature(path: str | os.PathLike[str]) -> _Signature:
    """Size and time of change of a file; None where it cannot be looked at."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    return found.st_size, found.st_mtime_ns


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
