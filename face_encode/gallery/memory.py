"""The gallery in memory: exact search in arrays, kept in an ``.npz`` file or nowhere."""

from __future__ import annotations

import copy
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from face_encode.errors import GalleryError
from face_encode.files import TextArray, as_path
from face_encode.gallery.approximate import ApproximateIndex, find_index
from face_encode.gallery.base import (
    GALLERY_METRICS,
    EncoderIdentity,
    Mark,
    Ranking,
    Replaces,
    check_cosine,
    check_embeddings,
    check_labels,
    check_name,
    check_probes,
    check_ranking,
)
from face_encode.gallery.columns import Enrolled
from face_encode.gallery.distances import Metric, check_metric
from face_encode.gallery.npz import GalleryContent, NpzStore
from face_encode.gallery.search import search_enrolled
from face_encode.gallery.thresholds import Calibration
from face_encode.types import Embeddings, Match, check_count


class MemoryGallery:
    """Embeddings and names in arrays, in memory or mapped from a file; exact search.

    Attributes:
        metric: What a search compares by: ``"cosine"``, or ``"euclidean"``, where a similarity
            is minus the distance of the embeddings as they are.
        enrolled: Who is enrolled, in arrays; replaced by another whenever that changes.
        is_shared: False: it is this program's own, and others read its file at the most.
        encoder_name: The name of the encoder whose embeddings it holds.
        encoder_fingerprint: Its fingerprint.
        detector_name: The detector that found the faces, empty where unknown.
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
        """Make an empty gallery.

        Args:
            encoder: Whose embeddings it takes.
            path: Where ``close`` and ``save`` without a path write it, or None.
            int8: Whether to keep a quarter of the bytes, and of each embedding the direction
                only, which is all that a search by cosine looks at.
            metric: One of ``GALLERY_METRICS``.

        Raises:
            InputError: No such metric, or int8 for one that looks at lengths.
        """
        self.metric = check_metric(metric, GALLERY_METRICS)
        self.encoder_name = encoder.name
        self.encoder_fingerprint = encoder.fingerprint
        self.detector_name = ""
        self._calibration: Calibration | None = None
        self._store = NpzStore(None if path is None else as_path(path))
        self._index: ApproximateIndex | None = None
        self._set(Enrolled.nobody(encoder.embedding_size))
        if int8:
            self.quantize()

    def _set(self, enrolled: Enrolled) -> None:
        """Take other people; the former arrays stay valid for whoever has them."""
        self.enrolled = enrolled
        self._index = None
        self._store.is_current = False

    @property
    def content(self) -> GalleryContent:
        """All that its file holds, or would hold, as it is now."""
        return GalleryContent(
            self.encoder_name,
            self.encoder_fingerprint,
            self.detector_name,
            self.metric,
            self.calibration,
            self.enrolled,
        )

    @property
    def calibration(self) -> Calibration | None:
        """What ``face-encode calibrate`` learnt for this encoder, or None."""
        return self._calibration

    @calibration.setter
    def calibration(self, learnt: Calibration | None) -> None:
        self._calibration = learnt
        self._store.is_current = False

    @property
    def precision(self) -> Literal["float32", "int8"]:
        """``"float32"``, or ``"int8"`` where the embeddings are kept as a byte a number."""
        return "int8" if self.enrolled.is_int8 else "float32"

    @property
    def embeddings(self) -> Embeddings:
        """float32 ``(n, D)``, in the order of enrolment; from int8 widened anew, of length 1."""
        return self.enrolled.embeddings

    @property
    def names(self) -> TextArray:
        """The person of each embedding, str array of n."""
        return self.enrolled.names

    @property
    def digests(self) -> TextArray:
        """The content digest of each embedding's photo, empty where unknown, str array of n."""
        return self.enrolled.digest_texts

    def quantize(self) -> None:
        """Go over to int8 for good: what is enrolled, and whatever will be.

        From then on ``embeddings`` has rows of length 1. Once is enough: again changes nothing.

        Raises:
            InputError: The gallery is searched by Euclidean distance, which looks at lengths.
        """
        check_cosine(self.metric, "int8 keeps")
        if self.precision == "float32":
            self._set(self.enrolled.quantized())

    def build_index(self, *, approximate: bool = False, progress: bool = True) -> None:
        """Make searches of many people faster; see docs/search.md.

        Args:
            approximate: False keeps int8 codes beside float32 embeddings, for searches to look
                through first: they find the same, in a fraction of the time, and the index is
                saved with the gallery, and grows and shrinks with it. True puts them into cells,
                which may miss the nearest, for tens of millions; it takes some ten seconds for
                a million, is saved beside the gallery, and is gone when the people change.
            progress: Whether to show a progress bar.

        Raises:
            InputError: The gallery is searched by Euclidean distance, which looks at lengths.
            GalleryError: Nobody is enrolled yet.
            MissingExtraError: An approximate index, and ``faiss`` is not installed.
        """
        check_cosine(self.metric, "an index holds")
        if not len(self):
            raise GalleryError("an index is of embeddings, and nobody is enrolled yet")
        if approximate:
            self._index = ApproximateIndex.of(self.enrolled, progress=progress)
            self._store.is_current = False
        elif self.enrolled.coded is None:
            self._set(self.enrolled.indexed())

    def open_index(self) -> None:
        """Search by the approximate index that was saved beside the gallery's file from now on.

        One that is missing, damaged or of other embeddings is built anew, and saved.

        Raises:
            InputError: The gallery is searched by Euclidean distance.
            GalleryError: Nobody is enrolled yet, or what was built cannot be saved.
            MissingExtraError: ``faiss`` is not installed.
        """
        check_cosine(self.metric, "an index holds")
        path = self._store.path
        if path is not None and self._store.is_current:
            self._index = find_index(path, len(self), self.enrolled.rows.shape[1])
        if self._index is None:
            self.build_index(approximate=True)
            if path is not None:
                self.save()

    def __len__(self) -> int:
        """Number of embeddings enrolled."""
        return len(self.enrolled)

    def add(
        self,
        names: Sequence[str],
        embeddings: Embeddings,
        digests: Sequence[str] | None = None,
    ) -> None:
        """Enrol embeddings; see ``Gallery.add``.

        Raises:
            InputError: As for ``Gallery.add``.
        """
        added = check_embeddings(embeddings, names, self.enrolled.rows.shape[1])
        self._set(self.enrolled.joined(names, added, check_labels(names, digests)))

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
    ) -> None:
        """Enrol embeddings in the place of others; see ``Gallery.replace``.

        Raises:
            InputError: As for ``add``; then nothing has changed.
        """
        former = self.enrolled
        added = check_embeddings(embeddings, names, former.rows.shape[1])
        digests = check_labels(names, digests)
        stay = former
        if replaces == "all":
            stay = former.cleared()
        elif replaces == "same people":
            stay = former.without(names)
        replaced = stay.joined(names, added, digests)
        if former.index is not None and len(replaced):
            replaced = replaced.indexed()
        self._set(replaced)
        # Where people stay whom another detector found, none can be named for all: nothing is
        # then taken for unchanged later.
        if len(stay) and self.detector_name != detector_name:
            detector_name = ""
        self.detector_name = detector_name

    def search(
        self, embeddings: Embeddings, k: int = 1, ranking: Ranking = "best"
    ) -> list[list[Match]]:
        """Find the nearest people by the gallery's metric; see ``Gallery.search``.

        Raises:
            InputError: Another length of embedding, one that is not finite, k below 1, or no
                such ranking.
            GalleryError: The gallery's embeddings are damaged.
        """
        probes = check_probes(embeddings, self.enrolled.rows.shape[1])
        k, ranking = check_count(k, "k"), check_ranking(ranking)
        if not len(self):
            return [[] for _ in probes]
        return search_enrolled(self.enrolled, probes, k, ranking, self.metric, self._index)

    def remove(self, name: str) -> int:
        """Take a person out without touching the others.

        Raises:
            GalleryError: No such person.
        """
        former = len(self)
        self._find(name)
        self._set(self.enrolled.without([name]))
        return former - len(self)

    def rename(self, name: str, new_name: str) -> int:
        """Call a person otherwise; returns how many embeddings that were.

        Raises:
            InputError: The new name is none.
            GalleryError: No such person, or the new name is another person's.
        """
        check_name(new_name)
        place = self._find(name)
        if new_name != name and new_name in self.enrolled.place_of:
            raise GalleryError(f"somebody named {new_name!r} is enrolled already")
        self._set(self.enrolled.renamed(name, new_name))
        return int(self.enrolled.counts[place])

    def _find(self, name: str) -> int:
        """Where a person is listed."""
        if name not in self.enrolled.place_of:
            raise GalleryError(f"nobody named {name!r} is enrolled")
        return self.enrolled.place_of[name]

    def copy(self) -> MemoryGallery:
        """The same people in a gallery that changes apart from this one.

        The arrays, which are never written into, are shared until then. The file stays this
        one's: a copy is saved where it is told to be.
        """
        copied = copy.copy(self)
        copied._store = NpzStore(None)
        return copied

    def people(self) -> dict[str, int]:
        """How many embeddings each person has, in the order of enrolment."""
        return dict(zip(self.enrolled.people, self.enrolled.counts.tolist(), strict=True))

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

    def save(self, path: str | os.PathLike[str] | None = None) -> None:
        """Write the gallery to an ``.npz`` file, atomically.

        Args:
            path: Where to; without one, where it was opened from. An approximate index goes
                beside it.

        Raises:
            GalleryError: The name does not end in ``.npz``, it cannot be written, or the gallery
                was not opened from a file and no path is given.
        """
        self._store.save(self.content, self._index, None if path is None else as_path(path))

    def close(self) -> None:
        """Save what has changed, where the gallery was opened from a file.

        Raises:
            GalleryError: It cannot be written.
        """
        if self._store.path is not None and not self._store.is_current:
            self.save()

    @classmethod
    def of(
        cls, content: GalleryContent, encoder: EncoderIdentity, path: Path | None = None
    ) -> MemoryGallery:
        """The gallery that a file holds.

        Args:
            content: What was read; see ``GalleryContent.check``.
            encoder: The encoder that filled it.
            path: The file, which is to be written again; or None.
        """
        gallery = cls(encoder, path, metric=content.metric)
        gallery.detector_name = content.detector_name
        gallery.calibration = content.calibration
        gallery._set(content.enrolled)
        gallery._store.is_current = True
        return gallery
