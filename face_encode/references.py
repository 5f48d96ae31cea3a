"""Reference embeddings: labelled photos in, labels out; kept in one file."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import platformdirs

from face_encode.detectors.base import Detector
from face_encode.encoders.encoder import Encoder
from face_encode.errors import GalleryError, InputError, shown
from face_encode.files import as_path
from face_encode.gallery.base import Gallery
from face_encode.gallery.database import DatabaseGallery
from face_encode.gallery.database_file import is_database
from face_encode.gallery.distances import Metric, distances, similarity_of
from face_encode.gallery.memory import MemoryGallery
from face_encode.gallery.opening import load_gallery
from face_encode.model import Face_Encode_Model, box_of, warn_untrusted
from face_encode.photos.folders import photos_by_label, photos_in
from face_encode.photos.reading import PhotoInput, read_photo
from face_encode.pipeline.enrolment import enrol_people
from face_encode.types import Comparison, EnrolmentReport, Face, Identification, Match


class ReferenceEmbeddings:
    """Embeddings with labels, to identify faces by.

    A label may have several embeddings; the nearest counts. The file that ``save`` writes is a
    gallery: with the metric ``"cosine"`` every command takes it.

    Examples:
        >>> from face_encode import ReferenceEmbeddings, read_image
        >>> references = ReferenceEmbeddings()
        >>> ada = read_image("verify_dataset/Ada_Mirova/1.jpg")
        >>> report = references.enrol([("Ada", ada)])
        >>> [face.label for face in references.identify("examples/ada_mirova.jpg")]
        ['Ada']

    Attributes:
        gallery: The embeddings and labels.
        metric: ``"cosine"`` or ``"euclidean"``.
        distance_threshold: Distance up to which a face counts as the label found: the one
            given; else, for cosine, the gallery's where it was calibrated; else the encoder's.
        labels: The labels.
        records: The embeddings with their labels.
    """

    def __init__(
        self,
        encoder: str | os.PathLike[str] | Encoder | None = None,
        detector: str | Detector | None = None,
        metric: Metric = "cosine",
        distance_threshold: float | None = None,
    ) -> None:
        """Open an encoder and a detector.

        Args:
            encoder: A known encoder's name, a ``.keras`` file, an encoder, or None for the
                default.
            detector: A known detector's name, a detector, or None for the default.
            metric: ``"cosine"``, or ``"euclidean"``, between the embeddings as they are.
            distance_threshold: Distance up to which a face counts as the label found; None
                takes the encoder's own for this metric. For cosines, a label's own goes before
                both; see ``gallery.set_threshold``.

        Raises:
            InputError: No such metric or detector, a threshold out of range, or none given for
                Euclidean distances of an encoder for which none was measured.
            ModelFileError: No such encoder.
            WeightsError: The encoder's weights are missing or damaged.
        """
        self._model = Face_Encode_Model(encoder, detector)
        self._model.gallery = MemoryGallery(self._model.encoder, metric=metric)
        self._threshold = distance_threshold
        # Asked for now, so that a wrong or missing one is refused before anything is enrolled.
        _ = self.distance_threshold

    def __repr__(self) -> str:
        return (
            f"ReferenceEmbeddings(encoder={self._model.encoder.name!r}, "
            f"detector={self._model.detector.name!r}, metric={self.metric!r}, "
            f"distance_threshold={self.distance_threshold:.4g}, "
            f"{len(self)} embeddings of {len(self.gallery.people())} labels)"
        )

    def __len__(self) -> int:
        return len(self.gallery)

    @property
    def gallery(self) -> Gallery:
        """The embeddings and labels."""
        return self._model.gallery

    @property
    def distance_threshold(self) -> float:
        """Distance up to which a face counts as the label found."""
        return self._model._distance_threshold(self.metric, self._threshold)

    @property
    def metric(self) -> Metric:
        """``"cosine"`` or ``"euclidean"``."""
        return self.gallery.metric

    @property
    def labels(self) -> list[str]:
        """The labels, each once, in the order of enrolment."""
        return list(self.gallery.people())

    @property
    def records(self) -> list[dict[str, Any]]:
        """Every embedding as ``{"label": str, "embedding": float32 (D,)}``, in that order."""
        held = self.gallery.rows()
        rows = zip(held.names.tolist(), held.embeddings, strict=True)
        return [{"label": label, "embedding": embedding} for label, embedding in rows]

    def enrol(
        self, photos: Iterable[tuple[str, PhotoInput]], *, check_quality: bool = True
    ) -> EnrolmentReport:
        """Add labelled photos to those enrolled; of each, the largest face.

        Args:
            photos: Pairs of a label and a photo in any form that ``read_photo`` takes. A label
                may come several times.
            check_quality: Whether to leave out photos whose face is not to be trusted: blurred,
                covered, dark …

        Returns:
            What became of each photo; one that cannot be used is a row with its reason.

        Raises:
            InputError: Not such pairs.
            DatasetError: Not one photo can be enrolled; those enrolled before stay.
        """
        return enrol_people(
            photos_by_label(photos),
            self.gallery,
            self._model.detector,
            self._model.encoder,
            replaces="nothing",
            progress=False,
            check_quality=check_quality,
        )

    def enrol_folder(self, folder: str | os.PathLike[str]) -> EnrolmentReport:
        """Add the photos directly in a folder, each labelled with its file name.

        Args:
            folder: ``Ada Lovelace.jpg`` in it is enrolled as ``Ada Lovelace``. Folders in it are
                passed over; for one sub-folder a person there is ``Face_Encode_Model``.

        Returns:
            What became of each photo.

        Raises:
            DatasetError: No such folder, or not one photo of it can be enrolled.
        """
        return self.enrol([(path.stem, path) for path in photos_in(folder)])

    def remove(self, label: str) -> int:
        """Take a label out without touching the others; returns how many embeddings it had.

        Raises:
            GalleryError: No such label.
        """
        return self.gallery.remove(label)

    def identify(
        self, photo: PhotoInput, *, max_faces: int | None = 1, detect_faces: bool = True
    ) -> list[Identification]:
        """Name the faces in a photo.

        Args:
            photo: In any form that ``read_photo`` takes.
            max_faces: At most this many faces, largest first; None for all.
            detect_faces: False where the photo is the crop of a face already.

        Returns:
            One for each face, the largest face first; an empty list where there is none.

        Raises:
            ImageError: The photo cannot be read.
            InputError: It is none, or fewer than one face is asked for; or a label has a threshold
                of its own, a cosine similarity, and the distances are Euclidean.
            GalleryError: Nobody is enrolled.
        """
        self._check_enrolled()
        embeddings, faces = self._model._embed(read_photo(photo), max_faces, detect_faces)
        found = []
        for matches, face in zip(self.gallery.search(embeddings), faces, strict=True):
            nearest = _nearest(matches)
            comparison = self._judged(self._distance_of(nearest), nearest.name, face)
            similarity = similarity_of(comparison.distance, self.metric)
            box = box_of(face, detect_faces)
            found.append(Identification(*comparison, similarity, box, **face.judgement()))
        return found

    def compare(
        self, photo: PhotoInput, label: str | None = None, *, detect_faces: bool = True
    ) -> Comparison:
        """Compare the largest face of a photo with a label's embeddings, or with all.

        Args:
            photo: In any form that ``read_photo`` takes.
            label: Whose embeddings; None for everybody's.
            detect_faces: False where the photo is the crop of a face already.

        Returns:
            ``(matched, label, distance)`` of the nearest embedding. A face that cannot be trusted
            matches nobody, and a warning gives the reason.

        Raises:
            ImageError: The photo cannot be read, or there is no face in it.
            InputError: It is no photo; or the label's own threshold, as for ``identify``.
            GalleryError: Nobody is enrolled, or nobody under this label.
        """
        self._check_enrolled()
        known = self.gallery.find_name(label) if isinstance(label, str) else None
        if label is not None and known is None:
            raise GalleryError(f"nobody labelled {shown(label)} is enrolled")
        found, (face,) = self._model._embed_some(photo, "the photo", detect_faces, max_faces=1)
        warn_untrusted([face], photo)
        if known is None:
            nearest = _nearest(self.gallery.search(found)[0])
            return self._judged(self._distance_of(nearest), nearest.name, face)
        held = self.gallery.rows()
        own = held.embeddings[held.names == known]
        if not len(own):
            raise GalleryError(f"nobody labelled {known!r} is enrolled any more")
        return self._judged(float(distances(found, own, self.metric).min()), known, face)

    def save(self, path: str | os.PathLike[str] | None = None) -> Path:
        """Write the embeddings, the labels and the metric to a file, atomically.

        Args:
            path: An ``.npz`` or a ``.sqlite`` file, as for ``Face_Encode_Model.save_gallery``; None
                for ``default_path()``.

        Returns:
            The path of the file.

        Raises:
            GalleryError: The name has another ending, or it cannot be written; a file already
                there then stays whole.
        """
        target = default_path() if path is None else as_path(path)
        self._model.save_gallery(target)
        return target

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str] | None = None,
        encoder: str | os.PathLike[str] | Encoder | None = None,
        detector: str | Detector | None = None,
        distance_threshold: float | None = None,
    ) -> ReferenceEmbeddings:
        """Read what ``save`` wrote, or any other gallery file.

        Args:
            path: An ``.npz`` file; or a ``.sqlite`` file, in which each later change is kept at
                once; None for ``default_path()``.
            encoder: The one that the embeddings come from.
            detector: As for making new ones.
            distance_threshold: As for making new ones.

        Raises:
            GalleryError: Missing, damaged, or written by a later release.
            WrongEncoderError: The embeddings come from another encoder.
        """
        model = Face_Encode_Model(encoder, detector)
        source = default_path() if path is None else path
        if is_database(as_path(source)):
            gallery: Gallery = DatabaseGallery(source, model.encoder, create=False, metric=None)
        else:
            gallery = load_gallery(source, model.encoder, metric=None)
        references = cls(model.encoder, model.detector, gallery.metric, distance_threshold)
        references._model.gallery = gallery
        return references

    def _check_enrolled(self) -> None:
        """Refuse to search among nobody."""
        if not len(self):
            raise GalleryError("nobody is enrolled yet: call enrol, enrol_folder or load first")

    def _distance_of(self, match: Match) -> float:
        """The distance of a match: the gallery's similarity is the cosine, or it below 0."""
        return 1 - match.similarity if self.metric == "cosine" else -match.similarity

    def _judged(self, distance: float, label: str, face: Face) -> Comparison:
        """A distance between a face and a label, judged by the threshold and the quality.

        Raises:
            InputError: The label has a threshold of its own, which is a cosine similarity, and the
                distances are Euclidean, without a threshold given for them.
        """
        own, limit = self.gallery.thresholds.get(label), self.distance_threshold
        if own is not None and self.metric == "cosine":
            limit = 1 - own
        elif own is not None and self._threshold is None:
            raise InputError(
                f"{label!r} has a threshold of its own, a cosine similarity, which says nothing "
                "of Euclidean distances: give distance_threshold"
            )
        return Comparison(distance <= limit and face.is_trusted, label, distance)


def _nearest(matches: Sequence[Match]) -> Match:
    """The first match.

    Raises:
        GalleryError: There is none: another program has taken everybody out since.
    """
    if not matches:
        raise GalleryError("nobody is enrolled any more")
    return matches[0]


def default_path() -> Path:
    """The default file: ``references.npz`` in the user's data folder."""
    return platformdirs.user_data_path("face_encode", appauthor=False) / "references.npz"
