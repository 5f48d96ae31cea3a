"""Verify, find, represent, extract and analyze: the most common tasks, one call each.

Photos come in any form that ``face_encode.photos.reading.read_photo`` takes; to keep addresses
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
from collections.abc import Callable, Hashable, Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

import numpy as np

from face_encode.attributes.network import (
    DEFAULT_ATTRIBUTES,
    AttributeNetwork,
    load_attributes,
)
from face_encode.detectors.alignment import crop_faces
from face_encode.detectors.base import Detector
from face_encode.detectors.registry import as_detector
from face_encode.encoders.encoder import Encoder
from face_encode.encoders.engines import AUTOMATIC
from face_encode.encoders.registry import (
    CHOICES,
    DEFAULT_ENCODER,
    KNOWN_ENCODERS,
    detector_for,
    load_encoder,
)
from face_encode.errors import DatasetError, GalleryError, ImageError, InputError, MissingExtraError
from face_encode.files import as_path
from face_encode.gallery.base import Gallery, check_encoder, folded_name
from face_encode.gallery.database import DatabaseGallery
from face_encode.gallery.database_file import is_database
from face_encode.gallery.distances import (
    Metric,
    check_metric,
    distances,
    similarity_of,
    threshold_distance,
    unit_length,
)
from face_encode.gallery.memory import MemoryGallery
from face_encode.gallery.milvus import MilvusGallery
from face_encode.gallery.opening import names_gallery, open_gallery
from face_encode.liveness.judging import default_judge
from face_encode.model import (
    Face_Encode_Model,
    both_judged,
    box_of,
    compared_faces,
    nearest_faces,
    warn_untrusted,
)
from face_encode.photos.folders import PeopleFolder, list_people, no_photo_below, photos_below
from face_encode.photos.reading import (
    PhotoInput,
    content_digest,
    is_one_photo,
    local_photo,
    read_photo,
    shown_name,
)
from face_encode.pipeline.analysis import AnalyzedPhoto, analyze_photos
from face_encode.pipeline.enrolment import enrol_people, with_listing
from face_encode.terminal import with_progress
from face_encode.types import Embeddings, Photo, check_count, check_counts

if TYPE_CHECKING:
    import pandas

Value = TypeVar("Value")

# The columns of ``find``: a face, and an enrolled photo that is near it.
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
    "quality",
)


class _Recent(Generic[Value]):
    """The values used last, each made once for any number of threads."""

    def __init__(self, most: int) -> None:
        self._most, self._lock = most, threading.Lock()
        self._values: OrderedDict[Hashable, tuple[threading.Lock, list[Value]]] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], Value]) -> Value:
        """The value of a key, made where there is none."""
        with self._lock:
            making, made = own = self._values.setdefault(key, (threading.Lock(), []))
        # Who asks for another value does not wait for this one, which may be downloaded first.
        with making:
            if not made:
                try:
                    made.append(make())
                except BaseException:
                    with self._lock:
                        self._values.pop(key, None)
                    raise
        with self._lock:
            self._values[key] = own
            self._values.move_to_end(key)
            for old in [each for each, (_, made) in self._values.items() if made][: -self._most]:
                del self._values[old]
        return own[1][0]

    def renew(self) -> list[Value]:
        """Begin with new locks, in a forked process; gives the values."""
        self._lock = threading.Lock()
        for key, (_, made) in list(self._values.items()):
            self._values[key] = threading.Lock(), made
        return [made[0] for _, made in self._values.values() if made]


def _state_of(path: str) -> tuple[int, int, int]:
    """What differs where a file's content has changed, or (not on Windows) who may read it."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return (-1, -1, -1)
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns


class _Enrolled(NamedTuple):
    """The people that are searched, at one moment: n names and embeddings, and a row's photo."""

    names: Sequence[str]
    embeddings: Embeddings
    photo_of: Callable[[int], str | None] = lambda row: None


