"""What is kept between calls of the verbs: encoders, and folders of people once enrolled."""

from __future__ import annotations

import os
import threading
import warnings
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from face_encode.detectors.detector import Detector
from face_encode.encoders.encoder import Encoder
from face_encode.encoders.loading import DEFAULT_ENCODER, encoder_names, load_encoder
from face_encode.enrolment import enrol_people
from face_encode.errors import GalleryError, ImageError, InputError
from face_encode.files import as_path
from face_encode.gallery.gallery import Gallery, check_encoder
from face_encode.gallery.memory import MemoryGallery
from face_encode.gallery.milvus import MilvusGallery
from face_encode.gallery.opening import names_gallery, open_gallery
from face_encode.images import content_digest
from face_encode.model import Face_Encode_Model
from face_encode.photo_folders import people_in
from face_encode.types import Embeddings, EnrolmentReport

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
