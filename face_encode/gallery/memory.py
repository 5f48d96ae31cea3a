"""The gallery in memory: exact search in arrays, stored in an ``.npz`` file or nowhere."""

from __future__ import annotations

import copy
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from face_encode.errors import GalleryError, NotEnrolledError
from face_encode.files import TextArray, as_path
from face_encode.gallery.approximate import ApproximateIndex, find_index
from face_encode.gallery.base import (
    GALLERY_METRICS,
    EncoderIdentity,
    GalleryRows,
    Mark,
    PhotoDetails,
    Ranking,
    Replaces,
    check_cosine,
    check_name,
    check_new,
    folded_name,
)
from face_encode.gallery.columns import Enrolled
from face_encode.gallery.distances import Metric, check_metric
from face_encode.gallery.npz import GalleryContent, save_content, stamp_of
from face_encode.gallery.search import check_search, search_enrolled
from face_encode.gallery.thresholds import Calibration, check_threshold
from face_encode.types import Embeddings, Match


class MemoryGallery:
    """Embeddings and names in arrays, in memory or mapped from a file; exact search.

    Attributes:
        metric: The metric of a search: ``"cosine"``, or ``"euclidean"``, where a similarity is
            minus the distance between the embeddings as the encoder gave them.
        enrolled: The enrolled people as arrays; replaced as a whole by every change.
        is_shared: False: the gallery belongs to this program, and others at most read its file.
        encoder_name: The name of the encoder that fills the gallery.
        encoder_fingerprint: Its fingerprint.
        detector_name: The detector that found the faces, empty where unknown.
        calibration: The result of ``face-encode calibrate`` for this encoder, or None.
    """

    is_shared = False

    def __init__(
        self,
        encoder: EncoderIdentity,
        path: str | os.PathLike[str] | None = None,
        *,
        int8: bool = False,
        metric: Metric = "cosine",
    ) -> None:
        """Create an empty gallery.

        Args:
            encoder: The encoder that is to fill it.
            path: The file that ``close``, and ``save`` without a path, write; or None.
            int8: Whether to store a quarter of the bytes, and of each embedding the direction
                only; a search by cosine needs nothing else.
            metric: One of ``GALLERY_METRICS``.

        Raises:
            InputError: The metric is unknown, or int8 is asked for with one that needs lengths.
        """
        self.metric = check_metric(metric, GALLERY_METRICS)
        self.encoder_name = encoder.name
        self.encoder_fingerprint = encoder.fingerprint
        self.detector_name = ""
        self.calibration: Calibration | None = None
        self._path = None if path is None else as_path(path)
        self._saved: tuple[object, ...] = ()
        self._thresholds: dict[str, float] = {}
        self._set(Enrolled.nobody(encoder.embedding_size))
        if int8:
            self.quantize()

    @classmethod
    def from_content(
        cls, content: GalleryContent, encoder: EncoderIdentity, path: Path | None = None
    ) -> MemoryGallery:
        """Create the gallery that a file holds.

        Args:
            content: The content of the file, checked; see ``GalleryContent.check``.
            encoder: The encoder that filled it.
            path: The file, which is to be written again; or None.
        """
        gallery = cls(encoder, path, metric=content.metric)
        gallery.detector_name = content.detector_name
        gallery.calibration = content.calibration
        gallery._thresholds = dict(content.thresholds)
        gallery._set(content.enrolled)
        gallery._saved = gallery._state
        return gallery

    @classmethod
    def from_rows(cls, rows: GalleryRows, encoder: EncoderIdentity) -> MemoryGallery:
        """Create a gallery of the rows of another, which ``encoder`` filled.

        Raises:
            InputError: The embeddings have another length.
        """
        gallery = cls(encoder, metric=rows.metric)
        gallery.add(rows.names.tolist(), rows.embeddings, rows.digests.tolist())
        gallery.detector_name = rows.detector_name
        gallery.calibration = rows.calibration
        gallery._thresholds = dict(rows.thresholds)
        return gallery

    def _set(self, enrolled: Enrolled) -> None:
        """Replace the people; the former arrays stay valid for those who hold them."""
        self.enrolled = enrolled
        self._index: ApproximateIndex | None = None
        if self._thresholds:
            here = enrolled.place_of
            self._thresholds = {
                name: value for name, value in self._thresholds.items() if name in here
            }

    @property
    def _state(self) -> tuple[object, ...]:
        """Everything that is saved and may change."""
        return self.enrolled, self.detector_name, self.calibration, self._thresholds, self._index

    @property
    def content(self) -> GalleryContent:
        """Everything that the gallery's file holds once it is saved."""
        return GalleryContent(
            self.encoder_name,
            self.encoder_fingerprint,
            self.detector_name,
            self.metric,
            self.calibration,
            self.enrolled,
            self._thresholds,
        )

    @property
    def precision(self) -> Literal["float32", "int8"]:
        """``"float32"``, or ``"int8"`` where the embeddings are stored at one byte a number."""
        return "int8" if self.enrolled.is_int8 else "float32"

    @property
    def embeddings(self) -> Embeddings:
        """float32 ``(n, D)``, in the order of enrolment; converted from int8, of length 1."""
        return self.enrolled.embeddings

    @property
    def names(self) -> TextArray:
        """The person of each embedding, str array of n."""
        return self.enrolled.names

    @property
    def digests(self) -> TextArray:
        """The content digest of each embedding's photo, empty where unknown, str array of n."""
        return self.enrolled.digest_texts

    def __len__(self) -> int:
        return len(self.enrolled.rows)

    def people(self) -> dict[str, int]:
        """Name -> number of embeddings, in the order of enrolment."""
        return dict(zip(self.enrolled.people, self.enrolled.counts.tolist(), strict=True))

    def find_name(self, name: str) -> str | None:
        """The name under which a person is enrolled; see ``Gallery.find_name``."""
        if name in self.enrolled.place_of:
            return name
        return self.enrolled.name_of_folded.get(folded_name(name))

    def rows(self) -> GalleryRows:
        """Everything that is enrolled now; see ``Gallery.rows``."""
        return GalleryRows(
            self.names,
            self.embeddings,
            self.digests,
            self.detector_name,
            self.metric,
            self.calibration,
            self._thresholds,
        )

    @property
    def thresholds(self) -> Mapping[str, float]:
        """Name -> threshold of the people who have one of their own."""
        return self._thresholds

    def set_threshold(self, name: str, threshold: float | None) -> None:
        """Give a person a threshold of the person's own; see ``Gallery.set_threshold``."""
        value, own = check_threshold(threshold), self.enrolled.people[self._place(name)]
        others = {each: kept for each, kept in self._thresholds.items() if each != own}
        self._thresholds = others if value is None else {**others, own: value}

    def copy(self) -> MemoryGallery:
        """The same people in a gallery without a file, which changes apart from this one.

        The arrays, which are never written to, are shared.
        """
        copied = copy.copy(self)
        copied._path = None
        return copied

    def search(
        self, embeddings: Embeddings, k: int = 1, ranking: Ranking = "best"
    ) -> list[list[Match]]:
        """Find the nearest people by the gallery's metric; see ``Gallery.search``."""
        probes, k, ranking = check_search(embeddings, self.enrolled.rows.shape[1], k, ranking)
        if not len(self):
            return [[] for _ in probes]
        return search_enrolled(self.enrolled, probes, k, ranking, self.metric, self._index)

    def known_photos(
        self, detector_name: str, digests: Collection[str] | None = None
    ) -> Mapping[str, npt.NDArray[np.float32]]:
        """Content digest -> embedding; see ``Gallery.known_photos``."""
        if detector_name != self.detector_name:
            return {}
        row_of = self.enrolled.row_of_digest
        asked_for = row_of.keys() if digests is None else row_of.keys() & set(digests)
        rows = [row_of[digest] for digest in asked_for]
        return dict(zip(asked_for, self.enrolled.embeddings_of(rows), strict=True))

    def add(
        self,
        names: Sequence[str],
        embeddings: Embeddings,
        digests: Sequence[str] | None = None,
        details: Sequence[PhotoDetails] | None = None,
    ) -> None:
        """Enrol embeddings; see ``Gallery.add``."""
        added, digests = check_new(names, embeddings, digests, self.enrolled.rows.shape[1])
        self._set(self.enrolled.joined(names, added, digests))

    def mark(self, names: Collection[str] | None = None) -> Mark:
        """None: nobody else changes this gallery."""
        return None

    def replace(
        self,
        names: Sequence[str],
        embeddings: Embeddings,
        digests: Sequence[str],
        replaces: Replaces = "all",
        *,
        detector_name: str = "",
        mark: Mark = None,
        details: Sequence[PhotoDetails] | None = None,
    ) -> None:
        """Enrol embeddings in the place of others; see ``Gallery.replace``."""
        former = self.enrolled
        added, digests = check_new(names, embeddings, digests, former.rows.shape[1])
        stay = former
        if replaces == "all":
            # Codes stay with the quantizer that the first of them set.
            size, quantizer = former.rows.shape[1], former.quantizer
            stay = Enrolled.nobody(size, int8=former.is_int8, quantizer=quantizer)
        elif replaces == "same people":
            stay = former.without(names)
        replaced = stay.joined(names, added, digests)
        if former.index is not None and len(replaced.rows):
            replaced = replaced.indexed()
        self._set(replaced)
        # Where people stay whom another detector found, no single detector can be named; later
        # enrolments then take no photo for unchanged.
        if len(stay.rows) and self.detector_name != detector_name:
            detector_name = ""
        self.detector_name = detector_name

    def remove(self, name: str) -> int:
        """Remove a person; see ``Gallery.remove``."""
        place = self._place(name)
        count = self.enrolled.counts[place]
        self._set(self.enrolled.without([self.enrolled.people[place]]))
        return int(count)

    def rename(self, name: str, new_name: str) -> int:
        """Rename a person; see ``Gallery.rename``."""
        check_name(new_name)
        place = self._place(name)
        own, taken = self.enrolled.people[place], self.find_name(new_name)
        if taken not in (None, own):
            raise GalleryError(f"somebody named {taken!r} is enrolled already")
        self._thresholds = {
            new_name if each == own else each: value for each, value in self._thresholds.items()
        }
        self._set(self.enrolled.renamed(own, new_name))
        return int(self.enrolled.counts[place])

    def _place(self, name: str) -> int:
        """The index in ``Enrolled.people`` of the person whom ``find_name`` finds."""
        own = self.find_name(name) if isinstance(name, str) else None
        if own is None:
            raise NotEnrolledError(f"nobody named {name!r} is enrolled")
        return self.enrolled.place_of[own]

    def quantize(self) -> None:
        """Store everybody enrolled now or later as int8; there is no way back.

        From then on ``embeddings`` has rows of length 1. A second call changes nothing.

        Raises:
            InputError: The gallery's metric is Euclidean distance, which needs lengths.
        """
        check_cosine(self.metric, "int8 keeps")
        if self.precision == "float32":
            self._set(self.enrolled.quantized())

    def build_index(self, *, approximate: bool = False, progress: bool = True) -> None:
        """Make searches of many people faster; see docs/search.md.

        Args:
            approximate: False adds int8 codes to float32 embeddings, which a search goes through
                first: the answers are the same, in a fraction of the time, and the index is saved
                with the gallery and follows its changes. True divides the embeddings into cells,
                for tens of millions: a search may miss the nearest, building takes about ten
                seconds for a million, and the index is saved beside the gallery and dropped when
                the people change.
            progress: Whether to show a progress bar.

        Raises:
            InputError: The gallery's metric is Euclidean distance, which needs lengths.
            GalleryError: Nobody is enrolled yet.
            MissingExtraError: The index is approximate, and ``faiss`` is not installed.
        """
        check_cosine(self.metric, "an index holds")
        if not len(self):
            raise GalleryError("an index is of embeddings, and nobody is enrolled yet")
        if approximate:
            self._index = ApproximateIndex.of(self.enrolled, progress=progress)
        elif self.enrolled.coded is None:
            self._set(self.enrolled.indexed())

    def open_index(self) -> None:
        """Search by the approximate index that is saved beside the gallery's file.

        An index that is missing, damaged or of other embeddings is built again, and saved.

        Raises:
            InputError: The gallery's metric is Euclidean distance.
            GalleryError: Nobody is enrolled yet, or the built index cannot be saved.
            MissingExtraError: ``faiss`` is not installed.
        """
        check_cosine(self.metric, "an index holds")
        if self._path is not None and self._saved == self._state:
            stamp, (rows, size) = stamp_of(self._path), self.enrolled.rows.shape
            self._index = find_index(self._path.with_suffix(""), stamp, rows, size)
            self._saved = self._state
        if self._index is None:
            self.build_index(approximate=True)
            if self._path is not None:
                self.save()

    def save(self, path: str | os.PathLike[str] | None = None) -> None:
        """Write the gallery to an ``.npz`` file, atomically, and an approximate index beside it.

        Args:
            path: None for the file from which the gallery was opened.

        Raises:
            GalleryError: The name does not end in ``.npz``, the file cannot be written, or the
                gallery was not opened from a file and no path is given.
        """
        target = self._path if path is None else as_path(path)
        if target is None:
            raise GalleryError("this gallery was not opened from a file; save it to a path")
        save_content(target, self.content, self._index)
        if target == self._path:
            self._saved = self._state

    def close(self) -> None:
        """Save what has changed, where the gallery was opened from a file.

        Raises:
            GalleryError: It cannot be written.
        """
        if self._path is not None and self._saved != self._state:
            self.save()