class _Folder:
    """A folder of people and the gallery that holds it."""

    def __init__(self, encoder: Encoder) -> None:
        self._lock, self._states = threading.Lock(), dict[str, Any]()
        self._gallery = MemoryGallery(encoder)
        self._enrolled = _Enrolled([], self._gallery.embeddings)

    def renew(self) -> None:
        """Begin with a new lock; see ``_Recent.renew``."""
        self._lock = threading.Lock()

    def enrolled(self, listed: PeopleFolder, path: Path, model: Face_Encode_Model) -> _Enrolled:
        """The people in it, enrolled as far as something has changed."""
        people = listed.people
        photos = [(name, str(photo)) for name, of_one in people.items() for photo in of_one]
        with self._lock:
            states = {photo: _state_of(photo) for _, photo in photos}
            if states == self._states:
                return self._enrolled
            report = enrol_people(
                people, self._gallery, model.detector, model.encoder, progress=False
            )
            report = with_listing(report, listed)
            if report.left_out:
                first = report.left_out[0]
                warnings.warn(
                    f"{len(report.left_out)} photos in {path} are left out; the first: "
                    f"{first.photo}: {first.reason}",
                    stacklevel=4,
                )
            # By the folded name: folders whose names differ in case are one person.
            path_of: dict[tuple[str, str], str] = {}
            for name, photo in photos:
                try:
                    path_of.setdefault((folded_name(name), content_digest(photo)), photo)
                except ImageError:
                    continue  # it is not enrolled either
            names = self._gallery.names.tolist()
            paths = [
                path_of.get((folded_name(name), digest))
                for name, digest in zip(names, self._gallery.digests.tolist(), strict=True)
            ]
            self._enrolled = _Enrolled(names, self._gallery.embeddings, paths.__getitem__)
            self._states = states
            return self._enrolled


# An encoder may take half a gigabyte.
_encoders = _Recent[Encoder](4)
_folders = _Recent[_Folder](4)
_attributes = _Recent[AttributeNetwork](4)
_databases = _Recent[DatabaseGallery](4)


def _renew_locks() -> None:
    """Release the locks in a forked process: none of the threads that held some goes on there."""
    for folder in _folders.renew():
        folder.renew()
    for recent in (_encoders, _attributes, _databases):
        recent.renew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_locks)


def loaded_encoder(encoder: str | os.PathLike[str] | Encoder | None) -> Encoder:
    """An encoder, loaded at its first use, and again where its file has changed since.

    Raises:
        ModelFileError: No such encoder.
        WeightsError: Its weights are missing or damaged.
    """
    if isinstance(encoder, Encoder):
        return encoder
    chosen = DEFAULT_ENCODER if encoder is None else encoder
    # What is neither is refused by load_encoder, with the words for it.
    name = chosen if isinstance(chosen, str) else os.fspath(as_path(chosen))
    engine = AUTOMATIC
    if name in CHOICES:
        engine, chosen = CHOICES[name].engine, CHOICES[name].encoder
        name = chosen
    if name in KNOWN_ENCODERS:
        return _encoders.get((name, engine), lambda: load_encoder(chosen, engine=engine))
    path = os.path.realpath(name)
    return _encoders.get((path, _state_of(path)), lambda: load_encoder(chosen))


def _opened(
    encoder: str | os.PathLike[str] | Encoder | None, detector: str | Detector | None
) -> Face_Encode_Model:
    """A model of an encoder that may be loaded already."""
    return Face_Encode_Model(loaded_encoder(encoder), detector_for(encoder, detector))


def _searched(
    people: str | os.PathLike[str] | Gallery | Face_Encode_Model,
    encoder: str | os.PathLike[str] | Encoder | None,
    detector: str | Detector | None,
) -> tuple[Face_Encode_Model, _Enrolled]:
    """A model and the people that it is to find, wherever they are; see ``find``."""
    if isinstance(people, Face_Encode_Model):
        if encoder is not None or detector is not None:
            raise InputError("a model brings its own encoder and detector: give it alone")
        return people, _held_by(people.gallery)
    model = _opened(encoder, detector)
    if isinstance(people, (MemoryGallery, MilvusGallery, DatabaseGallery)):
        name, fingerprint = people.encoder_name, people.encoder_fingerprint
        check_encoder("the gallery", name, fingerprint, model.encoder)
        model.gallery = people
        return model, _held_by(people)
    # What is neither is refused by as_path, with the words for it.
    source: Any = people
    path = as_path(source)
    if is_database(path):
        # Kept open: it is as fresh as its file, also where another file takes its place.
        number = os.stat(path).st_ino if os.path.exists(path) else 0
        model.gallery = _databases.get(
            (os.path.realpath(path), number, model.encoder.fingerprint),
            lambda: DatabaseGallery(path, model.encoder, create=False, metric=None),
        )
        return model, _held_by(model.gallery)
    if names_gallery(source):
        gallery = open_gallery(source, encoder=model.encoder, metric=None, create=False)
        if gallery.is_shared:
            # Read once and closed: another program may then open a .db folder.
            with closing(gallery):
                gallery = MemoryGallery.from_rows(gallery.rows(), model.encoder)
        model.gallery = gallery
        return model, _held_by(gallery)
    key = (os.path.realpath(path), model.encoder.fingerprint, model.detector.name)
    # Before a folder takes a place among those enrolled: a wrong name takes none.
    listed = list_people(path)
    folder = _folders.get(key, lambda: _Folder(model.encoder))
    return model, folder.enrolled(listed, path, model)


def _held_by(gallery: Gallery) -> _Enrolled:
    """The people in a gallery; only a database knows of paths."""
    if not isinstance(gallery, DatabaseGallery):
        held = gallery.rows()
        enrolled = _Enrolled(held.names.tolist(), held.embeddings)
    else:
        snapshot = gallery.snapshot()
        enrolled = _Enrolled(
            snapshot.enrolled.names.tolist(),
            snapshot.enrolled.embeddings,
            lambda row: gallery.source(int(snapshot.ids[row])),
        )
    if not enrolled.names:
        raise GalleryError("nobody is enrolled in this gallery")
    return enrolled


def verify(
    photo_a: PhotoInput,
    photo_b: PhotoInput,
    *,
    encoder: str | os.PathLike[str] | Encoder | None = None,
    detector: str | Detector | None = None,
    metric: Metric = "cosine",
    distance_threshold: float | None = None,
    detect_faces: bool = True,
    liveness: bool = False,
) -> dict[str, Any]:
    """Decide whether two photos show the same person, by the two faces that are most alike.

    Of photos with several faces each is compared with each; a match then says that somebody is on
    both. Comparing n faces passes strangers n times as often as comparing one.

    Examples:
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
        liveness: Whether to judge if each face is alive, or a photo or a screen that somebody
            holds up; what is not alive is never a match.

    Returns:
        ``is_match``, bool; ``distance``, ``distance_threshold`` and ``similarity``, floats (for
        cosine within -1..1); ``metric``, ``encoder`` and ``detector``, their names; and
        ``bounding_boxes``, two dicts of ``x``, ``y``, ``width`` and ``height``, or Nones;
        ``faces``, how many faces each photo has, and ``compared``, the number of the one in each,
        0 for the largest, that is told of here; ``qualities``, how far each embedding can be
        trusted, 0..1, and ``quality_reasons``, why one cannot, which is never a match; Nones for
        an encoder that does not judge. If asked for, ``liveness``, two floats within 0..1, and
        ``is_live``, two bools.

    Raises:
        ImageError: A photo cannot be read, or there is no face in it.
        InputError: Not such arguments; or Euclidean distances without a threshold, of an
            encoder for which none was measured.
        ModelFileError: No such encoder.
    """
    check_metric(metric)
    model = _opened(encoder, detector)
    limit = model._distance_threshold(metric, distance_threshold)
    embeddings_a, faces_a = model._embed_some(photo_a, "photo a", detect_faces, liveness=liveness)
    embeddings_b, faces_b = model._embed_some(photo_b, "photo b", detect_faces, liveness=liveness)
    a, b = nearest_faces((embeddings_a, embeddings_b), (faces_a, faces_b), metric)
    distance = float(distances(embeddings_a[[a]], embeddings_b[[b]], metric)[0, 0])
    faces = (faces_a[a], faces_b[b])
    return {
        "is_match": distance <= limit and all(face.is_trusted for face in faces),
        "distance": distance,
        "distance_threshold": limit,
        "similarity": similarity_of(distance, metric),
        "metric": metric,
        "encoder": model.encoder.name,
        "detector": model.detector.name,
        "bounding_boxes": [box_of(face, detect_faces) for face in faces],
        **compared_faces((a, b), (len(faces_a), len(faces_b))),
        **both_judged(faces),
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
        max_faces: At most this many faces, largest first; None for all.
        detect_faces: False where the photo is the crop of a face already.
        normalize: Whether to bring the embeddings to length 1.

    Returns:
        A dict for each face, the largest first: ``embedding``, a list of D floats, so that the
        answer goes through ``json.dumps`` (``numpy.asarray`` makes an array of it);
        ``bounding_box``, ``x``, ``y``, ``width`` and ``height`` in pixels; ``score``, the
        detector's confidence, both None without detection; ``quality``, 0..1, how far the
        embedding can be trusted, and ``quality_reason``, why it cannot be compared with others',
        both None for an encoder that does not judge. No face gives an empty list.

    Raises:
        ImageError: The photo cannot be read.
        InputError: Not such arguments.
        ModelFileError: No such encoder.
    """
    model = _opened(encoder, detector)
    embeddings, faces = model._embed(read_photo(photo), max_faces, detect_faces)
    if normalize:
        embeddings = unit_length(embeddings)
    return [
        {
            "embedding": embedding.tolist(),
            "bounding_box": box_of(face, detect_faces),
            "score": face.score if detect_faces else None,
            **face.judgement(),
        }
        for embedding, face in zip(embeddings, faces, strict=True)
    ]


def analyze(
    photos: PhotoInput | Sequence[PhotoInput],
    *,
    attributes: str | os.PathLike[str] | AttributeNetwork | None = None,
    detector: str | Detector | None = None,
    max_faces: int | None = None,
    liveness: bool = False,
    progress: bool = True,
    workers: int | None = None,
    batch_size: int | None = None,
) -> list[dict[str, Any]]:
    """Tell how old the people in photos look, their gender and their expression.

    These are guesses from looks, with the chance that they are right: see docs/attributes.md for
    how good they are for whom, and for what they must not be used.

    Args:
        photos: One photo in any form that ``read_photo`` takes; a folder, whose photos are taken
            with those in folders below it; or a list of these.
        attributes: The network, as ``load_attributes`` takes it, or an open one; None for the one
            that comes with this package.
        detector: As for ``verify``.
        max_faces: At most this many faces of each photo, largest first; None for all.
        liveness: Whether to judge if each face is alive, as for ``verify``.
        progress: Whether to show a progress bar, where there are several photos.
        workers: Processes that read photos and find faces; None chooses.
        batch_size: Faces that go through the network together; None chooses.

    Returns:
        A dict for each photo: ``photo``, its path, or ``"array"``; ``error``, why it cannot be
        read, or None; ``notes``, a list of remarks, as on a file that lacks its end; and
        ``faces``, a dict for each face, the largest first: ``bounding_box``,
        ``x``, ``y``, ``width`` and ``height`` in pixels; ``age``, years; ``age_interval``, a list
        of two ages between which nine in ten people of such a look are; ``gender``, ``"woman"``,
        ``"man"`` or ``"uncertain"``; ``expression``, one of ``angry``, ``disgust``, ``fear``,
        ``happy``, ``sad``, ``surprise``, ``neutral``; ``gender_probabilities`` and
        ``expression_probabilities``, dicts of name -> 0..1;
        ``quality``, 0..1, how far all this can be trusted; ``quality_reason``, why it cannot, and
        then all the others are None; else None; if asked for, ``liveness``, 0..1, and ``is_live``,
        which change nothing in the others. A photo without a face has an empty list.

    Raises:
        InputError: Not such arguments.
        DatasetError: The folder, and nothing else, was given, and cannot be read or holds no
            photo. Beside others such a folder is a dict with an ``error``.
        ModelFileError: No such network.
        WeightsError: The weights of the judge of liveness cannot be downloaded.
    """
    check_counts(max_faces=max_faces, workers=workers, batch_size=batch_size)
    network = loaded_attributes(attributes)
    finder = as_detector(detector)
    several: list[Any] = [photos]
    if isinstance(photos, Iterable) and not is_one_photo(photos):
        several = list(photos)
    local: list[Photo] = []
    unread: dict[int, AnalyzedPhoto] = {}
    for given in several:
        if isinstance(given, str | os.PathLike) and os.path.isdir(given):
            try:
                inside, unlisted = photos_below(given)
                if not inside:
                    raise no_photo_below(given, unlisted)
            except DatasetError as error:
                if len(several) == 1:
                    raise
                name = os.fspath(given)
                why = str(error).removeprefix(f"{name}: ")
                unread[len(local) + len(unread)] = AnalyzedPhoto(name, (), (), (0, 0), why)
                continue
            local += [os.path.join(given, name) for name in inside]
            for folder, reason in unlisted:
                name, why = os.path.join(given, folder), f"a folder that cannot be listed: {reason}"
                unread[len(local) + len(unread)] = AnalyzedPhoto(name, (), (), (0, 0), why)
            continue
        try:
            local.append(local_photo(given))
        except ImageError as error:
            name = shown_name(given) or "array"
            unread[len(local) + len(unread)] = AnalyzedPhoto(name, (), (), (0, 0), str(error))
    found = analyze_photos(
        local,
        finder,
        network,
        max_faces=max_faces,
        workers=workers,
        batch_size=batch_size,
        judge=default_judge() if liveness else None,
    )
    shown = with_progress(found, len(local), "Analyzing", show=progress and len(local) > 1)
    results = [photo.as_dict() for photo in shown]
    for place, photo in unread.items():
        results.insert(place, photo.as_dict())
    return results


def loaded_attributes(
    attributes: str | os.PathLike[str] | AttributeNetwork | None,
) -> AttributeNetwork:
    """A network of attributes, loaded at its first use, and again where its file has changed.

    Raises:
        ModelFileError: No such network.
    """
    if isinstance(attributes, AttributeNetwork):
        return attributes
    if attributes is None or attributes == DEFAULT_ATTRIBUTES:
        return _attributes.get(DEFAULT_ATTRIBUTES, load_attributes)
    path = os.path.realpath(as_path(attributes))
    return _attributes.get((path, _state_of(path)), lambda: load_attributes(attributes))


def extract_faces(
    photo: PhotoInput,
    *,
    encoder: str | os.PathLike[str] | Encoder | None = None,
    detector: str | Detector | None = None,
    max_faces: int | None = None,
    liveness: bool = False,
) -> list[dict[str, Any]]:
    """Cut the faces out of a photo, just as an encoder takes them.

    Args:
        photo: In any form that ``read_photo`` takes.
        encoder: Whose crops: size, margin and alignment are its own; of several encoders as one,
            those of the first. As for ``verify``.
        detector: As for ``verify``.
        max_faces: At most this many faces, largest first; None for all.
        liveness: Whether to judge if each face is alive, as for ``verify``.

    Returns:
        A dict for each face, the largest first: ``face``, RGB, uint8 ``(height, width, 3)``;
        ``bounding_box``, ``x``, ``y``, ``width`` and ``height`` in pixels of the photo;
        ``score``, the detector's confidence; ``landmarks``, float32 ``(5, 2)``, or None where
        the detector gives none; ``rotation``, how far the photo has to be turned clockwise for the
        face to stand upright, degrees; if asked for, ``liveness``, 0..1, and ``is_live``. No face
        gives an empty list.

    Raises:
        ImageError: The photo cannot be read.
        InputError: Not such arguments.
        ModelFileError: No such encoder.
    """
    model = _opened(encoder, detector)
    image = read_photo(photo)
    faces = model._detect(image, max_faces)
    if liveness:
        faces = model.liveness_judge.judge_in(image, faces)
    recipe = model.encoder.contract.crop
    crops = recipe.first_of(crop_faces(image, faces, recipe))
    return [
        {
            "face": crop,
            "bounding_box": face.box.as_dict(),
            "score": face.score,
            "landmarks": face.landmarks,
            "rotation": face.rotation,
            **(face.liveness.as_dict() if face.liveness else {}),
        }
        for crop, face in zip(crops, faces, strict=True)
    ]


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
            only when something in it has changed; the name of a gallery, a ``.sqlite`` file (which
            stays open), an ``.npz`` file or one in Milvus (all of which is read for each call); a
            gallery; or a model with people enrolled.
        encoder: As for ``verify``; with a model the model's own.
        detector: The same.
        metric: As for ``verify``.
        distance_threshold: As for ``verify``; None takes a person's own, where the gallery has
            one, then the gallery's, where that was calibrated, else the encoder's own.
        max_faces: At most this many faces of the photo, largest first; None for all.
        k: At most this many enrolled photos for each face, nearest first; None for all that are
            near enough.
        detect_faces: False where the photo is the crop of a face already.
        as_frame: True for a pandas DataFrame, False for a list of dicts; None for a DataFrame
            where pandas is installed.

    Returns:
        A row for each face and each enrolled photo within the threshold, by face, the largest
        first, then the nearest first. ``face`` counts the photo's faces from 0; ``name`` is the
        person, ``photo`` the enrolled photo's path, or None where it is not known;
        ``similarity``, ``distance`` and ``distance_threshold`` are those of ``verify``; ``x``,
        ``y``, ``width`` and ``height`` are the face's box in the photo, in pixels; ``quality`` is
        how far the face can be trusted, 0..1, or None for an encoder that does not judge. A face
        that nobody is near to has no row, and neither has one that cannot be trusted: that is
        the matter of a warning, with the reason.

    Raises:
        ImageError: The photo cannot be read. One without a face gives no row.
        InputError: Not such arguments; or raw Euclidean distances without a threshold, where a
            person has a threshold of the person's own, a cosine similarity.
        DatasetError: The folder holds no people, or none of its photos can be enrolled. Photos
            that cannot be used beside others that can are the matter of a warning.
        GalleryError: The gallery cannot be read, or is empty.
        WrongEncoderError: Another encoder filled it.
        MissingExtraError: A DataFrame was asked for, and pandas is not installed.
    """
    check_metric(metric)
    if k is not None:
        check_count(k, "k")
    has_pandas = importlib.util.find_spec("pandas") is not None
    if as_frame and not has_pandas:
        raise MissingExtraError(
            'a DataFrame takes pandas, which is not installed: pip install "face_encode[pandas]"'
        )
    model, enrolled = _searched(people, encoder, detector)
    common = model._distance_threshold(metric, distance_threshold)
    thresholds = {} if distance_threshold is not None else model.gallery.thresholds
    # A person's own is a cosine similarity: there is none for raw Euclidean distances.
    if thresholds and metric == "euclidean":
        raise InputError(
            f"{next(iter(thresholds))!r} has a threshold of their own, a cosine similarity, which "
            "says nothing of raw Euclidean distances: give distance_threshold, or another metric"
        )
    own = {
        name: threshold_distance(metric, least, None, name) for name, least in thresholds.items()
    }
    limits = np.array([own.get(name, common) for name in enrolled.names])
    image = read_photo(photo)
    embeddings, faces = model._embed(image, max_faces, detect_faces)
    rows: list[dict[str, Any]] = []
    warn_untrusted(faces, photo)
    for number, (face, row) in enumerate(
        zip(faces, distances(embeddings, enrolled.embeddings, metric), strict=True)
    ):
        box = face.box
        near = np.flatnonzero((row <= limits) & face.is_trusted)
        for index in near[np.argsort(row[near], kind="stable")][:k].tolist():
            distance = float(row[index])
            rows.append(
                {
                    "face": number,
                    "name": enrolled.names[index],
                    "photo": enrolled.photo_of(index),
                    "similarity": similarity_of(distance, metric),
                    "distance": distance,
                    "distance_threshold": float(limits[index]),
                    **box.as_dict(),
                    "quality": face.quality and face.quality.value,
                }
            )
    if not (has_pandas if as_frame is None else as_frame):
        return rows
    import pandas

    return pandas.DataFrame(rows, columns=list(FIND_COLUMNS))
